#!/usr/bin/python3
"""`rdim check` and `rdim check --repair` on a store that was bent while the server was down: reports and exit codes.

A bent blob file is a damaged object: found, dropped by a repair, incomplete from then on, whole again once somebody puts it.
A bent table is an error that names it, and nothing is removed. What is not hurt is read all the time.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from disk_model import check_files  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 4 * MIB
OK, REPAIRED, DAMAGED = 0, 9, 7


def look(world, server, key, wanted, *options, code):
    """Runs the check; the codes of what it found."""
    got, out, err = world.run(*world.rdim_command(server, key, "check", *options), check_code=None)
    check_equal(got, code, f"exit code of rdim check {options}: {out} {err}")
    report = json.loads(out)
    check_equal({f["code"] for f in report["findings"]}, wanted, "findings")
    for finding in report["findings"]:
        check(finding["hint"] and finding["where"] and finding["what"], f"a finding without words: {finding}")
    return report


def bend(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


def same_image(world, server, key, name, source):
    world.export_image(server, key, name, world.path("out"))
    check_files(world.path("out"), source, name)


def run(world):
    server = world.server(scrub_rate="0", gc_interval="0")
    key = world.key()
    hurt = sources.random_file(world.path("hurt.src"), SIZE, world.rng)
    world.import_image(server, key, hurt, "hurt")
    server.stop()
    blobs = set((server.data / "db").glob("*.blob"))
    server.start()
    sound = sources.random_file(world.path("sound.src"), SIZE, world.rng)
    world.import_image(server, key, sound, "sound")
    report = look(world, server, key, set(), code=OK)
    check_equal(report["images"], 2, "images")

    server.stop()
    blob = max(blobs, key=lambda path: path.stat().st_size)
    bend(blob, blob.stat().st_size // 2)
    server.start()
    report = look(world, server, key, {"damaged-object"}, code=DAMAGED)
    check(not report["repair"] and not report["findings"][0]["repaired"], "a check alone mends nothing")
    damaged = report["findings"][0]["where"]
    report = look(world, server, key, {"damaged-object", "incomplete-tree"}, "--repair", code=DAMAGED)
    check_equal({f["code"]: f["repaired"] for f in report["findings"]}, {"damaged-object": True, "incomplete-tree": False},
                "what was mended")
    report = look(world, server, key, {"incomplete-tree"}, code=DAMAGED)
    check_equal(report["findings"][0]["where"], damaged, "what is missing is what was dropped")
    code, out, _ = world.run(world.bin / "rdim", "--server", server.address, "--key", key, "check", check_code=None)
    check_equal(code, DAMAGED, "exit code of the report for people")
    check_says(out, "error incomplete-tree", damaged)
    same_image(world, server, key, "sound", sound)
    code, out, err = world.run(*world.rdim_command(server, key, "gc", "run"), check_code=None)
    world.say("the image that is hurt is put again")
    world.import_image(server, key, hurt, "again")
    look(world, server, key, set(), code=OK)
    for name, source in (("hurt", hurt), ("again", hurt), ("sound", sound)):
        same_image(world, server, key, name, source)

    # A table that cannot be read is an error with a name, and nothing is taken from what is whole.
    server.stop()
    for table in (server.data / "db").glob("*.sst"):
        bend(table, table.stat().st_size // 3)
    try:
        server.start()
    except dims_system.StartError as error:
        check_says(str(error), "orruption")
        world.say("with bent tables the server does not start")
        return
    code, out, err = world.run(*world.rdim_command(server, key, "check", "--repair"), check_code=None)
    check(code not in (OK, REPAIRED), f"bent tables and a check that is content: {code} {out}")
    check_says(out + err, "orruption")
    world.say("with bent tables the check ends with an error")


if __name__ == "__main__":
    dims_system.main(run, __doc__)
