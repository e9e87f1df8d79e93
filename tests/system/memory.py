#!/usr/bin/python3
"""Resident memory with a 1 TiB sparse disk: the plugin under 150 MB, the server under 600 MB.

Random reads over all that is mapped, with a cache smaller than that; then writes and a sync.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import Skip, check  # noqa: E402
from sources import MIB  # noqa: E402

PLUGIN_LIMIT_KIB = 150_000_000 // 1024
SERVER_LIMIT_KIB = 600_000_000 // 1024
PIECE = MIB
DEPTH = 16


def make_disk(world, path, mapped):
    """Pieces of 1 MiB at random places; gives where they are."""
    places = sorted(world.rng.sample(range((1 << 40) // PIECE), mapped // PIECE))
    with open(path, "wb") as out:
        out.truncate(1 << 40)
        for place in places:
            out.seek(place * PIECE)
            sources.write_compressible(out, PIECE, world.rng)
    return places


def read_at_random(world, disk, places, reads):
    """16 reads in flight; most of 4 KiB, some of 64 KiB; a few in empty stretches."""
    handle = disk.connect()
    state = {"in_flight": 0, "failed": 0}

    def done(error):
        state["in_flight"] -= 1
        state["failed"] += error.value != 0
        return 1

    for _ in range(reads):
        count = world.rng.choice([4096, 4096, 4096, 65536])
        offset = world.rng.choice(places) * PIECE + world.rng.randrange((PIECE - count) // 4096 + 1) * 4096
        if world.rng.random() < 0.02:
            offset = world.rng.randrange((1 << 40) // 4096 - 64) * 4096
        handle.aio_pread(nbd.Buffer(count), offset, completion=done)
        state["in_flight"] += 1
        while state["in_flight"] >= DEPTH:
            handle.poll(1000)
    while state["in_flight"]:
        handle.poll(1000)
    check(state["failed"] == 0, f"{state['failed']} reads failed")
    handle.shutdown()


def run(world):
    if world.sanitize:
        raise Skip("sanitizers need memory of their own")
    mapped = world.size(1024, 20 * 1024) * MIB
    server = world.server()
    key = world.key()
    source = world.path("disk.src")
    places = make_disk(world, source, mapped)
    world.say(f"made a 1 TiB disk with {mapped // MIB} MiB mapped")
    report = world.import_image(server, key, source, "disk")
    source.unlink()
    world.say(f"imported: {report['data_mb_per_second']:.0f} MB/s of data, {report['chunks']} chunks; server {server.memory()}")
    disk = world.disk(server, key, "disk", "cache", cache_size=f"{world.size(192, 10240)}M")
    peaks = []

    def note(what):
        peaks.append((what, disk.memory()["VmHWM"], server.memory()["VmHWM"]))
        world.say(f"{what}: plugin {disk.memory()} KiB, server {server.memory()} KiB")

    note("opened")
    read_at_random(world, disk, places, world.size(12_000, 500_000))
    note("after random reads over all of it")
    world.run("nbdinfo", "--size", disk.uri)
    handle = disk.connect()
    for place in world.rng.sample(places, min(len(places), world.size(150, 2000))):
        handle.pwrite(world.rng.randbytes(65536), place * PIECE + world.rng.randrange(16) * 65536)
    handle.flush()
    handle.shutdown()
    disk.sync()
    note("after writes and a sync")
    status = disk.status()
    note("after a status")
    world.say(f"tree {status['tree_memory_bytes']} bytes, cache index {status['cache']['index_memory_bytes']} bytes, "
              f"{status['cache']['evicted_pages']} pages evicted, hit rate {status['cache']['hit_rate']:.2f}")
    disk.restart(kill=True)
    note("after a restart")
    for what, plugin_kib, server_kib in peaks:
        check(plugin_kib < PLUGIN_LIMIT_KIB, f"{what}: the plugin had {plugin_kib} KiB, the limit is {PLUGIN_LIMIT_KIB}")
        check(server_kib < SERVER_LIMIT_KIB, f"{what}: the server had {server_kib} KiB, the limit is {SERVER_LIMIT_KIB}")
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
