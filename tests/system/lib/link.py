"""The slow link of slow_link.py, as a process in front of a server."""
import json
import subprocess
import sys
import time
from pathlib import Path


class Link:
    """The proxy process in front of a server."""

    def __init__(self, world, server, mbit, delay_ms, host="127.0.0.1"):
        port_file = world.path("link.port")
        port_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(Path(__file__).parent / "slow_link.py"), str(server.port), str(mbit), str(delay_ms),
             str(port_file), host], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        world.processes.append(self.process)
        until = time.monotonic() + 60
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError("the slow link is not there")
            time.sleep(0.01)
        self.address = f"{host}:{port_file.read_text()}"

    def ask(self, question="counts"):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)
