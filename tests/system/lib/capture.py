"""A proxy in front of a server that writes down all bytes of both directions."""
import socket
import threading


class Capture:
    def __init__(self, world, server, name="traffic.bin"):
        self.server = server
        self.file = open(world.path(name), "wb")
        self.lock = threading.Lock()
        self.bytes = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.world = world
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def address_pinned(self):
        """With the server's fingerprint: the certificate does not care where it is asked for."""
        out = self.world.run(self.world.bin / "rdim-server", "fingerprint", "--data", self.server.data)
        digits = [word for word in out.replace(":", "").split() if len(word) == 64]
        return f"{self.address}#{digits[0]}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(("127.0.0.1", self.server.port))
            except OSError:
                client.close()
                continue
            for one, other in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one, other):
        try:
            while data := one.recv(1 << 16):
                with self.lock:
                    self.bytes += len(data)
                    self.file.write(data)
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.listener.close()
        with self.lock:
            self.file.flush()
