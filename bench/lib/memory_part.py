"""resident memory of plugin and server with a 1 TiB sparse disk, after random reads, writes and a sync

Peaks (VmHWM) of one run. Marks: the plugin under 150 MB, the server under 600 MB.
"""
import nbd
import sources

MIB = 1 << 20
DEPTH = 16


def run(bench):
    world = bench.world
    mapped = (bench.options.mapped or (512 if bench.quick else 4096)) * MIB
    places = sorted(world.rng.sample(range((1 << 40) // MIB), mapped // MIB))
    source = world.path("disk.raw")
    with open(source, "wb") as out:
        out.truncate(1 << 40)
        for place in places:
            out.seek(place * MIB)
            sources.write_compressible(out, MIB, world.rng)
    server, key = world.server(), world.key()
    report = world.import_image(server, key, source, "disk")
    source.unlink()
    bench.say(f"{mapped // MIB} MiB mapped in pieces of 1 MiB, {report['chunks']} chunks; imported with "
              f"{report['data_mb_per_second']:.0f} MB/s")
    disk = world.disk(server, key, "disk", "cache", cache_size=f"{max(64, mapped // MIB // 2)}M")
    rows = [["peak so far [MB]", "plugin", "server"]]

    def note(what):
        peaks = disk.memory()["VmHWM"] * 1024 / 1e6, server.memory()["VmHWM"] * 1024 / 1e6
        rows.append([what, f"{peaks[0]:.0f}", f"{peaks[1]:.0f}"])
        bench.fact(what, {"plugin_mb": peaks[0], "server_mb": peaks[1]})
        return peaks

    note("opened")
    handle = disk.connect()
    flying = 0

    def done(_error):
        nonlocal flying
        flying -= 1
        return 1

    for _ in range(10 * mapped // MIB):
        count = world.rng.choice([4096, 4096, 4096, 65536])
        flying += 1
        handle.aio_pread(nbd.Buffer(count), world.rng.choice(places) * MIB + world.rng.randrange((MIB - count) // 4096 + 1) * 4096,
                         completion=done)
        while flying >= DEPTH:
            handle.poll(1000)
    while flying:
        handle.poll(1000)
    note("after random reads over all of it")
    for place in world.rng.sample(places, min(len(places), 1000)):
        handle.pwrite(world.rng.randbytes(65536), place * MIB + world.rng.randrange(16) * 65536)
    handle.flush()
    handle.shutdown()
    disk.sync()
    plugin, served = note("after writes and a sync")
    bench.print_rows(rows)
    for what, value, mark in (("plugin", plugin, 150), ("server", served, 600)):
        bench.fact(f"mark: {what} MB", {"mark": mark, "value": value, "met": value < mark})
        bench.say(f"{what}: {value:.0f} MB; mark {mark} {'met' if value < mark else 'MISSED'}")
    disk.stop()
    server.stop()
