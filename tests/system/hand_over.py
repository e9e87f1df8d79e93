#!/usr/bin/python3
"""Two machines want one image: polite hand-off, take-over, the loser's branch, and the end of the conflict.

The one who asks with lease=hand-off gets all that the holder had flushed, and is told how much is left while it waits; the
holder's guest goes on, and what it writes afterwards is a branch, complete, as soon as the other one has committed. Both sides
hear of it. lease=take-over wins against a holder that does not answer. 'rdim image resolve' keeps one side and puts the other
into the history.
"""
import re
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files, scribble  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 8 * MIB


def export_equals(world, server, key, name, model, what):
    world.export_image(server, key, name, world.path("out"))
    check_files(world.path("out"), model.path, what)


def plain(world, disk):
    return world.run(*disk.ldim_command("status"))


def table(world, server):
    """What 'rdim image ls' prints: the rows by name, each a list of cells."""
    lines = world.run(world.bin / "rdim", "--server", server.address, "image", "ls").splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines]
    return {row[0]: dict(zip(rows[0], row)) for row in rows[1:]}


def announced(world, server, key, loser, winner, branch):
    """Both sides are told of the branch, the winner by the server."""
    wait_until(lambda: winner.status()["conflict_branches"] == [branch], 60, "the winner heard of the loser's branch")
    check_says(plain(world, winner), f"conflict branch     {branch}: writes that are not in the image", "rdim image resolve")
    check_says(plain(world, loser), f"conflict branch     {branch}: another machine has written")
    check_equal(winner.status()["branch"], "", "the branch that the winner goes on")
    check_equal(loser.status()["conflict_branches"], [], "branches of the loser's branch")
    warnings = [line for line in winner.log_text().splitlines() if f"has a conflict branch, {branch}" in line]
    check_equal(len(warnings), 1, "warnings in the winner's log")
    check_says(warnings[0], "--keep disk'", f"--keep {branch}'")
    check_equal(world.images(server, key)["disk"]["branches"], [branch], "branches in the image's JSON")
    rows = table(world, server)
    check_equal(rows["disk"]["CONFLICT BRANCHES"], branch, "the image's row of 'rdim image ls'")
    check_equal(rows[branch]["CONFLICT OF"], "disk", "the branch's row of 'rdim image ls'")
    check_says(world.run(world.bin / "rdim", "--server", server.address, "image", "info", "--fast", "disk"), "conflict branch", branch)


def polite(world, server, key, model):
    alpha = world.disk(server, key, "disk", "cache-a", machine="alpha", write_back="manual")
    guest = alpha.connect()
    scribble(world, guest, model)
    text = world.disk_stopped(server, key, "disk", "cache-refused", machine="gamma").start_fails()
    check_says(text, "in use", "alpha", "lease=hand-off")
    # alpha sends only when asked, so what beta sees was handed over.
    beta = world.disk(server, key, "disk", "cache-b", machine="beta", lease="hand-off", hand_off_wait="60s")
    other = beta.connect()
    check_disk(other, model, "beta: what alpha had flushed")
    check(not alpha.status()["lease"]["held"], "alpha still holds the lease that it gave away")
    theirs = Model(world.path("alpha.model"), copy_of=model.path)
    scribble(world, guest, theirs)  # alpha's guest goes on
    scribble(world, other, model)
    beta.sync()
    check_disk(guest, theirs, "alpha's guest keeps its disk")
    wait_until(lambda: alpha.ldim("sync") and alpha.status()["branch"], 90, "alpha's writes became a branch")
    alpha.sync()
    branch = alpha.status()["branch"]
    check_says(branch, "disk.conflict-alpha-")
    export_equals(world, server, key, branch, theirs, "alpha's branch")
    export_equals(world, server, key, "disk", model, "the head is beta's")
    check_equal(world.images(server, key)[branch]["conflict_of"], "disk", "what the branch says it is of")
    announced(world, server, key, alpha, beta, branch)
    return alpha, guest, beta, other, theirs, branch


