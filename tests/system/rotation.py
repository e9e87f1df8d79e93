#!/usr/bin/python3
"""New keys begin while members' disks are in use: no write is lost, `ldim status` says what to do, `ldim renew` lets the
disk go on in place.

Two machines and two members with disks of one owner's images; a restart of the server, or of a disk, between the steps.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import CommandFailed, check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_disk  # noqa: E402
from organisation import Organisation, refused  # noqa: E402
from sources import MIB  # noqa: E402

HANGS_S = 300  # a bound, not a measure


class InUse:
    """A disk that is in use all the time, and what is on it."""

    def __init__(self, world, machine, person, image, source):
        self.world, self.person = world, person
        self.model = Model(world.path(f"{image}.model"), copy_of=source)
        self.disk = machine.disk(person, image).start()
        self.handle = self.disk.connect()

    def write(self, times=6):
        for _ in range(times):
            data = self.world.rng.randbytes(self.world.rng.choice([512, 4096, 20000]))
            offset = self.world.rng.randrange(self.model.size - len(data)) & ~511
            self.handle.pwrite(data, offset)
            self.model.write(data, offset)
        self.handle.flush()

    def trouble(self):
        return self.disk.status()["session"]["trouble"]

    def renew(self):
        return self.disk.ldim("renew", "--passphrase", f"+{self.person.secret}")

    def cannot_send(self):
        try:
            self.disk.ldim("sync", "--wait", "--timeout", "2s")
        except CommandFailed:
            return
        raise AssertionError("a commit with old keys was taken")

    def look(self, what):
        check_disk(self.handle, self.model, what)

    def end(self):
        self.disk.leave(self.handle)
        self.disk.stop()


def run(world):
    org = Organisation(world)
    ann, bob, carol = org.user("ann"), org.user("bob"), org.user("carol")
    laptop, desk = org.machine("laptop"), org.machine("desk")
    source = sources.random_file(world.path("disk.src"), world.size(4, 64) * MIB, world.rng)
    for image in ("anns", "bobs"):
        ann.rdim("image", "import", source, image, "--private")
        ann.rdim("image", "grant", image, "carol", "read")
    ann.rdim("image", "grant", "bobs", "bob", "write")
    org.restart()

    mine, his = InUse(world, laptop, ann, "anns", source), InUse(world, desk, bob, "bobs", source)
    for one in (mine, his):
        one.write()
        one.disk.sync()
        check_equal(one.trouble(), "", "trouble before")
    org.restart()

    # Somebody loses his right, in the middle of their work.
    for image in ("anns", "bobs"):
        check(ann.rdim("image", "revoke", image, "carol")["epochs"] >= 1, "no new epoch")
    for one in (mine, his):
        check_says(wait_until(one.trouble, HANGS_S, "the disk hears of the new keys"), "new keys", "ldim renew")
        one.write()
        one.cannot_send()
        one.look("written after the new keys")
    org.restart()
    for one in (mine, his):
        one.cannot_send()
        check_says(one.trouble(), "ldim renew")
    world.say("two disks know that they must be renewed, and go on")

    # One logs in again in place, the other one's nbdkit is killed and started again.
    wrong = world.path("wrong")
    wrong.write_text("wrong\n")
    code, _, err = world.run(*mine.disk.ldim_command("renew", "--passphrase", f"+{wrong}"), check_code=None)
    check(code == 4, f"a wrong passphrase renewed: {code}")
    check_says(err, "wrong user name or passphrase")
    mine.renew()
    mine.disk.sync()
    check_equal(mine.trouble(), "", "trouble after the renewal")
    his.disk.restart(kill=True)
    his.handle = his.disk.connect()
    his.look("after the restart")
    his.disk.sync()
    org.restart()
    for one in (mine, his):
        one.write()
        one.disk.sync()
        one.look("after both have new keys")
    world.say("renewed in place, and by a restart")

    # A user is removed who had a right to both; again and again, with commits all the time: a commit never comes between
    # the head that the new keys name and the keys.
    refused(carol.rdim, "image", "export", "anns", world.path("stolen.raw"))
    check(org.admin.rdim("user", "rm", "carol", "--yes")["user"] == "carol", "carol is still there")
    for number in range(world.size(3, 30)):
        one = (mine, his)[number % 2]
        one.write(2)
        ann.rdim("image", "rotate", "anns" if one is mine else "bobs")
        wait_until(one.trouble, HANGS_S, "the disk hears of the new keys")
        one.write(2)
        one.renew()
        one.disk.sync()
        one.look("after a rotation")
    org.restart()

    # What is there is what was written, on the other machine and from outside.
    for one in (mine, his):
        one.end()
    for image, one in (("anns", mine), ("bobs", his)):
        out = world.path(f"{image}.raw")
        ann.rdim("image", "export", image, out)
        check_equal(out.read_bytes(), Path(one.model.path).read_bytes(), f"{image} at the end")
    disk = laptop.disk(bob, "bobs").start()
    check_disk(disk.connect(), his.model, "bob's disk on the other machine")
    disk.stop()
    org.server.stop()


dims_system.main(run, __doc__)
