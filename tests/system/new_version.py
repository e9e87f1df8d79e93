#!/usr/bin/python3
"""A new version is announced to a running machine and fetched behind its back; its guest sees it from the next session on.

The pages under the guest never change; when the next session begins, what changed is in its cache already (counters).
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, wait_until  # noqa: E402
from disk_model import Model, check_disk  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    size = world.size(16, 512) * MIB
    server = world.server()
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)
    world.import_image(server, key, source, "master")
    model = Model(world.path("old.model"), copy_of=source)
    disks = [world.disk(server, key, "master", f"cache-{mode}", machine=mode, mode=mode) for mode in ("shared", "readonly")]
    guests = []
    for disk in disks:
        disk.ldim("prefetch")
        guests.append(disk.connect())
        check_disk(guests[-1], model, "before")

    update = Model(world.path("new.model"), copy_of=source)
    for _ in range(40):
        update.write(world.rng.randbytes(9000), world.rng.randrange(size - 9000))
    world.import_image(server, key, update.path, "master", "--update")
    for disk, guest in zip(disks, guests):
        wait_until(lambda d=disk: d.status()["next_version"]["in_cache"], 90, "the new version is in the cache")
        status = disk.status()
        check_equal(status["next_version"]["sequence"], 2, "the version that was fetched")
        check(0 < status["next_version"]["chunks_fetched"] <= 200, f"{status['next_version']} for 40 small changes")
        check_equal(status["version"]["sequence"], 1, "the version under the guest")
        check_disk(guest, model, "under the guest, after the new version came")
        disk.leave(guest)
        before = disk.status()["fetched"]["chunks"]
        guest = disk.connect()
        check_disk(guest, update, "the next session")
        check_equal(disk.status()["fetched"]["chunks"], before, "chunks fetched when the next session began")
        disk.leave(guest)
        disk.stop()
        world.say(f"{disk.parameters['mode']}: {status['next_version']['chunks_fetched']} chunks came before they were needed")
    server.stop()


dims_system.main(run, __doc__)
