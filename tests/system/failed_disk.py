#!/usr/bin/python3
"""The server's disk fails under it (a limit on the size of files: the kernel refuses the write): the server says so and ends,
and the next start has everything that was answered; a machine's writes arrive then.
"""
import resource
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files, scribble  # noqa: E402
from sources import MIB  # noqa: E402


def run(world):
    server = world.server(lease_term="1s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), 8 * MIB, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    disk = world.disk(server, key, "disk", "cache")
    guest = disk.connect()
    scribble(world, guest, model)
    disk.sync()
    server.stop()

    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
    server.start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    since = server.log.stat().st_size
    big = sources.random_file(world.path("big.src"), 48 * MIB, world.rng)
    code, out, err = world.run(*world.rdim_command(server, key, "--server-wait", "0", "image", "import", big, "big"), check_code=None)
    check(code != 0, "an import into a store whose disk fails was a success")
    try:
        code = server.process.wait(60)
    except subprocess.TimeoutExpired:
        raise AssertionError("the server whose disk failed did not end") from None
    text = server.log_text(since)
    world.say(f"ended with {code}: {text.strip().splitlines()[-1] if text.strip() else ''}")
    if code == -signal.SIGABRT:
        check_says(text, "assertion")  # the engine's own; see docs/reliability.md
    else:
        check_equal(code, 1, "exit code of a server whose disk failed")
        check_says(text, "disk failed", "nothing answered is lost")
    scribble(world, guest, model)

    server.start()
    wait_until(lambda: disk.status()["journal"]["unsent_epochs"] == 0, 120, "what was written meanwhile arrived")
    check_disk(guest, model, "the guest")
    world.export_image(server, key, "disk", world.path("out"))
    check_files(world.path("out"), model.path, "the head")
    world.import_image(server, key, big, "big")  # what is there of the first try is found by its content
    world.export_image(server, key, "big", world.path("out"))
    check_files(world.path("out"), big, "what was imported in the end")
    guest.shutdown()
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
