"""Drives the real programs from outside: one World a test, everything in one temporary folder.

A test file defines run(world) and ends with dims_system.main(run, __doc__). Exit codes of a test: 0 passed,
1 failed, 77 skipped (something it needs is not there), 2 wrong usage.

Every process is known by its id, dies with the test, and writes to a log in the folder; the folder is removed
when the test passes and kept (and named) when it fails. All randomness comes from one printed seed.
"""
import argparse
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from processes import Disk, Server, StartError  # noqa: F401  (tests take it from here)

SKIPPED = 77
SUPPORT = Path(__file__).resolve().parents[2] / "support"
SANITIZER_SAYS = re.compile(r"(WARNING|ERROR): (Thread|Address|Leak)Sanitizer|: runtime error: ")


class Skip(Exception):
    """What the test needs is not on this machine."""


class CommandFailed(Exception):
    """A command of ours ended with an exit code that was not expected."""

    def __init__(self, command, code, out, err):
        super().__init__(f"{' '.join(map(str, command))}\n  exit code {code}\n  stdout: {out.strip()}\n  stderr: {err.strip()}")
        self.code, self.out, self.err = code, out, err


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def check_equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, expected {wanted!r}")


def check_says(text, *parts):
    """Every part must be in the text: an error says what, where and what to do."""
    for part in parts:
        if part.lower() not in text.lower():
            raise AssertionError(f"the message does not say {part!r}:\n{text.strip()}")


