#!/usr/bin/python3
"""The cache folder's disk is full: writes are slowed or get ENOSPC, never wrong bytes, and all recovers.

The folder lies in a small tmpfs, in a mount namespace of the test's own. Once with the server there (its write-back makes
room, so no write fails), once without it, once with the journal's own limit, once too small to begin with.
"""
import errno
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import nbd  # noqa: E402
import sources  # noqa: E402
from dims_system import Skip, StartError, check, check_equal, check_says, wait_until  # noqa: E402
from disk_model import Model, check_disk, check_files  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 512 * MIB


def own_mounts():
    """Runs this file again where it may mount and where nobody else sees it."""
    if os.environ.get("DIMS_OWN_MOUNTS"):
        return
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
    if os.system(" ".join(namespace) + " true 2>/dev/null") != 0:
        return
    os.environ["DIMS_OWN_MOUNTS"] = "1"
    os.execvp(namespace[0], namespace + [sys.executable, "-B", *sys.argv])


def small_folder(world, name, mib):
    folder = world.path(name)
    folder.mkdir(mode=0o700)
    if not os.environ.get("DIMS_OWN_MOUNTS"):
        raise Skip("no mount namespace can be made here")
    code, _, err = world.run("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "dims-test", folder, check_code=None)
    if code != 0:
        raise Skip(f"tmpfs cannot be mounted: {err.strip()}")
    return folder


def write_until_full(world, handle, model, total, flush_every=8):
    """Writes random MiBs; gives [(offset, data)] of what was refused with ENOSPC. Such a MiB is not written again: it
    may hold its old or its new bytes, and it may be absent here, so it is looked at when the server is there."""
    refused = []
    for i in range(total // MIB):
        at = world.rng.randrange(SIZE // MIB) * MIB
        if at in [r[0] for r in refused]:
            continue
        data = world.rng.randbytes(MIB)
        try:
            handle.pwrite(data, at)
            model.write(data, at)
        except nbd.Error as error:
            check_equal(error.errnum, errno.ENOSPC, f"errno of a refused write ({error})")
            refused.append((at, data))
            if len(refused) >= 6:
                break
        if i % flush_every == flush_every - 1:
            flush(handle)
    return refused


def settle(handle, model, refused):
    """A refused write left the old or the new bytes, sector by sector, nothing else: take what is there."""
    for at, data in refused:
        got, old = bytes(handle.pread(MIB, at)), model.read(MIB, at)
        for s in range(0, MIB, 512):
            check(got[s:s + 512] in (old[s:s + 512], data[s:s + 512]), f"a refused write at {at} left strange bytes at {s}")
        model.write(got, at)


def flush(handle):
    """What was accepted can always be flushed."""
    handle.flush()


def with_server(world, server, key, source):
    small_folder(world, "with", 400)
    model = Model(world.path("with.model"), copy_of=source)
    disk = world.disk(server, key, "disk", "with/cache", cache_size="128M")
    handle = disk.connect()
    refused = write_until_full(world, handle, model, world.size(600, 4000) * MIB)
    handle.flush()
    check_equal(refused, [], "writes refused although the server makes room")
    check_disk(handle, model, "full disk, with server")
    disk.sync()
    check_disk(handle, model, "full disk, with server, after a sync")
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), model.path, "full disk, with server: the head")
    world.say(f"with the server there no write failed; {disk.status()['requests']['throttled']} were slowed")
    handle.shutdown()
    disk.stop()
    return model


def without_server(world, server, key, model):
    small_folder(world, "without", 300)
    disk = world.disk(server, key, "disk", "without/cache", cache_size="64M", connect_wait="1s")
    handle = disk.connect()
    for at in range(0, 32 * MIB, MIB):
        handle.pread(MIB, at)
    server.stop()
    refused = write_until_full(world, handle, model, 400 * MIB)
    check(refused, "400 MiB went into a disk of 300 MiB with no server")
    handle.flush()
    world.say(f"without the server {len(refused)} writes got ENOSPC")
    # Killed while full, restarted while full: all that was acknowledged is there.
    disk.restart(kill=True)
    handle = disk.connect()
    server.start()
    settle(handle, model, refused)
    check_disk(handle, model, "full disk, after a kill, server back")
    wait_until(lambda: disk.status()["journal"]["unsent_epochs"] == 0, 240, "everything arrived once the server was back")
    check_equal(write_until_full(world, handle, model, 64 * MIB), [], "writes refused after room was made")
    handle.flush()
    disk.sync()
    world.export_image(server, key, "disk", world.path("head.out"))
    check_files(world.path("head.out"), model.path, "full disk, recovered: the head")
    handle.shutdown()
    disk.stop()
    world.say("it recovered by itself")


def journal_limit(world, server, key, model):
    """The journal's own limit is smaller than the disk."""
    disk = world.disk(server, key, "disk", "limited", journal_size="128M", write_back="manual")
    handle = disk.connect()
    refused = write_until_full(world, handle, model, 200 * MIB)
    check(refused, "200 MiB went into a journal of 128 MiB that nobody empties")
    handle.flush()
    settle(handle, model, refused)
    check_disk(handle, model, "full journal")
    disk.restart(kill=True)
    handle = disk.connect()
    check_disk(handle, model, "full journal, after a kill")
    disk.sync()
    check_equal(write_until_full(world, handle, model, 32 * MIB), [], "writes refused after a sync")
    check_disk(handle, model, "full journal, after a sync")
    disk.sync()
    handle.shutdown()
    disk.stop()
    world.say(f"journal-size: {len(refused)} writes got ENOSPC, a sync made room")


def too_small(world, server, key, source):
    """Not even one segment of the usual size fits: refused with a message, or a disk that is right."""
    small_folder(world, "tiny", 2)
    disk = world.disk_stopped(server, key, "tiny", "tiny/cache")
    try:
        disk.start()
    except StartError as error:
        check_says(error.text, "tiny/cache", "space")
        world.say(f"too small: {error.text.strip().splitlines()[-1].replace(str(world.folder), '...')}")
        return
    handle = disk.connect()
    model = Model(world.path("tiny.model"), copy_of=source)
    check_disk(handle, model, "a disk far too small")
    refused = 0
    for _ in range(40):
        data, at = world.rng.randbytes(4096), world.rng.randrange(MIB)
        try:
            handle.pwrite(data, at)
            model.write(data, at)
        except nbd.Error as error:
            check_equal(error.errnum, errno.ENOSPC, f"errno of a write without room ({error})")
            refused += 1
    flush(handle)
    check_disk(handle, model, "a disk far too small, after writes")
    disk.restart(kill=True)
    handle = disk.connect()
    check_disk(handle, model, "a disk far too small, after a kill")
    world.say(f"too small by far: it reads and writes all the same, {refused} of 40 writes got ENOSPC")
    handle.shutdown()
    disk.stop()


def run(world):
    server = world.server(lease_term="2s")
    key = world.key()
    source = sources.sparse_file(world.path("disk.src"), SIZE, 32, MIB, world.rng)
    world.import_image(server, key, source, "disk")
    world.import_image(server, key, source, "tiny")
    too_small(world, server, key, source)
    model = with_server(world, server, key, source)
    without_server(world, server, key, model)
    journal_limit(world, server, key, model)
    server.stop()


own_mounts()
dims_system.main(run, __doc__)
