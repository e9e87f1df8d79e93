#!/usr/bin/python3
"""The server is away: LDIM starts from its cache, reads, writes and restarts; everything arrives by itself later.

A read of an absent page waits, tells so, holds up nobody else, and gets its bytes when the server is back.
"""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, wait_until  # noqa: E402
from disk_model import Model, check_bytes, check_disk, check_files  # noqa: E402
from sources import MIB  # noqa: E402

CACHED = 8 * MIB   # the part that is read while the server is there
SIZE = 64 * MIB


def write_some(world, handle, model, times, within):
    for _ in range(times):
        count = world.rng.choice([100, 4096, 8192, 20000])
        offset = world.rng.randrange(within - count)
        data = world.rng.randbytes(count)
        handle.pwrite(data, offset)
        model.write(data, offset)
    handle.flush()


def check_cached_part(handle, model, what):
    check_bytes(handle.pread(CACHED, 0), model.read(CACHED, 0), 0, what)


def run(world):
    server = world.server()
    key = world.key()
    source = sources.random_file(world.path("disk.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    disk = world.disk(server, key, "disk", "cache", connect_wait="1s", read_ahead="no")
    handle = disk.connect()
    check_cached_part(handle, model, "online")
    write_some(world, handle, model, 50, CACHED)
    disk.sync()
    handle.shutdown()
    disk.stop()
    server.stop()

    disk.start()
    handle = disk.connect()
    check_cached_part(handle, model, "offline, from the cache")
    # Whole pages of an absent part, and parts of them: neither needs the server.
    write_some(world, handle, model, 100, CACHED)
    data = world.rng.randbytes(4096)
    handle.pwrite(data, SIZE - 4096)
    model.write(data, SIZE - 4096)
    data = world.rng.randbytes(1000)
    handle.pwrite(data, SIZE // 2 + 100)
    model.write(data, SIZE // 2 + 100)
    handle.flush()
    check_cached_part(handle, model, "offline, after writes")
    check_bytes(handle.pread(4096, SIZE - 4096), model.read(4096, SIZE - 4096), SIZE - 4096, "a pending page of the absent part")
    status = disk.status()
    check_equal(status["server"]["connected"], False, "connected")
    check_equal(status["safe_to_switch_off"], False, "safe_to_switch_off with unsent writes")
    check_equal(status["offline_ready"]["ready"], False, "offline-ready although most pages are absent")
    check(status["journal"]["unsent_epochs"] > 0, f"unsent epochs: {status['journal']}")

    disk.restart(kill=True)
    handle = disk.connect()
    check_cached_part(handle, model, "offline, after a kill")

    # Reads of absent pages wait, as many as a busy guest would have, and one of them meets a patched page.
    waiting = disk.connect()
    answers = {}
    reads = [(SIZE // 2, 4096)] + [(SIZE * 3 // 4 + i * MIB, 16384) for i in range(5)]
    buffers = []
    for at, count in reads:
        buffer = nbd.Buffer(count)
        buffers.append((at, count, buffer))
        waiting.aio_pread(buffer, at, completion=lambda error, at=at: answers.setdefault(at, error.value) and 1 or 1)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        waiting.poll(100)
        check_cached_part(handle, model, "cached reads while others wait")
        write_some(world, handle, model, 2, CACHED)
    check_equal(answers, {}, "answers to reads of absent pages while the server is away")
    check(disk.status()["fetched"]["waiting"] > 0, "status does not say that reads wait")

    server.start()
    wait_until(lambda: waiting.poll(200) is not None and len(answers) == len(reads), 60, "the waiting reads recovered")
    check_equal(set(answers.values()), {0}, "errors of the reads that waited")
    for at, count, buffer in buffers:
        check_bytes(bytes(buffer.to_bytearray()), model.read(count, at), at, "a read that had waited")
    wait_until(lambda: disk.status()["journal"]["unsent_epochs"] == 0, 120, "what was written offline arrived by itself")
    status = disk.status()
    check_equal(status["branch"], "", "branch")
    check_equal(status["server"]["connected"], True, "connected")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), model.path, "the head after coming back")
    check_disk(handle, model, "the whole disk")
    world.say("what was written offline arrived by itself; waiting reads recovered")

    # The server goes away under a running guest, and comes back.
    server.kill()
    write_some(world, handle, model, 50, SIZE)
    check_cached_part(handle, model, "the server died under the guest")
    server.start()
    wait_until(lambda: disk.status()["journal"]["unsent_epochs"] == 0, 120, "writes arrived after the second return")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), model.path, "the head after the second return")
    disk.ldim("prefetch")
    check_equal(disk.ldim("status", "--verify")["offline_ready"]["ready"], True, "offline-ready after a prefetch")
    server.stop()
    check_disk(handle, model, "the whole disk, offline, after a prefetch")
    handle.shutdown()
    waiting.shutdown()
    disk.stop()


dims_system.main(run, __doc__)