def wait_until(condition, seconds, what):
    """Polls until the condition gives something true, and returns that."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class World:
    def __init__(self, folder, build, seed, large, sanitize=""):
        self.folder = Path(folder)
        self.build = Path(build).resolve()
        self.seed = seed
        self.large = large
        self.sanitize = sanitize
        self.rng = random.Random(seed)
        self.started = time.monotonic()
        self.processes = []  # everything that start() started
        self.bin = self.build / "bin"
        self.plugin = self.build / "lib" / "nbdkit-ldim-plugin.so"
        for path in (self.bin / "rdim-server", self.bin / "rdim", self.bin / "ldim", self.plugin):
            if not path.exists():
                raise Skip(f"{path} is not built")

    # --- small things ---

    def say(self, text):
        print(f"[{time.monotonic() - self.started:7.1f} s] {text}", flush=True)

    def path(self, name):
        return self.folder / name

    def size(self, small, large):
        """A knob: one value for CI, one by hand."""
        return large if self.large else small

    def times(self, small, large):
        """How often something is repeated. A sanitizer makes each time long and finds nothing new in the hundredth."""
        return max(small // 4, min(small, 4)) if self.sanitize and not self.large else self.size(small, large)

    # --- processes ---

    def start(self, command, log, env=None):
        """Starts a process that dies with this one; its output is appended to the log."""
        with open(log, "ab") as out:
            process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env=self.environment(env), preexec_fn=_die_with_parent)
        self.processes.append(process)
        return process

    def environment(self, more=None, preload=False):
        env = {k: v for k, v in os.environ.items() if k not in ("RDIM_SERVER", "RDIM_KEY", "LDIM_CACHE")}
        env["LC_ALL"] = "C"
        env["DIMS_CONFIG"] = str(self.path("config"))  # nobody's own list of known servers
        if preload and self.sanitize:  # nbdkit itself is not built with it
            library = "libtsan.so" if "thread" in self.sanitize else "libasan.so"
            found = subprocess.run(["gcc", f"-print-file-name={library}"], capture_output=True, text=True, check=True)
            first = self.build / "lib" / "libdims_sanitizer_first.so"  # tests/support/sanitizer_first.cc
            env["LD_PRELOAD"] = ":".join([found.stdout.strip(), *([str(first)] if first.exists() else [])])
            # What nbdkit and its libraries never free is not ours.
            env["ASAN_OPTIONS"] = ":".join(filter(None, (env.get("ASAN_OPTIONS"), "detect_leaks=0")))
        env.update(more or {})
        return env

    def run(self, *command, check_code=0, timeout=300, env=None):
        """Runs to the end; gives stdout. check_code=None: any code, gives (code, stdout, stderr)."""
        done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, env=self.environment(env), errors="replace")
        if self.sanitize and SANITIZER_SAYS.search(done.stderr):
            raise CommandFailed(command, done.returncode, done.stdout, done.stderr)
        if check_code is None:
            return done.returncode, done.stdout, done.stderr
        if done.returncode != check_code:
            raise CommandFailed(command, done.returncode, done.stdout, done.stderr)
        return done.stdout

    # --- the four programs ---

    def key(self, name="key"):
        path = self.path(name)
        self.run(self.bin / "rdim", "key", "new", path)
        return path

    def server(self, name="rdim", **options):
        return Server(self, name, options).start()

    def rdim(self, server, key, *arguments, timeout=600):
        """Runs rdim, gives its JSON."""
        return json.loads(self.run(*self.rdim_command(server, key, *arguments), timeout=timeout))

    def rdim_command(self, server, key, *arguments):
        return [self.bin / "rdim", "--server", server.address, "--key", key, "-o", "json", *arguments]

    def import_image(self, server, key, source, name, *options):
        return self.rdim(server, key, "image", "import", source, name, *options)

    def export_image(self, server, key, name, target):
        Path(target).unlink(missing_ok=True)
        return self.rdim(server, key, "image", "export", name, target)

    def versions(self, server, key, name):
        return self.rdim(server, key, "version", "ls", name)["versions"]

    def images(self, server, key):
        return {i["name"]: i for i in self.rdim(server, key, "image", "ls")["images"]}

    def disk(self, server, key, image, cache, **parameters):
        """A running LDIM. Parameters go to the plugin with _ for -; cache=None is diskless."""
        return self.disk_stopped(server, key, image, cache, **parameters).start()

    def disk_stopped(self, server, key, image, cache, **parameters):
        given = {"server": getattr(server, "address", server), "image": image, "key": key,
                 "cache": "none" if cache is None else self.path(cache),
                 "fill": "no"}  # tests count what is fetched, and look at what is absent
        given.update({k.replace("_", "-"): v for k, v in parameters.items()})
        return Disk(self, {k: v for k, v in given.items() if v is not None})

    # --- the end ---

    def check_sanitizers(self):
        """Processes that were killed give no exit code: what a sanitizer said is in their logs."""
        for log in sorted(self.folder.rglob("*.log")) if self.sanitize else ():
            text = log.read_text(errors="replace")
            found = SANITIZER_SAYS.search(text)
            check(not found, f"a sanitizer's report in {log}:\n{text[found.start():][:6000] if found else ''}")

    def end(self, passed, keep):
        if not passed:
            for process in self.processes:
                if process.poll() not in (None, 0, -signal.SIGKILL):
                    print(f"process {process.pid} had ended with {process.returncode}: {' '.join(process.args)[:200]}")
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
                process.wait()
        if passed and not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        if not passed:
            for log in sorted(self.folder.glob("*.log")):
                text = log.read_text(errors="replace").splitlines()
                if text:
                    print(f"--- last lines of {log}", *text[-15:], sep="\n")
        print(f"kept: {self.folder}", flush=True)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _default_build():
    return os.environ.get("DIMS_BUILD") or Path(__file__).resolve().parents[3] / "build"


def _sanitizers_of(build):
    """What the build was made with, as its CMake cache has it."""
    cache = Path(build) / "CMakeCache.txt"
    found = re.search(r"^DIMS_SANITIZE:STRING=(.*)$", cache.read_text(), re.MULTILINE) if cache.exists() else None
    return found.group(1) if found else ""


def _set_sanitizer_options():
    for line in (SUPPORT / "sanitizer_options.txt").read_text().splitlines():
        name, _, value = line.partition("=")
        if name.endswith("_OPTIONS"):
            os.environ.setdefault(name, value.replace("@support@", str(SUPPORT)))


def main(run, doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=_default_build(), help="build folder (default: DIMS_BUILD, or build/)")
    parser.add_argument("--size", choices=("small", "large"), default=os.environ.get("DIMS_TEST_SIZE", "small"),
                        help="small for CI, large by hand (default: DIMS_TEST_SIZE, or small)")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    arguments = parser.parse_args()
    seed = int(os.environ.get("DIMS_TEST_SEED") or int.from_bytes(os.urandom(6), "little"), 0) \
        if os.environ.get("DIMS_TEST_SEED") else int.from_bytes(os.urandom(6), "little")
    os.umask(0o077)  # passphrases and keys in files that others may read are refused
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    print(f"seed {seed} (DIMS_TEST_SEED={seed} repeats it)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="dims-sys.")
    passed = False
    world = None
    code = 1
    try:
        sanitize = _sanitizers_of(arguments.build)
        if sanitize:
            _set_sanitizer_options()
        world = World(folder, arguments.build, seed, arguments.size == "large", sanitize)
        run(world)
        world.check_sanitizers()
        world.say("passed")
        passed, code = True, 0
    except Skip as reason:
        print(f"skipped: {reason}", flush=True)
        passed, code = True, SKIPPED
    except Exception:  # of whatever kind: the test failed
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED with seed {seed}", flush=True)
    finally:
        if world is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            world.end(passed, arguments.keep)
    sys.exit(code)
