#!/usr/bin/python3
"""kill -9 of nbdkit at random moments under load: every acknowledged write is there after the restart.

A libnbd client keeps 16 writes and zeroes in flight (overlapping ones too), with flushes between them. After each kill
every sector must hold the last acknowledged write, or a later one that got no answer. Write-back runs meanwhile, so
that kills also meet commits. At the end the head on the server is the disk. Several pairs of server and disk at a time.
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
from side_by_side import run_side_by_side  # noqa: E402
from sources import MIB  # noqa: E402

DEPTH = 16
SIZE = 8 * MIB  # small: after each kill every byte is compared
PAIRS = 4       # of a server and a disk, at work at the same time
LOAD_S = (0.03, 0.1, 0.1, 0.3, 1.0)  # until a kill, at most


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


def one_pair(world, number):
    """A server and a disk of their own, killed again and again."""
    kills = world.times(200, 2000) // PAIRS
    server = world.server(f"rdim{number}")
    key = world.key(f"key{number}")
    source = sources.random_file(world.path(f"disk{number}.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    disk = world.disk(server, key, "disk", f"cache{number}", write_back="10ms")
    history = History(bytearray(source.read_bytes()))
    world.next_value = 1
    checked = writes = 0
    slowest = 0.0
    for _ in range(kills):
        seconds = world.rng.choice(LOAD_S) * world.rng.random() + 0.01
        load = Load(world, disk, history)
        world.next_value = load.run(seconds, disk.kill) + 1
        writes += load.answered
        del load
        began = time.monotonic()
        disk.start()
        slowest = max(slowest, time.monotonic() - began)
        handle = disk.connect()
        checked += history.settle(read_all(handle, SIZE))
        handle.shutdown()
    check(writes > kills, f"only {writes} answers in {kills} rounds: there was no load")
    commits = len(world.versions(server, key, "disk"))
    check(commits >= 2, "write-back made no version: the kills met no commit")
    disk.sync()
    out = world.path(f"head{number}.out")
    world.export_image(server, key, "disk", out)
    check_bytes(out.read_bytes(), bytes(history.settled), 0, "the head after all kills")
    disk.stop()
    server.stop()
    return kills, writes, checked, commits, slowest


def run(world):
    done = run_side_by_side(world, PAIRS, one_pair)
    kills, writes, checked, commits = (sum(column) for column in list(zip(*done))[:4])
    world.say(f"{kills} kills: {writes} requests answered, {checked} touched sectors right, "
              f"slowest restart {max(answer[4] for answer in done):.2f} s")
    world.say(f"each head is its disk; {commits} versions were made on the way")


dims_system.main(run, __doc__)
