#!/usr/bin/python3
"""Two machines, one after the other, on one image: the second sees exactly what the first flushed and synced.

It fetches only chunks that changed or that its cache lacks (asserted on counters). While one has the image, the
other is refused with a message that names the holder.
"""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from disk_model import Model, check_disk, copy_sparse  # noqa: E402
from sources import MIB  # noqa: E402


def write_runs(world, handle, model, times):
    for _ in range(times):
        count = world.rng.choice([4096, 8192, 700, 40000])
        offset = world.rng.randrange(model.size - count)
        data = world.rng.randbytes(count)
        handle.pwrite(data, offset)
        model.write(data, offset)
    handle.flush()


def run(world):
    size = world.size(48, 2048) * MIB
    changes = world.size(25, 300)
    server = world.server(lease_term="3s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)
    report = world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)

    second = world.disk(server, key, "disk", "cache-b", machine="beta", write_back="manual")
    second.ldim("prefetch")
    handle = second.connect()
    check_disk(handle, model, "the second machine's first look")
    second.leave(handle)
    whole = second.status()["fetched"]
    check(whole["chunks"] <= report["chunks"], f"{whole['chunks']} chunks fetched, the image has {report['chunks']}")
    second.stop()

    for round_number in range(3):
        first = world.disk(server, key, "disk", "cache-a", machine="alpha", write_back="manual")
        handle = first.connect()
        check_disk(handle, model, "the first machine")
        write_runs(world, handle, model, changes)
        first.sync()
        synced = world.path("disk.synced")
        copy_sparse(model.path, synced)
        sent = first.status()["write_back"]
        # Not synced, and never to be seen by the second: the machine dies with it.
        last = round_number == 2
        if last:
            write_runs(world, handle, model, 5)
            first.kill()
        else:
            # The second is refused while the first is at work.
            text = second.start_fails()
            check_says(text, "in use", "alpha")
            if round_number == 0:  # the session ends with its client, too, once nbdkit has seen it leave
                handle.shutdown()
                time.sleep(2)
            else:
                first.leave(handle)
            first.stop()

        second.start()
        seen = Model(synced)
        handle = second.connect()
        check_disk(handle, seen, f"round {round_number}: the second machine")
        fetched = second.status()["fetched"]
        check(fetched["chunks"] <= sent["chunks"],
              f"round {round_number}: {fetched['chunks']} chunks fetched, only {sent['chunks']} were changed")
        check(fetched["chunks"] > 0, f"round {round_number}: nothing was fetched")
        check(fetched["bytes"] < whole["bytes"] // 2, f"round {round_number}: {fetched['bytes']} bytes fetched of {whole['bytes']}")
        world.say(f"round {round_number}: the first sent {sent['chunks_sent']} of {sent['chunks']} chunks, "
                  f"the second fetched {fetched['chunks']} chunks and {fetched['nodes']} nodes, {fetched['bytes']} bytes")

        # And back: the first sees what the second wrote, and fetches only that.
        if not last:
            write_runs(world, handle, seen, changes)
            second.sync()
            second.leave(handle)
            back = second.status()["write_back"]
            second.stop()
            copy_sparse(seen.path, model.path + ".new")
            Path(model.path + ".new").replace(model.path)
            model = Model(model.path)
            first.start()
            handle = first.connect()
            check_disk(handle, model, f"round {round_number}: back on the first machine")
            fetched = first.status()["fetched"]
            check(fetched["chunks"] <= back["chunks"],
                  f"round {round_number}: back, {fetched['chunks']} chunks fetched, only {back['chunks']} were changed")
            first.leave(handle)
            first.stop()
        else:
            # What died unsent on the first machine stays there; it is on no head.
            second.leave(handle)
            second.stop()
            first.start()
            handle = first.connect()
            check_disk(handle, model, "the first machine still has its unsent writes")
            check(first.status()["journal"]["unsent_epochs"] > 0, "no unsent epochs on the first machine")
            handle.shutdown()
            first.sync()  # the second committed nothing: they go to the image itself
            check_equal(first.status()["branch"], "", "branch although nobody else wrote")
            first.stop()
    server.stop()


dims_system.main(run, __doc__)
