#!/usr/bin/python3
"""TCP is TLS 1.3 with a known server, and everything else is refused with a message that says why.

Another certificate, an expired one, TLS 1.2 from either side, plaintext from either side, an address that other
machines can reach; first contact, a changed certificate, a new one that is given by hand.
"""
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import sources  # noqa: E402
from dims_system import Skip, check, check_equal, check_says, wait_until  # noqa: E402
from sources import MIB  # noqa: E402

UNREACHABLE = 5  # rdim's exit code: a server that is refused is one that is not there


def fingerprint(world, server):
    return world.run(world.bin / "rdim-server", "fingerprint", "--data", server.data).strip()


def s_client(world, port, *options):
    """What openssl says of a connection; it sends a little, so that a silent end shows, too."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options], input=b"PRI * HTTP/2.0\r\n\r\n",
                          capture_output=True, timeout=60, env=world.environment())
    return (done.stdout + done.stderr).decode(errors="replace")


def rdim_fails(world, address, *says, env=None):
    code, _, err = world.run(world.bin / "rdim", "--server", address, "image", "ls", check_code=None, env=env)
    check_equal(code, UNREACHABLE, f"rdim's exit code for {address}: {err}")
    check_says(err, *says)
    return err


def rdim_works(world, address, env=None):
    world.run(world.bin / "rdim", "--server", address, "image", "ls", env=env)


def config(world, name):
    return {"DIMS_CONFIG": str(world.path(name))}


class FakePeer:
    """openssl as a server with a certificate of its own."""

    def __init__(self, world, certificate, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = world.start(["openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", f"{certificate}.crt",
                                    "-key", f"{certificate}.key", "-alpn", "h2", "-quiet", *options],
                                   world.path(f"fake-{self.port}.log"))
        wait_until(self.listens, 30, "openssl s_server listens")
        self.address = f"127.0.0.1:{self.port}"

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def make_certificate(world, name, *options):
    path = world.path(name)
    world.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{path}.key",
              "-out", f"{path}.crt", "-subj", "/CN=rdim", *options)
    return path


def expired_certificate(world):
    """Only 'openssl x509 -req -days -1' makes one that has ended."""
    path = make_certificate(world, "expired")
    world.run("openssl", "req", "-new", "-key", f"{path}.key", "-subj", "/CN=rdim", "-out", f"{path}.csr")
    world.run("openssl", "x509", "-req", "-in", f"{path}.csr", "-signkey", f"{path}.key", "-days", "-1", "-out", f"{path}.crt")
    return path


def plaintext_peer():
    """Answers everybody as an HTTP/2 server without TLS would."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # empty SETTINGS
            peer.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def clients_of_other_protocols(world, server):
    told = s_client(world, server.port, "-tls1_3", "-alpn", "h2")
    check_says(told, "TLSv1.3", "Cipher is TLS_")
    for options in (["-tls1_2"], ["-tls1_2", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-psk", "abcd", "-cipher", "PSK"],
                    ["-no_tls1_3"], ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]):
        told = s_client(world, server.port, "-alpn", "h2", *options)
        check("Cipher is (NONE)" in told, f"{options} were not refused:\n{told}")
    # Plaintext: the server says nothing that HTTP/2 would understand, and ends the connection.
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        got = b""
        try:
            while piece := plain.recv(4096):
                got += piece
        except ConnectionError:
            pass
    check(len(got) < 16 and not got.startswith(b"\x00\x00"), f"plaintext was answered: {got!r}")
    world.say("TLS 1.3 alone is spoken to clients")


def servers_of_other_protocols(world):
    certificate = make_certificate(world, "fake")
    rdim_fails(world, FakePeer(world, certificate, "-tls1_2").address, "refused", "does not speak TLS 1.3", "stands between")
    plain = plaintext_peer()
    rdim_fails(world, f"127.0.0.1:{plain.getsockname()[1]}", "refused", "plaintext", "UNIX sockets")
    plain.close()
    expired = FakePeer(world, expired_certificate(world), "-tls1_3")
    rdim_fails(world, expired.address, "refused", "expired on", "rdim-server init --renew")
    world.say("old, plaintext and expired servers are refused")


def known_servers(world, server):
    own = fingerprint(world, server)
    check_says(server.log_text(), own)
    rdim_works(world, f"{server.address}#{own}", config(world, "pinned"))
    grouped = ":".join(own.upper()[i:i + 2] for i in range(0, 64, 2))
    rdim_works(world, f"{server.address}#{grouped}", config(world, "pinned"))
    # A fingerprint is a fingerprint.
    code, _, err = world.run(world.bin / "rdim", "--server", f"{server.address}#12", "image", "ls", check_code=None)
    check_equal(code, 2, err)
    check_says(err, "no fingerprint", "64 hex digits")
    other = "0" * 64
    rdim_fails(world, f"{server.address}#{other}", "not the server known as", own, other, "given with the address",
               env=config(world, "nobody"))
    check(not world.path("nobody").exists(), "a refused server was remembered")

    # First contact is remembered, privately.
    env = config(world, "first/deep")
    rdim_works(world, server.address, env)
    file = world.path("first/deep/known-servers")
    check_says(file.read_text(), f"{server.address} {own}")
    check_equal(file.stat().st_mode & 0o777, 0o600, "mode of known-servers")
    check_equal(file.parent.stat().st_mode & 0o777, 0o700, "mode of its folder")
    rdim_works(world, server.address, env)
    check_equal(file.read_text().count(own), 1, "lines for one server")
    # Half a line, as a power cut leaves it, is no line.
    with open(file, "a") as half:
        half.write(f"{server.address} {'ab' * 20}")
    rdim_works(world, server.address, env)

    # Another certificate at the known address.
    certificate = file.read_text()
    server.stop()
    world.run(world.bin / "rdim-server", "init", "--renew", "--data", server.data)
    server.start()
    new = fingerprint(world, server)
    check(new != own, "the certificate was not renewed")
    said = rdim_fails(world, server.address, "not the server known as", own, new, str(file), env=env)
    check_says(said, "somebody may stand between", "administrator")
    check_equal(file.read_text(), certificate, "the file after the refusal")
    rdim_works(world, f"{server.address}#{new}", env)  # by hand, once
    rdim_works(world, server.address, env)
    world.say("a server is known by its certificate")


