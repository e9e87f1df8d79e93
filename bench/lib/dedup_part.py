"""bytes stored for three Debian installs that were built independently, two with the same kernel, each with other packages

The three raw files are imported one after the other into an empty store. Stored bytes are sizes of files, after the program
has ended. These figures do not change from run to run, so there is one round. Not changed by load either: they are sizes.
"""
import json
import shutil
import statistics

from measure import data_bytes, folder_bytes

CUTS = {"mean 8 KiB": ["--chunk-mean", "8K"], "mean 16 KiB": ["--chunk-mean", "16K"], "mean 32 KiB": ["--chunk-mean", "32K"],
        "mean 64 KiB": ["--chunk-mean", "64K"], "fixed 4 KiB": ["--chunk-mean", "4K", "--fixed"],
        "fixed 64 KiB": ["--chunk-mean", "64K", "--fixed"]}
BASE = "fixed 4 KiB"
MARK = 1.1
DIRTY = (1, 10, 100, 1000)


def commit_bytes(bench, server, key, image, name):
    """What a commit of so many random dirty pages sends, objects of the tree included."""
    world = bench.world
    disk = world.disk(server, key, image, f"cache-{name.replace(' ', '-')}", write_back="manual")
    handle = disk.connect()
    sent = []
    for count in DIRTY:
        before = disk.status()["write_back"]["bytes_sent"]
        for page in world.rng.sample(range(handle.get_size() // 4096), count):
            handle.pwrite(world.rng.randbytes(1024) * 4, page * 4096)
        handle.flush()
        disk.sync()
        sent.append(disk.status()["write_back"]["bytes_sent"] - before)
    handle.shutdown()
    disk.kill()
    shutil.rmtree(disk.cache)
    return sent


def ours(bench, images, key, name, options):
    world = bench.world
    server = world.server(name="rdim-" + name.replace(" ", "-"))
    reports = [world.import_image(server, key, path, f"debian-{variant}", *options) for variant, path in images.items()]
    server.stop()
    total, _ = folder_bytes(server.data)
    server.start()
    commits = commit_bytes(bench, server, key, "debian-a", name)
    server.stop()
    shutil.rmtree(server.data)
    return {"store": total, "objects": sum(r["new_chunks"] + r["new_nodes"] for r in reports),
            "object_bytes": sum(r["stored_bytes"] for r in reports), "node_bytes": sum(r["new_node_bytes"] for r in reports),
            "mb_per_second": statistics.median(r["data_mb_per_second"] for r in reports), "commits": commits}


def restic(bench, images):
    world = bench.world
    store, cache = world.path("restic"), world.path("restic-cache")
    environment = {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(store), "RESTIC_CACHE_DIR": str(cache)}
    world.run("restic", "init", "--repository-version", "2", env=environment)
    for path in images.values():
        world.run("restic", "backup", "--compression", "auto", path, env=environment, timeout=1800)
    blobs = sum(1 for line in world.run("restic", "list", "blobs", env=environment).splitlines() if line.startswith(("data", "tree")))
    total, _ = folder_bytes(store)
    shutil.rmtree(store)
    return {"store": total, "objects": blobs}


def casync(bench, images, chunk_size=None):
    world = bench.world
    store = world.path("casync.castr")
    for variant, path in images.items():
        options = ["--chunk-size", chunk_size] if chunk_size else []
        world.run("casync", "make", f"--store={store}", "--compression=zstd", *options, world.path(f"{variant}.caibx"), path, timeout=1800)
    total, count = folder_bytes(store)
    shutil.rmtree(store)
    return {"store": total, "objects": count}


def run(bench):
    world = bench.world
    images = {variant: bench.demo_image(variant) for variant in ("a", "b", "c")}
    data = sum(data_bytes(path) for path in images.values())
    bench.fact("data bytes", data)
    bench.say(f"{data / 1e6:.0f} MB that are not zero in the three")
    key = world.key()
    found = {name: ours(bench, images, key, name, options) for name, options in CUTS.items()}
    found["restic"] = restic(bench, images)
    found["casync, mean 64 KiB (its default)"] = casync(bench, images)
    found["casync, mean 16 KiB"] = casync(bench, images, "16K")
    base = found[BASE]["store"]
    rows = [["", "store [MB]", "data/store", f"store / {BASE}", "objects", "tree nodes [MB]", "import [MB/s]", "KB sent by a commit of 1/10/100/1000 pages"]]
    for name, f in found.items():
        bench.fact(name, f)
        rows.append([name, f"{f['store'] / 1e6:.1f}", f"{data / f['store']:.2f}", f"{f['store'] / base:.3f}", f"{f['objects']:,}",
                     f"{f['node_bytes'] / 1e6:.1f}" if "node_bytes" in f else "-",
                     f"{f['mb_per_second']:.0f}" if "mb_per_second" in f else "-",
                     "/".join(f"{c / 1000:,.0f}" for c in f["commits"]) if "commits" in f else "-"])
    bench.print_rows(rows)
    value = found["mean 16 KiB"]["store"] / base
    bench.fact("mark: stored bytes, mean 16 KiB", {"mark": MARK, "value": value, "met": value <= MARK})
    bench.say(f"default (mean 16 KiB) against {BASE}: {value:.3f}; mark {MARK} {'met' if value <= MARK else 'MISSED'}")
