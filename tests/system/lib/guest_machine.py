"""A tiny guest in QEMU (interpreted: no KVM) whose one disk is an NBD export, driven over its serial console.

Its only program is tests/system/guest/init.cc, where the words that are spoken stand.
"""
import json
import os
import re
import socket
import threading
import time

TROUBLE = re.compile(r"I/O error|EXT4-fs error|XFS .*(corrupt|error|shutdown)|Kernel panic|Call Trace|blocked for more than|Remounting filesystem read-only")
MEMORY_MIB = 160


class GuestTrouble(AssertionError):
    """The guest met an error, or said nothing for too long."""


class Machine:
    """One QEMU. A thread reads its console; the caller waits for what it says."""

    count = 0

    def __init__(self, world, kernel, start_archive, socket_path, log, deep):
        Machine.count += 1
        self.name = f"guest{Machine.count}"
        self.world = world
        self.lines = []          # everything said, one line each
        self.answers = []        # what the program said, without '@', not yet taken
        self.files = {}          # file -> (size, hash): durable for certain
        self.begun = set()       # files with an operation under way
        self.recorded = 0
        self.trouble = None
        self.changed = threading.Condition()
        console = world.path(f"{self.name}.sock")
        # Without indirect descriptors a ring of four has room for one request only: the disk sees one at a time.
        ring = "" if deep else ",indirect_desc=off,queue-size=4"
        nbd_node = {"driver": "nbd", "node-name": "export", "server": {"type": "unix", "path": str(socket_path)}, "reconnect-delay": 120}
        log_node = {"driver": "file", "node-name": "log", "filename": str(log)}
        log.write_bytes(b"")
        # no_timer_check: on a busy machine the kernel may take an interpreted timer for a broken one.
        disk = {"driver": "blklogwrites", "node-name": "disk", "file": "export", "log": "log"}
        command = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", MEMORY_MIB, "-nodefaults", "-display", "none", "-no-reboot",
                   "-chardev", f"socket,id=console,path={console},server=on,wait=on,logfile={world.path(self.name + '.console.log')}", "-serial", "chardev:console",
                   "-kernel", kernel / "vmlinuz", "-initrd", start_archive,
                   "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check",
                   "-blockdev", json.dumps(nbd_node), "-blockdev", json.dumps(log_node), "-blockdev", json.dumps(disk),
                   "-device", f"virtio-blk-pci,drive=disk,num-queues=1{ring}"]
        self.process = world.start(command, world.path(f"{self.name}.log"))
        self.console = self._connect(console)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _connect(self, path):
        until = time.monotonic() + 60
        while True:
            console = socket.socket(socket.AF_UNIX)
            try:
                console.connect(str(path))
                return console
            except OSError:
                console.close()
                if self.process.poll() is not None or time.monotonic() > until:
                    raise GuestTrouble(f"QEMU did not start: see {self.name}.log") from None
                time.sleep(0.05)

    def _read(self):
        rest = b""
        while True:
            try:
                data = self.console.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            with self.changed:
                for line in lines:
                    self._take(line.decode(errors="replace").strip())
                self.changed.notify_all()
        with self.changed:
            self.answers.append("gone")
            self.changed.notify_all()

    def _take(self, line):
        self.lines.append(line)
        at = line.find("@")
        word, *rest = line[at + 1:].split() if at >= 0 else [""]
        if word == "b":
            self.begun.add(rest[0])
        elif word == "d":
            self.files[rest[0]] = (int(rest[1]), rest[2])
            self.begun.discard(rest[0])
            self.recorded += 1
        elif word == "u":
            self.files.pop(rest[0], None)
            self.begun.discard(rest[0])
            self.recorded += 1
        elif word in ("ready", "mounted", "unmounted", "stopped", "listed", "f"):
            self.answers.append(line[at + 1:])
        elif word == "bad" or TROUBLE.search(line):
            self.trouble = line

    def _wait(self, condition, seconds, what):
        until = time.monotonic() + seconds
        with self.changed:
            while True:
                if self.trouble:
                    raise GuestTrouble(f"{self.name}: {self.trouble}\n" + "\n".join(self.lines[-20:]))
                value = condition()
                if value:
                    return value
                left = until - time.monotonic()
                if left <= 0 or "gone" in self.answers:
                    raise GuestTrouble(f"{self.name}: not seen: {what}\n" + "\n".join(self.lines[-20:]))
                self.changed.wait(left)

    def say(self, command):
        self.console.sendall(command.encode() + b"\n")

    def ask(self, command, answer, seconds=300):
        """Gives the lines before the answer."""
        if command:
            self.say(command)
        self._wait(lambda: answer in self.answers, seconds, answer)
        with self.changed:
            at = self.answers.index(answer)
            before, self.answers = self.answers[:at], self.answers[at + 1:]
        return before

    def list(self):
        """{file: (size, hash)} as the guest reads them now."""
        found = {}
        for line in self.ask("list", "listed"):
            _, name, size, digest = line.split()
            found[name] = (int(size), digest)
        return found

    def wait_progress(self, count, seconds=300):
        """Until so many more operations have become durable."""
        goal = self.recorded + count
        self._wait(lambda: self.recorded >= goal, seconds, f"{count} more operations became durable (now {self.recorded})")

    def wait_off(self, seconds=120):
        self.say("off")
        code = self.process.wait(seconds)
        self.reader.join(30)
        self.console.close()
        if code != 0:
            raise GuestTrouble(f"{self.name}: QEMU ended with {code}")

    def kill(self):
        """The plug is pulled. What the guest had said before still counts."""
        self.process.kill()
        self.process.wait()
        self.reader.join(30)
        self.console.close()


def check_files(found, wanted, exempt, what):
    """Every file that was durable is there with its bytes, and no other, but for those that an operation was under way on."""
    for name in sorted(set(found) | set(wanted)):
        if name in exempt or os.path.basename(name).startswith("new"):
            continue
        if found.get(name) != wanted.get(name):
            raise AssertionError(f"{what}: {name} is {found.get(name)}, expected {wanted.get(name)} (size, hash)")
    return len(wanted)
