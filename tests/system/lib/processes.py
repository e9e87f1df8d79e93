"""rdim-server and nbdkit with the plugin, as processes that can be started, stopped, killed and asked."""
import json
import shutil
import signal
import socket
import subprocess
import time

import nbd

START_WITHIN_S = 120  # generous: the machine may be busy


class StartError(Exception):
    """The program ended instead of serving. text is what it printed."""

    def __init__(self, what, code, text):
        super().__init__(f"{what} ended with exit code {code}:\n{text.strip()}")
        self.code, self.text = code, text


def end_process(process, seconds):
    """SIGTERM; gives the exit code. An end that takes too long is a failure, not a detail."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"process {process.args[0]} did not end within {seconds} s of SIGTERM") from None


def memory_kib(process):
    """VmRSS and VmHWM of a live process."""
    fields = {}
    with open(f"/proc/{process.pid}/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                fields[name] = int(value.split()[0])
    return fields


class _Program:
    def __init__(self, world, log_name):
        self.world = world
        self.log = world.path(log_name)
        self.process = None

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def log_text(self, since=0):
        if not self.log.exists():
            return ""
        with open(self.log, "rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def kill(self):
        """SIGKILL, and gone on return."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=90):
        code = end_process(self.process, seconds)
        if code != 0:
            raise AssertionError(f"{self.process.args[0]} ended with exit code {code} after SIGTERM:\n{self.log_text()[-2000:]}")

    def memory(self):
        return memory_kib(self.process)


class Server(_Program):
    """rdim-server. It keeps its port over restarts, so that clients find it again."""

    def __init__(self, world, name, options):
        super().__init__(world, f"{name}.log")
        self.data = world.path(name)
        self.options = {k.replace("_", "-"): v for k, v in options.items()}
        self.port = 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def pinned(self):
        """HOST:PORT#FINGERPRINT."""
        out = self.world.run(self.world.bin / "rdim-server", "fingerprint", "--data", self.data)
        return self.address + "#" + next(word for word in out.replace(":", "").split() if len(word) == 64)

    def start(self):
        port_file = self.world.path(self.log.stem + ".port")
        port_file.unlink(missing_ok=True)
        since = self.log.stat().st_size if self.log.exists() else 0
        command = [self.world.bin / "rdim-server", "--data", self.data, "--listen", self.address, "--port-file", port_file]
        for name, value in self.options.items():
            command += [f"--{name}", value]
        self.process = self.world.start(command, self.log)
        until = time.monotonic() + START_WITHIN_S
        while not port_file.exists():
            if not self.alive:
                raise StartError("rdim-server", self.process.returncode, self.log_text(since))
            if time.monotonic() > until:
                raise AssertionError("rdim-server is not ready")
            time.sleep(0.01)
        self.port = int(port_file.read_text())
        return self

    def copy_data_to(self, folder):
        if self.alive:
            raise AssertionError("stop the server before its store is copied")
        shutil.copytree(self.data, folder)


class Disk(_Program):
    """nbdkit with the LDIM plugin on a UNIX socket."""

    count = 0

    def __init__(self, world, parameters):
        Disk.count += 1
        name = f"disk{Disk.count}"
        super().__init__(world, f"{name}.log")
        self.socket = world.path(f"{name}.sock")
        self.parameters = parameters
        self.cache = parameters.get("cache")
        self.inside = []  # a command that runs another one, in a network of its own, say

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def start(self):
        self.socket.unlink(missing_ok=True)
        since = self.log.stat().st_size if self.log.exists() else 0
        command = [*self.inside, "nbdkit", "-f", "-U", self.socket, self.world.plugin]
        command += [f"{name}={value}" for name, value in self.parameters.items()]
        self.process = self.world.start(command, self.log, self.world.environment(preload=True))
        until = time.monotonic() + START_WITHIN_S
        while not self._greets():
            if not self.alive:
                raise StartError("nbdkit", self.process.returncode, self.log_text(since))
            if time.monotonic() > until:
                raise AssertionError(f"nbdkit is not ready:\n{self.log_text(since)}")
            time.sleep(0.01)
        self.log_since = since
        return self

    def _greets(self):
        # The socket is there before the disk is open; the greeting comes after.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(START_WITHIN_S)
            try:
                probe.connect(str(self.socket))
                return probe.recv(18).startswith(b"NBDMAGIC")
            except (FileNotFoundError, ConnectionError):
                return False

    def start_fails(self):
        """Starts expecting an error; gives what was printed. The exit code must tell, too."""
        try:
            self.start()
        except StartError as error:
            if error.code != 1:
                raise AssertionError(f"nbdkit's exit code is {error.code}, expected 1:\n{error.text}") from error
            return error.text
        self.kill()
        raise AssertionError(f"nbdkit started with {self.parameters}, which should have been refused")

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def connect(self):
        handle = nbd.NBD()
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_unix(str(self.socket))
        return handle

    def ldim_command(self, *arguments):
        return [self.world.bin / "ldim", "--cache", self.cache, *arguments]

    def ldim(self, *arguments, timeout=300):
        return json.loads(self.world.run(*self.ldim_command("-o", "json", *arguments), timeout=timeout))

    def status(self):
        return self.ldim("status")

    def sync(self, timeout=240):
        report = self.ldim("sync", "--wait", "--timeout", f"{timeout}s", timeout=timeout + 30)
        if not report["committed"]:
            raise AssertionError(f"ldim sync --wait returned before the server had it: {report}")
        return report

    def leave(self, *handles):
        """The guest shuts down and its session ends: the next start begins on the image's newest version."""
        for handle in handles:
            handle.shutdown()
        until = time.monotonic() + START_WITHIN_S
        while True:
            code, out, err = self.world.run(*self.ldim_command("session", "end"), check_code=None)
            if code == 0:
                return
            # 4: the client is connected. It has left, but nbdkit may not have noticed yet.
            if code != 4 or time.monotonic() > until:
                raise AssertionError(f"ldim session end: exit code {code}: {out} {err}")
            time.sleep(0.05)

    def wipe_cache(self):
        """Removes the whole cache folder, journal included: only after a sync."""
        if self.alive:
            raise AssertionError("stop LDIM before its cache is wiped")
        shutil.rmtree(self.cache)
