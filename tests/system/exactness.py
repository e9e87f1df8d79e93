#!/usr/bin/python3
"""Byte-exactness of import, export and the disk, for disks of several kinds.

import -> export and nbdcopy out of LDIM are identical to the source; then random reads, writes, zeroes and trims
of every size and alignment through several connections, compared with a model file: at once, after a restart
(SIGTERM), after SIGKILL, after a sync (the exported head), after a wipe of the cache, and on a second machine.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from disk_model import Model, check_bytes, check_disk, check_files, extents  # noqa: E402
from sources import MIB  # noqa: E402

SIZES = [1, 2, 7, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 12288, 65535, 65536]


def make_sources(world):
    rng = world.rng
    mib = MIB * world.size(1, 16)
    yield "ext4", sources.ext4_file(world.path("ext4.src"), 48 * mib, rng, world.path("files"))
    yield "random", sources.random_file(world.path("random.src"), 12 * mib, rng)
    yield "zeros", sources.zero_file(world.path("zeros.src"), 40 * mib)
    yield "odd", sources.random_file(world.path("odd.src"), 5 * mib + 1234567, rng)
    yield "sparse", sources.sparse_file(world.path("sparse.src"), 1 << 40, world.size(40, 400), 128 << 10, rng)


class Guest:
    """Random requests over several connections, each checked against the model."""

    def __init__(self, world, disk, model):
        self.rng, self.model = world.rng, model
        self.handles = [disk.connect() for _ in range(3)]
        # Most requests go near these places, so that they meet each other.
        self.places = [self.rng.randrange(model.size) for _ in range(12)] + [0, model.size]

    def pick_range(self):
        rng, size = self.rng, self.model.size
        count = rng.choice(SIZES) if rng.random() < 0.7 else int(2 ** rng.uniform(0, 20))
        if rng.random() < 0.02:
            count = rng.randrange(1 * MIB, 5 * MIB)
        offset = rng.choice(self.places) + rng.randrange(-200_000, 200_000)
        if rng.random() < 0.5:
            offset = offset // 4096 * 4096 + rng.choice([0, 0, 0, 1, -1, 512, 4095])
        if rng.random() < 0.05:
            offset = size - count
        offset = max(0, min(offset, size - 1))
        return offset, min(count, size - offset)

    def one(self):
        rng, model = self.rng, self.model
        handle = rng.choice(self.handles)
        offset, count = self.pick_range()
        kind = rng.choices(["read", "write", "zero", "trim", "flush", "cache", "extents"], [40, 35, 8, 6, 3, 3, 5])[0]
        fua = nbd.CMD_FLAG_FUA if rng.random() < 0.03 else 0
        if kind == "read":
            check_bytes(handle.pread(count, offset), model.read(count, offset), offset, "read")
        elif kind == "write":
            data = rng.randbytes(count) if rng.random() < 0.8 else bytes(count)
            handle.pwrite(data, offset, fua)
            model.write(data, offset)
        elif kind == "zero":
            if rng.random() < 0.1:  # far larger than anything that was written
                count = min(model.size - offset, rng.randrange(1, 256 * MIB))
            handle.zero(count, offset, fua | rng.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO]))
            model.zero(count, offset)
        elif kind == "trim":  # LDIM promises more than NBD: what was trimmed reads as zeros
            handle.trim(count, offset, fua)
            model.zero(count, offset)
        elif kind == "flush":
            handle.flush()
        elif kind == "cache":
            handle.cache(count, offset)
        else:
            self.check_extents(handle, offset, count)

    def check_extents(self, handle, offset, count):
        """What is called zero must be zero; nothing beyond the question is told."""
        told = []
        handle.block_status(count, offset, lambda _c, at, entries, _e: told.append((at, list(entries))))
        check_equal(len(told), 1, "contexts told")
        at, entries = told[0]
        check_equal(at, offset, "where the extents begin")
        for length, flags in zip(entries[::2], entries[1::2]):
            if flags & nbd.STATE_ZERO and at < self.model.size:
                length = min(length, self.model.size - at)
                sample = min(length, 4 * MIB)
                check_bytes(bytes(sample), self.model.read(sample, at), at, "an extent told as zero")
            at += length

    def work(self, requests):
        for _ in range(requests):
            self.one()

    def leave(self):
        for handle in self.handles:
            handle.shutdown()

    def end_session(self, disk):
        disk.leave(*self.handles)

    def check_all(self, what):
        check_disk(self.handles[0], self.model, what)


def check_nbdcopy(world, disk, model, name):
    out = world.path(f"{name}.copy")
    world.run("nbdcopy", disk.uri, out, timeout=900)
    check_files(out, model.path, f"{name}: nbdcopy out of LDIM")
    out.unlink()


def one_kind(world, server, key, name, source):
    requests = world.times(200, 4000)
    size = os.path.getsize(source)
    report = world.import_image(server, key, source, name)
    check_equal(report["image_bytes"], size, f"{name}: image_bytes of the import")
    out = world.path(f"{name}.out")
    world.export_image(server, key, name, out)
    check_files(out, source, f"{name}: import -> export")
    model = Model(world.path(f"{name}.model"), copy_of=source)

    first = world.disk(server, key, name, f"{name}-1", machine="first")
    check_nbdcopy(world, first, model, name)
    guest = Guest(world, first, model)
    guest.check_all(f"{name}: before any write")
    guest.work(requests)
    guest.check_all(f"{name}: after random writes")
    guest.leave()
    first.restart()
    guest = Guest(world, first, model)
    guest.check_all(f"{name}: after a restart (SIGTERM)")
    guest.work(requests)
    first.restart(kill=True)
    guest = Guest(world, first, model)
    guest.check_all(f"{name}: after SIGKILL and restart")
    guest.work(requests)
    guest.leave()
    first.sync()
    world.export_image(server, key, name, out)
    check_files(out, model.path, f"{name}: the head after a sync")
    guest = Guest(world, first, model)
    guest.check_all(f"{name}: after a sync")
    check_nbdcopy(world, first, model, name)
    guest.leave()

    first.stop()
    first.wipe_cache()
    first.start()
    guest = Guest(world, first, model)
    guest.check_all(f"{name}: after a wipe of the cache")
    guest.work(requests)
    first.sync()
    guest.end_session(first)
    first.stop()

    second = world.disk(server, key, name, f"{name}-2", machine="second")
    guest = Guest(world, second, model)
    guest.check_all(f"{name}: on a second machine")
    guest.work(requests)
    guest.end_session(second)
    second.stop()
    first.start()
    guest = Guest(world, first, model)
    guest.check_all(f"{name}: back on the first machine")
    guest.leave()
    damaged = first.status()["cache"]["damaged_pages"]
    check_equal(damaged, 0, f"{name}: damaged pages")
    first.stop()
    world.export_image(server, key, name, out)
    check_files(out, model.path, f"{name}: the head at the end")
    check(world.versions(server, key, name)[0]["sequence"] >= 4, f"{name}: too few versions were made")
    out.unlink()
    model.close()
    world.say(f"{name}: identical everywhere ({size} bytes, {5 * requests} requests)")


def run(world):
    server = world.server()
    key = world.key()
    for name, source in make_sources(world):
        one_kind(world, server, key, name, source)
    server.stop()


dims_system.main(run, __doc__)
