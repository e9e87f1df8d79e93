#!/usr/bin/python3
"""1 Mbit/s with 600 ms round trip is a supported link: slow, and nothing is taken for dead.

A session begins, reads, writes, flushes with ack=committed, hands the image over with writes not yet sent, and the next
machine reads them, with a lease that is much shorter than an upload. Then: no connection was lost or made again, no lease was
lost, no branch. Knobs by environment: DIMS_LINK_MBIT (1), DIMS_LINK_DELAY_MS (one way, 300).
"""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from disk_model import Model, check_bytes, check_disk, check_files  # noqa: E402
from link import Link  # noqa: E402
from sources import MIB  # noqa: E402

MBIT = float(os.environ.get("DIMS_LINK_MBIT", "1"))
DELAY_MS = float(os.environ.get("DIMS_LINK_DELAY_MS", "300"))
LEASE = "10s"


class Stopwatch:
    def __init__(self, world):
        self.world, self.at = world, time.monotonic()

    def say(self, what):
        now = time.monotonic()
        self.world.say(f"{what}: {now - self.at:.1f} s")
        self.at = now


def check_alive(disk, token, what):
    status = disk.status()
    server = status["server"]
    check_equal((server["losses"], server["rebuilt"], server["connected"]), (0, 0, True), f"{what}: losses, rebuilt, connected")
    check_equal(status["branch"], "", f"{what}: branch")
    check_equal(status["write_back"]["conflicts"], 0, f"{what}: conflicts")
    check_equal(status["fetched"]["retries"], 0, f"{what}: fetches again")
    if token is not None:
        check_equal(status["lease"]["token"], token, f"{what}: the token of the lease")
    return status


def run(world):
    part = world.size(640 << 10, 16 * MIB)
    read = world.size(256 << 10, 4 * MIB)
    server = world.server(lease_term=LEASE)
    key = world.key()
    source = sources.random_file(world.path("disk.src"), 4 * part, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    link = Link(world, server, MBIT, DELAY_MS)
    watch = Stopwatch(world)

    alpha = world.disk(link, key, "disk", "cache-a", machine="alpha", ack="committed", read_ahead="no", connect_wait="120s")
    guest = alpha.connect()
    watch.say("alpha's session begins")
    check_bytes(guest.pread(read, 3 * part), model.read(read, 3 * part), 3 * part, "alpha reads")
    watch.say(f"alpha reads {read >> 10} KiB")
    write(world, guest, model, 0, 4096)
    guest.flush()
    token = alpha.status()["lease"]["token"]
    connections = link.ask()["connections"]  # both lanes are there now
    watch.say("alpha's first commit")
    write(world, guest, model, part, part)
    guest.flush()
    watch.say(f"alpha's flush of {part >> 10} KiB, committed")
    status = check_alive(alpha, token, "alpha, after its commit")
    check_equal(status["journal"]["unsent_epochs"], 0, "unsent epochs behind a flush with ack=committed")
    write(world, guest, model, 2 * part, part // 2)  # no flush: the hand-off seals it
    check_equal(link.ask()["connections"], connections, "connections that alpha has made since")

    beta = world.disk(link, key, "disk", "cache-b", machine="beta", lease="hand-off", read_ahead="no",
                      connect_wait="120s")
    other = beta.connect()
    watch.say(f"beta's session begins after the hand-off of {part >> 11} KiB")
    check_bytes(other.pread(65536, 2 * part), model.read(65536, 2 * part), 2 * part, "beta reads what was handed over")
    check_alive(alpha, None, "alpha, after the hand-off")
    check_alive(beta, None, "beta")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), model.path, "the head after the hand-off")
    if world.large:
        check_disk(other, model, "beta, the whole disk over the link")
        write(world, other, model, 0, part)
        other.flush()
        beta.sync(timeout=3600)
        check_alive(beta, None, "beta, after its commit")
        watch.say("beta reads everything and commits")
    counts = link.ask()
    check(counts["up_bytes"] > part, f"the link was not used: {counts}")
    world.say(f"{counts}")
    guest.shutdown()
    other.shutdown()
    alpha.stop()
    beta.stop()
    link.end()
    server.stop()


def write(world, handle, model, first, count):
    step = min(count, 64 << 10)
    for at in range(first, first + count, step):
        data = world.rng.randbytes(step)
        handle.pwrite(data, at)
        model.write(data, at)


dims_system.main(run, __doc__)
