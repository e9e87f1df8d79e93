"""What the parts share: rounds in which every peer has its turn, medians, ratios, tables, processes."""
import os
import platform
import resource
import statistics
import subprocess
import time

from dims_system import wait_until


def load():
    return float(open("/proc/loadavg").read().split()[0])


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return f"{len(os.sched_getaffinity(0))} cores ({model}), {memory / 2**20:.0f} GiB memory, Linux {platform.release()}"


class Bench:
    """One part: its world (folder, programs), its knobs, its samples.

    samples: {(measured thing, peer): [one number a round]}.
    """

    def __init__(self, world, options, root, name):
        self.world, self.options, self.root, self.name = world, options, root, name
        self.quick, self.runs = options.quick, options.runs
        self.samples, self.facts, self.loads = {}, {}, []
        self.started = time.monotonic()

    # --- the course of a part ---

    def begin(self, title):
        print(f"\n=== {self.name}: {title}", flush=True)
        self.calm()

    def calm(self):
        """Waits for a quiet machine, if asked to; notes the load in any case."""
        until = time.monotonic() + 600
        while self.options.calm and load() >= self.options.calm and time.monotonic() < until:
            time.sleep(2)
        self.loads.append(load())

    def say(self, text):
        print(f"    {text}", flush=True)

    def rounds(self, peers, turn, runs=None):
        """turn(peer, round) for every peer in every round, each time beginning with another one."""
        for number in range(runs or self.runs):
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                turn(peer, number)

    def add(self, what, peer, value):
        self.samples.setdefault((what, peer), []).append(value)
        self.loads.append(load())

    def fact(self, name, value):
        self.facts[name] = value

    def median(self, what, peer):
        return statistics.median(self.samples[what, peer])

    def finish(self):
        loads = f"{min(self.loads):.1f} to {max(self.loads):.1f}" if self.loads else "-"
        self.say(f"took {time.monotonic() - self.started:.0f} s; load average met: {loads}")
        return {"load": [min(self.loads), max(self.loads)] if self.loads else [], "facts": self.facts,
                "samples": [{"what": what, "peer": peer, "runs": runs, "median": statistics.median(runs)}
                            for (what, peer), runs in self.samples.items()]}

    def table(self, peers, ours, unit, digits=0, better="more", marks=None):
        """One line a measured thing: median (min..max) of each peer, our median against each other's.

        The ratio is of medians; behind it the lowest ratio within one round.
        """
        things = [what for what, peer in self.samples if peer == ours]
        others = [peer for peer in peers if peer != ours]
        rows = [["", *[f"{peer} [{unit}]" for peer in peers], *[f"{ours}/{peer} (worst round)" for peer in others]]]
        for what in things:
            row = [what]
            for peer in peers:
                runs = self.samples.get((what, peer))
                row.append(f"{statistics.median(runs):,.{digits}f} ({min(runs):,.{digits}f}..{max(runs):,.{digits}f})" if runs else "-")
            for peer in others:
                row.append(self.ratio(what, ours, peer, better, marks))
            rows.append(row)
        self.print_rows(rows)

    def ratio(self, what, ours, peer, better, marks):
        theirs = self.samples.get((what, peer))
        if not theirs or not all(theirs):
            return "-"
        mine = self.samples[what, ours]
        value = statistics.median(mine) / statistics.median(theirs)
        single = [a / b for a, b in zip(mine, theirs)]
        text = f"{value:.2f} ({(min if better == 'more' else max)(single):.2f})"
        mark = (marks or {}).get((what, peer))
        if mark is not None:
            met = value >= mark if better == "more" else value <= mark
            text += f" mark {mark:g} {'met' if met else 'MISSED'}"
            self.fact(f"mark: {what}, {ours}/{peer}", {"mark": mark, "value": value, "met": met})
        return text

    def print_rows(self, rows):
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            print("    " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                     for i, (cell, width) in enumerate(zip(row, widths))), flush=True)

    # --- processes ---

    def start(self, *command, log="peers.log"):
        return self.world.start(command, self.world.path(log))

    def serve(self, socket, *command):
        """Starts an NBD server that listens on a UNIX socket; gives the process when the socket is there."""
        socket.unlink(missing_ok=True)
        process = self.start(*command)

        def ready():
            if process.poll() is not None:
                raise AssertionError(f"{command[0]} ended with exit code {process.returncode}: {self.world.path('peers.log').read_text()}")
            return socket.exists()

        wait_until(ready, 60, f"{command[0]} listens")
        return process

    def end(self, process):
        process.kill()
        process.wait()

    def end_processes(self):
        for process in reversed(self.world.processes):
            if process.poll() is None:
                self.end(process)

    def timed(self, *command, timeout=3600):
        """Runs to the end; gives (seconds, seconds of CPU of it and its children, stdout)."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        out = self.world.run(*command, timeout=timeout)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out

    def demo_image(self, variant):
        """Path of one of the three Debian installs (or of what was given instead)."""
        if self.options.images:
            return self.options.images.split(",")["abc".index(variant)]
        path = self.world.path(f"debian-{variant}.raw")
        subprocess.run([str(self.root / "scripts" / "make-demo-image"), str(path), "--variant", variant, "--no-setup"], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return path


def cpu_seconds(process):
    """User and system time of a live process so far."""
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def folder_bytes(folder):
    """(bytes that the files of a folder hold, number of files)."""
    total = count = 0
    for where, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(where, name)).st_size
            count += 1
    return total, count


def read_through(path):
    """Brings a file into the kernel's page cache."""
    with open(path, "rb") as file:
        while file.read(4 << 20):
            pass


def data_bytes(path):
    """Bytes in pages that are not zero."""
    zero, found = bytes(4096), 0
    with open(path, "rb") as file:
        while piece := file.read(4 << 20):
            if piece.count(0) == len(piece):
                continue
            found += sum(piece[i:i + 4096] != zero[:len(piece) - i] for i in range(0, len(piece), 4096)) * 4096
    return found
