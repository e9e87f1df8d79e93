#!/usr/bin/python3
"""Every file that holds a secret is refused, by each program that reads it, while others can read it; and taken when not.

Key file, passphrases, recovery words, the server's TLS key and first secret, the machine's file and credential, the secret in
a cache folder. A join line that is no word of a command line. `ldim renew` and a control socket of another user.
"""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import StartError, check, check_says  # noqa: E402
from organisation import Organisation  # noqa: E402
from processes import Server  # noqa: E402
from sources import MIB  # noqa: E402


def renew_refuses_a_stranger(world, person):
    """Another user's process serves the socket of a folder that is not his: nobody is asked for a passphrase, nothing is said."""
    folder = world.path("stranger")
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "control.sock"))
    ready, child_ready = os.pipe()
    child = os.fork()
    if child == 0:
        heard = b""
        try:
            os.setuid(65534)
            listening.listen(1)
            os.write(child_ready, b"r")
            listening.settimeout(60)
            connection, _ = listening.accept()
            heard = connection.recv(100)
        finally:
            os._exit(1 if heard else 0)
    os.read(ready, 1)
    code, out, err = world.run(world.bin / "ldim", "--cache", folder, "renew", "--passphrase", f"+{person.secret}", check_code=None)
    check(code == 4, f"renew: exit code {code}: {out}{err}")
    check_says(err, "served by another user")
    check(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the stranger heard something")


def run(world):
    looked_at = []

    def refuses(path, command, *, modes=(0o640, 0o604)):
        """command(): what the program prints; it must succeed with the mode that the file has now."""
        before = path.stat().st_mode & 0o777
        for mode in modes:
            path.chmod(mode)
            check_says(command(), "can be read by others", "chmod 600", path.name)
        path.chmod(before)
        looked_at.append(path.name)

    def printed(person, *arguments):
        def command():
            code, out, err = person.rdim(*arguments, check_code=None)
            check(code != 0, f"{arguments} was done")
            return out + err
        return command

    org = Organisation(world)
    ann = org.user("ann")
    source = sources.random_file(world.path("disk.src"), 1 * MIB, world.rng)
    ann.rdim("image", "import", source, "anns", "--private")
    laptop = org.machine("laptop")

    refuses(ann.secret, printed(ann, "login", "ann", "--passphrase", f"+{ann.secret}"))
    refuses(ann.secret, lambda: laptop.images(ann, check_code=4))
    refuses(ann.secret, laptop.disk(ann, "anns").start_fails)
    words = world.path("words")
    words.write_text(ann.words + "\n")
    refuses(words, printed(ann, "user", "recover", "ann", "--words", f"+{words}", "--new-passphrase", f"+{ann.secret}"))
    refuses(laptop.folder / "machine", laptop.disk(ann, "anns").start_fails)
    disk = laptop.disk(ann, "anns").start()
    disk.leave()
    disk.stop()
    refuses(world.path(laptop.cache(ann, "anns")) / "machine-secret", laptop.disk(ann, "anns").start_fails)
    laptop.disk(ann, "anns").start().stop()

    # A service's credential: systemd's may be readable by a group, never by all.
    credentials = world.path("credentials")
    credentials.mkdir()
    sealed = credentials / "dims-machine-key"
    sealed.write_bytes(world.rng.randbytes(32))
    line = org.admin.rdim("machine", "token", "sealed")["join_line"]

    def enroll():
        code, out, err = world.run(world.bin / "ldim", "enroll", line, "--machine", world.path("machine-sealed"),
                                   check_code=None, env={"CREDENTIALS_DIRECTORY": str(credentials)})
        return out + err if code else ""
    refuses(sealed, enroll, modes=(0o604, 0o644))
    sealed.chmod(0o440)
    check(enroll() == "", "a credential as systemd makes it was refused")

    # A join line from a file and from a descriptor.
    line = world.path("line")
    line.write_text(org.admin.rdim("machine", "token", "by-file")["join_line"] + "\n")
    line.chmod(0o600)

    def enroll_from_file():
        code, out, err = world.run(world.bin / "ldim", "enroll", f"+{line}", "--machine", world.path("machine-by-file"), check_code=None)
        return out + err if code else ""
    refuses(line, enroll_from_file)
    check(enroll_from_file() == "", "a join line in a file was not taken")
    read, write = os.pipe()
    os.write(write, (org.admin.rdim("machine", "token", "by-descriptor")["join_line"] + "\n").encode())
    os.close(write)
    done = subprocess.run([str(world.bin / "ldim"), "-o", "json", "enroll", f"-{read}", "--machine", str(world.path("machine-by-fd"))],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=[read], env=world.environment(None), timeout=300)
    os.close(read)
    check(done.returncode == 0 and json.loads(done.stdout)["machine"] == "by-descriptor", f"by descriptor: {done.stdout}{done.stderr}")
    if os.geteuid() == 0:
        renew_refuses_a_stranger(world, ann)

    def server_fails(server):
        try:
            server.start()
        except StartError as error:
            return error.text
        server.stop()
        raise AssertionError("the server started")
    org.server.stop()
    refuses(org.server.data / "tls" / "server.key", lambda: server_fails(org.server))
    org.server.start()
    org.server.stop()
    fresh = Server(world, "fresh", {})
    world.run(world.bin / "rdim-server", "init", "--data", fresh.data)
    refuses(fresh.data / "bootstrap-secret", lambda: server_fails(fresh))
    fresh.start()
    key = world.key()
    refuses(key, lambda: world.run(world.bin / "rdim", "--server", "unix:/nowhere", "--key", key, "image", "export", "x",
                                   world.path("x.raw"), check_code=None)[2] or
            world.run(world.bin / "rdim", "--server", f"{fresh.address}", "--key", key, "image", "ls", check_code=None)[2])
    fresh.stop()
    world.say(f"refused: {', '.join(looked_at)}")


dims_system.main(run, __doc__)
