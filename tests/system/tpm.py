#!/usr/bin/python3
"""A machine's keys sealed by its TPM (a software one): the folder opens with that TPM, after restarts of both, and with no
other. Skipped where swtpm or tpm2-tools are not installed.
"""
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import Skip, check, check_equal, check_says  # noqa: E402
from organisation import Organisation  # noqa: E402
from sources import MIB  # noqa: E402


class Tpm:
    def __init__(self, world, name):
        self.world, self.state = world, world.path(f"tpm-{name}")
        self.state.mkdir()
        self.log = world.path(f"tpm-{name}.log")
        self.process = None

    def start(self):
        # The control port is the server's and one: the tools take it for granted.
        for _ in range(50):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self.port = probe.getsockname()[1]
            self.process = self.world.start(
                ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}", "--server", f"type=tcp,port={self.port}",
                 "--ctrl", f"type=tcp,port={self.port + 1}", "--flags", "not-need-init,startup-clear"], self.log)
            until = time.monotonic() + 60
            while self.process.poll() is None and time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", self.port + 1)).close()
                    os.environ["TPM2TOOLS_TCTI"] = f"swtpm:host=127.0.0.1,port={self.port}"
                    return self
                except OSError:
                    time.sleep(0.05)
        raise AssertionError(f"swtpm does not start:\n{self.log.read_text()}")

    def stop(self):
        self.process.kill()
        self.process.wait()


def run(world):
    for program in ("swtpm", "tpm2_create", "tpm2_unseal"):
        if shutil.which(program) is None:
            raise Skip(f"{program} is not installed")
    os.environ.pop("TPM2TOOLS_TCTI", None)
    tpm = Tpm(world, "own").start()
    tried = subprocess.run(["tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", world.path("tried.ctx")],
                           capture_output=True, text=True, timeout=300, check=False)
    if tried.returncode != 0:
        raise Skip(f"the software TPM does not work here: {tried.stderr.strip()[-200:]}")

    org = Organisation(world)
    ann = org.user("ann")
    source = sources.random_file(world.path("disk.src"), 2 * MIB, world.rng)
    ann.rdim("image", "import", source, "anns", "--private")
    laptop = org.machine("laptop")
    check((laptop.folder / "machine-tpm").exists(), "the TPM was not used")
    check_equal((laptop.folder / "machine").read_bytes()[6:8], b"\1\0", "the machine's file is not sealed")

    def works():
        disk = laptop.disk(ann, "anns").start()
        handle = disk.connect()
        check_equal(bytes(handle.pread(MIB, 0)), source.read_bytes()[:MIB], "the disk")
        disk.leave(handle)
        disk.stop()

    def fails(*parts):
        check_says(laptop.disk(ann, "anns").start_fails(), *parts)

    works()
    org.restart()
    tpm.stop()
    fails("TPM")  # it is away
    tpm.start()
    works()
    world.say("opens with its TPM, over restarts")

    # The folder on another machine, and on this one after its TPM was cleared.
    tpm.stop()
    other = Tpm(world, "other").start()
    fails("TPM", "another machine")
    other.stop()
    del os.environ["TPM2TOOLS_TCTI"]
    fails("TPM")
    tpm.start()
    works()
    check(not list(laptop.folder.glob("tpm-work*")), "the tools' files are still there")

    # A wipe draws a new secret, sealed as before. Without a TPM, --tpm=yes is refused and a machine enrolls unsealed.
    before = (laptop.folder / "machine").read_bytes()
    org.admin.rdim("machine", "wipe", "laptop")
    fails("erase")
    after = (laptop.folder / "machine").read_bytes()
    check(after != before and after[6:8] == b"\1\0", "the wiped machine's file")
    works()
    tpm.stop()
    del os.environ["TPM2TOOLS_TCTI"]
    line = org.admin.rdim("machine", "token", "desk")["join_line"]
    code, out, err = world.run(world.bin / "ldim", "enroll", line, "--machine", world.path("desk"), "--tpm", "yes", check_code=None)
    check(code != 0, "enrolled with a TPM that is not there")
    check_says(out + err, "no TPM")
    world.run(world.bin / "ldim", "enroll", line, "--machine", world.path("desk"))
    org.server.stop()


dims_system.main(run, __doc__)
