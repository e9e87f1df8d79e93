"""a virtual machine (QEMU without hardware help) to its login prompt: nbdkit file; LDIM cold, second, offline

The server is on the same machine: this shows what LDIM costs, not what a link costs. In each round LDIM begins with an
empty cache; the guest is shut down by its power button or, if nobody listens to that, switched off; its writes are sent before the next boot.
"""
import shutil

from guest import Guest, GuestError

FILE, COLD, SECOND, OFFLINE = "nbdkit file", "LDIM cold", "LDIM second", "LDIM offline"


def boot(bench, socket, name, number):
    """Seconds to the login prompt; then the guest is shut down."""
    guest = Guest(str(socket), str(bench.world.path(f"guest-{name}-{number}")))
    with guest:
        guest.start()
        guest.wait_for_login(600)
        guest.login()
        try:
            guest.shut_down()
        except GuestError:
            guest.kill()
    return guest.timings["login_s"]


def run(bench):
    world = bench.world
    source = bench.demo_image("a")
    server, key = world.server(), world.key()
    bench.say(f"{bench.runs} rounds")

    def turn(peer, number):
        if peer == FILE:
            copy, socket = world.path("file.raw"), world.path("file.sock")
            world.run("cp", "--sparse=always", source, copy)
            process = bench.serve(socket, "nbdkit", "-f", "-U", socket, "file", copy)
            bench.add("seconds to the login prompt", FILE, boot(bench, socket, "file", number))
            bench.end(process)
            return
        world.import_image(server, key, source, f"disk{number}")
        disk = world.disk(server, key, f"disk{number}", "cache")
        for name in (COLD, SECOND):
            bench.add("seconds to the login prompt", name, boot(bench, disk.socket, name.replace(" ", "-"), number))
            status = disk.status()
            bench.add("MB fetched", name, status["fetched"]["bytes"] / 1e6)
            bench.add("MB read by the guest", name, status["requests"]["bytes_read"] / 1e6)
            bench.add("reads", name, status["requests"]["reads"])
            if name == COLD:
                disk.sync()
                bench.add("MB sent", name, disk.status()["write_back"]["bytes_sent"] / 1e6)
                disk.ldim("session", "end")
                disk.restart()
        disk.sync()
        disk.stop()
        server.stop()
        disk.start()
        bench.add("seconds to the login prompt", OFFLINE, boot(bench, disk.socket, "offline", number))
        status = disk.status()
        bench.add("MB fetched", OFFLINE, status["fetched"]["bytes"] / 1e6)
        bench.add("MB read by the guest", OFFLINE, status["requests"]["bytes_read"] / 1e6)
        bench.add("reads", OFFLINE, status["requests"]["reads"])
        disk.kill()
        shutil.rmtree(disk.cache)
        server.start()

    bench.rounds([FILE, COLD], turn)
    rows = [["", FILE, COLD, SECOND, OFFLINE]]
    for what in ("seconds to the login prompt", "MB fetched", "MB read by the guest", "reads", "MB sent"):
        row = [what]
        for peer in (FILE, COLD, SECOND, OFFLINE):
            runs = bench.samples.get((what, peer))
            digits = 0 if what == "reads" else 1
            row.append(f"{bench.median(what, peer):.{digits}f} ({min(runs):.{digits}f}..{max(runs):.{digits}f})" if runs else "-")
        rows.append(row)
    rows.append(["against nbdkit file (worst round)", "1"] +
                [bench.ratio("seconds to the login prompt", peer, FILE, "less", None) for peer in (COLD, SECOND, OFFLINE)])
    bench.print_rows(rows)
    chunk_means(bench, source, server, key)


def chunk_means(bench, source, server, key):
    """What a larger chunk costs a cold boot: bytes that nobody asked for come along. One boot each."""
    rows = [["chunk mean, cold boot", "MB fetched", "chunks", "seconds to the login prompt"]]
    for mean in ("8K", "16K", "32K", "64K"):
        bench.world.import_image(server, key, source, f"mean-{mean}", "--chunk-mean", mean)
        disk = bench.world.disk(server, key, f"mean-{mean}", f"cache-{mean}")
        seconds = boot(bench, disk.socket, mean, 0)
        fetched = disk.status()["fetched"]
        disk.kill()
        rows.append([mean, f"{fetched['bytes'] / 1e6:.1f}", f"{fetched['chunks']:,}", f"{seconds:.1f}"])
        bench.fact(f"cold boot, mean {mean}", {"bytes": fetched["bytes"], "chunks": fetched["chunks"], "seconds": seconds})
    bench.print_rows(rows)
