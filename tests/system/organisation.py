#!/usr/bin/python3
"""An organisation from the beginning: server, administrator, users, machines, images, with a restart between the steps.

Rights, passphrase change, removal of a member with new keys, revocation of a machine, a wipe that
spares unsent writes, login without the server.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from disk_model import Model, check_disk  # noqa: E402
from organisation import Machine, Organisation, Person, refused  # noqa: E402
from sources import MIB  # noqa: E402


def write(world, disk, model, times=8):
    handle = disk.connect()
    check_disk(handle, model, "before the writes")
    for _ in range(times):
        data = world.rng.randbytes(world.rng.choice([512, 4096, 20000]))
        offset = world.rng.randrange(model.size - len(data)) & ~511
        handle.pwrite(data, offset)
        model.write(data, offset)
    handle.flush()
    return handle


def set_up(world):
    org = Organisation(world)
    text = refused(org.admin.rdim, "--server", org.server.address, "init-org", "--name", "again", "--bootstrap",
                   org.server.data / "bootstrap-secret", "--passphrase", f"+{org.admin.secret}", code=4)
    check_says(text, "already")
    org.restart()
    ann, bob = org.user("ann"), org.user("bob")
    org.restart()
    laptop, desk = org.machine("laptop"), org.machine("desk")
    org.restart()
    users = {u["name"]: u["role"] for u in org.admin.rdim("user", "ls")["users"]}
    check_equal(users, {"admin": "administrator", "ann": "user", "bob": "user"}, "users")
    check_equal(sorted(m["name"] for m in org.admin.rdim("machine", "ls")["machines"]), ["desk", "laptop"], "machines")
    world.say("server, administrator, two users, two machines")
    return org, ann, bob, laptop, desk


def join_lines(world, org):
    """Open ones are listed, cancelled ones good for nothing; a line comes from a file or a descriptor as a passphrase does."""
    admin = org.admin
    keeper = org.user("keeper", role="operator")
    lines = {name: admin.rdim("user", "add", name)["join_line"] for name in ("carol", "dave", "erin")}
    machine = admin.rdim("machine", "token", "kiosk")["join_line"]
    anything = keeper.rdim("machine", "token", "--lasts", "1h")["join_line"]
    org.restart()
    listed = admin.rdim("org", "joins")["joins"]
    check_equal(sorted((j["for"], j["name"] or "", j["role"] or "", j["by"], j["expired"]) for j in listed),
                [("machine", "", "", "keeper", False), ("machine", "kiosk", "", "admin", False)] +
                [("user", name, "user", "admin", False) for name in ("carol", "dave", "erin")], "open join lines")
    check_says(refused(admin.rdim, "org", "joins", "--cancel", "nobody-there", code=3), "no open join line")
    check_says(refused(keeper.rdim, "org", "joins", "--cancel", "carol"), "machines only")
    admin.rdim("org", "joins", "--cancel", "carol")
    keeper.rdim("org", "joins", "--cancel", "kiosk")
    key = next(j["key"] for j in listed if j["by"] == "keeper")
    refused(keeper.rdim, "org", "joins", "--cancel", key[:7], code=3)  # too short to mean one
    check_equal(keeper.rdim("org", "joins", "--cancel", key[:12])["cancelled"], [key], "what was cancelled")
    org.restart()
    carol = Person(org, "carol", "correct horse of carol")
    check_says(refused(carol.join, lines["carol"]), "used or cancelled")
    for number, line in enumerate((machine, anything)):
        check_says(Machine(org, f"cancelled{number}").ldim("enroll", line, check_code=4), "used or cancelled")

    paper = world.path("join-line")
    paper.write_text(lines["dave"] + "\n")
    dave, erin = Person(org, "dave", "correct horse of dave"), Person(org, "erin", "correct horse of erin")
    paper.chmod(0o644)
    check_says(refused(dave.join, f"+{paper}", code=None), "can be read by others", "chmod 600")
    paper.chmod(0o600)
    dave.join(f"+{paper}")
    paper.write_text(lines["erin"] + "\n")
    world.run("sh", "-c", 'exec "$0" join -3 --passphrase "$1" 3<"$2"', world.bin / "rdim", f"+{erin.secret}", paper,
              env=erin.environment())
    erin.login()
    check_equal(admin.rdim("org", "joins")["joins"], [], "open join lines at the end")
    check_says(refused(dave.join, lines["erin"]), "used or cancelled")
    world.say("join lines listed, cancelled, read from files")


def run(world):
    size = world.size(8, 256) * MIB
    org, ann, bob, laptop, desk = set_up(world)

    join_lines(world, org)
    source = sources.random_file(world.path("master.src"), size, world.rng)
    org.admin.rdim("image", "import", source, "master")
    ann.rdim("image", "import", source, "anns", "--private")
    org.restart()
    # Nobody sees what he was not given; everybody the master, once he was.
    check_equal([i["name"] for i in bob.rdim("image", "ls")["images"]], [], "bob's images")
    refused(bob.rdim, "image", "export", "anns", world.path("stolen.raw"))
    refused(bob.rdim, "image", "export", "no-such-image", world.path("stolen.raw"))
    org.admin.rdim("image", "grant", "master", "everyone", "read")
    org.restart()
    bob.rdim("image", "export", "master", world.path("master.raw"))
    check_equal(Path(world.path("master.raw")).read_bytes(), source.read_bytes(), "the exported master")
    refused(bob.rdim, "image", "import", source, "master", "--update")
    check("login" in {e["what"] for e in org.admin.rdim("audit")["entries"]}, "no login in the audit log")
    world.say("rights hold")

    # A disk on two machines.
    model = Model(world.path("anns.model"), copy_of=source)
    for machine in (laptop, desk, laptop):
        check_equal([i["name"] for i in machine.images(ann)["images"]], ["anns", "master"], "ann's images")
        disk = machine.disk(ann, "anns").start()
        handle = write(world, disk, model)
        disk.sync()
        disk.leave(handle)
        disk.stop()
        org.restart()
    world.say("ann's disk went to three sessions on two machines")

    # The passphrase changes: the old one is refused, the new one opens the same disk.
    new = world.path("new-passphrase")
    new.write_text("battery staple of ann\n")
    ann.rdim("user", "passwd", "ann", "--passphrase", f"+{ann.secret}", "--new-passphrase", f"+{new}")
    org.restart()
    check_says(laptop.disk(ann, "anns").start_fails(), "wrong user name or passphrase")
    ann.set_passphrase("battery staple of ann")
    ann.login()
    disk = laptop.disk(ann, "anns").start()
    check_disk(disk.connect(), model, "after the passphrase's change")
    disk.stop()
    world.say("passphrase changed")

    changed = ann.passphrase
    org.restart()

    # The server goes away: what is cached works, wrong passphrases wait.
    disk = laptop.disk(ann, "anns").start()
    disk.ldim("prefetch")
    disk.leave()
    disk.stop()
    org.server.stop()
    disk = laptop.disk(ann, "anns", connect_wait="1s").start()
    handle = write(world, disk, model)
    disk.leave(handle)
    disk.stop()
    ann.set_passphrase("wrong")
    check_says(laptop.disk(ann, "anns", connect_wait="1s").start_fails(), "wrong user name or passphrase")
    # The delay doubles with each wrong one: sooner or later it is longer than a start takes.
    for _ in range(12):
        text = laptop.disk(ann, "anns", connect_wait="1s").start_fails()
        if "wait" in text:
            break
    check_says(text, "wait")
    ann.set_passphrase(changed)
    check_says(laptop.disk(bob, "master", connect_wait="1s").start_fails(), "passphrase")
    org.server.start()
    disk = laptop.disk(ann, "anns").start()
    disk.sync()
    disk.leave()
    disk.stop()
    ann.rdim("image", "export", "anns", world.path("anns.raw"))
    check_equal(Path(world.path("anns.raw")).read_bytes(), Path(model.path).read_bytes(), "what was written offline")
    world.say("offline login")

    # A member is removed: new keys for what comes; who stays works on.
    ann.rdim("image", "grant", "anns", "bob", "read")
    bob.login()
    bob.rdim("image", "export", "anns", world.path("bobs.raw"))
    report = ann.rdim("image", "revoke", "anns", "bob")
    check(report["epochs"] >= 1, "no new key epoch after the revocation")
    org.restart()
    refused(bob.rdim, "image", "export", "anns", world.path("bobs2.raw"))
    report = org.admin.rdim("user", "rm", "bob", "--yes")
    check(report["epochs"] >= 1, "no new key epoch after the removal")
    org.restart()
    refused(bob.login)
    disk = desk.disk(ann, "anns").start()
    handle = write(world, disk, model)
    disk.sync()
    disk.leave(handle)
    disk.stop()
    check_equal([r["seq"] for r in org.admin.rdim("org", "log")["records"]],
                list(range(len(org.admin.rdim("org", "log")["records"]))), "the log's numbers")
    world.say("removal and new epochs")

    # A wipe spares what no server has; then the machine is revoked.
    disk = laptop.disk(ann, "anns", write_back="manual").start()
    handle = write(world, disk, model)
    disk.leave(handle)
    disk.kill()
    org.admin.rdim("machine", "wipe", "laptop")
    org.restart()
    check_says(laptop.disk(ann, "anns").start_fails(), "erase")
    folder = world.path(laptop.cache(ann, "anns"))
    check(not (folder / "cache").exists(), "the cache is still there after the wipe")
    check((folder / "journal").exists() or any(folder.glob("journal*")), "unsent writes are gone")
    disk = laptop.disk(ann, "anns").start()
    disk.sync()
    handle = disk.connect()
    check_disk(handle, model, "unsent writes after the wipe")
    disk.leave(handle)
    disk.stop()
    org.admin.rdim("machine", "revoke", "laptop")
    org.restart()
    check_says(laptop.disk(ann, "anns").start_fails(), "refuses this machine")
    disk = desk.disk(ann, "anns").start()
    check_disk(disk.connect(), model, "on the machine that is left")
    disk.stop()
    org.server.stop()


dims_system.main(run, __doc__)
