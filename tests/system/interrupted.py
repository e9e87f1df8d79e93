#!/usr/bin/python3
"""Commands about keys that are cut off in the middle, rdim or the server killed: no key is lost, no right outlives its loss.

`passwd --compromised`: whichever passphrase is good afterwards, his images open, the words that belong to it recover him, and the
command again does the rest.

`user rm`, `user role`, `image revoke`, `image grant` of less than before: the command again, or the next login of who administers
the image, begins the new keys that are due.
"""
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from organisation import Organisation  # noqa: E402
from sources import MIB  # noqa: E402

ENDS_S = 300  # a bound, not a measure


class Running:
    """rdim in the middle of a command, in plain text."""

    def __init__(self, world, person, *arguments):
        command = [str(part) for part in (world.bin / "rdim", *arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=world.environment(person.environment()))
        world.processes.append(self.process)
        self.said = b""

    def read_until(self, text):
        while text.encode() not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], ENDS_S)
            part = self.process.stdout.read1() if ready else b""
            check(part, f"it did not say {text!r}: {self.said!r} {self.process.stderr.read() if ready else ''!r}")
            self.said += part

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.said += self.process.communicate()[0]

    def end(self):
        out, err = self.process.communicate(timeout=ENDS_S)
        return self.process.returncode, (self.said + out).decode(), err.decode()


class Compromise:
    """ann's passphrase is known to somebody: new keys, cut off at any moment."""

    def __init__(self, world, org, ann, source):
        self.world, self.org, self.ann, self.source = world, org, ann, source
        self.number = 0

    def begin(self):
        self.number += 1
        self.fresh = f"fresh {self.number}"
        new = self.world.path("new-passphrase")
        new.write_text(self.fresh + "\n")
        new.chmod(0o600)
        return Running(self.world, self.ann, "user", "passwd", "ann", "--compromised", "--passphrase", f"+{self.ann.secret}",
                       "--new-passphrase", f"+{new}")

    def words_of(self, running):
        lines = running.said.decode().splitlines()
        return next((line.strip() for line in lines if len(line.split()) == 12 and line.startswith("  ")), None)

    def look(self, words):
        """One of the two passphrases is good; with it, and with its words, everything opens. True: the new one."""
        old, changed = self.ann.passphrase, False
        code, _, err = self.ann.rdim("login", "ann", "--passphrase", f"+{self.ann.secret}", check_code=None)
        if code != 0:
            self.ann.set_passphrase(self.fresh)
            self.ann.login()
            check(words, "the new keys are good and their words were never shown")
            self.ann.words, changed = words, True
        for image in ("anns", "masters"):
            out = self.world.path(f"{image}.raw")
            self.ann.rdim("image", "export", image, out)
            check_equal(out.read_bytes(), self.source.read_bytes(), f"{image} after {old!r} -> {self.fresh!r} ({err})")
            out.unlink()
        # Its own image is not written with the old keys any more.
        records = self.ann.rdim("org", "log")["records"]
        last = {what: max((r["seq"] for r in records if r["what"] == what and r["by"] == "ann"), default=0)
                for what in ("key-change", "key-epoch")}
        check(last["key-epoch"] > last["key-change"], f"no new epoch after new keys: {last}")
        paper, again = self.world.path("words"), self.world.path("again")
        paper.write_text(self.ann.words + "\n")
        again.write_text(f"again {self.number}\n")
        for path in (paper, again):
            path.chmod(0o600)
        self.ann.rdim("user", "recover", "ann", "--words", f"+{paper}", "--new-passphrase", f"+{again}")
        self.ann.set_passphrase(f"again {self.number}")
        self.ann.login()
        return changed

    def run(self, rounds):
        # rdim is killed: after that the old or the new keys are good.
        counts, took = [0, 0], None
        for number in range(rounds):
            began = time.monotonic()
            running = self.begin()
            if took is None:
                running.read_until("Write them down")
                took = time.monotonic() - began
            else:
                time.sleep(self.world.rng.uniform(0.5, 1.2) * took)
            running.kill()
            if number % 2:
                self.org.restart()
            counts[self.look(self.words_of(running))] += 1
        self.world.say(f"rdim killed: {counts[0]} times the old keys stayed, {counts[1]} times the new ones had come")
        # The server is killed: rdim waits for it, and the new keys are good.
        for _ in range(rounds):
            running = self.begin()
            running.read_until("Write them down")
            words = self.words_of(running)
            time.sleep(self.world.rng.uniform(0, 0.1))
            self.org.server.kill()
            time.sleep(self.world.rng.uniform(0, 0.5))
            self.org.server.start()
            code, out, err = running.end()
            check(code in (0, 5), f"exit code {code}: {out} {err}")
            check(self.look(words) or code == 5, "the new keys had been promised")
        self.world.say("server killed")


