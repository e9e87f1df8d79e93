"""A Linux kernel for a tiny guest, and the archive that it starts from.

Debian's kernel is taken from wherever it is: this machine's own, the demo's disk image (scripts/make-demo-image keeps one in the
cache folder), or the package, fetched once. What was found is kept in the cache folder.
"""
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from dims_system import Skip

WANTED = ("virtio_pci", "virtio_blk", "ext4", "xfs")
PACKAGE = "linux-image-cloud-amd64"
PARTITION_OFFSET = 1 << 20  # of the demo image's file system


def cache_folder():
    base = os.environ.get("DIMS_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dims"
    return Path(base)


def _modules(folder):
    """The wanted modules' files and what they need (they say so themselves), in the order in which they are loaded; None when one is missing."""
    builtin = {Path(line).stem.replace("-", "_") for line in (folder / "modules.builtin").read_text().split()}
    files = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    order = []

    def add(name):
        if name in builtin:
            return True
        if name not in files:
            return False
        needs = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        if not all(add(other.replace("-", "_")) for other in (needs[1].decode().split(",") if needs and needs[1] else [])):
            return False
        if files[name] not in order:
            order.append(files[name])
        return True

    return order if all(add(name) for name in WANTED) else None


def _keep(target, kernel, folder):
    """Copies a kernel and its modules into the cache; False when it will not do."""
    order = _modules(folder)
    if order is None:
        return False
    fresh = Path(tempfile.mkdtemp(dir=target.parent))
    shutil.copyfile(kernel, fresh / "vmlinuz")
    for path in order:
        shutil.copyfile(path, fresh / path.name)
    (fresh / "modules").write_text("".join(f"{path.name}\n" for path in order))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return True


def _from_this_machine(target):
    for kernel in sorted(Path("/boot").glob("vmlinuz-*"), reverse=True):
        folder = Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")
        if (folder / "modules.builtin").exists() and os.access(kernel, os.R_OK) and _keep(target, kernel, folder):
            return True
    return False


def _from_the_demo_image(target, work):
    for image in cache_folder().glob("demo-a-*.raw"):
        source = f"{image}?offset={PARTITION_OFFSET}"
        names = subprocess.run(["debugfs", "-R", "ls -p /usr/lib/modules", source], capture_output=True, text=True, check=False).stdout
        for version in re.findall(r"/([^/]*-amd64)/", names):
            subprocess.run(["debugfs", "-f", "-", source], text=True, capture_output=True, check=False,
                           input=f"dump /boot/vmlinuz-{version} {work}/vmlinuz\nrdump /usr/lib/modules/{version} {work}\n")
            if (work / version / "modules.builtin").exists() and _keep(target, work / "vmlinuz", work / version):
                return True
    return False


def _from_the_package(target, work):
    depends = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=False).stdout
    name = re.search(r"Depends: (linux-image-\S+)", depends)
    if name is None or subprocess.run(["apt-get", "-q", "download", name[1]], cwd=work, capture_output=True, check=False).returncode != 0:
        return False
    package = next(work.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
    kernel = next((work / "root/boot").glob("vmlinuz-*"))
    folder = work / "root/lib/modules" / kernel.name.removeprefix("vmlinuz-")
    return (folder / "modules.builtin").exists() and _keep(target, kernel, folder)


def find_kernel():
    """A folder with vmlinuz, modules (their names in order) and the modules' files. Skip, when there is none to be had."""
    target = cache_folder() / "guest-kernel"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "guest-kernel.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (target / "modules").exists():
            return target
        for source in (_from_this_machine, _from_the_demo_image, _from_the_package):
            with tempfile.TemporaryDirectory(dir=target.parent) as work:
                if source(target) if source is _from_this_machine else source(target, Path(work)):
                    return target
    raise Skip(f"no Linux kernel for a guest: install {PACKAGE}, or run scripts/make-demo-image once")


def _entry(name, mode, data=b"", major=0, minor=0, number=[0]):
    """One member of a cpio archive of the form that the kernel takes ("newc")."""
    number[0] += 1
    path = name.encode() + b"\0"
    fields = (number[0], mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(path), 0)
    out = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    out += bytes(-len(out) % 4) + data
    return out + bytes(-len(out) % 4)


def make_start_archive(kernel, init, file_system, target):
    parts = [_entry("dev", 0o040755), _entry("dev/console", 0o020600, major=5, minor=1), _entry("init", 0o100755, init.read_bytes())]
    names = (kernel / "modules").read_text()
    if file_system != "xfs":  # its module is large, and takes long to load
        names = names.replace("xfs.ko\n", "")
    parts.append(_entry("modules", 0o100644, names.encode()))
    parts += [_entry(name, 0o100644, (kernel / name).read_bytes()) for name in names.split()]
    target.write_bytes(b"".join(parts) + _entry("TRAILER!!!", 0))
    return target
