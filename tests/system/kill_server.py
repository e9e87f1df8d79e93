#!/usr/bin/python3
"""kill -9 of the server at random moments under load: write-back goes on by itself.

A single writer flushes every few writes and its disk is noted at each flush. After each kill and restart the head that
the server shows is byte-equal to the disk at one of these flushes, never an older one than before, and holds at
least what LDIM had been told is committed. In the end the head is the disk.
"""
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from barriers import BarrierModel  # noqa: E402
from dims_system import check, wait_until  # noqa: E402
from disk_model import check_bytes  # noqa: E402
from sources import MIB  # noqa: E402


class Writer:
    def __init__(self, world, handle, model):
        self.rng, self.handle, self.model, self.size = world.rng, handle, model, len(model.disk)
        self.flushed_at = time.monotonic()

    def one(self):
        rng = self.rng
        count = rng.choice([512, 4096, 4096, 8192, 3000, 65536])
        offset = min(rng.randrange(self.size), self.size - count)
        if rng.random() < 0.5:
            offset = offset // 4096 * 4096
        if rng.random() < 0.1:
            self.handle.zero(count, offset)
            self.model.write(bytes(count), offset)
        else:
            data = rng.randbytes(count)
            self.handle.pwrite(data, offset)
            self.model.write(data, offset)
        # LDIM seals an epoch by itself after 30 s: a slow machine must not get there.
        if rng.random() < 0.12 or time.monotonic() - self.flushed_at > 3:
            self.flush()

    def flush(self):
        # The state counts as a barrier from the moment that the flush is sent.
        self.model.barrier()
        self.handle.flush()
        self.flushed_at = time.monotonic()

    def work(self, seconds):
        """At most about 300 writes a second: the head must be able to follow."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.one()
            time.sleep(0.003)


def export_while_writing(world, server, key, writer, target):
    target.unlink(missing_ok=True)
    process = world.start(world.rdim_command(server, key, "image", "export", "disk", target), world.path("export.log"))
    while process.poll() is None:
        writer.one()
        time.sleep(0.003)
    check(process.returncode == 0, f"the export failed: {world.path('export.log').read_text()[-1000:]}")
    return target.read_bytes()


def committed_version(disk):
    try:
        return disk.status()["version"]["sequence"]
    except (subprocess.TimeoutExpired, dims_system.CommandFailed) as error:
        raise AssertionError(f"ldim status does not answer while the server is away: {error}") from error


def run(world):
    kills = world.times(8, 100)
    size = 16 * MIB
    server = world.server()
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)
    world.import_image(server, key, source, "disk")
    model = BarrierModel(bytearray(source.read_bytes()))
    disk = world.disk(server, key, "disk", "cache", write_back="eager")
    writer = Writer(world, disk.connect(), model)
    newest = 0
    for kill in range(kills):
        writer.work(world.rng.uniform(0.1, 1.5))
        told = committed_version(disk)
        writer.work(world.rng.uniform(0.0, 0.3))
        server.kill()
        writer.work(world.rng.uniform(0.0, 0.6))
        server.start()
        head = world.versions(server, key, "disk")[0]["sequence"]
        check(head >= told, f"kill {kill}: LDIM had been told of version {told}, the server's head is {head}")
        found = model.find(export_while_writing(world, server, key, writer, world.path("head.out")))
        check(found >= newest, f"kill {kill}: the head went back from flush {newest} to {found}")
        newest = found
    writer.flush()
    wait_until(lambda: disk.status()["journal"]["unsent_epochs"] == 0, 240, "everything arrived by itself")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_bytes(world.path("head.out").read_bytes(), bytes(model.disk), 0, "the head at the end")
    status = disk.status()
    check(status["safe_to_switch_off"], "everything is on the server, yet it is not safe to switch off")
    check(status["branch"] == "", f"the session went to a branch: {status['branch']}")
    world.say(f"{kills} kills, {model.count} flushes, {status['write_back']['commits']} commits, "
              f"{status['write_back']['adopted']} adopted; each head was the disk at a flush")
    writer.handle.shutdown()  # nbdkit itself waits for clients that are connected
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
