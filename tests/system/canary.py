#!/usr/bin/python3
"""1,000 random markers in a guest's data, in file names on its disk, in passphrases and in keys, and the recovery words: none
of them is to be found afterwards in cache folders, machines' folders, the server's store, the traffic, logs, or a core dump.

nbdkit that dies of a signal leaves no core, whatever the limit. A debugger that root attaches makes one all the same (gcore):
it holds what the guest reads and writes, but no key, passphrase or word, for these lie in memory that is left out.

The disk holds a small FAT-like directory of the test's own (names beside data), so names are data to LDIM as to any guest.
Every way of keeping bytes is searched: as they are, and as hex digits.
"""
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
from capture import Capture  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from organisation import Organisation  # noqa: E402

MARKERS = 1000
KEY_FILES = 4
SECRETS = ("domain-secret", "image-secret", "signing-seed")


def secrets_of(key_file):
    fields = dict(line.split(" = ") for line in key_file.read_text().splitlines() if " = " in line)
    return [bytes.fromhex(fields[name]) for name in SECRETS]


def machine_secrets(folder):
    """Signing seed and S, by docs/formats/machine-file.md; they lie in that file, for it is not sealed."""
    data = (folder / "machine").read_bytes()
    return [data[-16 - 8 - 64:-16 - 8 - 32], data[-16 - 8 - 32:-16 - 8]]


def spellings(needles):
    return needles + [n.hex().encode() for n in needles] + [n.hex().upper().encode() for n in needles]


def dump(world, disk, name):
    """What root's debugger sees of a live process; None where that is not to be had."""
    if shutil.which("gcore") is None or world.sanitize:  # terabytes of shadows, and memory that was freed is kept
        return None
    subprocess.run(["gcore", "-o", world.path(name), str(disk.process.pid)], stdin=subprocess.DEVNULL, capture_output=True,
                   timeout=600, check=False)
    made = world.path(f"{name}.{disk.process.pid}")
    return made if made.exists() else None


def dies_without_core(world, disk, where):
    before = set(where.glob("core*"))
    disk.process.send_signal(signal.SIGABRT)
    disk.process.wait()
    check(set(where.glob("core*")) == before, "nbdkit left a core dump")


def cores_are_possible(world):
    """That a core would have been seen: another program's is."""
    child = subprocess.Popen(["sleep", "1000"], cwd=world.folder)
    child.send_signal(signal.SIGABRT)
    child.wait()
    found = list(world.folder.glob("core*"))
    for one in found:
        one.unlink()
    return bool(found)


def with_key_files(world, rng):
    """Disks of one person's server: keys from files. Gives the keys' bytes and what was dumped."""
    server = world.server("one-person")
    capture = Capture(world, server, "traffic-one-person.bin")
    keys, dumps = [], []
    for number in range(KEY_FILES):
        key = world.key(f"key-{number}")
        keys += secrets_of(key)
        source = world.path("small.src")
        source.write_bytes(rng.randbytes(1 << 20))
        world.rdim(capture, key, "image", "import", source, f"image-{number}")
        disk = world.disk(capture, key, f"image-{number}", f"cache-key-{number}")
        handle = disk.connect()
        handle.pread(1 << 20, 0)
        handle.pwrite(rng.randbytes(65536), 4096)
        handle.flush()
        disk.sync()
        dumps.append((dump(world, disk, f"dumped-key-{number}"), secrets_of(key)))
        dies_without_core(world, disk, world.folder)
        key.unlink()
        source.unlink()
    server.stop()
    capture.stop()
    return keys, [one for one in dumps if one[0]]