def a_disk(world, server):
    """LDIM: the same, and a stranger in the server's place is a server that is away."""
    key = world.key()
    source = sources.random_file(world.path("disk.src"), 8 * MIB, world.rng)
    world.import_image(server, key, source, "disk")
    own = fingerprint(world, server)
    wrong = world.disk_stopped(f"{server.address}#{'1' * 64}", key, "disk", "other", connect_wait="1s")
    text = wrong.start_fails()
    check_says(text, "not the server known as", own, "given with the address")
    check(not world.path("other").exists(), "a refused start left a cache folder")

    disk = world.disk(server, key, "disk", "cache", connect_wait="1s", read_ahead="no")
    check_says((world.path("cache") / "known-servers").read_text(), f"{server.address} {own}")
    handle = disk.connect()
    with open(source, "rb") as expected:
        begin = expected.read(MIB)
    check(handle.pread(MIB, 0) == begin, "the disk's content")
    tls = server.data / "tls"
    shutil.copytree(tls, world.path("tls.old"))
    server.stop()
    world.run(world.bin / "rdim-server", "init", "--renew", "--data", server.data)
    server.start()
    handle.pwrite(b"x" * 4096, 0)
    handle.flush()
    check(handle.pread(MIB, 0) == b"x" * 4096 + begin[4096:], "the disk while a stranger answers")
    wait_until(lambda: "is refused: this is not the server known as" in disk.log_text() or not disk.status()["server"]["connected"], 60,
               "the stranger is noticed")
    check(not disk.status()["server"]["connected"], "connected to a stranger")
    # The server itself comes back.
    server.stop()
    shutil.rmtree(tls)
    shutil.copytree(world.path("tls.old"), tls)
    server.start()
    disk.sync()
    handle.shutdown()
    disk.stop()
    world.say("a disk works on while a stranger answers, and sends to its own server")


def addresses(world):
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:7440"):
        code, _, err = world.run(world.bin / "rdim-server", "--data", world.path("open"), "--listen", address, check_code=None)
        check_equal(code, 4, err)
        check_says(err, address, "other machines can reach", "organisation")
    for address in ("localhost:0", "127.1.2.3:0"):
        server = world.server(f"local-{address[:3]}", listen=address)
        server.stop()


def first_start(world):
    data = world.path("fresh")
    told = world.run(world.bin / "rdim-server", "init", "--data", data)
    printed = world.run(world.bin / "rdim-server", "fingerprint", "--data", data).strip()
    check_says(told, printed, "bootstrap-secret")
    for name in ("bootstrap-secret", "tls/server.key", "tls/server.crt"):
        check_equal((data / name).stat().st_mode & 0o777, 0o600, f"mode of {name}")
    secret = (data / "bootstrap-secret").read_text()
    check_equal(len(secret.strip()), 64, "digits of the secret")
    check(secret.strip() not in told, "the secret was printed")
    world.run(world.bin / "rdim-server", "init", "--data", data)  # again: nothing changes
    check_equal((data / "bootstrap-secret").read_text(), secret, "the secret")
    check_equal(world.run(world.bin / "rdim-server", "fingerprint", "--data", data).strip(), printed, "the fingerprint")
    code, _, err = world.run(world.bin / "rdim-server", "fingerprint", "--data", world.path("nowhere"), check_code=None)
    check_equal(code, 1, err)
    check_says(err, "nowhere")
    # A key that is not the certificate's is named, not served.
    broken = world.path("broken")
    shutil.copytree(data, broken)
    shutil.copy(f"{make_certificate(world, 'odd')}.key", broken / "tls/server.key")
    code, _, err = world.run(world.bin / "rdim-server", "--data", broken, "--listen", "127.0.0.1:0", check_code=None)
    check_equal(code, 3, err)
    check_says(err, "server.crt", "private key")


def run(world):
    if shutil.which("openssl") is None:
        raise Skip("openssl is not installed")
    first_start(world)
    addresses(world)
    server = world.server()
    clients_of_other_protocols(world, server)
    servers_of_other_protocols(world)
    known_servers(world, server)
    a_disk(world, server)


if __name__ == "__main__":
    dims_system.main(run, __doc__)
