#!/usr/bin/env python3
"""Runs a QEMU guest from an NBD export and drives it over its serial console.

As a module: Guest(...).start(), wait_for_login(), login(), run(), shut_down(); see the class.
As a command: `guest.py boot --help`, `guest.py attach DIR`. Python's standard library only.

Files in the guest's directory: console.sock (serial console), qmp.sock (QEMU's own control), console.log
(everything that the guest said), qemu.pid, qemu.log. QEMU outlives this process only if asked to.
"""

import argparse
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import time
import tty

ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Za-z0-9]|[=>78cDEHM])")
LOGIN_PROMPT = rb"(?m)^[^\r\n]*login: *$"
STAGES = (("grub_s", rb"GNU GRUB|GRUB loading|Booting `"), ("kernel_s", rb"Linux version \d|Loading Linux"))
LINE_MAX_BYTES = 3500  # a terminal in line mode takes 4095 bytes a line


class GuestError(Exception):
    """What went wrong, where, and the console's last lines."""


class Guest:
    """One virtual machine. Not thread-safe. Owns its QEMU process until detach().

    disk: path of a UNIX socket of an NBD server, or an NBD URI.
    reconnect_delay_s: how long QEMU holds the guest's requests while the NBD server is away before it
    gives the guest an error; 0 = error at once.
    timings: seconds from start() to each stage, and of the shut-down.
    """

    def __init__(self, disk, directory, memory_mib=512, cpus=1, reconnect_delay_s=0, export="", readonly=False,
                 extra_arguments=(), accelerator="tcg"):
        self.disk = disk
        self.directory = os.path.abspath(directory)
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.reconnect_delay_s = reconnect_delay_s
        self.export = export
        self.readonly = readonly
        self.extra_arguments = list(extra_arguments)
        self.accelerator = accelerator
        self.process = None
        self.console = None
        self.timings = {}
        self._buffer = b""  # console output, escapes removed, not yet consumed by a match
        self._raw_tail = b""
        self._started = 0.0
        self._serial = 0

    # --- life ---

    def start(self):
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for name in ("console.sock", "qmp.sock"):
            _unlink(self._path(name))
        arguments = self.qemu_arguments()
        with open(self._path("qemu.log"), "wb") as log:
            log.write((shlex.join(arguments) + "\n").encode())
            log.flush()
            self._started = time.monotonic()
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        with open(self._path("qemu.pid"), "w", encoding="ascii") as pid_file:
            pid_file.write(f"{self.process.pid}\n")
        # QEMU waits for this connection before the first instruction, so that no output is lost.
        self.console = self._connect("console.sock")
        return self

    def qemu_arguments(self):
        blockdev = {"driver": "nbd", "node-name": "disk0", "export": self.export, "read-only": self.readonly,
                    "discard": "unmap", "server": _server_address(self.disk)}
        if self.reconnect_delay_s > 0:
            blockdev["reconnect-delay"] = self.reconnect_delay_s
        return ["qemu-system-x86_64", "-accel", self.accelerator, "-cpu", "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2", "-m", str(self.memory_mib),
                "-smp", str(self.cpus), "-display", "none", "-no-reboot", "-nodefaults", "-vga", "std",
                "-device", "virtio-rng-pci",
                "-chardev", f"socket,id=console,path={self._path('console.sock')},server=on,wait=on,"
                            f"logfile={self._path('console.log')},logappend=off",
                "-serial", "chardev:console",
                "-qmp", f"unix:{self._path('qmp.sock')},server=on,wait=off",
                "-blockdev", json.dumps(blockdev),
                "-device", "virtio-blk-pci,drive=disk0,bootindex=0",
                *self.extra_arguments]

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def detach(self):
        """Leaves QEMU running without this process; its console can be connected to again."""
        if self.console:
            self.console.close()
            self.console = None

    def kill(self):
        """Ends QEMU at once, as a power cut would. Safe to call at any time."""
        if self.alive():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.detach()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.console:
            self.kill()

    # --- console ---

    def wait_for(self, pattern, timeout_s, what=None):
        """Reads the console until `pattern` (bytes) matches; returns the match and forgets what came before its end."""
        deadline = time.monotonic() + timeout_s
        compiled = re.compile(pattern)
        while True:
            match = compiled.search(self._buffer)
            if match:
                self._buffer = self._buffer[match.end():]
                return match
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error(f"the guest did not show {what or pattern!r} within {timeout_s:.0f} s")
            self._read(left)

    def send(self, text):
        self.console.sendall(text.encode())

    def wait_for_login(self, timeout_s=300):
        """Waits for a login prompt; fills timings. A silent console gets a newline now and then."""
        deadline = time.monotonic() + timeout_s
        stages = dict(STAGES)
        prompt = re.compile(LOGIN_PROMPT)
        while True:
            for name, pattern in list(stages.items()):
                if re.search(pattern, self._buffer):
                    self.timings[name] = self._since_start()
                    del stages[name]
            match = prompt.search(self._buffer)
            if match:
                self.timings["login_s"] = self._since_start()
                self._buffer = self._buffer[match.end():]
                return self.timings["login_s"]
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error(f"no login prompt within {timeout_s:.0f} s")
            self._read(left)

    def login(self, user="root", password="dims", timeout_s=300):
        self.send(user + "\n")
        self.wait_for(rb"(?i)password: *$", timeout_s, "a password prompt")
        self.send(password + "\n")
        match = self.wait_for(rb"(?m)[#$>] ?$|Login incorrect", timeout_s, "a shell prompt")
        if b"incorrect" in match.group():
            raise self._error(f"the guest refused the login of '{user}'")
        # A plain shell without echo, line editing or prompt: what comes back is output and nothing else.
        self.send("exec sh\n")
        time.sleep(0.2)
        ready = self._marker("READY")
        self.send(f"stty -echo -onlcr; PS1= PS2=; dmesg -n 1 2>/dev/null; printf '%s%s\\n' {ready[:5]} {ready[5:]}\n")
        self.wait_for(re.escape(ready).encode() + rb"\r?\n", timeout_s, "a plain shell")
        self.timings["shell_s"] = self._since_start()

    def run(self, command, timeout_s=300, check=True):
        """Runs a shell command in the guest; returns (exit code, output as text).

        With check, an exit code other than 0 raises GuestError.
        """
        begin, end = self._marker("BEGIN"), self._marker("ENDOF")
        line = (f"printf '%s%s\\n' {begin[:5]} {begin[5:]}; ( {command}\n) </dev/null 2>&1; "
                f"printf '%s%s %d\\n' {end[:5]} {end[5:]} $?\n")
        if max(len(part) for part in line.encode().split(b"\n")) > LINE_MAX_BYTES:
            raise GuestError("the command is too long for a serial console: write a file in pieces")
        self.send(line)
        self.wait_for(re.escape(begin).encode() + rb"\r?\n", timeout_s, "the start of a command")
        match = self.wait_for(rb"(?s)(.*?)" + re.escape(end).encode() + rb" (\d+)\r?\n", timeout_s,
                              f"the end of: {command}")
        code, output = int(match[2]), match[1].decode(errors="replace").replace("\r\n", "\n")
        if check and code != 0:
            raise GuestError(f"in the guest, '{command}' ended with exit code {code}: {output.strip()}")
        return code, output

    # --- end ---

    def shut_down(self, timeout_s=300, logged_in=True):
        """A clean shut-down from inside (or by the power button when nobody is logged in); waits for QEMU's end."""
        began = time.monotonic()
        if logged_in:
            self.send("sync; poweroff\n")
        else:
            self.qmp("system_powerdown")
        deadline = began + timeout_s
        while self.alive():
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error(f"the guest did not power off within {timeout_s:.0f} s")
            try:
                self._read(min(left, 0.5))
            except GuestError:
                time.sleep(0.1)
        if self.process.returncode != 0:
            raise self._error(f"QEMU ended with code {self.process.returncode}")
        self.timings["shutdown_s"] = round(time.monotonic() - began, 2)
        self.detach()

    def qmp(self, command, **arguments):
        """One command to QEMU itself; returns its answer."""
        with self._connect("qmp.sock") as control, control.makefile("rw", encoding="utf-8") as stream:
            stream.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                while True:
                    answer = json.loads(stream.readline() or '{"error": {"desc": "QEMU hung up"}}')
                    if "error" in answer:
                        raise GuestError(f"QEMU refused {request['execute']}: {answer['error'].get('desc')}")
                    if "return" in answer:
                        break
        return answer["return"]

    # --- inside ---

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _since_start(self):
        return round(time.monotonic() - self._started, 2)

    def _marker(self, word):
        self._serial += 1
        return f"{word}-{os.getpid()}-{self._serial}-"

    def _connect(self, name, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._path(name))
                return connection
            except OSError as error:
                connection.close()
                if not self.alive():
                    raise self._error("QEMU did not start") from error
                if time.monotonic() > deadline:
                    raise self._error(f"cannot connect to {self._path(name)}: {error}") from error
                time.sleep(0.05)

    def _read(self, timeout_s):
        ready, _, _ = select.select([self.console], [], [], max(0.0, timeout_s))
        if not ready:
            return
        data = self.console.recv(65536)
        if not data:
            raise self._error("the guest's console closed: QEMU ended")
        data = self._raw_tail + data
        # An escape sequence may be cut by the end of a read: keep a short unfinished one for the next.
        cut = data.rfind(b"\x1b")
        if cut >= 0 and len(data) - cut < 16 and not ESCAPES.match(data, cut):
            data, self._raw_tail = data[:cut], data[cut:]
        else:
            self._raw_tail = b""
        self._buffer += ESCAPES.sub(b"", data)

    def _error(self, message):
        tail = self._buffer[-1500:].decode(errors="replace").replace("\r", "")
        try:
            with open(self._path("qemu.log"), encoding="utf-8", errors="replace") as log:
                qemu = "".join(log.readlines()[1:])[-1500:]
        except OSError:
            qemu = ""
        return GuestError(f"{message} (directory {self.directory})"
                          + (f"\n--- QEMU said:\n{qemu}" if qemu.strip() else "")
                          + (f"\n--- the console's last lines:\n{tail}" if tail.strip() else ""))


