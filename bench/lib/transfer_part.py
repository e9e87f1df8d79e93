"""rdim image import and export beside qemu-img convert, MB/s of data that is not zero

Import goes to an empty server (same machine, loopback) and ends when it is durable there; qemu-img writes with a
flush at its end (-t writeback). Sources lie in the kernel's page cache.
"""
import shutil
import statistics

import sources
from measure import cpu_seconds, data_bytes, read_through

IMPORT, RAW, ZSTD, ZLIB = "rdim", "qemu-img raw", "qemu-img qcow2+zstd", "qemu-img qcow2+zlib"
MARK_MB_S = 250


def run(bench):
    world = bench.world
    key = world.key()
    peers = [IMPORT, RAW, ZSTD] + ([] if bench.quick else [ZLIB])  # zlib alone would take most of the time
    random_size = (64 if bench.quick else 512) << 20
    kinds = {"Debian": bench.demo_image("a"), "random": sources.random_file(world.path("random.raw"), random_size, world.rng)}
    size = {kind: data_bytes(path) for kind, path in kinds.items()}
    bench.say(", ".join(f"{kind}: {size[kind] / 1e6:.0f} MB that are not zero" for kind in kinds) + f"; {bench.runs} rounds")
    for kind, path in kinds.items():
        compressed = world.path(f"{kind}.qcow2")
        world.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", path, compressed)
        target = world.path("target")

        def note(what, peer, seconds, cpu, kind=kind):
            bench.add(f"{kind}: {what}", peer, size[kind] / 1e6 / seconds)
            bench.add(f"CPU ms a MB, {kind}: {what}", peer, cpu * 1000 / (size[kind] / 1e6))

        def convert(what, peer, number, *arguments):
            target.unlink(missing_ok=True)
            seconds, cpu, _ = bench.timed("qemu-img", "convert", "-t", "writeback", *arguments, target)
            note(what, peer, seconds, cpu)

        def turn(peer, number, kind=kind, path=path, compressed=compressed):
            read_through(path)
            if peer == IMPORT:
                server = world.server(name=f"rdim-{kind}-{number}")
                for what in ("import", "import again"):
                    before = cpu_seconds(server.process)
                    seconds, cpu, _ = bench.timed(*world.rdim_command(server, key, "image", "import", path, what.replace(" ", "-")))
                    note(what, IMPORT, seconds, cpu + cpu_seconds(server.process) - before)
                target.unlink(missing_ok=True)
                before = cpu_seconds(server.process)
                seconds, cpu, _ = bench.timed(*world.rdim_command(server, key, "image", "export", "import", target))
                note("export", IMPORT, seconds, cpu + cpu_seconds(server.process) - before)
                bench.end(server.process)
                shutil.rmtree(server.data)
            elif peer == RAW:
                convert("import", RAW, number, "-f", "raw", "-O", "raw", path)
                convert("export", RAW, number, "-f", "raw", "-O", "raw", path)
            elif peer == ZSTD:
                convert("import", ZSTD, number, "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", path)
                convert("export", ZSTD, number, "-f", "qcow2", "-O", "raw", compressed)
            else:
                convert("import", ZLIB, number, "-f", "raw", "-O", "qcow2", "-c", path)

        bench.rounds(peers, turn)
    everything = bench.samples
    for title, prefix in (("MB/s", ""), ("CPU ms a MB", "CPU ms a MB, ")):
        bench.samples = {(w.removeprefix(prefix), p): v for (w, p), v in everything.items()
                         if w.startswith("CPU") == bool(prefix)}
        bench.table(peers, IMPORT, title, digits=0 if not prefix else 2, better="less" if prefix else "more")
    bench.samples = everything
    for kind in kinds:
        runs = everything[f"{kind}: import", IMPORT]
        value = statistics.median(runs)
        met = value >= MARK_MB_S
        bench.fact(f"mark: import MB/s, {kind}", {"mark": MARK_MB_S, "value": value, "met": met})
        bench.say(f"import of {kind}: {value:.0f} MB/s (worst {min(runs):.0f}); mark {MARK_MB_S} {'met' if met else 'MISSED'}")