def hits(root, needles, seen):
    """Which needles stand in which file."""
    found = []
    for path in sorted(Path(root).rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        seen.append(len(data))
        found += [(str(path), needle) for needle in needles if needle in data]
    return found


def run(world):
    rng = world.rng
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    os.chdir(world.folder)  # where a core would fall
    tag = rng.randbytes(8)  # begins every marker, so that one look at a file finds them all
    passphrases = [tag.hex() + rng.randbytes(8).hex() for _ in range(3)]
    org = Organisation(world, passphrase="admin-" + passphrases[0])
    capture = Capture(world, org.server)
    ann = org.user("ann", passphrase="ann-" + passphrases[1])
    machine = org.machine("laptop")
    keys, dumps = with_key_files(world, rng)
    # 600 of data, 300 of names, 3 passphrases, the keys of four files; the rest is written and in part trimmed again.
    data = [tag + rng.randbytes(16) for _ in range(600)]
    names = [b"name-" + (tag + rng.randbytes(8)).hex().encode() for _ in range(300)]
    short_lived = [tag + rng.randbytes(16) for _ in range(MARKERS - len(data) - len(names) - len(passphrases) - len(keys))]

    size = 16 << 20
    image = bytearray(size)
    for number, (marker, name) in enumerate(zip(data, names + names)):
        at = number * 8192
        image[at:at + len(name)] = name
        image[at + 64:at + 64 + len(marker)] = marker
    source = world.path("source.raw")
    source.write_bytes(image)
    ann.rdim("--server", capture.address, "image", "import", source, "canary", "--private")
    disk = machine.disk(ann, "canary", server=capture.address_pinned()).start()
    handle = disk.connect()
    check_equal(bytes(handle.pread(size, 0)), bytes(image), "the disk")
    for number, marker in enumerate(short_lived):
        handle.pwrite(marker, 12 * (1 << 20) + number * 4096 + 100)
    handle.flush()
    disk.sync()
    for number in range(0, len(short_lived), 2):
        handle.trim(4096, 12 * (1 << 20) + number * 4096)
    for number, marker in enumerate(data[:100]):  # not sent: they stay in the journal
        handle.pwrite(marker, 14 * (1 << 20) + number * 4096)
    handle.flush()
    of_machine = machine_secrets(machine.folder)
    member_dump = dump(world, disk, "dumped-member")
    dies_without_core(world, disk, world.folder)
    ann.set_passphrase(ann.passphrase)
    new = world.path("new-passphrase")
    new.write_text("ann-" + passphrases[2] + "\n")
    ann.rdim("user", "passwd", "ann", "--passphrase", f"+{ann.secret}", "--new-passphrase", f"+{new}")
    org.server.stop()
    capture.stop()

    check_equal(len(data + names + short_lived + passphrases + keys), MARKERS, "markers")
    words = [org.admin.words.encode(), ann.words.encode()]
    needles = spellings([tag, *words, *keys]) + [tag.hex().encode().hex().encode()]
    # What the test itself keeps for its own use is not the programs'.
    for own in (source, new, org.admin.secret, ann.secret):
        os.unlink(own)
    # In each dump the secrets that its process has had.
    if member_dump:
        dumps.append((member_dump, [*words, *of_machine, *(p.encode() for p in passphrases)]))
    for path, secrets in dumps:
        text = path.read_bytes()
        check(len(text) > 1 << 20, f"{path} is no dump")
        found = [n for n in secrets + [s.hex().encode() for s in secrets] if n in text]
        check(not found, f"{len(found)} of {len(secrets)} secrets in {path}")
        if path == member_dump:
            check(tag in text, "a dump of nbdkit that does not hold what the guest wrote: was it looked at at all?")
        path.unlink()
    world.say(f"{len(keys)} keys, those of a machine, passphrases and words looked for in {len(dumps)} dumps"
              + ("" if dumps else " (no debugger may attach here: not shown)"))
    seen = []
    found = hits(world.folder, needles, seen)
    check(capture.bytes > 1 << 18, f"only {capture.bytes} bytes of traffic were captured")
    world.say(f"{MARKERS} markers and the recovery words looked for in {len(seen)} files, {sum(seen)} bytes, of which "
              f"{capture.bytes} of traffic: {len(found)} hits")
    check(not found, f"markers in clear: {found[:5]}")
    check(not list(world.folder.rglob("core*")), "a core dump")
    if not cores_are_possible(world):
        world.say("no program leaves a core on this machine, so that nbdkit leaves none says nothing")
    # The search itself finds what is there.
    world.path("planted").write_bytes(b"x" * 5000 + data[17] + b"y" * 100)
    check_equal(len(hits(world.folder, needles, [])), 1, "the planted marker")
    world.path("planted").unlink()


dims_system.main(run, __doc__)
