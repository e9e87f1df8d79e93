"""fio over a UNIX socket: LDIM with everything cached, nbdkit's file plugin, qemu-nbd on the same bytes

Values: requests a second for 4 KiB, MB/s for 256 KiB. Every peer's file lies in the kernel's page cache. Each round has a fresh image
and a fresh cache of LDIM, filled before; write-back=manual, so that nothing is sent while it is measured, and a
journal that cannot run full. The file's content is random (nothing to gain by compressing).
"""
import json
import os
import shutil

import sources
from dims_system import check
from measure import cpu_seconds, load, read_through

LDIM, FILE, QEMU = "LDIM", "nbdkit file", "qemu-nbd"
PEERS = [LDIM, FILE, QEMU]
# name: fio's arguments, what is read from its result
JOBS = {
    "random 4 KiB read, depth 1": (["--rw=randread", "--bs=4k", "--iodepth=1"], "read", "iops"),
    "random 4 KiB read, depth 32": (["--rw=randread", "--bs=4k", "--iodepth=32"], "read", "iops"),
    "sequential 256 KiB read, depth 8 [MB/s]": (["--rw=read", "--bs=256k", "--iodepth=8"], "read", "bw_bytes"),
    "random 4 KiB write, depth 1": (["--rw=randwrite", "--bs=4k", "--iodepth=1"], "write", "iops"),
    "random 4 KiB write, depth 32": (["--rw=randwrite", "--bs=4k", "--iodepth=32"], "write", "iops"),
    "sequential 256 KiB write, depth 8 [MB/s]": (["--rw=write", "--bs=256k", "--iodepth=8"], "write", "bw_bytes"),
    "random 4 KiB write + flush each": (["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"], "write", "iops"),
}
MARKS = {("random 4 KiB read, depth 32", FILE): 0.6, ("random 4 KiB write, depth 32", FILE): 0.5}


def fio(bench, name, arguments, socket, seconds, size, number):
    out = bench.world.run("fio", "--name=job", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}", f"--size={size}",
                          "--time_based", f"--runtime={seconds}", f"--randseed={number + 1}", "--norandommap", "--randrepeat=0",
                          "--output-format=json", *arguments)
    job = json.loads(out[out.index("{"):])["jobs"][0]
    check(job["error"] == 0, f"fio met error {job['error']} in {name}")
    _, kind, field = JOBS[name]
    value = job[kind][field]
    return (value / 1e6 if field == "bw_bytes" else value), job[kind]["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1000


def run(bench):
    world = bench.world
    size = (64 if bench.quick else 512) << 20
    seconds = 1 if bench.quick else 3
    bench.say(f"{size >> 20} MiB, {seconds} s a run, {bench.runs} rounds; LDIM: write-back=manual, journal-size=24G")
    server, key = world.server(), world.key()
    source = sources.random_file(world.path("disk.raw"), size, world.rng)
    copies = {FILE: world.path("file.raw"), QEMU: world.path("qemu.raw")}
    sockets = {LDIM: None, FILE: world.path("file.sock"), QEMU: world.path("qemu.sock")}
    for path in copies.values():
        shutil.copy(source, path)
        read_through(path)
    processes = {
        FILE: bench.serve(sockets[FILE], "nbdkit", "-f", "-U", sockets[FILE], "file", copies[FILE]),
        QEMU: bench.serve(sockets[QEMU], "qemu-nbd", "-f", "raw", "-t", "-e", "8", "--cache=writeback", "-k", sockets[QEMU], copies[QEMU]),
    }
    for number in range(bench.runs):
        world.import_image(server, key, source, f"disk{number}")
        disk = world.disk(server, key, f"disk{number}", "cache", write_back="manual", journal_size="24G")
        world.run(*disk.ldim_command("prefetch"))
        check(disk.status()["offline_ready"]["ready"], "not everything is cached")
        sockets[LDIM], processes[LDIM] = disk.socket, disk.process
        for name, (arguments, kind, _) in JOBS.items():
            for place, peer in enumerate(PEERS[number % 3:] + PEERS[:number % 3]):
                # A flush must not pay for what another peer wrote.
                if "flush" in name or (kind == "write" and place == 0):
                    os.sync()
                before = cpu_seconds(processes[peer])
                value, p99 = fio(bench, name, arguments, sockets[peer], seconds, size, number)
                used = cpu_seconds(processes[peer]) - before
                bench.add(name, peer, value)
                work = value * seconds if "MB/s" not in name else value * seconds / 0.262144
                bench.add("microseconds of CPU a request: " + name, peer, used / max(work, 1) * 1e6)
                bench.add("99th percentile [us]: " + name, peer, p99)
        status = disk.status()
        check(status["requests"]["throttled"] == 0 and status["fetched"]["retries"] == 0, "LDIM was slowed down while measured")
        bench.say(f"round {number + 1}: journal {status['journal']['bytes'] >> 20} MiB at the end, load {load():.1f}")
        disk.kill()
        shutil.rmtree(disk.cache)
    shown = [(w, p) for w, p in bench.samples if w in JOBS]
    everything, bench.samples = bench.samples, {k: bench.samples[k] for k in shown}
    bench.table(PEERS, LDIM, "requests/s", marks=MARKS)
    bench.samples = {(w.split(": ")[1], p): v for (w, p), v in everything.items() if w.startswith("microseconds")}
    bench.say("the server process's CPU time of one request [us]:")
    bench.table(PEERS, LDIM, "us", digits=1, better="less")
    bench.samples = everything