class LostRights:
    """A right is taken away, cut off at any moment; then the log has new keys after the loss, once, and who stays reads on."""

    def __init__(self, world, org, owner, source):
        self.world, self.org, self.owner, self.source = world, org, owner, source

    def records(self):
        return self.org.admin.rdim("org", "log")["records"]

    def make(self, number, role="user"):
        name = f"leaver{number}"
        self.org.user(name, role)
        return name

    def renewed_since(self, seq, what):
        """Epochs of the image or the domain that the log says after that record."""
        return [r for r in self.records() if r["seq"] > seq and r["what"] == "key-epoch" and r["about"].startswith(what)]

    def cut(self, person, *arguments):
        before = self.records()[-1]["seq"]
        running = Running(self.world, person, *arguments)
        kind = self.world.rng.choice(["rdim", "server", "neither"])
        until = time.monotonic() + self.world.rng.uniform(0, 0.4)
        while running.process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        if kind == "rdim":
            running.kill()
        elif kind == "server":
            self.org.server.kill()
            self.org.server.start()
        if kind != "rdim":
            running.end()
        return before, kind

    def run(self, rounds):
        commands = (("rm", "again"), ("rm", "login"), ("revoke", "again"), ("less", "login"), ("role", "again"), ("everyone", "login"))
        for number in range(rounds):
            what, mended = commands[number % len(commands)]
            admin, owner = self.org.admin, self.owner
            name = self.make(number, "operator" if what == "role" else "user")
            if what != "role":
                owner.rdim("image", "grant", "theirs", "everyone" if what == "everyone" else name, "write")
            command, person, scope = {
                "rm": (("user", "rm", name, "--yes"), admin, "domain"),
                "role": (("user", "role", name, "user"), admin, "domain"),
                "revoke": (("image", "revoke", "theirs", name), owner, "image"),
                "less": (("image", "grant", "theirs", name, "read"), owner, "image"),
                "everyone": (("image", "revoke", "theirs", "everyone"), owner, "image")}[what]
            before, kind = self.cut(person, *command)
            lost = [r["seq"] for r in self.records() if r["seq"] > before and r["what"] in ("user-state", "image-acl")]
            if lost and mended == "login":
                person.login()
            else:
                code, out, err = person.rdim(*command, check_code=None)
                check(code == 0 or (what == "revoke" and code == 3), f"{command} again: {code} {out} {err}")
            owner.login()
            lost = lost or [r["seq"] for r in self.records() if r["seq"] > before and r["what"] in ("user-state", "image-acl")]
            check(lost, f"nothing was taken away by {command}")
            check(self.renewed_since(lost[0], scope), f"no new {scope} keys after {command}, {kind} killed, then {mended}")
            if what == "rm":
                check(self.renewed_since(lost[0], "image"), f"no new image keys after {command}, {kind} killed, then {mended}")
            count = len(self.records())
            for one in (person, owner):
                one.login()
            check_equal(len(self.records()), count, f"records after all is done ({command})")
            out = self.world.path("theirs.raw")
            owner.rdim("image", "export", "theirs", out)
            check_equal(out.read_bytes(), self.source.read_bytes(), f"the image after {command}")
            out.unlink()
        self.world.say(f"{rounds} rights taken away")


def run(world):
    org = Organisation(world)
    ann, bob = org.user("ann"), org.user("bob")
    source = sources.random_file(world.path("disk.src"), world.size(1, 16) * MIB, world.rng)
    ann.rdim("image", "import", source, "anns", "--private")
    # Another's image, of which ann alone has the keys when he is gone: she may only read it.
    bob.rdim("image", "import", source, "masters", "--private")
    bob.rdim("image", "grant", "masters", "ann", "read")
    Compromise(world, org, ann, source).run(world.size(4, 30))
    carol = org.user("carol", "operator")
    carol.rdim("image", "import", source, "theirs")
    LostRights(world, org, carol, source).run(world.size(6, 60))
    org.server.stop()


dims_system.main(run, __doc__)
