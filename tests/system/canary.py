#!/usr/bin/python3
"""1,000 random markers in a guest's data, in file names on its disk and in passphrases, and the recovery words: none of them
is to be found afterwards in cache folders, machines' folders, the server's store, the traffic, logs, or a core dump.

The disk holds a small FAT-like directory of the test's own (names beside data), so names are data to LDIM as to any guest.
Every way of keeping bytes is searched: as they are, and as hex digits.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
from capture import Capture  # noqa: E402
from dims_system import check, check_equal  # noqa: E402
from organisation import Organisation  # noqa: E402

MARKERS = 1000


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
    tag = rng.randbytes(8)  # begins every marker, so that one look at a file finds them all
    passphrases = [tag.hex() + rng.randbytes(8).hex() for _ in range(3)]
    org = Organisation(world, passphrase="admin-" + passphrases[0])
    capture = Capture(world, org.server)
    ann = org.user("ann", passphrase="ann-" + passphrases[1])
    machine = org.machine("laptop")
    # 600 of data, 300 of names, 97 that are written and in part trimmed again, 3 passphrases.
    data = [tag + rng.randbytes(16) for _ in range(600)]
    names = [b"name-" + (tag + rng.randbytes(8)).hex().encode() for _ in range(300)]
    short_lived = [tag + rng.randbytes(16) for _ in range(MARKERS - len(data) - len(names) - len(passphrases))]

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
    disk.kill()
    ann.set_passphrase(ann.passphrase)
    new = world.path("new-passphrase")
    new.write_text("ann-" + passphrases[2] + "\n")
    ann.rdim("user", "passwd", "ann", "--passphrase", f"+{ann.secret}", "--new-passphrase", f"+{new}")
    org.server.stop()
    capture.stop()

    check_equal(len(data + names + short_lived + passphrases), MARKERS, "markers")
    needles = [tag, org.admin.words.encode(), ann.words.encode()]
    needles += [n.hex().encode() for n in needles] + [tag.hex().upper().encode(), tag.hex().encode().hex().encode()]
    # What the test itself keeps for its own use is not the programs'.
    for own in (source, new, org.admin.secret, ann.secret):
        os.unlink(own)
    seen = []
    found = hits(world.folder, needles, seen)
    check(capture.bytes > 1 << 18, f"only {capture.bytes} bytes of traffic were captured")
    world.say(f"{MARKERS} markers and the recovery words looked for in {len(seen)} files, {sum(seen)} bytes, of which "
              f"{capture.bytes} of traffic: {len(found)} hits")
    check(not found, f"markers in clear: {found[:5]}")
    check(not list(world.folder.rglob("core*")), "a core dump")
    # The search itself finds what is there.
    world.path("planted").write_bytes(b"x" * 5000 + data[17] + b"y" * 100)
    check_equal(len(hits(world.folder, needles, [])), 1, "the planted marker")
    world.path("planted").unlink()


dims_system.main(run, __doc__)
