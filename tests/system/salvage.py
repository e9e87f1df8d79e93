#!/usr/bin/python3
"""A journal with damage in its middle: refused, salvaged on request; what can be proven is a branch, and the rest is named.

The branch is byte-equal to the disk at one of its flushes, the newest in front of the damage; the image is untouched; the
damaged journal is kept; nothing happens without the server; a whole journal is not salvaged, also when it is what a salvage has left; an interrupted salvage goes on.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from barriers import BarrierModel  # noqa: E402
from disk_model import Model, check_bytes, check_disk  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 16 * MIB
RECORDS_START = 8192  # of a journal file; before it stand its header and slots


def write_epochs(world, handle, model, epochs):
    """Gives the bytes written, with whole pages only: the journal's length follows from them."""
    for _ in range(epochs):
        for _ in range(6):
            count = 4096 * world.rng.randrange(1, 5)
            offset = 4096 * world.rng.randrange((SIZE - count) // 4096)
            data = world.rng.randbytes(count)
            handle.pwrite(data, offset)
            model.write(data, offset)
        handle.flush()
        model.barrier()


def damage_middle(cache):
    """Flips bits in the middle of what the newest used journal file holds."""
    path = max((p for p in (cache / "journal").glob("*.jnl") if used_bytes(p) > 2 * RECORDS_START), key=lambda p: p.name)
    at = RECORDS_START + (used_bytes(path) - RECORDS_START) // 2
    with open(path, "r+b") as file:
        file.seek(at)
        data = file.read(64)
        file.seek(at)
        file.write(bytes(b ^ 0x55 for b in data))


def used_bytes(path):
    return len(path.read_bytes().rstrip(b"\0"))


def salvage(disk, key, check_code=0):
    return disk.world.run(*disk.ldim_command("-o", "json", "salvage", "--key", key), check_code=check_code)


def run(world):
    server = world.server()
    key = world.key()
    source = sources.random_file(world.path("disk.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    head = Model(world.path("head.model"), copy_of=source)
    model = BarrierModel(bytearray(source.read_bytes()))
    disk = world.disk(server, key, "disk", "cache", machine="alpha", write_back="manual")
    guest = disk.connect()
    write_epochs(world, guest, model, world.size(12, 200))
    disk.kill()
    code, out, err = salvage(disk, key, check_code=None)
    check(code != 0, "a whole journal was salvaged")
    check_says(out + err, "whole", "nothing to salvage")

    damage_middle(disk.cache)
    check_says(disk.start_fails(), "damaged", "salvage")
    code, out, err = world.run(*disk.ldim_command("check", "--key", key), check_code=None)
    check(code != 0, "ldim check found nothing")
    report = dims_system.json.loads(salvage(disk, key))
    check(report["writes"] > 0 and report["lost_writes"] > 0, f"what was salvaged and what was lost: {report}")
    kept = Path(report["kept"])
    check(kept.is_dir() and list(kept.glob("*.jnl")), f"the damaged journal is not kept as {kept}")

    # As if the salvage had been interrupted between its two renames.
    (disk.cache / "journal").rename(disk.cache / "journal.salvaged")
    check_says(disk.start_fails(), "interrupted", "ldim salvage")
    salvage(disk, key)
    code, out, err = salvage(disk, key, check_code=None)
    check(code != 0, "what was salvaged was salvaged again")
    check_says(out + err, "whole", "already")

    server.stop()
    check_says(disk.start_fails(), "salvaged", "server")
    server.start()
    disk.start()
    guest = disk.connect()
    check_disk(guest, head, "the next session's disk")
    check_equal(disk.status()["branch"], "", "the next session's branch")
    branches = [name for name in world.images(server, key) if name.startswith("disk.conflict-alpha")]
    check_equal(len(branches), 1, "branches")
    target = world.path("branch.out")
    world.export_image(server, key, branches[0], target)
    found = model.find(target.read_bytes())
    check_equal(found, report["epochs"], "the flush at which the branch is the disk")
    check(0 < found < model.count, f"the branch is flush {found} of {model.count}")
    world.export_image(server, key, "disk", target)
    check_bytes(target.read_bytes(), head.read(SIZE, 0), 0, "the image")
    world.say(f"flush {found} of {model.count} is {branches[0]}; {report['lost_writes']} records behind the damage were named as lost")

    # And the disk works on.
    data = world.rng.randbytes(8192)
    guest.pwrite(data, 0)
    head.write(data, 0)
    guest.flush()
    disk.sync()
    world.export_image(server, key, "disk", target)
    check_bytes(target.read_bytes(), head.read(SIZE, 0), 0, "the image after the next session's write")
    disk.leave(guest)
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
