#!/usr/bin/python3
"""A machine that roams: its address changes under a running disk, in the middle of an upload.

The plugin lives in a network namespace of its own, behind a slow link. What is asserted is counted, not timed: the connections
were made anew because of the change (`server.rebuilt`), not because a ping had no answer (`server.losses`); what the server had
is not sent again; changes that concern others change nothing. Needs root.
"""
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import Skip, check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_bytes, check_disk, check_files  # noqa: E402
from link import Link  # noqa: E402
from sources import MIB  # noqa: E402

MBIT = 8
DELAY_MS = 20
PIECE = 64 << 10


class Network:
    """A namespace with one link to us. Addresses for benchmarks (198.18.0.0/15), one net a process."""

    def __init__(self):
        self.name = f"dims-{os.getpid()}"
        self.ours = f"dims{os.getpid()}"
        self.net = f"198.{18 + os.getpid() // 256 % 2}.{os.getpid() % 256}"
        self.gateway = f"{self.net}.1"

    def __enter__(self):
        try:
            self.ip("netns", "add", self.name)
            self.ip("link", "add", self.ours, "type", "veth", "peer", "name", "wlan", "netns", self.name)
            self.ip("addr", "add", f"{self.gateway}/24", "dev", self.ours)
            self.ip("link", "set", self.ours, "up")
            self.inside("link", "set", "lo", "up")
            self.inside("link", "set", "wlan", "up")
            self.take(2)
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            raise Skip(f"no network namespace: {getattr(error, 'stderr', '') or error}") from None
        return self

    def __exit__(self, *_):
        subprocess.run(["ip", "link", "del", self.ours], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)

    def ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    def inside(self, *arguments):
        self.ip("-n", self.name, *arguments)

    def take(self, host):
        self.inside("addr", "add", f"{self.net}.{host}/24", "dev", "wlan")

    def leave(self, host):
        self.inside("addr", "del", f"{self.net}.{host}/24", "dev", "wlan")


def write_pieces(world, handle, model, first, count):
    for at in range(first, first + count, PIECE):
        data = world.rng.randbytes(PIECE)
        handle.pwrite(data, at)
        model.write(data, at)
    handle.flush()


def server_of(disk):
    return disk.status()["server"]


def wait_rebuilt(disk, times, what):
    wait_until(lambda: server_of(disk)["rebuilt"] >= times, 60, what)
    check_equal(server_of(disk)["rebuilt"], times, "connections made anew: " + what)


def wait_sent(world, server, key, disk, model, what):
    wait_until(lambda: disk.status()["journal"]["unsent_epochs"] == 0, 240, "everything is sent: " + what)
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), model.path, what)
    check_equal(disk.status()["branch"], "", "branch: " + what)


def moves_in_an_upload(world, network, server, key, link, disk, handle, model):
    size = world.size(8, 64) * MIB
    before = link.ask()["up_bytes"]
    write_pieces(world, handle, model, 0, size)
    sent = lambda: link.ask()["up_bytes"] - before  # noqa: E731
    wait_until(lambda: sent() > size // 2, 240, "half of the upload")
    network.leave(2)
    network.take(3)
    at_cut = sent()
    began = time.monotonic()
    wait_rebuilt(disk, 1, "another address")
    seconds = time.monotonic() - began
    status = server_of(disk)
    check_says(status["rebuilt_because"], f"{network.net}.3", f"{network.net}.2")
    wait_sent(world, server, key, disk, model, "the upload that was cut")
    again = sent() - at_cut
    check(again < size * 7 // 8, f"{at_cut} bytes had left at the cut, {again} after it, for {size} bytes of data: sent again from the beginning")
    check_equal(server_of(disk)["losses"], 0, "losses found by calls")
    world.say(f"moved at {at_cut >> 10} KiB of {size >> 10}: new connections after {seconds:.1f} s, {again >> 10} KiB sent after that")


def others_change(world, network, disk):
    before = server_of(disk)["network_changes"]
    network.inside("addr", "add", "203.0.113.77/32", "dev", "lo")
    wait_until(lambda: server_of(disk)["network_changes"] > before, 60, "the change was seen")
    before = server_of(disk)["network_changes"]
    network.inside("addr", "del", "203.0.113.77/32", "dev", "lo")
    wait_until(lambda: server_of(disk)["network_changes"] > before, 60, "the second change was seen")
    check_equal(server_of(disk)["rebuilt"], 1, "connections made anew because of others' addresses")


def flaps(world, network, server, key, disk, handle, model):
    network.inside("link", "set", "wlan", "down")
    write_pieces(world, handle, model, 10 * MIB, MIB)
    network.inside("link", "set", "wlan", "up")
    wait_rebuilt(disk, 2, "a link that was down")
    wait_sent(world, server, key, disk, model, "written while the link was down")


def away_for_a_while(world, network, server, key, disk, handle, model):
    network.leave(3)
    write_pieces(world, handle, model, 12 * MIB, MIB)
    at = model.size - MIB
    waiting = disk.connect()
    answers = []
    buffer = nbd.Buffer(PIECE)
    waiting.aio_pread(buffer, at, completion=lambda error: answers.append(error.value) or 1)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        waiting.poll(100)
    check_equal(answers, [], "answers to a read of an absent page without a network")
    check_equal(server_of(disk)["rebuilt"], 2, "connections made anew without a network")
    network.take(4)
    wait_rebuilt(disk, 3, "an address after a while without")
    wait_until(lambda: waiting.poll(200) is not None and answers, 120, "the read that waited")
    check_equal(answers, [0], "the read that waited")
    check_bytes(bytes(buffer.to_bytearray()), model.read(PIECE, at), at, "the read that waited")
    wait_sent(world, server, key, disk, model, "written without a network")
    waiting.shutdown()


def run(world):
    if os.geteuid() != 0:
        raise Skip("network namespaces need root")
    with Network() as network:
        server = world.server(lease_term="20s")
        key = world.key()
        source = sources.random_file(world.path("disk.src"), world.size(16, 80) * MIB, world.rng)
        world.import_image(server, key, source, "disk")
        model = Model(world.path("disk.model"), copy_of=source)
        link = Link(world, server, MBIT, DELAY_MS, network.gateway)
        disk = world.disk_stopped(link, key, "disk", "cache", connect_wait="60s", read_ahead="no")
        disk.inside = ["ip", "netns", "exec", network.name]
        disk.start()
        handle = disk.connect()
        check_bytes(handle.pread(PIECE, 0), model.read(PIECE, 0), 0, "before any change")
        moves_in_an_upload(world, network, server, key, link, disk, handle, model)
        others_change(world, network, disk)
        flaps(world, network, server, key, disk, handle, model)
        away_for_a_while(world, network, server, key, disk, handle, model)
        check_disk(handle, model, "the whole disk")
        world.say(f"in the end: {server_of(disk)}; {link.ask()['connections']} connections")
        handle.shutdown()
        disk.stop()
        link.end()
        server.stop()


dims_system.main(run, __doc__)
