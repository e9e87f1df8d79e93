#!/usr/bin/env python3
"""Import and export with the real programs: rdim against rdim-server, files of every format, NBD, bad input.

usage: import_export_test.py BINARY_FOLDER [unittest arguments]

Needs qemu-img, qemu-nbd, nbdkit, mkfs.ext4. Listens on 127.0.0.1 and UNIX sockets in a temporary folder; ends
only processes that it started. DIMS_TEST_SEED=N replays a run's random data.
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin").resolve()
SEED = int(os.environ.get("DIMS_TEST_SEED", random.SystemRandom().getrandbits(40)))
MIB = 1 << 20

# What must happen within a lease takes longer in a sanitizer's build.
CMAKE_CACHE = BINARIES.parent / "CMakeCache.txt"
SANITIZED = CMAKE_CACHE.exists() and re.search(r"^DIMS_SANITIZE:STRING=.", CMAKE_CACHE.read_text(), re.MULTILINE)
LEASE_TERM = "40s" if SANITIZED else "5s"

OK, FAILED, USAGE, NOT_FOUND, REFUSED, UNREACHABLE, KEY, DAMAGED = range(8)
INTERRUPTED = 130


class Server:
    """A running rdim-server with its store in a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.process = None

    def start(self):
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        socket = self.folder / "server.sock"
        self.log = open(self.folder / "server.log", "ab")
        self.process = subprocess.Popen(
            [BINARIES / "rdim-server", "--data", self.folder / "store", "--listen", "127.0.0.1:0",
             "--listen", f"unix:{socket}", "--port-file", port_file,
             "--lease-term", LEASE_TERM],
            stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("rdim-server: " + (self.folder / "server.log").read_text())
            time.sleep(0.02)
        self.address = "127.0.0.1:" + port_file.read_text().strip()
        self.unix_address = f"unix:{socket}"

    def stop(self):
        if self.process:
            self.process.terminate()
            code = self.process.wait(60)
            self.process = None
            self.log.close()
            if code != 0:
                raise RuntimeError(f"rdim-server ended with {code}: " + (self.folder / "server.log").read_text())


class SystemTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="dims-import-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.server = Server(cls.folder)
        cls.server.start()
        cls.addClassCleanup(cls.server.stop)
        cls.key = cls.folder / "key"
        cls.random = random.Random(SEED)
        subprocess.run([BINARIES / "rdim", "key", "new", cls.key], check=True, stdout=subprocess.DEVNULL)

    def setUp(self):
        self.names = 0

    # --- helpers ---

    def rdim(self, *arguments, expect=OK, key=None, server=None, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RDIM_")}
        command = [BINARIES / "rdim", "--server", server or self.server.address, "--key", key or self.key, *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, env=environment, timeout=300, **more)
        self.assertEqual(done.returncode, expect,
                         f"{arguments}: {done.stdout[-2000:].decode(errors='replace')}{done.stderr.decode()}")
        return done

    def rdim_json(self, *arguments, **more):
        return json.loads(self.rdim(*arguments, "-o", "json", **more).stdout)

    def error(self, expect, *arguments, **more):
        """Runs a command that must fail, in both output forms; returns the error."""
        plain = self.rdim(*arguments, expect=expect, **more)
        self.assertEqual(plain.stdout, b"")
        self.assertTrue(plain.stderr.startswith(b"rdim: "), plain.stderr)
        found = self.rdim_json(*arguments, expect=expect, **more)["error"]
        self.assertTrue(found["message"])
        self.assertIn(found["message"].encode(), plain.stderr)
        return found

    def path(self, suffix="raw"):
        self.names += 1
        return self.folder / f"{self.id().rpartition('.')[2]}-{self.names}.{suffix}"

    def random_file(self, length, path=None):
        path = path or self.path()
        with open(path, "wb") as file:
            for done in range(0, length, MIB):
                file.write(self.random.randbytes(min(MIB, length - done)))
        return path

    def mixed_file(self, length):
        """Random, compressible, zero and never written stretches."""
        path = self.path()
        with open(path, "wb") as file:
            file.truncate(length)
            at = 0
            while at < length:
                count = min(self.random.randrange(1, MIB), length - at)
                kind = self.random.randrange(4)
                file.seek(at)
                if kind == 0:
                    file.write(self.random.randbytes(count))
                elif kind == 1:
                    file.write((b"line %d of a log\n" % at * (count // 10 + 1))[:count])
                elif kind == 2:
                    file.write(bytes(count))
                at += count
        return path

    def assert_same(self, one, other):
        done = subprocess.run(["cmp", str(one), str(other)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def round_trip(self, source, name, *options, raw=None):
        """Imports, exports to a raw file, compares with the raw content; returns the import's report."""
        report = self.rdim_json("image", "import", source, name, *options)
        out = self.path()
        self.rdim("image", "export", name, out)
        self.assert_same(raw or source, out)
        out.unlink()
        return report

    # --- what goes in comes out ---

    def test_raw_files_of_every_kind(self):
        for name, length in (("byte", 1), ("odd", 12345677), ("page", 4096), ("leaf", MIB), ("big", 70 * MIB + 3)):
            with self.subTest(name):
                source = self.random_file(length)
                report = self.round_trip(source, f"raw-{name}")
                self.assertEqual(report["image_bytes"], length)
                self.assertEqual(report["sequence"], 1)
                source.unlink()
        mixed = self.mixed_file(60 * MIB + 11)
        report = self.round_trip(mixed, "mixed")
        self.assertGreater(report["compression_ratio"], 1.1)
        zeros = self.path()
        with open(zeros, "wb") as file:
            file.write(bytes(20 * MIB))
        report = self.round_trip(zeros, "zeros")
        self.assertEqual((report["data_bytes"], report["new_chunks"]), (0, 0))

    def test_one_tebibyte_of_holes(self):
        source = self.path()
        places = [0, 1 << 39, (1 << 40) - MIB]
        with open(source, "wb") as file:
            file.truncate(1 << 40)
            for place in places:
                file.seek(place)
                file.write(self.random.randbytes(MIB))
        report = self.rdim_json("image", "import", source, "sparse")
        self.assertEqual(report["data_bytes"], 3 * MIB)
        out = self.path()
        self.rdim("image", "export", "sparse", out)
        self.assertEqual(out.stat().st_size, 1 << 40)
        self.assertLess(out.stat().st_blocks * 512, 16 * MIB)
        with open(source, "rb") as one, open(out, "rb") as other:
            for place in places:
                one.seek(place)
                other.seek(place)
                self.assertEqual(one.read(MIB), other.read(MIB))
            at = 0  # and nothing else holds data
            while True:
                try:
                    at = os.lseek(other.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                other.seek(at)
                block = other.read(4096)
                if any(block):
                    self.assertTrue(any(place <= at < place + MIB for place in places), at)
                at += 4096

    def test_a_file_system_full_of_files(self):
        tree = self.folder / "tree"
        for number in range(400):
            file = tree / str(number % 20) / f"file-{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.random.randbytes(self.random.randrange(200000)) if number % 3 else
                             b"some text " * self.random.randrange(5000))
        source = self.path()
        with open(source, "wb") as file:
            file.truncate(200 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-d", tree, source], check=True,
                       env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        report = self.round_trip(source, "ext4")
        self.assertLess(report["data_bytes"], 100 * MIB)
        shutil.rmtree(tree)

    def test_formats_that_qemu_knows(self):
        raw = self.mixed_file(40 * MIB)
        first = self.rdim_json("image", "import", raw, "format-raw")
        for name in ("qcow2", "vhdx", "vmdk", "vdi"):
            with self.subTest(name):
                source = self.path(name)
                subprocess.run(["qemu-img", "convert", "-O", name, raw, source], check=True)
                report = self.round_trip(source, f"format-{name}", raw=raw)
                self.assertIn(name, report["source"])
                self.assertEqual(report["new_chunks"], 0)  # the same disk in another cloth
                self.assertEqual(report["chunks"], first["chunks"])
                out = self.path(name)
                self.rdim("image", "export", "format-raw", out)
                compared = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", name, raw, out],
                                          capture_output=True, text=True)
                self.assertEqual(compared.returncode, 0, compared.stdout)
        odd = self.random_file(MIB + 1)
        self.rdim("image", "import", odd, "odd-format")
        out = self.path("qcow2")
        self.rdim("image", "export", "odd-format", out)  # rounded up to whole sectors
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", out], capture_output=True).stdout)
        self.assertEqual(info["virtual-size"], MIB + 512)

    def nbdkit(self, *arguments):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        process = subprocess.Popen(["nbdkit", "-f", "-U", folder / "s", *arguments], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 30
        while not (folder / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return f"nbd+unix:///?socket={folder}/s"

    def test_nbd_exports(self):
        raw = self.mixed_file(50 * MIB)
        uri = self.nbdkit("file", raw)
        report = self.round_trip(uri, "nbd", raw=raw)
        self.assertEqual(report["source"], "NBD export")
        self.assertLess(report["read_bytes"], 50 * MIB)  # its holes were asked for, not read
        target = self.nbdkit("data", f"<{self.random_file(60 * MIB)}", "size=60M")
        self.rdim("image", "export", "nbd", target)  # over something that was not zero
        back = self.path()
        with open(back, "wb") as file:
            subprocess.run(["nbdcopy", target, "-"], check=True, stdout=file)
        os.truncate(back, 50 * MIB)
        self.assert_same(raw, back)
        small = self.nbdkit("memory", "1M")
        self.error(8, "image", "export", "nbd", small)
        read_only = self.nbdkit("-r", "memory", "60M")
        self.error(KEY, "image", "export", "nbd", read_only)

    def test_standard_output_and_unix_socket(self):
        raw = self.mixed_file(9 * MIB + 5)
        self.rdim("image", "import", raw, "piped", server=self.server.unix_address)
        done = self.rdim("image", "export", "piped", "-", "-o", "json", server=self.server.unix_address)
        self.assertEqual(done.stdout, raw.read_bytes())
        self.assertEqual(json.loads(done.stderr)["name"], "piped")

    # --- stored once, sent once ---

    def test_the_same_content_twice_and_updates(self):
        raw = self.random_file(24 * MIB)
        first = self.rdim_json("image", "import", raw, "once")
        self.assertEqual(first["new_chunks"], first["chunks"])
        again = self.rdim_json("image", "import", raw, "twice")
        self.assertEqual((again["new_chunks"], again["new_nodes"], again["stored_bytes"]), (0, 0, 0))
        same = self.rdim_json("image", "import", raw, "once", "--update")
        self.assertTrue(same["unchanged"])
        old = raw.read_bytes()
        with open(raw, "r+b") as file:
            file.seek(10 * MIB)
            file.write(self.random.randbytes(4096))
        update = self.rdim_json("image", "import", raw, "once", "--update")
        self.assertEqual(update["sequence"], 2)
        self.assertLessEqual(update["new_chunks"], 4)
        self.assertLess(update["stored_bytes"], MIB // 2)
        versions = self.rdim_json("version", "ls", "once")["versions"]
        self.assertEqual([v["sequence"] for v in versions], [2, 1])
        self.assertEqual(versions[0]["parent"], versions[1]["id"])
        self.assertEqual([v["trusted"] for v in versions], [True, True])
        for which, content in (("", raw.read_bytes()), ("@1", old), ("@2", raw.read_bytes()),
                               ("@" + versions[1]["id"], old), ("@" + versions[1]["id"][:10], old)):
            done = self.rdim("image", "export", "once" + which, "-")
            self.assertTrue(done.stdout == content, which)
        info = self.rdim_json("image", "info", "once", "--exact")
        self.assertEqual(info["versions"], 2)
        self.assertEqual(info["figures"]["mapped_bytes"], 24 * MIB)
        self.assertFalse(info["figures"]["estimated"])
        self.assertNotIn("figures", self.rdim_json("image", "info", "once", "--fast"))

    def test_a_killed_import_is_continued(self):
        raw = self.random_file(160 * MIB)
        for number, how in enumerate((signal.SIGKILL, signal.SIGINT)):
            with self.subTest(how):
                name = f"interrupted-{number}"
                command = [BINARIES / "rdim", "--server", self.server.address, "--key", self.key, "image", "import",
                           raw, name, "--chunk-mean", ("8K", "32K")[number], "-o", "json"]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:  # until the image is there, and a little longer
                    names = [i["name"] for i in self.rdim_json("image", "ls")["images"]]
                    if name in names:
                        break
                time.sleep(0.15)
                process.send_signal(how)
                out, _ = process.communicate(timeout=60)
                if process.returncode == 0:
                    self.skipTest("the import was faster than the signal")
                image = [i for i in self.rdim_json("image", "ls")["images"] if i["name"] == name][0]
                self.assertIsNone(image["head"])
                self.error(NOT_FOUND, "image", "export", name, self.path())
                if how == signal.SIGINT:
                    self.assertEqual(process.returncode, INTERRUPTED)
                    self.assertEqual(json.loads(out)["error"]["code"], "cancelled")
                    self.assertIsNone(image["holder"])  # the lease was given back
                else:  # nobody renews its lease: the next import waits for the end of it
                    self.assertEqual(self.error(REFUSED, "image", "rm", name, "--yes")["code"], "lease-held")
                report = self.rdim_json("image", "import", raw, name, "--chunk-mean", ("8K", "32K")[number])
                self.assertTrue(report["resumed"])
                self.assertEqual(report["image"], image["id"])
                self.assertGreater(report["present_objects"], 0)
                self.assertLess(report["new_chunks"], report["chunks"])
                out = self.path()
                self.rdim("image", "export", name, out)
                self.assert_same(raw, out)
                out.unlink()

    # --- bad input: the right code, a message that says what to do, nothing half done ---

    def test_names_that_are_not_there(self):
        self.error(NOT_FOUND, "image", "import", self.folder / "none", "x")
        self.error(NOT_FOUND, "image", "info", "none")
        self.error(NOT_FOUND, "image", "export", "none", self.path())
        self.error(NOT_FOUND, "image", "rm", "none", "--yes")
        self.error(NOT_FOUND, "version", "ls", "none")
        self.error(NOT_FOUND, "image", "import", self.key, "x", key=self.folder / "none")
        self.error(NOT_FOUND, "image", "import", self.key, "x", "--update")
        self.error(USAGE, "image", "import", self.folder, "x")  # a folder
        empty = self.path()
        empty.touch()
        self.error(USAGE, "image", "import", empty, "x")
        self.assertNotIn("x", [i["name"] for i in self.rdim_json("image", "ls")["images"]])

    def test_wrong_use(self):
        for arguments in ((), ("image",), ("image", "import"), ("nonsense",), ("image", "ls", "--nonsense"),
                          ("image", "import", self.key, "x", "--chunk-mean", "1K"),
                          ("image", "import", self.key, "x", "--chunk-mean", "many")):
            with self.subTest(arguments):
                self.error(USAGE, *arguments)
        self.assertIn(b"image", self.rdim("--help").stdout)
        self.assertIn(b"rdim", self.rdim("--version").stdout)

    def test_keys(self):
        shown = self.rdim("key", "show", self.key).stdout.decode()
        for line in self.key.read_text().splitlines():
            if "secret" in line or "seed" in line:
                self.assertNotIn(line.split("=")[1].strip(), shown)
        self.assertEqual(stat.S_IMODE(self.key.stat().st_mode), 0o600)
        self.error(REFUSED, "key", "new", self.key)

        raw = self.random_file(MIB)
        self.rdim("image", "import", raw, "locked")
        other = self.folder / "other-key"
        self.rdim("key", "new", other)
        before = self.rdim_json("version", "ls", "locked")["versions"]
        for arguments in (("image", "import", raw, "locked", "--update"), ("image", "export", "locked", self.path()),
                          ("image", "info", "locked")):
            with self.subTest(arguments):
                self.assertEqual(self.error(KEY, *arguments, key=other)["code"], "wrong-key")
        self.assertEqual(self.rdim_json("version", "ls", "locked")["versions"], before)
        foreign = self.rdim_json("version", "ls", "locked", key=other, expect=DAMAGED)
        self.assertEqual(foreign["versions"][0]["trusted"], False)
        self.assertIn("error", foreign)

        open_to_all = self.folder / "open-key"
        shutil.copy(self.key, open_to_all)
        open_to_all.chmod(0o644)
        self.assertIn("chmod 600", self.error(KEY, "image", "info", "locked", key=open_to_all)["hint"])
        broken = self.folder / "broken-key"
        text = self.key.read_text()
        for damaged in (text[:-20], text.replace("domain-secret = ", "domain-secret = ff", 1), "", "hello\n"):
            broken.write_text(damaged)
            broken.chmod(0o600)
            self.error(DAMAGED, "image", "info", "locked", key=broken)

    def test_what_exists_is_not_overwritten(self):
        raw = self.random_file(MIB)
        self.rdim("image", "import", raw, "there")
        self.assertIn("--update", self.error(REFUSED, "image", "import", raw, "there")["hint"])
        target = self.path()
        target.write_text("mine")
        self.assertIn("--force", self.error(REFUSED, "image", "export", "there", target)["hint"])
        self.assertEqual(target.read_text(), "mine")
        self.rdim("image", "export", "there", target, "--force")
        self.assert_same(raw, target)
        longer = self.random_file(MIB + 1)
        self.error(USAGE, "image", "import", longer, "there", "--update")
        self.error(USAGE, "image", "rm", "there", stdin=subprocess.DEVNULL)  # not asked, not told --yes
        self.rdim("image", "rm", "there", "--yes")
        self.error(NOT_FOUND, "image", "info", "there")

    def test_sources_that_are_damaged_or_lie(self):
        text = self.path("txt")
        text.write_text("x" * 100000)
        found = self.error(FAILED, "image", "import", text, "lie", "--format", "qcow2")
        self.assertIn("qcow2", found["message"])
        self.error(UNREACHABLE, "image", "import", "nbd://127.0.0.1:1", "lie")

    def test_a_server_that_is_away(self):
        for arguments in (("image", "ls"), ("image", "import", self.key, "x"), ("version", "ls", "x"),
                          ("image", "export", "x", self.path())):
            with self.subTest(arguments):
                self.error(UNREACHABLE, *arguments, server="127.0.0.1:1")
        self.error(USAGE, "image", "ls", server="nonsense")

    def test_a_full_target_leaves_nothing(self):
        raw = self.random_file(8 * MIB)
        self.rdim("image", "import", raw, "large")
        folder = self.folder / "small"
        folder.mkdir()
        target = folder / "out.raw"
        command = ["bash", "-c", 'ulimit -f 2048; trap "" XFSZ; exec "$@"', "_", str(BINARIES / "rdim"), "--server",
                   self.server.address, "--key", str(self.key), "image", "export", "large", str(target)]
        done = subprocess.run(command, capture_output=True)
        self.assertIn(done.returncode, (FAILED, 8), done.stderr)
        self.assertEqual(list(folder.iterdir()), [])


if __name__ == "__main__":
    print(f"DIMS_TEST_SEED={SEED}", flush=True)
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
