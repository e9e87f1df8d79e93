#!/usr/bin/python3
"""A real Linux guest with ext4 or XFS under load; nbdkit is killed under it again and again: file systems and files stay whole.

Four guests in QEMU: each file system once with many requests in flight and once with one at a time. QEMU holds the guest's requests
while nbdkit is away (reconnect-delay) and logs each completed write and flush (blklogwrites). A round: load, several
kills, then the guest unmounts; fsck finds nothing on a copy of the disk, the copy is the log replayed to its end, and
after mounting again every file has what it had when its last fsync returned (the harness keeps the sums). A last
round ends with QEMU and nbdkit killed together: nothing answered is lost. With one request at a time every version that the
server ever showed is byte-equal to the log replayed to one of its flushes, in order.
"""
import random
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.dont_write_bytecode = True
import dims_system  # noqa: E402
import guest_kernel  # noqa: E402
from barriers import BarrierModel, BetweenBarriers  # noqa: E402
from disk_model import check_bytes, first_difference  # noqa: E402
from dims_system import Skip, check, check_equal  # noqa: E402
from guest_machine import Machine, check_files  # noqa: E402
from sources import MIB  # noqa: E402
from write_log import replay  # noqa: E402

SIZE = 64 * MIB
KILLS = 3
LARGEST_REQUEST = 4 * MIB
# The tools of XFS refuse file systems of this size unless they are made for tests.
XFS_SMALL = {"TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}
start_lock = threading.Lock()


class Chain:
    """One disk and its guest, through several rounds."""

    def __init__(self, world, server, key, tools, kind, deep, seed):
        self.world, self.server, self.key, self.kind, self.deep = world, server, key, kind, deep
        self.name = f"{kind}-{'deep' if deep else 'serial'}"
        self.rng = random.Random(seed)
        self.kernel = tools[0]
        self.archive = guest_kernel.make_start_archive(*tools, kind, world.path(f"{self.name}.cpio"))
        self.counts = dict(rounds=0, kills=0, operations=0, files=0, writes=0, flushes=0, versions=0, boots=0)
        self.guest = None
        self.files = {}

    def run(self, rounds, pull):
        source = self.make_file_system()
        with start_lock:
            self.world.import_image(self.server, self.key, source, self.name)
            self.disk = self.world.disk_stopped(self.server, self.key, self.name, f"{self.name}.cache", write_back="200ms",
                                                 seal_after="1h")  # or a version may lie between two flushes of a slow guest
        self.disk.start()
        self.model = BarrierModel(bytearray(source.read_bytes()))
        self.boot()
        for _ in range(rounds - 1 if pull else rounds):
            self.load()
            self.check_unmounted()
            self.check_content("after a round", ())
        if pull:
            self.load(pull=True)
            self.boot()
            self.check_content("after the plug was pulled", self.exempt)
        self.guest.ask("umount", "unmounted")
        self.guest.wait_off()
        self.take_log()
        self.check_copy("at the end")
        self.check_versions()

    def make_file_system(self):
        path = self.world.path(f"{self.name}.src")
        with open(path, "wb") as out:
            out.truncate(SIZE)
        if self.kind == "ext4":
            self.world.run("mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)
        else:
            self.world.run("mkfs.xfs", "-q", "-f", path, env=XFS_SMALL)
        return path

    def boot(self):
        self.counts["boots"] += 1
        self.log = self.world.path(f"{self.name}-{self.counts['boots']}.wlog")
        with start_lock:
            self.guest = Machine(self.world, self.kernel, self.archive, self.disk.socket, self.log, self.deep)
        self.guest.files = dict(self.files)
        self.guest.ask("", "ready")
        self.guest.ask(f"mount {self.kind}", "mounted")

    def load(self, pull=False):
        """Load with kills. Ends unmounted, or with everything dead at once."""
        before = self.guest.recorded
        self.guest.say(f"load {self.rng.getrandbits(40)} {3 if self.deep else 2}")
        for _ in range(KILLS):
            self.guest.wait_progress(self.rng.randrange(1, 25))
            self.world_sleep(0.3)
            self.disk.kill()
            self.world_sleep(0.5)
            self.disk.start()
        self.guest.wait_progress(self.rng.randrange(1, 10))
        self.counts["rounds"] += 1
        self.counts["kills"] += KILLS
        if pull:
            self.guest.kill()
            self.disk.kill()
            self.exempt = set(self.guest.begun)
            self.files = dict(self.guest.files)
            self.disk.start()
            self.take_log()
            self.check_pulled()
        else:
            self.guest.ask("stop", "stopped")
            self.guest.ask("umount", "unmounted")
        self.counts["operations"] += self.guest.recorded - before

    def world_sleep(self, most):
        threading.Event().wait(self.rng.random() * most)

    def copy(self):
        path = self.world.path(f"{self.name}.copy")
        path.unlink(missing_ok=True)
        self.world.run("nbdcopy", self.disk.uri, path)
        return path

    def take_log(self):
        """A log that is complete goes into the model."""
        writes, flushes, _ = replay(self.log, self.model)
        self.counts["writes"] += writes
        self.counts["flushes"] += flushes

    def check_unmounted(self):
        """The log goes on after this: it is replayed beside the model."""
        model = BarrierModel(bytearray(self.model.disk))
        replay(self.log, model)
        self.check_copy("after a round", model)

    def check_copy(self, when, model=None):
        copy = self.copy()
        if self.kind == "ext4":
            code, out, err = self.world.run("e2fsck", "-f", "-n", copy, check_code=None)
        else:
            code, out, err = self.world.run("xfs_repair", "-n", "-f", copy, check_code=None, env=XFS_SMALL)
        check(code == 0, f"{self.name} {when}: fsck ended with {code}:\n{out[-3000:]}\n{err[-1000:]}")
        check_bytes(copy.read_bytes(), bytes((model or self.model).disk), 0, f"{self.name} {when}: the disk against the log")

    def check_pulled(self):
        """With one request at a time the disk is the log, and at most the one request that was not logged any more."""
        if not self.deep:
            got, wanted = self.copy().read_bytes(), bytes(self.model.disk)
            if got != wanted:
                start = first_difference(got, wanted) // 512 * 512
                end = SIZE - first_difference(got[:start - 1:-1] if start else got[::-1], wanted[:start - 1:-1] if start else wanted[::-1]) // 512 * 512
                check(end - start <= LARGEST_REQUEST, f"{self.name}: the disk is not the log and one request more: bytes {start} to {end} differ")
                self.model.write(got[start:end], start)
            # The unlogged request may have been a flush.
            self.model.barrier()
        else:
            self.model.disk[:] = self.copy().read_bytes()

    def check_content(self, when, exempt):
        if when == "after a round":
            self.guest.ask(f"mount {self.kind}", "mounted")
        self.counts["files"] += check_files(self.guest.list(), self.guest.files, exempt, f"{self.name} {when}")

    def check_versions(self):
        self.disk.sync()
        newest, between = 0, 0
        out = self.world.path(f"{self.name}.head")
        versions = sorted(v["sequence"] for v in self.world.versions(self.server, self.key, self.name))
        for sequence in versions if not self.deep else versions[-1:]:
            self.world.export_image(self.server, self.key, f"{self.name}@{sequence}", out)
            if self.deep:
                check_bytes(out.read_bytes(), bytes(self.model.disk), 0, f"{self.name}: the head at the end")
                continue
            try:
                found = self.model.find(out.read_bytes())
            except BetweenBarriers as state:  # LDIM seals what it finds unsealed when it starts after a kill
                found, between = state.barrier, between + 1
                check(between <= self.counts["kills"] + 1, f"{self.name}: more versions between two flushes than kills: {state}")
            check(found >= newest, f"{self.name}: version {sequence} is flush {found}, the one before was flush {newest}")
            newest = found
        if not self.deep:
            check_bytes(out.read_bytes(), bytes(self.model.disk), 0, f"{self.name}: the head at the end")
        self.counts["versions"] += len(versions)
        check_equal(self.disk.status()["branch"], "", f"{self.name}: the session's branch")
        self.disk.stop()


def run_side(world, chains, failures):
    try:
        for chain in chains:
            if world.large:
                chain.run(13, pull=True)
            else:
                chain.run(1 if chain.deep else 2, pull=not chain.deep)
            world.say(f"{chain.name}: " + ", ".join(f"{value} {name}" for name, value in chain.counts.items()))
    except BaseException as error:  # it is raised again in the main thread
        failures.append(error)


def run(world):
    init = world.build / "tests" / "system" / "guest_init"
    if not init.exists():
        raise Skip(f"{init} is not built")
    kernel = guest_kernel.find_kernel()
    tools = kernel, init
    server, key = world.server(), world.key()
    chains = [Chain(world, server, key, tools, kind, deep, world.rng.getrandbits(48)) for deep in (False, True) for kind in ("ext4", "xfs")]
    failures = []
    sides = [threading.Thread(target=run_side, args=(world, chains[side::2], failures)) for side in (0, 1)]
    for side in sides:
        side.start()
    for side in sides:
        side.join()
    if failures:
        raise failures[0]
    total = {name: sum(chain.counts[name] for chain in chains) for name in chains[0].counts}
    world.say(", ".join(f"{value} {name}" for name, value in total.items()) + "; nothing was lost, every fsck was clean")
    server.stop()


dims_system.main(run, __doc__)
