#!/usr/bin/python3
"""A machine comes back after retention has let go of the version that its unsent writes stand on.

While the machine may come back its base stays, also when its session has ended with writes unsent. When an administrator has
forgotten it, the base goes; what the machine brings then is a branch all the same, complete, from its own cache.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files, scribble  # noqa: E402
from sources import MIB  # noqa: E402


def sequence_of_base(disk):
    return disk.status()["version"]["sequence"]


def gone(world, server, key, sequence):
    world.rdim(server, key, "gc", "run")
    return {v["sequence"]: v["gone"] for v in world.versions(server, key, "disk")}[sequence]


def others_commit(world, server, key, model, cache):
    """Another machine takes the image over and makes the base old."""
    beta = world.disk(server, key, "disk", cache, machine="beta", lease="take-over", hand_off_wait="1s")
    other = beta.connect()
    check_disk(other, model, "beta: the head")
    for _ in range(3):
        scribble(world, other, model)
        beta.sync()
    beta.leave(other)
    beta.stop()


def export_equals(world, server, key, name, model, what):
    world.export_image(server, key, name, world.path("out"))
    check_files(world.path("out"), model.path, what)


def branch_of(disk):
    """With write-back=manual only a sync sends: the first makes the branch."""
    disk.sync()
    return disk.status()["branch"]


def forgotten(world, server, key, model):
    alpha = world.disk(server, key, "disk", "cache-a", machine="alpha", write_back="manual")
    guest = alpha.connect()
    scribble(world, guest, model)
    alpha.sync()
    alpha.ldim("prefetch")
    base = sequence_of_base(alpha)
    theirs = Model(world.path("alpha.model"), copy_of=model.path)
    scribble(world, guest, theirs)
    alpha.kill()
    others_commit(world, server, key, model, "cache-b")
    check_equal(gone(world, server, key, base), False, "the base of a machine that may come back is gone")
    world.rdim(server, key, "image", "forget", "disk", "alpha")
    check_equal(gone(world, server, key, base), True, "the base of a machine that was forgotten is gone")
    alpha.start()
    guest = alpha.connect()
    check_disk(guest, theirs, "the forgotten machine's guest, its base gone")
    branch = wait_until(lambda: branch_of(alpha), 90, "its writes became a branch")
    alpha.sync()
    export_equals(world, server, key, branch, theirs, "the branch of the forgotten machine")
    export_equals(world, server, key, "disk", model, "the image")
    scribble(world, guest, theirs)
    alpha.sync()
    check_disk(guest, theirs, "the guest goes on, on its branch")
    check_equal(alpha.status()["branch"], branch, "the branch it goes on on")
    alpha.leave(guest)
    alpha.stop()
    export_equals(world, server, key, branch, theirs, "the branch, after it went on")


def ended_with_unsent_writes(world, server, key, model):
    alpha = world.disk(server, key, "disk", "cache-c", machine="alpha", write_back="manual", read_ahead="no")
    guest = alpha.connect()
    base = sequence_of_base(alpha)
    theirs = Model(world.path("alpha2.model"), copy_of=model.path)
    scribble(world, guest, theirs)
    alpha.leave(guest)  # the session ends; its writes stay here
    check(alpha.status()["journal"]["unsent_epochs"] > 0, "nothing was left unsent")
    alpha.stop()
    others_commit(world, server, key, model, "cache-b")
    check_equal(gone(world, server, key, base), False, "the base of a session that ended with unsent writes is gone")
    before = set(world.images(server, key))
    alpha.start()  # most of the base was never in its cache
    guest = alpha.connect()
    check_disk(guest, model, "the next session begins on the head")
    made = set(world.images(server, key)) - before
    check_equal(len(made), 1, "branches made at the start")
    export_equals(world, server, key, made.pop(), theirs, "the branch of the ended session")
    alpha.leave(guest)
    alpha.stop()
    others_commit(world, server, key, model, "cache-b")
    check_equal(gone(world, server, key, base), False, "the base, which is its branch's origin, is gone")


def run(world):
    server = world.server(lease_term="1s", upload_grace="0s", retention="last=1")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), 8 * MIB, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    forgotten(world, server, key, model)
    world.say("forgotten and back, its base gone: a branch, complete")
    ended_with_unsent_writes(world, server, key, model)
    world.say("ended with unsent writes: the base stayed, a branch, complete")
    server.stop()


dims_system.main(run, __doc__)
