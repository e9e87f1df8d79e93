#!/usr/bin/python3
"""The server is killed and started again under an import and under an export: both wait for it, go on with what has
arrived, and end as if nothing had happened. With --server-wait 0 they end at once, and the same command goes on later.
"""
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import check_files  # noqa: E402
from sources import MIB  # noqa: E402

RESTARTS = 2


def begin(world, command):
    return subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(server):
    return sum(f.stat().st_size for f in Path(server.data).rglob("*") if f.is_file())


def written(target):
    """Of a target that is being made under another name beside its own."""
    return max((f.stat().st_blocks * 512 for f in target.parent.glob(target.name + "*")), default=0)


def restart_under(world, server, work, moved):
    """Kills and starts the server while `work` goes on; how often it came to that."""
    count = 0
    for number in range(1, RESTARTS + 1):
        deadline = time.monotonic() + 60
        while work.poll() is None and moved() < number and time.monotonic() < deadline:
            time.sleep(0.01)
        if work.poll() is not None:
            break
        server.kill()
        time.sleep(world.rng.random())
        server.start()
        count += 1
    return count


def run(world):
    size = (512 if world.large else 48) * MIB
    server = world.server(lease_term="3s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), size, world.rng)

    step = size // (RESTARTS + 2)
    work = begin(world, world.rdim_command(server, key, "image", "import", source, "disk"))
    kills = restart_under(world, server, work, lambda: stored(server) // step)
    out, err = work.communicate(timeout=600)
    check_equal(work.returncode, 0, f"exit code of an import whose server was killed {kills} times: {out} {err}")
    check(kills > 0, "the import was over before the server was killed")
    check_says(err, "waiting up to 120 s for the server", "the server answers again")
    check_equal(len(world.rdim(server, key, "version", "ls", "disk")["versions"]), 1, "versions of the image")

    target = world.path("disk.out")
    work = begin(world, world.rdim_command(server, key, "image", "export", "disk", target))
    exported = restart_under(world, server, work, lambda: written(target) // step)
    out, err = work.communicate(timeout=600)
    check_equal(work.returncode, 0, f"exit code of an export whose server was killed {exported} times: {out} {err}")
    check_files(target, source, "the export")

    # Nobody waits: an error that says what to do, and the same command goes on.
    other = sources.random_file(world.path("other.src"), size, world.rng)
    before = stored(server)
    command = world.rdim_command(server, key, "--server-wait", "0", "image", "import", other, "other")
    work = begin(world, command)
    wait_until(lambda: stored(server) > before + step or work.poll() is not None, 60, "the second import is at work")
    ended = work.poll() is not None
    server.kill()
    out, err = work.communicate(timeout=60)
    check(ended or work.returncode != 0, "an import without patience survived the server")
    server.start()
    if not ended:
        report = world.rdim(server, key, "image", "import", other, "other")
        check(report["resumed"] and report["present_objects"] > 0, f"the same command began anew: {report}")
    world.export_image(server, key, "other", world.path("other.out"))
    check_files(world.path("other.out"), other, "what was imported in the end")
    world.say(f"{size >> 20} MiB: the server killed {kills} times under the import, {exported} times under the export")
    server.stop()


dims_system.main(run, __doc__)
