#!/usr/bin/python3
"""cache=none: every read is fetched, every flush is a commit; nothing is kept on the machine.

After each flush the head on the server is the disk; after SIGKILL what was flushed is there.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from disk_model import Model, check_bytes, check_disk, check_files, copy_sparse  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    size = world.size(24, 512) * MIB + 12345
    server = world.server(lease_term="2s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    disk = world.disk(server, key, "disk", None)
    before = set(world.folder.iterdir())
    handle = disk.connect()
    check_disk(handle, model, "diskless, before any write")
    head = 1
    for round_number in range(world.times(8, 60)):
        for _ in range(world.rng.randrange(1, 40)):
            count = world.rng.choice([1, 512, 4096, 30000, 65536])
            offset = world.rng.randrange(size - count)
            kind = world.rng.random()
            if kind < 0.3:
                check_bytes(handle.pread(count, offset), model.read(count, offset), offset, "read")
            elif kind < 0.4:
                handle.zero(count, offset)
                model.zero(count, offset)
            else:
                data = world.rng.randbytes(count)
                handle.pwrite(data, offset)
                model.write(data, offset)
        if round_number % 3 == 2:
            data = world.rng.randbytes(4096)
            handle.pwrite(data, 8192, nbd.CMD_FLAG_FUA)  # durable on return is on the server on return
            model.write(data, 8192)
        else:
            data = world.rng.randbytes(512)
            handle.pwrite(data, 4096)
            model.write(data, 4096)
            handle.flush()
        versions = world.versions(server, key, "disk")
        check(versions[0]["sequence"] > head, f"no new version after flush {round_number}")
        head = versions[0]["sequence"]
        world.export_image(server, key, "disk", world.path("head.out"))
        check_files(world.path("head.out"), model.path, f"the head after flush {round_number}")
    check_disk(handle, model, "diskless, after the writes")
    after = set(world.folder.iterdir()) - {world.path("head.out")}
    check_equal(after - before, set(), "files that a diskless machine made")

    # What was not flushed may be lost, what was flushed not.
    flushed = world.path("flushed")
    copy_sparse(model.path, flushed)
    handle.pwrite(b"never flushed", 4096)
    disk.kill()
    disk.start()  # waits until the dead one's lease has run out
    handle = disk.connect()
    check_disk(handle, Model(flushed), "diskless, after SIGKILL")
    handle.pwrite(b"left at the end", 10000)
    flushed = Model(flushed)
    flushed.write(b"left at the end", 10000)
    handle.shutdown()
    disk.stop()  # an orderly end sends what is there
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), flushed.path, "the head after an orderly end")
    server.stop()


dims_system.main(run, __doc__)
