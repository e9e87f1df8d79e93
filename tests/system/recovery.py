#!/usr/bin/python3
"""Recovery words bring a user back who has forgotten his passphrase, with a restart between the steps: where he was logged in
before, and on a fresh machine with nothing but the words and the server's address and fingerprint; an administrator, too.

His keys stay the same: his image opens on two machines, before and after. Wrong words open nothing; the words stay good;
new keys after a compromise (passwd --compromised) end them, and old images still open. The root key's file and its own words make
an administrator when none is left, whatever became of the first one's keys.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from organisation import Organisation, Person, refused  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    org = Organisation(world)
    ann = org.user("ann")
    machines = [org.machine("laptop"), org.machine("desk")]
    source = sources.random_file(world.path("disk.src"), world.size(4, 64) * MIB, world.rng)
    ann.rdim("image", "import", source, "anns", "--private")
    org.restart()

    def opens_everywhere():
        for machine in machines:
            disk = machine.disk(ann, "anns").start()
            handle = disk.connect()
            check_equal(bytes(handle.pread(MIB, 0)), source.read_bytes()[:MIB], "ann's disk")
            disk.leave(handle)
            disk.stop()
        org.restart()

    opens_everywhere()
    words, new = world.path("words"), world.path("new-passphrase")
    for round_number in range(2):  # the words stay good
        new.write_text(f"recovered {round_number}\n")
        wrong = ann.words.split()
        wrong[3], wrong[4] = wrong[4], wrong[3]
        words.write_text(" ".join(wrong) + "\n")
        refused(ann.rdim, "user", "recover", "ann", "--words", f"+{words}", "--new-passphrase", f"+{new}", code=2)
        words.write_text(ann.words + "\n")
        ann.rdim("user", "recover", "ann", "--words", f"+{words}", "--new-passphrase", f"+{new}")
        org.restart()
        check_says(refused(ann.login), "wrong user name or passphrase")
        ann.set_passphrase(f"recovered {round_number}")
        ann.login()
        opens_everywhere()
    world.say("recovered twice")

    # Nothing is left but the words, and where the server is.
    for person in (ann, org.admin):
        fresh = Person(org, person.name, f"fresh {person.name}", config=f"fresh-{person.name}")
        words.write_text(person.words + "\n")
        wrong = world.path("wrong-words")
        wrong.write_text((org.admin if person is ann else ann).words + "\n")
        recover = ["--server", org.server.pinned(), "user", "recover", person.name, "--new-passphrase", f"+{fresh.secret}"]
        text = refused(fresh.rdim, *recover, "--words", f"+{wrong}")
        check_says(text, "not this user's")
        # A name that nobody has is answered in the same words.
        check_equal(refused(fresh.rdim, *recover[:4], "nobody-there", *recover[5:], "--words", f"+{wrong}"), text, "the refusal of a stranger")
        fresh.rdim(*recover, "--words", f"+{words}")
        org.restart()
        check_says(refused(person.login), "wrong user name or passphrase")  # the old passphrase
        fresh.login()
        person.set_passphrase(fresh.passphrase)
        person.login()
    ann.rdim("image", "export", "anns", world.path("anns-fresh.raw"))
    check_equal(world.path("anns-fresh.raw").read_bytes(), source.read_bytes(), "the disk of who came back with words alone")
    org.admin.rdim("user", "add", "bob")  # an administrator as before
    opens_everywhere()
    words.write_text(ann.words + "\n")
    world.say("recovered on fresh machines, a user and the administrator")

    # What no server has yet when the keys change: in a folder that is not in use, and under a disk that is.
    ann.rdim("image", "import", source, "second", "--private")
    unsent = {"anns": world.rng.randbytes(8192), "second": world.rng.randbytes(8192)}
    idle = machines[0].disk(ann, "anns", write_back="manual").start()
    handle = idle.connect()
    handle.pwrite(unsent["anns"], 65536)
    handle.flush()
    idle.kill()
    in_use = machines[1].disk(ann, "second", write_back="manual").start()
    used = in_use.connect()
    used.pwrite(unsent["second"], 65536)
    used.flush()

    # Somebody may know the passphrase: new keys. The old words and what was sealed with the old keys are of no use then.
    new.write_text("fresh\n")
    renewed = ann.rdim("user", "passwd", "ann", "--compromised", "--passphrase", f"+{ann.secret}", "--new-passphrase", f"+{new}")
    check(renewed["epochs"] >= 1, "no new epochs after a compromise")
    check(renewed["recovery_words"] != ann.words, "the same words again")
    org.restart()
    ann.set_passphrase("fresh")
    ann.login()
    ann.rdim("image", "export", "anns", world.path("anns.raw"))
    check_equal(Path(world.path("anns.raw")).read_bytes(), source.read_bytes(), "what was there before the compromise")
    in_use.ldim("renew", "--passphrase", f"+{ann.secret}")
    in_use.sync()
    idle.start()
    idle.sync()
    for disk, handle, name in ((in_use, used, "second"), (idle, idle.connect(), "anns")):
        check_equal(bytes(handle.pread(8192, 65536)), unsent[name], f"{name}: what was unsent when the keys changed")
        disk.leave(handle)
        disk.stop()
    org.restart()
    for name, data in unsent.items():
        ann.rdim("image", "export", name, world.path(f"{name}-after.raw"))
        whole = bytearray(source.read_bytes())
        whole[65536:65536 + 8192] = data
        check_equal(world.path(f"{name}-after.raw").read_bytes(), bytes(whole), f"{name} after the compromise")
    refused(ann.rdim, "user", "recover", "ann", "--words", f"+{words}", "--new-passphrase", f"+{new}")
    world.say("new keys after a compromise")

    # The first administrator gets new keys, and then loses passphrase and words: a copy of the root key's file from before, and
    # the words that were printed with it, are enough, on a fresh machine.
    copy = world.path("root-key-copy")
    copy.write_bytes(Path(org.root_key).read_bytes())
    copy.chmod(0o600)
    new.write_text("never written down\n")
    org.admin.rdim("user", "passwd", "admin", "--compromised", "--passphrase", f"+{org.admin.secret}", "--new-passphrase", f"+{new}")
    org.restart()
    rescuer = Person(org, "rescuer", "root and branch", config="fresh-rescuer")
    words.write_text(org.admin.words + "\n")
    rescue = ["--server", org.server.pinned(), "org", "rescue", "rescuer", "--root-key", copy, "--passphrase", f"+{rescuer.secret}",
              "--words", f"+{words}"]
    check_says(refused(rescuer.rdim, *rescue), "do not open it", "words of its own")
    words.write_text(org.root_words + "\n")
    bent = world.path("root-key-bent")
    bent.write_bytes(copy.read_bytes()[:-1] + b"x")
    bent.chmod(0o600)
    refused(rescuer.rdim, *rescue[:6], bent, *rescue[7:])
    check_says(refused(rescuer.rdim, *rescue[:4], "ann", *rescue[5:], code=4), "there is a user 'ann'")
    check_equal(rescuer.rdim(*rescue)["role"], "administrator", "the rescuer's role")
    org.restart()
    rescuer.login()
    rescuer.rdim("user", "rm", "admin", "--yes")
    rescuer.rdim("user", "add", "carol")
    ann.login()
    check_says(refused(ann.rdim, "user", "add", "dora"), "may not say this")
    world.say("an administrator by the root key")
    org.server.stop()


dims_system.main(run, __doc__)
