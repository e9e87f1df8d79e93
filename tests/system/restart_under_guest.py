#!/usr/bin/python3
"""nbdkit killed under a guest, another machine commits meanwhile, nbdkit restarted: nothing is mixed.

The first machine's disk does not change under its guest; its unsent writes become a branch that `rdim image ls`
shows; the image has what the second machine wrote. Once with the other machine gone, once with it still at work.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 16 * MIB


def scribble(world, handle, model, times):
    """Writes of many sizes, a flush at the end."""
    rng = world.rng
    for _ in range(times):
        count = rng.choice([512, 4096, 5000, 65536])
        offset = rng.randrange(model.size - count)
        if rng.random() < 0.2:
            handle.zero(count, offset)
            model.zero(count, offset)
        else:
            data = rng.randbytes(count)
            handle.pwrite(data, offset)
            model.write(data, offset)
    handle.flush()


def check_head(world, server, key, name, model, what):
    out = world.path("head.out")
    world.export_image(server, key, name, out)
    check_files(out, model.path, what)


def one_story(world, server, key, name, other_stays):
    rounds = world.times(60, 2000)
    source = sources.random_file(world.path(f"{name}.src"), SIZE, world.rng)
    world.import_image(server, key, source, name)
    mine = Model(world.path(f"{name}.mine"), copy_of=source)
    theirs = Model(world.path(f"{name}.theirs"), copy_of=source)

    alpha = world.disk(server, key, name, f"{name}-a", machine="alpha", write_back="manual")
    guest = alpha.connect()
    scribble(world, guest, mine, rounds)
    scribble_unflushed(world, guest, mine)
    alpha.kill()

    # The lease runs out (nobody renews it), so the other machine gets the image.
    beta = world.disk(server, key, name, f"{name}-b", machine="beta")
    other = beta.connect()
    check_disk(other, theirs, f"{name}: the other machine begins with what was committed")
    scribble(world, other, theirs, rounds)
    beta.sync()
    if not other_stays:
        other.shutdown()
        beta.stop()
    check_head(world, server, key, name, theirs, f"{name}: the head after the other machine's sync")

    alpha.parameters["write-back"] = "eager"
    alpha.start()
    guest = alpha.connect()
    check_disk(guest, mine, f"{name}: the guest's disk after the restart")
    scribble(world, guest, mine, rounds)
    check_disk(guest, mine, f"{name}: the guest's disk goes on")
    branch = wait_until(lambda: alpha.status()["branch"], 120, "the unsent writes became a branch")
    alpha.sync()
    check(branch.startswith(f"{name}.conflict-alpha"), f"the branch is called {branch}")
    images = world.images(server, key)
    check(branch in images, f"rdim image ls does not show {branch}: {sorted(images)}")
    check_equal(images[branch]["conflict_of"], name, "what the branch says it is a conflict of")
    check_head(world, server, key, branch, mine, f"{name}: the branch")
    check_head(world, server, key, name, theirs, f"{name}: the image itself")
    check_disk(guest, mine, f"{name}: the guest's disk on its branch")

    # Still the same session after another kill: still the branch.
    alpha.restart(kill=True)
    guest = alpha.connect()
    check_disk(guest, mine, f"{name}: the guest's disk on its branch, after a kill")
    scribble(world, guest, mine, 10)
    alpha.sync()
    check_head(world, server, key, branch, mine, f"{name}: the branch goes on")
    if other_stays:
        check_disk(other, theirs, f"{name}: the other machine's disk")
        scribble(world, other, theirs, 20)
        beta.sync()
        check_head(world, server, key, name, theirs, f"{name}: the other machine goes on")
        other.shutdown()
        beta.stop()

    # A new session is back on the image; the branch is kept.
    alpha.leave(guest)
    alpha.stop()
    alpha.start()
    guest = alpha.connect()
    check_disk(guest, theirs, f"{name}: the next session")
    check_equal(alpha.status()["branch"], "", "the branch of the next session")
    check_head(world, server, key, branch, mine, f"{name}: the branch in the end")
    guest.shutdown()
    alpha.stop()
    conflicts = [i for i in world.images(server, key) if i.startswith(f"{name}.conflict")]
    check_equal(conflicts, [branch], "conflict branches")
    world.say(f"{name}: the guest kept its disk, {branch} and {name} are both right")


def scribble_unflushed(world, handle, model):
    """Acknowledged, never flushed: a killed nbdkit loses nothing that it acknowledged."""
    data = world.rng.randbytes(12345)
    handle.pwrite(data, 77777)
    model.write(data, 77777)


def run(world):
    server = world.server(lease_term="2s")
    key = world.key()
    one_story(world, server, key, "gone", other_stays=False)
    one_story(world, server, key, "there", other_stays=True)
    server.stop()


dims_system.main(run, __doc__)
