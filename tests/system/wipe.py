#!/usr/bin/python3
"""A wipe and a revocation reach a disk that is in use, a machine that was off, and a machine that was revoked before.

Two machines with the same images; a restart of the server, or of the machine's disk, between the steps. Unsent writes are
spared unless the record says otherwise; the other machine goes on all the time.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import nbd  # noqa: E402
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says, wait_until  # noqa: E402
from organisation import Organisation  # noqa: E402
from sources import MIB  # noqa: E402

HANGS_S = 120  # a bound, not a measure


def machine_row(org, name):
    return next(m for m in org.admin.rdim("machine", "ls")["machines"] if m["name"] == name)


def ends_by_itself(world, disk, *parts):
    """The process must end, and say why; a client gets an error, no wrong byte."""
    wait_until(lambda: not disk.alive, HANGS_S, "the end of a disk whose machine is to be erased")
    check_says(disk.log_text(disk.log_since), *parts)


def run(world):
    size = world.size(4, 64) * MIB
    org = Organisation(world)
    ann = org.user("ann")
    laptop, desk, lost = org.machine("laptop"), org.machine("desk"), org.machine("lost")
    for name in ("one", "two"):
        source = sources.random_file(world.path(f"{name}.src"), size, world.rng)
        ann.rdim("image", "import", source, name, "--private")
    content = {name: bytearray(world.path(f"{name}.src").read_bytes()) for name in ("one", "two")}
    org.restart()

    def use(machine, image, **more):
        disk = machine.disk(ann, image, **more).start()
        handle = disk.connect()
        check_equal(bytes(handle.pread(size, 0)), bytes(content[image]), f"{image} on {machine.name}")
        return disk, handle

    def write(handle, image, at):
        data = world.rng.randbytes(8192)
        handle.pwrite(data, at)
        handle.flush()
        content[image][at:at + len(data)] = data

    # In use: it ends, its cache goes, what was not sent stays; the other machine does not notice.
    disk, handle = use(laptop, "one", write_back="manual")
    other, other_handle = use(desk, "two")
    write(handle, "one", MIB)
    folder = world.path(laptop.cache(ann, "one"))
    secret_before = (laptop.folder / "machine").read_bytes()
    org.admin.rdim("machine", "wipe", "laptop")
    ends_by_itself(world, disk, "erase its keys and caches", "spared")
    try:
        handle.pread(4096, 0)
        raise AssertionError("the disk was read after the wipe")
    except nbd.Error:
        pass
    check(not (folder / "cache").exists(), "the cache is there after the wipe")
    check(any((folder / "journal").iterdir()), "unsent writes are gone")
    check(not (laptop.folder / "offline").exists(), "the offline store is there after the wipe")
    check((laptop.folder / "machine").read_bytes() != secret_before, "the machine's secret is the old one")
    check_equal(bytes(other_handle.pread(4096, 0)), bytes(content["two"][:4096]), "the other machine")
    wait_until(lambda: machine_row(org, "laptop")["wiped"], HANGS_S, "the server knows that the machine was wiped")
    org.restart()
    disk, handle = use(laptop, "one")  # with the unsent writes
    disk.sync()
    disk.leave(handle)
    disk.stop()
    world.say("a running disk obeyed a wipe and spared what was unsent")

    # Two disks of one machine, with the server away when the order is given: at the next contact both end.
    first, handle = use(laptop, "one", write_back="manual", fill="no")
    write(handle, "one", 2 * MIB)
    second, _ = use(laptop, "two", mode="readonly")
    org.admin.rdim("machine", "wipe", "laptop", "--unsent-too", "--yes")
    org.server.stop()
    org.server.start()
    ends_by_itself(world, first, "erase its keys and caches", "unsent writes too")
    ends_by_itself(world, second, "erase its keys and caches")
    for image in ("one", "two"):
        wait_until(lambda i=image: not world.path(laptop.cache(ann, i)).exists(), HANGS_S, "the end of the cache folder")
    content["one"][2 * MIB:2 * MIB + 8192] = world.path("one.src").read_bytes()[2 * MIB:2 * MIB + 8192]
    org.restart()
    disk, handle = use(laptop, "one")  # what was unsent is lost, as ordered
    disk.leave(handle)
    disk.stop()
    world.say("two running disks obeyed a wipe of everything")

    # Stolen while it was off: revoked, then wiped. It is let in to learn so, and obeys, though nobody can log in any more.
    disk, handle = use(lost, "one", write_back="manual")
    write(handle, "one", 3 * MIB)
    disk.kill()
    org.admin.rdim("machine", "revoke", "lost")
    org.admin.rdim("machine", "wipe", "lost")
    org.restart()
    folder = world.path(lost.cache(ann, "one"))
    check((folder / "cache").exists(), "the machine was off")
    check_says(lost.disk(ann, "one").start_fails(), "erase", "revoked")
    check(not (folder / "cache").exists(), "the cache of a stolen machine is there after its contact")
    check(not (lost.folder / "offline").exists(), "its offline store, too")
    check(machine_row(org, "lost")["wiped"], "the server does not know that the stolen machine was wiped")
    org.restart()
    check_says(lost.disk(ann, "one").start_fails(), "refuses this machine")
    org.server.stop()
    check_says(lost.disk(ann, "one", connect_wait="1s").start_fails(), "refuses this machine")  # it knows, without the server
    org.server.start()
    world.say("a revoked machine learned of its wipe")

    # Revoked in use: it ends, nothing is erased.
    content["one"][3 * MIB:3 * MIB + 8192] = world.path("one.src").read_bytes()[3 * MIB:3 * MIB + 8192]
    disk, handle = use(laptop, "one", write_back="manual")
    write(handle, "one", MIB // 2)
    org.admin.rdim("machine", "revoke", "laptop")
    ends_by_itself(world, disk, "refuses this machine", "unsent writes are still")
    check((world.path(laptop.cache(ann, "one")) / "cache").exists(), "a revocation erased the cache")
    check_equal(bytes(other_handle.pread(size, 0)), bytes(content["two"]), "the other machine")
    other.leave(other_handle)
    other.stop()
    org.restart()
    check_says(laptop.disk(ann, "one").start_fails(), "refuses this machine")
    what = [e["what"] for e in org.admin.rdim("audit")["entries"]]
    check_equal(what.count("wiped"), 3, "wipes in the audit log")
    org.server.stop()


dims_system.main(run, __doc__)