def resolve(world, server, key, model, sides, branch):
    alpha, guest, beta, other, theirs = sides
    command = world.rdim_command(server, key, "image", "resolve", "disk", "--keep", branch)
    code, out, err = world.run(*command, check_code=None)
    check(code != 0, "resolved although machines are at work")
    check_says(out + err, "in use")
    alpha.leave(guest)
    alpha.stop()
    beta.leave(other)
    beta.stop()
    code, out, err = world.run(*world.rdim_command(server, key, "image", "resolve", "disk", "--keep", "nothing"), check_code=None)
    check(code != 0, "kept a side that is none")
    check_says(out + err, "nothing", "conflict branch")
    report = world.rdim(server, key, "image", "resolve", "disk", "--keep", branch)
    export_equals(world, server, key, "disk", theirs, "resolved: the branch was kept")
    aside = report["put_aside"][0]["sequence"]
    export_equals(world, server, key, f"disk@{aside}", model, "resolved: the other side is in the history")
    images = world.images(server, key)
    check_equal([n for n in images if "conflict" in n], [], "branches left")
    check_equal(images["disk"]["branches"], [], "branches in the image's JSON when all is resolved")
    check_equal(table(world, server)["disk"]["CONFLICT BRANCHES"], "-", "the image's row when all is resolved")
    code, out, err = world.run(*command, check_code=None)
    check(code != 0, "resolved twice")
    check_says(out + err, "no conflict branch")


def idle(world, server, key, model):
    """A holder without a guest ends its session, and begins its next one on what the other made."""
    alpha = world.disk(server, key, "disk", "cache-a", machine="alpha", write_back="manual", session_grace="1h")
    guest = alpha.connect()
    check_disk(guest, model, "alpha: the resolved image")
    scribble(world, guest, model)
    guest.shutdown()
    beta = waits(world, server, key, alpha)
    check_equal(beta.status()["conflict_branches"], [], "branches that the next session hears of when all is resolved")
    check("conflict branch" not in plain(world, beta), "a branch that is gone is still shown")
    other = beta.connect()
    check_disk(other, model, "beta: what the idle alpha had")
    scribble(world, other, model)
    beta.leave(other)
    beta.stop()
    guest = alpha.connect()
    check_disk(guest, model, "alpha: what beta made of it")
    check_equal(alpha.status()["branch"], "", "branch of a machine that had nothing to lose")
    alpha.leave(guest)
    alpha.stop()


def waits(world, server, key, holder):
    """Who waits for a hand-off is told how much the holder still has to send."""
    def unsent():
        one = world.images(server, key)["disk"]["holder"]
        return one["unsent_bytes"] if one else 0
    wait_until(unsent, 60, "the server was told what the holder has to send")
    beta = world.disk_stopped(server, key, "disk", "cache-b", machine="beta", lease="hand-off", hand_off_wait="60s")
    holder.process.send_signal(signal.SIGSTOP)  # it sends nothing for now
    left = unsent()
    seen = []

    def look():
        try:
            wait_until(lambda: f"alpha still has {left} bytes to send" in beta.log_text(), 50, "the one who waits was told")
            seen.append(world.run(world.bin / "rdim", "--server", server.address, "image", "info", "--fast", "disk"))
        finally:
            holder.process.send_signal(signal.SIGCONT)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        beta.start()  # waits
    finally:
        looking.join()
    check_says(beta.log_text(), "waiting up to 60 s for the lease", f"alpha still has {left} bytes to send")
    check_says(seen[0], "alpha", "not sent yet")
    return beta


