"""what sealing costs: the plugin beside the same plugin with a cipher that only copies; TLS over TCP beside a UNIX socket

Requests a second of fio over a UNIX socket, everything cached or written to the journal, write-back=manual. The unsealed plugin is made for
this part alone (bench/null_cipher.cc): the same code, tags and index, no cipher. Import and export: MB/s of random data, one server that
listens on both.
"""
import shutil
from types import SimpleNamespace

import sources
from dims_system import check
from io_part import fio
from measure import cpu_seconds, load

SEALED, UNSEALED = "sealed", "unsealed"
TLS, UNIX = "TLS", "UNIX socket"
MARK = 0.85
JOBS = {
    "random 4 KiB read, depth 32": ["--rw=randread", "--bs=4k", "--iodepth=32"],
    "random 4 KiB write, depth 32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    "random 4 KiB read, depth 1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
    "random 4 KiB write, depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
}


def plugins(world):
    unsealed = world.build / "bench" / "nbdkit-ldim-unsealed-plugin.so"
    check(unsealed.exists(), f"{unsealed} is not built: cmake --build {world.build} --target unsealed-plugin")
    return {SEALED: world.plugin, UNSEALED: unsealed}


def run(bench):
    world = bench.world
    size = (64 if bench.quick else 512) << 20
    seconds = 1 if bench.quick else 3
    bench.say(f"{size >> 20} MiB, {seconds} s a run, {bench.runs} rounds; write-back=manual, journal-size=24G")
    made = plugins(world)
    server, key = world.server(), world.key()
    source = sources.random_file(world.path("disk.raw"), size, world.rng)
    world.import_image(server, key, source, "disk")
    for number in range(bench.runs):
        disks = {}
        for peer in (SEALED, UNSEALED):
            # One writer an image: each has its own.
            name = f"{peer}{number}"
            world.import_image(server, key, source, name)
            world.plugin = made[peer]
            disks[peer] = world.disk(server, key, name, f"cache-{peer}", write_back="manual", journal_size="24G")
            world.run(*disks[peer].ldim_command("prefetch"))
            check(disks[peer].status()["offline_ready"]["ready"], "not everything is cached")
        world.plugin = made[SEALED]
        for name, arguments in JOBS.items():
            order = [SEALED, UNSEALED] if number % 2 == 0 else [UNSEALED, SEALED]
            for peer in order:
                before = cpu_seconds(disks[peer].process)
                value, _ = fio(bench, name, arguments, disks[peer].socket, seconds, size, number)
                bench.add(name, peer, value)
                bench.add("CPU us a request: " + name, peer, (cpu_seconds(disks[peer].process) - before) / max(value * seconds, 1) * 1e6)
        bench.say(f"round {number + 1}: load {load():.1f}")
        for disk in disks.values():
            disk.kill()
            shutil.rmtree(disk.cache)
    everything = bench.samples
    for title, cpu, digits in (("requests/s", False, 0), ("CPU us a request", True, 1)):
        bench.samples = {(w.removeprefix("CPU us a request: "), p): v for (w, p), v in everything.items() if w.startswith("CPU") == cpu}
        marks = None if cpu else {(name, UNSEALED): MARK for name in JOBS if "depth 32" in name}
        bench.table([SEALED, UNSEALED], SEALED, title, digits=digits, better="less" if cpu else "more", marks=marks)
    bench.samples = {}
    transfer(bench, key, source, size)
    bench.samples.update(everything)


def transfer(bench, key, source, size):
    world = bench.world
    megabytes = size / 1e6

    def turn(peer, number):
        server = world.server(name=f"rdim-{peer.split()[0]}-{number}", listen=f"unix:{world.path('rdim.sock')}")
        at = SimpleNamespace(address=f"unix:{world.path('rdim.sock')}") if peer == UNIX else server
        seconds, _, _ = bench.timed(*world.rdim_command(at, key, "image", "import", source, "disk"))
        bench.add("import", peer, megabytes / seconds)
        target = world.path("target")
        target.unlink(missing_ok=True)
        seconds, _, _ = bench.timed(*world.rdim_command(at, key, "image", "export", "disk", target))
        bench.add("export", peer, megabytes / seconds)
        target.unlink(missing_ok=True)
        bench.end(server.process)
        shutil.rmtree(server.data)

    bench.rounds([TLS, UNIX], turn)
    bench.table([TLS, UNIX], TLS, "MB/s")
