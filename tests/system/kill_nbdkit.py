#!/usr/bin/python3
"""kill -9 of nbdkit at random moments under load: every acknowledged write is there after the restart.

A libnbd client keeps 16 writes and zeroes in flight (overlapping ones too), with flushes between them. After each kill
every sector must hold the last acknowledged write, or a later one that got no answer. Write-back runs meanwhile, so
that kills also meet commits. At the end the head on the server is the disk.
"""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import check  # noqa: E402
from disk_model import check_bytes  # noqa: E402
from history import SECTOR, ZERO, History, sector_bytes  # noqa: E402
from sources import MIB  # noqa: E402

DEPTH = 16


class Load:
    """Asynchronous writes until the connection breaks."""

    def __init__(self, world, disk, history):
        self.rng, self.history, self.sectors = world.rng, history, len(history.settled) // SECTOR
        self.handle = disk.connect()
        self.in_flight = 0
        self.answered = 0
        self.value = world.next_value

    def done(self, sent):
        def completion(error):
            self.in_flight -= 1
            if error.value == 0:
                self.answered += 1
                if sent is not None:
                    self.history.acknowledge(sent)
            return 1
        return completion

    def send(self):
        rng = self.rng
        self.in_flight += 1
        if rng.random() < 0.04:
            self.handle.aio_flush(completion=self.done(None))
            return
        count = rng.choice([1, 1, 2, 3, 7, 8, 8, 8, 16, 64]) if rng.random() < 0.98 else rng.randrange(1, 2400)
        # A hot stretch, so that writes overlap writes in flight and journal records supersede each other.
        span = 512 if rng.random() < 0.3 else self.sectors
        first = min(rng.randrange(span), self.sectors - count)
        fua = nbd.CMD_FLAG_FUA if rng.random() < 0.02 else 0
        self.value += 1
        if rng.random() < 0.1:
            sent = self.history.begin(first, count, ZERO)
            self.handle.aio_zero(count * SECTOR, first * SECTOR, completion=self.done(sent), flags=fua)
        else:
            data = b"".join(sector_bytes(s, self.value) for s in range(first, first + count))
            sent = self.history.begin(first, count, self.value)
            self.handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), first * SECTOR, completion=self.done(sent), flags=fua)

    def run(self, seconds, kill):
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                while self.in_flight < DEPTH:
                    self.send()
                self.handle.poll(50)
            kill()
            while self.in_flight:  # answers that were sent before the end still count
                self.send() if self.in_flight < DEPTH and self.rng.random() < 0.1 else None
                if self.handle.poll(1000) == 0:
                    break
        except nbd.Error:
            pass
        return self.value


def read_all(handle, size):
    disk = bytearray()
    while len(disk) < size:
        disk += handle.pread(min(4 * MIB, size - len(disk)), len(disk))
    return disk


def run(world):
    kills = world.size(20, 200)
    size = 48 * MIB
    server = world.server()
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)
    world.import_image(server, key, source, "disk")
    disk = world.disk(server, key, "disk", "cache", write_back="100ms")
    history = History(bytearray(source.read_bytes()))
    world.next_value = 1
    checked = writes = 0
    slowest = 0.0
    for kill in range(kills):
        seconds = world.rng.choice([0.05, 0.2, 0.5, 1.2]) * world.rng.random() + 0.01
        load = Load(world, disk, history)
        world.next_value = load.run(seconds, disk.kill) + 1
        writes += load.answered
        del load
        began = time.monotonic()
        disk.start()
        slowest = max(slowest, time.monotonic() - began)
        handle = disk.connect()
        checked += history.settle(read_all(handle, size))
        handle.shutdown()
    check(writes > kills, f"only {writes} answers in {kills} rounds: there was no load")
    world.say(f"{kills} kills: {writes} requests answered, {checked} touched sectors right, "
              f"slowest restart {slowest:.2f} s")
    commits = len(world.versions(server, key, "disk"))
    check(commits >= 2, "write-back made no version: the kills met no commit")
    disk.sync()
    world.export_image(server, key, "disk", world.path("head.out"))
    check_bytes(world.path("head.out").read_bytes(), bytes(history.settled), 0, "the head after all kills")
    world.say(f"the head is the disk; {commits} versions were made on the way")
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