def take_over(world, server, key, model):
    alpha = world.disk(server, key, "disk", "cache-a", machine="alpha")
    guest = alpha.connect()
    scribble(world, guest, model)
    alpha.sync()
    theirs = Model(world.path("alpha2.model"), copy_of=model.path)
    alpha.process.send_signal(signal.SIGSTOP)  # it answers nobody
    text = world.disk_stopped(server, key, "disk", "cache-b", machine="beta", lease="hand-off", hand_off_wait="1s").start_fails()
    check_says(text, "in use", "alpha")
    beta = world.disk(server, key, "disk", "cache-b", machine="beta", lease="take-over", hand_off_wait="1s")
    other = beta.connect()
    check_disk(other, model, "beta: what alpha had synced")
    scribble(world, other, model)
    beta.sync()
    check_equal([m["machine_name"] for m in named(world, server, key)], ["alpha"], "machines that may hold unsent writes")
    alpha.process.send_signal(signal.SIGCONT)
    scribble(world, guest, theirs)
    check_disk(guest, theirs, "alpha's guest after the take-over")
    wait_until(lambda: alpha.status()["branch"], 90, "alpha's writes became a branch by themselves")
    alpha.sync()
    branch = alpha.status()["branch"]
    export_equals(world, server, key, branch, theirs, "the loser's branch")
    export_equals(world, server, key, "disk", model, "the winner's head")
    check_equal(named(world, server, key), [], "machines that may hold unsent writes, after all is on the branch")
    announced(world, server, key, alpha, beta, branch)
    alpha.leave(guest)
    alpha.stop()
    beta.leave(other)
    beta.stop()
    report = world.rdim(server, key, "image", "resolve", "disk", "--keep", "disk")
    export_equals(world, server, key, "disk", model, "resolved: the image was kept")
    export_equals(world, server, key, f"disk@{report['put_aside'][0]['sequence']}", theirs, "resolved: the branch is in the history")


def named(world, server, key):
    return world.images(server, key)["disk"]["may_hold_unsent"]


def lost(world, server, key, model):
    """A machine that never comes back is named until an administrator forgets it."""
    gone = world.disk(server, key, "disk", "cache-c", machine="gone", write_back="manual")
    guest = gone.connect()
    lost_model = Model(world.path("lost.model"), copy_of=model.path)
    scribble(world, guest, lost_model)
    gone.kill()
    beta = world.disk(server, key, "disk", "cache-b", machine="beta", lease="take-over", hand_off_wait="1s")
    other = beta.connect()
    scribble(world, other, model)
    beta.leave(other)
    beta.stop()
    check_equal([m["machine_name"] for m in named(world, server, key)], ["gone"], "named after the other has gone, too")
    check_says(world.run(world.bin / "rdim", "--server", server.address, "image", "ls"), "MAY HOLD UNSENT WRITES", "gone")
    code, out, err = world.run(*world.rdim_command(server, key, "image", "forget", "disk", "nobody"), check_code=None)
    check(code != 0, "forgot a machine that is not named")
    check_says(out + err, "nobody", "rdim image info")
    world.rdim(server, key, "image", "forget", "disk", "gone")
    check_equal(named(world, server, key), [], "forgotten machines")
    gone.start()  # it comes back after all
    guest = gone.connect()
    check_disk(guest, lost_model, "the forgotten machine's guest")
    branch = wait_until(lambda: try_branch(gone), 90, "the forgotten machine's writes became a branch")
    export_equals(world, server, key, branch, lost_model, "the forgotten machine's branch")
    export_equals(world, server, key, "disk", model, "the image")
    check_equal(named(world, server, key), [], "machines that may hold unsent writes in the end")
    gone.leave(guest)
    gone.stop()


def try_branch(disk):
    """With write-back=manual only a sync sends: the first makes the branch."""
    disk.sync()
    return disk.status()["branch"]


def run(world):
    # Long, so that only a hand-off or a take-over can move the lease.
    server = world.server(lease_term="20s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    alpha, guest, beta, other, theirs, branch = polite(world, server, key, model)
    world.say(f"handed over; the loser goes on as {branch}")
    resolve(world, server, key, model, (alpha, guest, beta, other, theirs), branch)
    world.say("resolved: the branch is the image, the other side is in its history")
    idle(world, server, key, theirs)
    world.say("an idle machine gave the image away and came back to it")
    take_over(world, server, key, theirs)
    world.say("taken over: the loser was named until its branch had everything")
    lost(world, server, key, theirs)
    world.say("a machine that was gone was named until it was forgotten; back again, it lost nothing")
    server.stop()


dims_system.main(run, __doc__)
