"""A TCP proxy that is a slow, long link: a rate for each direction over all connections, and a delay.

Runs as a process of its own (python3 slow_link.py TARGET_PORT RATE_MBIT DELAY_MS PORT_FILE [ADDRESS]). Asked over its
standard input with one line a question, it answers one JSON line: {"down_bytes", "up_bytes", "rounds", "connections"}; the
question "reset" starts the counts anew. connections: how many were ever accepted.

rounds is the length of the longest chain of "this was sent after that had arrived": how many times somebody had to
wait for the other end. It counts round trips whatever the speed of the machine.
"""
import json
import os
import selectors
import socket
import sys
import time
from collections import deque

PIECE = 8192
QUEUE_LIMIT = 256 << 10  # what a router would buffer, beyond what is on the way


class Direction:
    """One way of the link: pieces leave one after the other at the rate, and arrive after the delay."""

    def __init__(self, rate_bytes, delay_s):
        self.rate, self.delay = rate_bytes, delay_s
        self.free_at = 0.0
        self.bytes = 0

    def send(self, now, count):
        self.free_at = max(self.free_at, now) + count / self.rate
        self.bytes += count
        return self.free_at + self.delay

    def room(self, now):
        return (self.free_at - now) * self.rate < QUEUE_LIMIT


class End:
    """One socket and what is on the way to it."""

    def __init__(self, sock, way_in):
        self.sock, self.way_in = sock, way_in  # way_in: the direction that carries what is read here
        self.peer = None
        self.on_the_way = deque()   # (arrives at, data, round); None for the end of the stream
        self.closed_in = False
        self.seen_round = 0


class Proxy:
    def __init__(self, target_port, rate_bytes, delay_s, address):
        self.target_port = target_port
        self.connections = 0
        self.up, self.down = Direction(rate_bytes, delay_s), Direction(rate_bytes, delay_s)
        self.client_round = self.server_round = 0
        self.first_round = 0
        self.ends = []
        self.listener = socket.create_server((address, 0), backlog=64)

    def accept(self):
        client, _ = self.listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
        except OSError:
            client.close()
            return
        self.connections += 1
        a, b = End(client, self.up), End(server, self.down)
        a.peer, b.peer = b, a
        for end in (a, b):
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A small window towards the sender, so that its kernel does not hide the link.
            end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
        self.ends += [a, b]

    def read(self, end, now):
        try:
            data = end.sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            end.closed_in = True
            end.peer.on_the_way.append((now + end.way_in.delay, None, 0))
            return
        if end.way_in is self.up:
            number = self.client_round + 1   # sent after what has arrived at the client so far
        else:
            number = self.server_round
        end.peer.on_the_way.append((end.way_in.send(now, len(data)), data, number))

    def deliver(self, end, now):
        """Gives when the next piece arrives, or None."""
        while end.on_the_way:
            at, data, number = end.on_the_way[0]
            if at > now:
                return at
            if data is None:
                self.close(end)
                return None
            try:
                sent = end.sock.send(data)
            except BlockingIOError:
                return now + 0.001
            except OSError:
                self.close(end)
                return None
            if end.way_in is self.down:      # this is the server's socket
                self.server_round = max(self.server_round, number)
            else:
                self.client_round = max(self.client_round, number)
            if sent < len(data):
                end.on_the_way[0] = (at, data[sent:], number)
            else:
                end.on_the_way.popleft()
        return None

    def close(self, end):
        for one in (end, end.peer):
            one.sock.close()
            if one in self.ends:
                self.ends.remove(one)

    def answer(self, question):
        if question == "reset":
            self.up.bytes = self.down.bytes = 0
            self.first_round = self.client_round
        return {"down_bytes": self.down.bytes, "up_bytes": self.up.bytes, "rounds": self.client_round - self.first_round,
                "connections": self.connections}

    def run(self):
        while True:
            now = time.monotonic()
            arrivals = [self.deliver(end, now) for end in list(self.ends) if end in self.ends]
            selector = selectors.SelectSelector()
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(sys.stdin, selectors.EVENT_READ)
            full = False
            for end in self.ends:
                if not end.closed_in and end.way_in.room(now):
                    selector.register(end.sock, selectors.EVENT_READ, end)
                full = full or not end.closed_in
            waits = [at - now for at in arrivals if at is not None] + ([0.002] if full and not all(
                e.way_in.room(now) for e in self.ends) else [])
            for key, _ in selector.select(max(0.0, min(waits)) if waits else None):
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    print(json.dumps(self.answer(line.strip())), flush=True)
                elif key.data in self.ends:
                    self.read(key.data, time.monotonic())


def main():
    target_port, rate_mbit, delay_ms = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    proxy = Proxy(target_port, rate_mbit * 1e6 / 8, delay_ms / 1000, sys.argv[5] if len(sys.argv) > 5 else "127.0.0.1")
    with open(sys.argv[4] + ".new", "w") as out:
        out.write(str(proxy.listener.getsockname()[1]))
    os.rename(sys.argv[4] + ".new", sys.argv[4])
    proxy.run()


if __name__ == "__main__":
    main()
