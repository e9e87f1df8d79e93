"""a cold sequential read over a link of 50 Mbit/s with 20 ms a round trip, as share of the link

The link is a proxy of the tests that delays and limits. The disk holds random bytes: nothing that compression could take
off the link. nbdkit's file plugin serves the same bytes over the same link, read with the same requests.
"""
import json
import sys
import time

import nbd
import sources
from dims_system import wait_until

LDIM, FILE, FILE16 = "LDIM", "nbdkit file", "nbdkit file, 16 in flight"
MBIT, DELAY_MS, READ = 50, 10, 65536


class Link:
    """The proxy in front of a port."""

    def __init__(self, bench, port):
        port_file = bench.world.path("link.port")
        port_file.unlink(missing_ok=True)
        script = bench.root / "tests" / "system" / "lib" / "slow_link.py"
        # Its standard input must stay open: its end is the proxy's end.
        import subprocess
        self.process = subprocess.Popen([sys.executable, "-B", str(script), str(port), str(MBIT), str(DELAY_MS), str(port_file)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        bench.world.processes.append(self.process)
        wait_until(port_file.exists, 60, "the slow link is there")
        self.port = int(port_file.read_text())
        self.address = f"127.0.0.1:{self.port}"

    def ask(self, question="counts"):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def read_all(handle, size, depth):
    began = time.monotonic()
    if depth == 1:
        for at in range(0, size, READ):
            handle.pread(min(READ, size - at), at)
    else:
        flying = 0

        def done(_error):
            nonlocal flying
            flying -= 1
            return 1

        for at in range(0, size, READ):
            flying += 1
            handle.aio_pread(nbd.Buffer(min(READ, size - at)), at, completion=done)
            while flying >= depth:
                handle.poll(1000)
        while flying:
            handle.poll(1000)
    return time.monotonic() - began


def free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(bench):
    world = bench.world
    size = (8 if bench.quick else 32) << 20
    bench.say(f"{size >> 20} MiB in reads of {READ >> 10} KiB, one after the other; {bench.runs} rounds")
    source = sources.random_file(world.path("disk.raw"), size, world.rng)
    server, key = world.server(lease_term="1s"), world.key()
    world.import_image(server, key, source, "disk")
    port = free_port()
    bench.start("nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "file", source)
    time.sleep(0.5)

    def turn(peer, number):
        link = Link(bench, server.port if peer == LDIM else port)
        disk = None
        if peer == LDIM:
            disk = world.disk(link, key, "disk", f"cache{number}", mode="readonly", connect_wait="60s")
            handle = disk.connect()
        else:
            handle = nbd.NBD()
            handle.connect_tcp("127.0.0.1", str(link.port))
        link.ask("reset")
        seconds = read_all(handle, size, 16 if peer == FILE16 else 1)
        counts = link.ask()
        rate = MBIT * 1e6 / 8
        bench.add("the disk's bytes, % of the link", peer, 100 * size / seconds / rate)
        bench.add("all bytes, % of the link", peer, 100 * counts["down_bytes"] / seconds / rate)
        bench.add("round trips one after the other", peer, counts["rounds"])
        handle.shutdown()
        if disk:
            disk.kill()
        bench.end(link.process)

    bench.rounds([LDIM, FILE, FILE16], turn)
    bench.table([LDIM, FILE, FILE16], LDIM, "%", digits=1)
    value = bench.median("all bytes, % of the link", LDIM)
    bench.fact("mark: % of the link", {"mark": 95, "value": value, "met": value >= 95})
    bench.say(f"share of the link: {value:.1f} %; mark 95 {'met' if value >= 95 else 'MISSED'}")
