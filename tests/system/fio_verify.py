#!/usr/bin/python3
"""fio with its nbd engine and verify=crc32c: no error, also when all is read again from the server.

Random mixed reads and writes of many sizes in 4 jobs, verified while they run; then random writes, a sync, a wipe
of the cache, and a verifying read of what the server has.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from sources import MIB  # noqa: E402


def fio(world, disk, name, *options):
    """4 jobs, each in a quarter of the disk of its own."""
    share = world.size(24 * MIB, 1024 * MIB)
    text = world.run("fio", f"--name={name}", "--ioengine=nbd", f"--uri={disk.uri}", "--rw=randwrite", "--numjobs=4",
                     f"--size={share}", f"--offset_increment={share}", "--group_reporting", "--iodepth=16",
                     "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", f"--randseed={world.seed % 2 ** 31 + 1}",
                     "--randrepeat=1", "--eta=never", "--allrandrepeat=1", *options, timeout=1800)
    for line in text.splitlines():
        if "err=" in line:
            check("err= 0" in line, f"fio {name} met an error:\n{text}")
    check("err= 0" in text, f"fio {name} did not say that all went well:\n{text}")
    check("verify:" not in text, f"fio {name} found bad data:\n{text}")


def run(world):
    server = world.server()
    key = world.key()
    size = 4 * world.size(24 * MIB, 1024 * MIB)
    world.import_image(server, key, sources.half_compressible_file(world.path("disk.src"), size, world.rng), "disk")
    disk = world.disk(server, key, "disk", "cache")
    fio(world, disk, "mixed", "--rw=randrw", "--bssplit=512/20:4k/40:12k/20:64k/20", "--verify_backlog=64", "--fsync=64")
    world.say("mixed reads and writes of many sizes: verified")
    writes = ("--bs=4k", f"--io_size={size // 8}", "--fsync=256")
    fio(world, disk, "writes", *writes, "--do_verify=0")
    fio(world, disk, "again", *writes, "--verify_only")
    disk.sync()
    disk.stop()
    disk.wipe_cache()
    disk.start()
    before = disk.status()["fetched"]["chunks"]
    fio(world, disk, "from_server", *writes, "--verify_only")
    status = disk.status()
    check(status["fetched"]["chunks"] > before, "nothing was fetched: the data did not come from the server")
    check_equal(status["journal"]["pending_bytes"], 0, "pending bytes")
    world.say(f"after sync and wipe: verified, {status['fetched']['chunks']} chunks came from the server")
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
