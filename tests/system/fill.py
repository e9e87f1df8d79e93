#!/usr/bin/python3
"""fill=yes: the rest of the disk comes into the cache while nobody reads, and the machine works on without the server.

A cache that is too small is not churned: it says that it has no room.
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
    size = world.size(96, 1024) * MIB
    server = world.server()
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)

    small = world.disk(server, key, "disk", "small", machine="small", mode="readonly", fill="yes", cache_size=f"{size // MIB // 2}M")
    disk = world.disk(server, key, "disk", "cache", fill="yes")
    handle = disk.connect()
    handle.pread(4096, size // 2)
    wait_until(lambda: disk.status()["fill"]["done"], 120, "the disk was filled")
    status = disk.status()
    check(status["offline_ready"]["ready"], f"filled, but not ready to go offline: {status['offline_ready']}")
    world.say(f"filled: {status['fetched']['chunks']} chunks")

    wait_until(lambda: small.status()["fill"]["no_room"], 120, "the small cache is full")
    check_equal(small.status()["cache"]["evicted_pages"], 0, "pages evicted for the sake of filling")
    small.stop()

    server.stop()
    data = world.rng.randbytes(100_000)
    handle.pwrite(data, 12345)
    model.write(data, 12345)
    handle.flush()
    check_disk(handle, model, "the whole disk, offline")
    disk.kill()
    disk.start()
    handle = disk.connect()
    check_disk(handle, model, "the whole disk, offline, after a kill")
    server.start()
    disk.sync()
    handle.shutdown()
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
