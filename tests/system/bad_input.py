#!/usr/bin/python3
"""What cannot work is refused before anything is written, with a message that says what, where and what to do.

Unknown image, wrong key, key that others can read, wrong parameters, no server, a cache folder of another image, in
use, with other files or of another key; a lease that is held.
"""
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import check, check_equal, check_says  # noqa: E402
from disk_model import Model, check_disk  # noqa: E402
from sources import MIB  # noqa: E402


def listing(folder):
    """Every file with its bytes."""
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} if folder.exists() else None


class Refused:
    """A start that must fail, must say these things, and must leave the cache folder alone."""

    def __init__(self, world, server, key):
        self.world, self.server, self.key = world, server, key

    def __call__(self, what, *says, server=None, key=None, image="disk", cache="new", may_touch=(), **parameters):
        folder = self.world.path(cache or "none")
        before = listing(folder)
        disk = self.world.disk_stopped(self.server if server is None else server, key or self.key, image, cache, **parameters)
        text = disk.start_fails()
        check_says(text, *says)
        for line in text.splitlines():
            check(len(line) < 700, f"{what}: an error of {len(line)} characters: {line}")
        check(not re.search(r"Assertion|terminate called|std::", text), f"{what}: not a message for people:\n{text}")
        after = listing(folder)
        if before is not None:
            after = {k: v for k, v in after.items() if str(k) not in may_touch}
            before = {k: v for k, v in before.items() if str(k) not in may_touch}
        check(after == before, f"{what}: the cache folder was touched: {sorted(map(str, set(after or {}) ^ set(before or {})))}")
        message = next((line for line in text.splitlines() if "error:" in line), text.strip())
        self.world.say(f"{what}: {message.replace(str(self.world.folder), '...')}")


def bad_parameters(refused):
    refused("no parameter server", "server=", "missing", server="")
    refused("no parameter image", "image=", "missing", image="")
    refused("an unknown parameter", "colour", colour="blue")
    refused("a size that is none", "cache-size", "lots", "size", cache_size="lots")
    refused("a cache that is too small", "cache-size", "1", "too small", "at least", cache_size="1M")
    refused("a journal that is too small", "journal-size", "too small", "at least", journal_size="1M")
    refused("an unknown mode", "mode", "sideways", "personal", mode="sideways")
    refused("an unknown ack", "ack", "later", "journal", ack="later")
    refused("an unknown write-back", "write-back", "often", "eager", write_back="often")
    refused("a server without port", "server", server="localhost")
    refused("a port that is none", "server", server="127.0.0.1:http!")


def bad_server(world, refused):
    refused("nobody listens", "127.0.0.1:1", "cannot be reached", "start once with the server reachable", server="127.0.0.1:1", connect_wait="1s")
    refused("a host that does not exist", "no-such-host.invalid", "reach", server="no-such-host.invalid:7400", connect_wait="1s")
    refused("a socket that does not exist", "nothing.sock", "reach", server=f"unix:{world.path('nothing.sock')}", connect_wait="1s")
    refused("diskless without server", "reach", server="127.0.0.1:1", connect_wait="1s", cache=None)


def bad_key(world, refused, key):
    other = world.key("other.key")
    refused("a wrong key", "key", str(other), "disk", "imported with", key=other)
    readable = world.key("readable.key")
    os.chmod(readable, 0o640)
    refused("a key that others can read", "can be read by others", "chmod 600", str(readable), key=readable)
    refused("no key file", "missing.key", "rdim key new", key=world.path("missing.key"))
    text = key.read_text()
    cut = world.path("cut.key")
    cut.write_text(text[:len(text) // 2])
    os.chmod(cut, 0o600)
    refused("half a key file", "cut.key", key=cut)
    changed = world.path("changed.key")
    place = text.index("image-secret = ") + 20
    changed.write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1:])
    os.chmod(changed, 0o600)
    refused("a key file with a typing error", "changed.key", "check", key=changed)
    refused("a folder as key", "key", key=world.folder)


def bad_folder(world, refused, server, key):
    refused("a cache folder in a folder that is not there", "does not exist", cache="no/such/folder")
    world.path("full").mkdir(mode=0o700)
    world.path("full/holiday.txt").write_text("not yours")
    refused("a cache folder with other files", "holiday.txt", "folder of its own", cache="full", may_touch=("lock",))
    world.path("file").write_text("not a folder")
    text = world.disk_stopped(server, key, "disk", "file").start_fails()
    check_says(text, str(world.path("file")))

    disk = world.disk(server, key, "disk", "used", machine="alpha")
    handle = disk.connect()
    handle.pwrite(b"hello", 5)
    handle.flush()
    # No unchanged-bytes check here: the folder is alive.
    text = world.disk_stopped(server, key, "disk", "used", machine="beta").start_fails()
    check_says(text, "in use", "used", "stop that nbdkit")
    text = world.disk_stopped(server, key, "disk", "new2", machine="beta").start_fails()
    check_says(text, "disk", "in use", "alpha")
    world.say(f"a lease that is held: {[line for line in text.splitlines() if 'error' in line][-1]}")
    check_equal(bytes(handle.pread(5, 5)), b"hello", "the disk of the machine that holds the lease")
    handle.shutdown()
    disk.stop()

    refused("a cache folder of another image", "another image", "used", cache="used", image="second", may_touch=("lock",))
    refused("a cache folder of another key", "key", "used", cache="used", key=world.path("other.key"), may_touch=("lock",))
    server.stop()
    refused("a cache folder of another image, offline", "disk", "second", cache="used", image="second", connect_wait="1s",
            may_touch=("lock",))
    refused("a cache folder of another key, offline", "key", "used", cache="used", key=world.path("other.key"), connect_wait="1s",
            may_touch=("lock",))
    server.start()


def bad_ldim(world, disk):
    code, out, err = world.run(*disk.ldim_command("status"), check_code=None)
    check_equal(code, 3, "exit code of ldim without a running LDIM")
    check_says(err, "no LDIM serves", str(disk.cache), "--cache")
    code, out, err = world.run(*disk.ldim_command("-o", "json", "status"), check_code=None)
    check_equal(code, 3, "exit code with JSON")
    check('"error"' in out, f"no JSON error: {out!r}")
    code, out, err = world.run(*disk.ldim_command("dance"), check_code=None)
    check_equal(code, 2, "exit code of an unknown command")
    disk.start()
    handle = disk.connect()
    code, out, err = world.run(*disk.ldim_command("session", "end"), check_code=None)
    check_equal(code, 4, "exit code of session end under a guest")
    check_says(err, "connected")
    handle.shutdown()
    disk.stop()


def run(world):
    server = world.server(lease_term="2s")
    key = world.key()
    source = sources.random_file(world.path("disk.src"), 4 * MIB, world.rng)
    world.import_image(server, key, source, "disk")
    world.import_image(server, key, source, "second")
    refused = Refused(world, server, key)
    refused("an unknown image", "disc", "no image", image="disc")
    bad_parameters(refused)
    bad_server(world, refused)
    bad_key(world, refused, key)
    bad_folder(world, refused, server, key)
    bad_ldim(world, world.disk_stopped(server, key, "disk", "used"))
    # After all that the disk is what it was.
    disk = world.disk(server, key, "disk", "used")
    model = Model(source)
    model.write(b"hello", 5)
    handle = disk.connect()
    check_disk(handle, model, "the disk after all refusals")
    handle.shutdown()
    disk.stop()
    server.stop()


dims_system.main(run, __doc__)
