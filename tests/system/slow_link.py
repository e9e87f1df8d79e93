#!/usr/bin/python3
"""A cold sequential read over 50 Mbit/s and 20 ms: the link is full, and it is not one round trip a read.

Prints which share of the link was used. Asserts only on the number of round trips (counted, not timed). Knobs by
environment: DIMS_LINK_MBIT (50), DIMS_LINK_DELAY_MS (one way, 10), DIMS_LINK_READ (bytes a read, 65536).
"""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check  # noqa: E402
from disk_model import check_bytes  # noqa: E402
from link import Link  # noqa: E402
from sources import MIB  # noqa: E402

MBIT = float(os.environ.get("DIMS_LINK_MBIT", "50"))
DELAY_MS = float(os.environ.get("DIMS_LINK_DELAY_MS", "10"))
READ = int(os.environ.get("DIMS_LINK_READ", "65536"))


def sequential(world, server, key, data, mbit, delay_ms, what, **parameters):
    link = Link(world, server, mbit, delay_ms)
    disk = world.disk(link, key, "disk", f"cache-{what}", connect_wait="60s", **parameters)
    handle = disk.connect()
    link.ask("reset")
    began = time.monotonic()
    for at in range(0, len(data), READ):
        got = bytes(handle.pread(min(READ, len(data) - at), at))
        check_bytes(got, data[at:at + READ], at, what)
    seconds = time.monotonic() - began
    counts = link.ask()
    reads = -(-len(data) // READ)
    rate = mbit * 1e6 / 8
    world.say(f"{what}: {len(data) // MIB} MiB in {seconds:.2f} s, {reads} reads of {READ} bytes, {counts['rounds']} round trips one after "
              f"the other; {counts['down_bytes'] / seconds / rate:.1%} of the link used, {len(data) / seconds / rate:.1%} of it by the disk's bytes")
    handle.shutdown()
    disk.kill()
    link.end()
    return counts["rounds"], reads


def run(world):
    size = world.size(12, 96) * MIB
    server = world.server(lease_term="1s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)  # nothing that zstd could take off the link
    world.import_image(server, key, source, "disk")
    data = source.read_bytes()
    sequential(world, server, key, data, MBIT, DELAY_MS, "cold")
    # A long link: what counts is how often somebody waits for the other end.
    rounds, reads = sequential(world, server, key, data[:8 * MIB], 1000, 100, "long")
    check(rounds < reads / 2, f"{rounds} round trips one after the other for {reads} sequential reads")
    server.stop()


dims_system.main(run, __doc__)
