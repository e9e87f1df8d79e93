#!/usr/bin/python3
"""Escrow: off, an administrator can give himself the right to a private image and still not read it; on, he can, its owner is
told so at each login, and it stands in the log. Images from before, new ones, and new keys; a restart between the steps.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from organisation import Organisation, refused  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    org = Organisation(world)
    ann = org.user("ann")
    laptop = org.machine("laptop")
    source = sources.random_file(world.path("disk.src"), 2 * MIB, world.rng)
    ann.rdim("image", "import", source, "before", "--private")
    check_equal(ann.login()["escrow"], False, "escrow at first")
    org.restart()

    def opens(name):
        out = world.path(f"{name}.raw")
        out.unlink(missing_ok=True)
        org.admin.rdim("image", "export", name, out)
        check_equal(out.read_bytes(), source.read_bytes(), f"{name} as the administrator reads it")

    # Without it the right is there, and the key is not.
    refused(org.admin.rdim, "image", "export", "before", world.path("stolen.raw"))
    org.admin.rdim("image", "grant", "before", "admin", "read")
    check_says(refused(org.admin.rdim, "image", "export", "before", world.path("stolen.raw")), "granted")
    world.say("no escrow: no key")

    org.admin.rdim("org", "policy", "--escrow", "yes")
    org.restart()
    ann.rdim("image", "revoke", "before", "admin")
    ann.rdim("image", "import", source, "after", "--private")
    check_equal(ann.login()["escrow"], True, "escrow is not shown at login")
    check_equal(laptop.images(ann)["escrow"], True, "escrow is not shown on the machine")
    org.restart()
    for name in ("before", "after"):
        refused(org.admin.rdim, "image", "export", name, world.path("stolen.raw"))  # not without the right
        org.admin.rdim("image", "grant", name, "admin", "read")
        opens(name)
        ann.rdim("image", "rotate", name)
        org.restart()
        opens(name)
    said = [r for r in ann.rdim("org", "log")["records"] if r["what"] == "image-acl" and r["by"] == "admin"]
    check(len(said) >= 3, "that the administrator looked does not stand in the log")
    org.server.stop()


dims_system.main(run, __doc__)
