#!/usr/bin/python3
"""A member's conflict branch: a machine that lost the image keeps what its user wrote, on a branch that he can read.

The branch stands in nobody's access list: it has that of the image which it comes from.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files, scribble  # noqa: E402
from organisation import Organisation, refused  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    org = Organisation(world)
    ann, bob = org.user("ann"), org.user("bob")
    laptop, desk = org.machine("laptop"), org.machine("desk")
    source = sources.random_file(world.path("source.raw"), 8 * MIB, world.rng)
    ann.rdim("image", "import", source, "anns", "--private")

    model = Model(world.path("head.model"), copy_of=source)
    loser = laptop.disk(ann, "anns", write_back="manual").start()
    guest = loser.connect()
    scribble(world, guest, model)
    winner = desk.disk(ann, "anns", lease="hand-off", hand_off_wait="60s").start()
    other = winner.connect()
    check_disk(other, model, "desk: what laptop handed over")
    lost = Model(world.path("lost.model"), copy_of=model.path)
    scribble(world, guest, lost)
    scribble(world, other, model)
    winner.sync()
    wait_until(lambda: loser.ldim("sync") and loser.status()["branch"], 90, "laptop's writes became a branch")
    loser.sync()
    branch = loser.status()["branch"]
    check_says(branch, "anns.conflict-laptop-")
    wait_until(lambda: winner.status()["conflict_branches"] == [branch], 90, "desk heard of laptop's branch")
    org.restart()
    scribble(world, guest, lost)  # and it goes on there
    loser.sync()
    for name, wanted in ((branch, lost), ("anns", model)):
        out = world.path("out.raw")
        ann.rdim("image", "export", name, out)
        check_files(out, wanted.path, name)
        out.unlink()
    check_equal(sorted(i["name"] for i in ann.rdim("image", "ls")["images"]), ["anns", branch], "ann's images")
    check_equal({i["name"]: i["branches"] for i in ann.rdim("image", "ls")["images"]}, {"anns": [branch], branch: []}, "branches that ann is told of")
    check_equal(bob.rdim("image", "ls")["images"], [], "images that bob is told of")
    refused(bob.rdim, "image", "export", branch, world.path("stolen.raw"))
    for disk, handle in ((loser, guest), (winner, other)):
        disk.leave(handle)
        disk.stop()
    world.say("the branch is complete, and ann's alone")


dims_system.main(run, __doc__)
