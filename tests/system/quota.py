#!/usr/bin/python3
"""Quotas: what is stored for a user counts, not how large his disks are; it is refused beyond the limit, and given back when
images are removed and collected. Images have a limit of their own. A disk in use that meets it keeps what was written.
"""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import CommandFailed, check, check_equal, check_says  # noqa: E402
from organisation import Organisation, refused  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    org = Organisation(world, upload_grace="1s")
    ann, bob = org.user("ann"), org.user("bob")
    laptop = org.machine("laptop")

    def random_file(name, size, disk_bytes=None):
        path = world.path(name)
        path.write_bytes(world.rng.randbytes(size))
        if disk_bytes:
            with open(path, "r+b") as file:
                file.truncate(disk_bytes)
        return path

    def stored():
        return org.admin.rdim("user", "quota", "ann")["used_bytes"]

    limit = 6 * MIB
    org.admin.rdim("user", "quota", "ann", "--bytes", str(limit), "--images", "2")
    refused(ann.rdim, "user", "quota", "ann", "--bytes", "0")  # not his to say
    org.restart()
    # A large disk with little on it.
    ann.rdim("image", "import", random_file("sparse.src", 2 * MIB, 64 * MIB), "sparse", "--private")
    check(2 * MIB <= stored() < 3 * MIB, f"{stored()} bytes are stored for 2 MiB on a disk of 64")
    check_equal(ann.rdim("user", "quota", "ann")["used_images"], 1, "images")

    # Beyond it: refused in the middle, with what to do; others are not concerned.
    big = random_file("big.src", 24 * MIB)
    text = refused(ann.rdim, "image", "import", big, "big", "--private", code=None)
    check_says(text, "are stored for 'ann'", "remove images")
    bob.rdim("image", "import", random_file("bobs.src", 8 * MIB), "bobs", "--private")
    check(stored() >= limit, "refused before the limit was reached")
    org.restart()

    # A disk in use keeps what it cannot send.
    disk = laptop.disk(ann, "sparse").start()
    handle = disk.connect()
    data = world.rng.randbytes(MIB)
    handle.pwrite(data, 8 * MIB)
    handle.flush()
    try:
        disk.ldim("sync", "--wait", "--timeout", "3s")
        raise AssertionError("more was stored than the quota allows")
    except CommandFailed as error:
        check_says(error.out + error.err, "are stored for 'ann'")

    # Given back: the image that was not finished goes, a collection takes its bytes, the disk's writes go through.
    ann.rdim("image", "rm", "big", "--yes")
    time.sleep(2.5)  # longer than the grace: what is being uploaded stays
    org.admin.rdim("gc", "run")
    # The disk's own MiB may have come already: it tries again by itself.
    check(stored() < 4 * MIB, f"{stored()} bytes are stored after the collection")
    disk.sync()
    check_equal(bytes(handle.pread(MIB, 8 * MIB)), data, "what was written beyond the quota")
    disk.leave(handle)
    disk.stop()
    org.restart()
    check(3 * MIB <= stored() < 4 * MIB, f"{stored()} bytes are stored at the end")

    ann.rdim("image", "import", random_file("second.src", MIB), "second", "--private")
    check_says(refused(ann.rdim, "image", "import", world.path("second.src"), "third", "--private", code=None), "as many as you may")
    org.server.stop()


dims_system.main(run, __doc__)
