"""What a disk should hold: a sparse file that is written beside it, and how the two are compared."""
import ctypes
import errno
import os

import nbd

_libc = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
PIECE = 4 << 20


class Model:
    """A sparse file with the disk's bytes."""

    def __init__(self, path, size=None, copy_of=None):
        self.path = str(path)
        if copy_of is not None:
            copy_sparse(copy_of, path)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if size is not None:
            os.ftruncate(self.fd, size)
        self.size = os.fstat(self.fd).st_size

    def close(self):
        os.close(self.fd)

    def read(self, count, offset):
        return os.pread(self.fd, count, offset)

    def write(self, data, offset):
        done = 0
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], offset + done)

    def zero(self, count, offset):
        punch_hole(self.fd, offset, count)


def punch_hole(fd, offset, count):
    if _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(offset), ctypes.c_long(count)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def data_ranges(fd, size):
    """[(offset, end)] of what the file system does not call a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(at, size)


def copy_sparse(source, target):
    source_fd = os.open(source, os.O_RDONLY)
    target_fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    size = os.fstat(source_fd).st_size
    os.ftruncate(target_fd, size)
    for start, end in data_ranges(source_fd, size):
        while start < end:
            start += os.copy_file_range(source_fd, target_fd, end - start, start, start)
    os.close(source_fd)
    os.close(target_fd)


def extents(handle, size):
    """[(offset, end, is zero)] of the whole disk, as the server tells."""
    found = []

    def take(_context, offset, entries, _error):
        at = offset
        for length, flags in zip(entries[::2], entries[1::2]):
            found.append((at, at + length, bool(flags & nbd.STATE_ZERO)))
            at += length

    at = 0
    while at < size:
        before = len(found)
        handle.block_status(min(size - at, 1 << 30), at, take)
        if len(found) == before or found[-1][1] <= at:
            raise AssertionError(f"no extents were given at {at}")
        at = found[-1][1]
    return found


def first_difference(got, wanted):
    low, high = 0, min(len(got), len(wanted))
    if got[:high] == wanted[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if got[low:middle] != wanted[low:middle]:
            high = middle
        else:
            low = middle
    return low


def check_bytes(got, wanted, offset, what):
    if got == wanted:
        return
    at = first_difference(got, wanted)
    raise AssertionError(f"{what}: byte {offset + at} (0x{offset + at:x}) differs: got {got[at:at + 16].hex()}, "
                         f"expected {wanted[at:at + 16].hex()} (read {len(got)} bytes at {offset})")


def check_disk(handle, model, what):
    """The whole disk through NBD against the model; stretches that both call empty are not read."""
    if handle.get_size() != model.size:
        raise AssertionError(f"{what}: the disk has {handle.get_size()} bytes, expected {model.size}")
    wanted = [(start, end) for start, end, zero in extents(handle, model.size) if not zero]
    wanted += data_ranges(model.fd, model.size)
    for start, end in merged(wanted):
        while start < end:
            count = min(PIECE, end - start)
            check_bytes(handle.pread(count, start), model.read(count, start), start, what)
            start += count


def merged(ranges):
    out = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1][1] = max(out[-1][1], end)
        else:
            out.append([start, end])
    return out


def check_files(got_path, wanted_path, what):
    """Two sparse files, byte by byte where one of them has data."""
    got, wanted = os.open(got_path, os.O_RDONLY), os.open(wanted_path, os.O_RDONLY)
    try:
        got_size, size = os.fstat(got).st_size, os.fstat(wanted).st_size
        if got_size != size:
            raise AssertionError(f"{what}: {got_size} bytes, expected {size}")
        for start, end in merged(list(data_ranges(got, size)) + list(data_ranges(wanted, size))):
            while start < end:
                count = min(PIECE, end - start)
                check_bytes(os.pread(got, count, start), os.pread(wanted, count, start), start, what)
                start += count
    finally:
        os.close(got)
        os.close(wanted)


def scribble(world, handle, *models, times=20):
    """Small random writes and a flush, to the disk and to all models (of one size)."""
    for _ in range(times):
        count = world.rng.choice([512, 4096, 9000])
        offset = world.rng.randrange(models[0].size - count)
        data = world.rng.randbytes(count)
        handle.pwrite(data, offset)
        for model in models:
            model.write(data, offset)
    handle.flush()
