#!/usr/bin/python3
"""A server restored from an older copy, or replaced: noticed, told, and nothing is merged or overwritten.

A session that begins is refused once with a message, and the machine's newer state is on the server as a branch; the next one
starts on the server's head. One that goes on keeps its disk under its guest, and its writes reach a branch, complete, never the
image of the other history. `other-history=accept` starts on what the server has at once.
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files, scribble  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 8 * MIB


def restore(server, copy):
    """The administrator puts an old copy of the store in place."""
    if server.alive:
        server.stop()
    shutil.rmtree(server.data)
    shutil.copytree(copy, server.data)
    server.start()


def error_of(text):
    return [line for line in text.splitlines() if "error:" in line][-1]


def run(world):
    server = world.server(lease_term="1s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    disk = world.disk(server, key, "disk", "cache")
    handle = disk.connect()
    scribble(world, handle, model)
    disk.sync()
    disk.leave(handle)
    disk.stop()
    server.stop()
    server.copy_data_to(world.path("backup"))
    backup = Model(world.path("backup.model"), copy_of=model.path)

    server.start()
    disk.start()
    handle = disk.connect()
    for _ in range(2):
        scribble(world, handle, model)
        disk.sync()
    head = world.versions(server, key, "disk")[0]["sequence"]
    disk.leave(handle)
    disk.stop()

    # A session begins on a server that went back: refused, and what only this machine has is brought to a branch.
    for copy in ("cache-2", "cache-3"):
        shutil.copytree(disk.cache, world.path(copy))
    restore(server, world.path("backup"))
    text = disk.start_fails()
    check_says(text, "disk", "history", f"version {head}", "restored", "disk.conflict-", "rdim image resolve")
    world.say(f"restored server: {error_of(text)}")
    versions = [v["id"] for v in world.versions(server, key, "disk")]
    branches = [name for name in world.images(server, key) if name.startswith("disk.conflict-")]
    check_equal(len(branches), 1, "branches of the machine's state")
    world.export_image(server, key, branches[0], world.path("head.out"))
    check_files(world.path("head.out"), model.path, "the branch holds what the machine had")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), backup.path, "the image is as it was restored")
    disk.start()
    handle = disk.connect()
    check_disk(handle, backup, "the next start: the server's head")
    disk.leave(handle)
    disk.stop()

    # Another machine makes the old history longer than the lost one: still another history.
    other = world.disk(server, key, "disk", "cache-other", machine="other")
    other_handle = other.connect()
    check_disk(other_handle, backup, "the restored image")
    for _ in range(4):
        scribble(world, other_handle, backup)
        other.sync()
    other.leave(other_handle)
    other.stop()
    check(world.versions(server, key, "disk")[0]["sequence"] > head, "the other history is not longer")
    disk = world.disk_stopped(server, key, "disk", "cache-2")
    check_says(disk.start_fails(), "disk", "history", "disk.conflict-")
    check(set(versions) < {v["id"] for v in world.versions(server, key, "disk")}, "a version vanished")

    accepting = world.disk(server, key, "disk", "cache-3", other_history="accept")
    handle = accepting.connect()
    check_disk(handle, backup, "other-history=accept: the server's head")
    scribble(world, handle, backup)
    accepting.sync()
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), backup.path, "the head after accepting")

    # The server goes back under a running guest: its disk stays as it is, the image is not mixed with it.
    handle_model = Model(world.path("guest.model"), copy_of=backup.path)
    before_model = Model(world.path("before.model"), copy_of=backup.path)
    server.stop()
    shutil.rmtree(world.path("backup"))
    server.copy_data_to(world.path("backup"))
    server.start()
    scribble(world, handle, handle_model)
    accepting.sync()
    restore(server, world.path("backup"))
    scribble(world, handle, handle_model)
    check_disk(handle, handle_model, "the guest's disk after the server went back")
    wait_until(lambda: accepting.status()["write_back"]["trouble"] or accepting.status()["branch"], 60,
               "LDIM noticed that the server went back")
    accepting.restart(kill=True)
    handle = accepting.connect()
    check_disk(handle, handle_model, "the guest's disk after the server went back, and a kill")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), before_model.path, "the restored image, with a guest of another history about")
    status = accepting.status()
    world.say(f"under a guest: branch {status['branch']!r}, trouble {status['write_back']['trouble']!r}")
    accepting.sync()
    branch = accepting.status()["branch"]
    check(branch, "the guest's writes are on no branch")
    world.export_image(server, key, branch, world.path("head.out"))
    check_files(world.path("head.out"), handle_model.path, "the branch")
    handle.shutdown()
    accepting.kill()

    # A new server that has an image of the same name, set up with the old one's certificate (with another it would be
    # a stranger: tls.py).
    server.stop()
    shutil.copytree(server.data / "tls", world.path("tls"))
    shutil.rmtree(server.data)
    server.start()
    server.stop()
    shutil.rmtree(server.data / "tls")
    shutil.copytree(world.path("tls"), server.data / "tls")
    server.start()
    check_says(disk.start_fails(), "disk", "no image")
    world.import_image(server, key, source, "disk")
    text = disk.start_fails()
    check_says(text, "another image", "cache")
    world.say(f"another server: {error_of(text)}")
    check_equal([v["sequence"] for v in world.versions(server, key, "disk")], [1], "versions on the new server")
    server.stop()


dims_system.main(run, __doc__)
