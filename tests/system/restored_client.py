#!/usr/bin/python3
"""A machine's disk is restored from an old copy: its journal is behind what the server knows of it.

Noticed at the next start: what the copy holds unsent becomes a branch, the image goes on from the server's head under a new
journal, nothing is replayed as if it were new. A copy that is met only later (it started with the server away) ends on a branch.
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files, scribble  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 8 * MIB


def copy(folder, to):
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.sock"))


def branches(world, server, key):
    return sorted(name for name in world.images(server, key) if "conflict" in name)


def run(world):
    server = world.server(lease_term="1s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    disk = world.disk(server, key, "disk", "cache", write_back="manual", session_grace="1s")
    disk.ldim("prefetch")
    handle = disk.connect()
    scribble(world, handle, model)
    disk.sync()
    scribble(world, handle, model)  # flushed, not sent
    disk.kill()
    copy(disk.cache, world.path("copy"))
    at_copy = Model(world.path("copy.model"), copy_of=model.path)
    copy(disk.cache, world.path("copy-later"))

    disk.start()
    handle = disk.connect()
    for _ in range(3):
        scribble(world, handle, model)
        disk.sync()
    disk.leave(handle)
    disk.stop()

    restored = world.disk(server, key, "disk", "copy", write_back="manual")
    handle = restored.connect()
    check_disk(handle, model, "the restored folder begins on the server's head")
    names = branches(world, server, key)
    check_equal(len(names), 1, "branches of the copy's unsent writes")
    world.export_image(server, key, names[0], world.path("out"))
    check_files(world.path("out"), at_copy.path, "the branch holds what the copy held")
    for _ in range(4):  # as many epochs as the server knows of the old journal
        scribble(world, handle, model)
        restored.sync()
    check_equal(restored.status()["branch"], "", "branch of a session that stands on the head")
    world.export_image(server, key, "disk", world.path("out"))
    check_files(world.path("out"), model.path, "the image goes on under the new journal")
    restored.restart(kill=True)
    handle = restored.connect()
    check_disk(handle, model, "after a kill, under the new journal")
    restored.leave(handle)
    restored.stop()
    world.say(f"restored folder: unsent writes are {names[0]}, the image goes on")

    # The same with the server away at the start: noticed when it is back.
    server.stop()
    late = world.disk(server, key, "disk", "copy-later", connect_wait="1s")
    handle = late.connect()
    check_disk(handle, at_copy, "the copy, offline")
    scribble(world, handle, at_copy)
    server.start()
    wait_until(lambda: late.status()["branch"], 90, "the copy's writes became a branch")
    late.sync()
    check_disk(handle, at_copy, "the guest keeps its disk")
    world.export_image(server, key, late.status()["branch"], world.path("out"))
    check_files(world.path("out"), at_copy.path, "the late copy's branch")
    world.export_image(server, key, "disk", world.path("out"))
    check_files(world.path("out"), model.path, "the image is untouched")
    handle.shutdown()
    late.stop()
    check(len(branches(world, server, key)) == 2, "one branch a copy")
    server.stop()


dims_system.main(run, __doc__)
