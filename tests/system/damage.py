#!/usr/bin/python3
"""Damaged files in the cache folder: a recovery or a clear refusal, never wrong bytes.

Cache segments and their indexes (garbled, cut, emptied, swapped, removed) cost pages, are counted, and are fetched again. A
damaged journal that holds unsent writes is refused (its header) or, at its torn end, cut; state, keys and identity
are checked, too. Whatever starts must serve exactly the guest's disk.
"""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import StartError, check, check_equal, check_says  # noqa: E402
from disk_model import Model, check_disk  # noqa: E402
from sources import MIB  # noqa: E402

SIZE = 8 * MIB


def flip(path, offset, count=1):
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(count)
        file.seek(offset)
        file.write(bytes(b ^ 0x5a for b in old))


def files(folder, ending):
    found = sorted(p for p in folder.iterdir() if p.name.endswith(ending) and p.stat().st_size > 8192)
    check(found, f"no {ending} file in {folder}: {sorted(p.name for p in folder.iterdir())}")
    return found


# --- the cache: may be lost, must never be wrong ---


def cache_damages(rng):
    """(name, what it does to the cache folder, whether damaged pages must be counted)"""

    def garble_pages(folder):
        for path in files(folder, ".seg"):
            for _ in range(40):  # pages lie behind the tags; a few of many
                flip(path, rng.randrange(path.stat().st_size // 4, path.stat().st_size))

    def every_page(folder):
        for path in files(folder, ".seg"):
            for offset in range(path.stat().st_size // 8 // 4096 * 4096, path.stat().st_size, 4096):
                flip(path, offset + 100)

    def header(folder):
        for path in files(folder, ".seg"):
            flip(path, 20)

    def tags(folder):
        for path in files(folder, ".seg"):
            flip(path, 4096, 2048)

    def index_header(folder):
        for path in folder.glob("*.idx"):
            flip(path, 60)

    def index_records(folder):
        for path in folder.glob("*.idx"):
            for offset in range(4096, path.stat().st_size, 300):
                flip(path, offset)

    def cut(folder, ending):
        for path in folder.glob(f"*{ending}"):
            with open(path, "r+b") as file:
                file.truncate(path.stat().st_size * 2 // 3 - 5)

    def empty(folder, ending):
        for path in folder.glob(f"*{ending}"):
            path.write_bytes(b"")

    def remove(folder, ending):
        for path in folder.glob(f"*{ending}"):
            path.unlink()

    def foreign(folder):
        for path in folder.glob("*.seg"):
            path.write_bytes(rng.randbytes(path.stat().st_size))
        (folder / "9999999999.seg").write_bytes(rng.randbytes(50_000))
        (folder / "9999999999.idx").write_bytes(rng.randbytes(5_000))

    def shifted(folder):
        """Every sealed page one place further: right bytes, wrong place."""
        for path in files(folder, ".seg"):
            data = path.read_bytes()
            path.write_bytes(data[:len(data) // 2] + data[len(data) // 2 - 4096:-4096])

    yield "pages garbled here and there", garble_pages, True
    yield "every page garbled", every_page, True
    yield "pages in the wrong place", shifted, True
    yield "tags garbled", tags, True
    yield "segment headers", header, False
    yield "index headers", index_header, False
    yield "index records", index_records, False
    yield "segments cut", lambda f: cut(f, ".seg"), False
    yield "indexes cut", lambda f: cut(f, ".idx"), False
    yield "segments emptied", lambda f: empty(f, ".seg"), False
    yield "indexes emptied", lambda f: empty(f, ".idx"), False
    yield "segments removed", lambda f: remove(f, ".seg"), False
    yield "indexes removed", lambda f: remove(f, ".idx"), False
    yield "foreign bytes in segments", foreign, False


def cache_story(world, disk, model):
    for name, damage, counted in cache_damages(world.rng):
        damage(disk.cache / "cache")
        disk.start()
        handle = disk.connect()
        check_disk(handle, model, f"cache, {name}")
        status = disk.status()
        if counted:
            check(status["cache"]["damaged_pages"] > 0, f"cache, {name}: no damaged page was counted")
        check(status["fetched"]["chunks"] + status["fetched"]["nodes"] > 0, f"cache, {name}: nothing was fetched again")
        check_disk(handle, model, f"cache, {name}, second reading")
        handle.shutdown()
        disk.ldim("prefetch")
        check_equal(disk.ldim("status", "--verify")["offline_ready"]["ready"], True, f"cache, {name}: offline-ready after a prefetch")
        disk.stop()
        world.say(f"cache, {name}: bytes right, {status['cache']['damaged_pages']} damaged pages counted, "
                  f"{status['fetched']['chunks']} chunks fetched")


# --- the journal and the small files: must not be lost ---


def write_unsent(world, disk, model):
    """Several epochs that only the journal holds; then the process dies."""
    disk.start()
    handle = disk.connect()
    for _ in range(6):
        for _ in range(20):
            count = world.rng.choice([512, 4096, 10000])
            offset = world.rng.randrange(SIZE - count)
            data = world.rng.randbytes(count)
            handle.pwrite(data, offset)
            model.write(data, offset)
        handle.flush()
    used = disk.status()["journal"]
    check(used["unsent_epochs"] >= 6, f"the epochs were sent: {used}")
    disk.kill()


def journal_file(folder):
    return max((folder / "journal").iterdir(), key=lambda p: (p.stat().st_size, p.name))


def used_bytes(path):
    """Up to the last byte that is not zero: segments are preallocated."""
    data = path.read_bytes().rstrip(b"\0")
    return len(data)


def refused_story(world, disk, model, name, damage, *says):
    """Damaged: refused with a message, nothing changed; healed: everything there."""
    keep = world.path("keep")
    shutil.copytree(disk.cache, keep, ignore=shutil.ignore_patterns("*.sock"))
    damage()
    before = {p: p.read_bytes() for p in sorted(disk.cache.rglob("*")) if p.is_file()}
    try:
        disk.start()
    except StartError as error:
        check_equal(error.code, 1, f"{name}: exit code")
        check_says(error.text, *says)
        line = [line for line in error.text.splitlines() if "error:" in line][0]
        world.say(f"{name}: {line.replace(str(world.folder), '...')}")
        after = {p: p.read_bytes() for p in sorted(disk.cache.rglob("*")) if p.is_file()}
        journal = disk.cache / "journal"
        for path in before:
            if path.is_relative_to(journal) or path.parent == disk.cache:
                check(after.get(path) == before[path], f"{name}: {path} was changed although the start was refused")
    else:
        # It may also recover, but then it must be the guest's disk.
        handle = disk.connect()
        check_disk(handle, model, f"{name}: started all the same")
        handle.shutdown()
        disk.kill()
        world.say(f"{name}: recovered, bytes right")
    shutil.rmtree(disk.cache)
    shutil.copytree(keep, disk.cache)
    shutil.rmtree(keep)
    disk.start()
    handle = disk.connect()
    check_disk(handle, model, f"{name}: healed")
    disk.kill()


def journal_story(world, disk, model):
    path = journal_file(disk.cache)
    used = used_bytes(path)
    check(used > 200_000, f"the journal {path} holds only {used} bytes")
    folder = str(disk.cache)
    refused_story(world, disk, model, "journal header", lambda: flip(path, 8, 400), folder)
    refused_story(world, disk, model, "journal header's last byte", lambda: flip(path, 511), folder)
    refused_story(world, disk, model, "journal middle", lambda: flip(path, used // 2, 64), folder)
    refused_story(world, disk, model, "journal beginning", lambda: flip(path, 4 * 4096 + 40, 8), folder)
    refused_story(world, disk, model, "a page of the journal zeroed", lambda: zero_page(path, used // 3), folder)
    refused_story(world, disk, model, "journal file removed", path.unlink, folder)
    refused_story(world, disk, model, "journal file emptied", lambda: path.write_bytes(b""), folder)


def zero_page(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset // 4096 * 4096)
        file.write(bytes(4096))


def small_files_story(world, disk, model):
    for name in ("identity", "keys", "machine-secret", "state"):
        path = disk.cache / name
        check(path.exists(), f"{path} is not there: {sorted(p.name for p in disk.cache.iterdir())}")
        refused_story(world, disk, model, f"{name} garbled", lambda path=path: flip(path, path.stat().st_size // 2), str(disk.cache))
        refused_story(world, disk, model, f"{name} cut",
                      lambda path=path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2]), str(disk.cache))
        refused_story(world, disk, model, f"{name} emptied", lambda path=path: path.write_bytes(b""), str(disk.cache))


def torn_end(world, disk, model):
    """What was never flushed may be torn by a power cut: cut off, the rest is there."""
    disk.start()
    handle = disk.connect()
    check_disk(handle, model, "before the torn end")
    handle.flush()
    end = used_bytes(journal_file(disk.cache))
    handle.pwrite(world.rng.randbytes(300_000), 1_000_000)
    disk.kill()
    path = journal_file(disk.cache)
    now = used_bytes(path)
    check(now > end + 250_000 or path != journal_file(disk.cache), "the write is not in the journal")
    flip(path, now - 1000, 500)
    with open(path, "r+b") as file:
        file.seek(now - 100_000)
        file.write(bytes(50_000))
    disk.start()
    handle = disk.connect()
    got = bytes(handle.pread(SIZE, 0))
    wanted = model.read(SIZE, 0)
    check(got[:1_000_000] == wanted[:1_000_000] and got[1_300_000:] == wanted[1_300_000:], "a torn end changed other bytes")
    model.write(got[1_000_000:1_300_000], 1_000_000)
    handle.flush()
    world.say("torn end of the journal: cut, everything that was flushed is there")
    handle.shutdown()


def run(world):
    server = world.server(lease_term="1s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), SIZE, world.rng)
    world.import_image(server, key, source, "disk")
    model = Model(world.path("disk.model"), copy_of=source)
    disk = world.disk(server, key, "disk", "cache", write_back="manual")
    disk.ldim("prefetch")
    disk.stop()
    cache_story(world, disk, model)
    write_unsent(world, disk, model)
    journal_story(world, disk, model)
    small_files_story(world, disk, model)
    torn_end(world, disk, model)
    disk.sync()
    check_equal(disk.status()["branch"], "", "branch")
    disk.stop()
    world.export_image(server, key, "disk", world.path("head.out"))
    check(world.path("head.out").read_bytes() == model.read(SIZE, 0), "the head in the end")
    server.stop()


dims_system.main(run, __doc__)