def _unlink(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _server_address(disk):
    """A UNIX socket path or an NBD URI, as QEMU's blockdev wants it."""
    match = re.fullmatch(r"nbd\+unix:///\??(?:.*&)?socket=([^&]+)", disk)
    if match:
        return {"type": "unix", "path": match[1]}
    match = re.fullmatch(r"nbd://([^:/]+|\[[^]]+\])(?::(\d+))?/?", disk)
    if match:
        return {"type": "inet", "host": match[1].strip("[]"), "port": match[2] or "10809"}
    if "://" in disk:
        raise GuestError(f"'{disk}' is neither a UNIX socket's path nor nbd+unix:///?socket=PATH nor nbd://HOST:PORT")
    return {"type": "unix", "path": os.path.abspath(disk)}


def boot(options):
    commands = options.run or []
    log_in = bool(options.login)
    if commands and not log_in:
        raise GuestError("--run needs --login and --password")
    guest = Guest(options.disk, options.dir, memory_mib=options.memory, cpus=options.cpus,
                  reconnect_delay_s=options.reconnect_delay, extra_arguments=options.qemu_argument or ())
    results = []
    with guest:
        guest.start()
        guest.wait_for_login(options.timeout)
        if log_in:
            guest.login(options.login, options.password)
        for command in commands:
            code, output = guest.run(command, check=not options.ignore_errors)
            results.append({"command": command, "exit_code": code, "output": output})
        if options.keep:
            guest.detach()
        elif options.shut_down:
            try:
                guest.shut_down(timeout_s=300 if log_in else 60, logged_in=log_in)
            except GuestError:
                if log_in:
                    raise
                guest.timings["shutdown_s"] = None  # nobody listened to the power button: a power cut
                guest.kill()
        report = {"pid": guest.process.pid, "running": guest.alive() and options.keep, "timings": guest.timings,
                  "commands": results, "console": os.path.join(guest.directory, "console.sock"),
                  "log": os.path.join(guest.directory, "console.log")}
    return report


def attach(options):
    """Joins this terminal and a running guest's console until Ctrl-] or the guest's end."""
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(os.path.join(options.dir, "console.sock"))
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
        print("connected; Ctrl-] leaves, Enter shows the prompt\r", flush=True)
        try:
            if before:
                tty.setraw(keyboard)
            while True:
                ready, _, _ = select.select([keyboard, console], [], [])
                if console in ready:
                    data = console.recv(65536)
                    if not data:
                        break
                    os.write(sys.stdout.fileno(), data)
                if keyboard in ready:
                    data = os.read(keyboard, 4096)
                    if not data or b"\x1d" in data:
                        break
                    console.sendall(data)
        finally:
            if before:
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
                print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("boot", help="start a guest, wait for its login prompt, run commands, end it")
    verb.add_argument("disk", help="UNIX socket of an NBD server, or an NBD URI")
    verb.add_argument("--dir", required=True, help="directory for the sockets and logs")
    verb.add_argument("--memory", type=int, default=512, metavar="MIB")
    verb.add_argument("--cpus", type=int, default=1)
    verb.add_argument("--reconnect-delay", type=int, default=0, metavar="SECONDS")
    verb.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for the login prompt")
    verb.add_argument("--login", metavar="USER")
    verb.add_argument("--password", default="")
    verb.add_argument("--run", action="append", metavar="COMMAND", help="in the guest's shell; may be given again")
    verb.add_argument("--ignore-errors", action="store_true", help="go on when a command fails")
    verb.add_argument("--shut-down", action="store_true", help="shut the guest down at the end (else: kill it)")
    verb.add_argument("--keep", action="store_true", help="leave the guest running")
    verb.add_argument("--qemu-argument", action="append", metavar="ARG")
    verb.add_argument("-o", "--output", choices=("plain", "json"), default="plain")
    verb = verbs.add_parser("attach", help="join this terminal and the console of a guest that was kept")
    verb.add_argument("dir", help="the guest's directory")
    options = parser.parse_args()
    # A polite end of this process ends its guest too (see Guest.__exit__).
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        if options.verb == "attach":
            attach(options)
            return 0
        report = boot(options)
    except (GuestError, OSError) as error:
        print(f"guest.py: error: {error}", file=sys.stderr)
        return 1
    if options.output == "json":
        print(json.dumps(report, indent=2))
    else:
        for command in report["commands"]:
            print(f"$ {command['command']}\n{command['output']}[exit code {command['exit_code']}]")
        print(", ".join(f"{name} {value}" for name, value in report["timings"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
