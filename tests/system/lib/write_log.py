"""Reads what QEMU's blklogwrites filter wrote (the format of Linux's dm-log-writes): every write, zero and flush, in order of completion.

A first sector {magic, version, entries, sector size}, then for each entry a sector {sector, sectors, flags, length} and, unless it is
a discard, its data. The count in the first sector is written at flushes only: a log of a killed QEMU is read to its end.
"""
import struct

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def entries(path):
    """Yields (flags, byte offset, data or None, byte count). None: discarded, and reads as zeros."""
    with open(path, "rb") as log:
        magic, version, _count, size = struct.unpack("<QQQI", log.read(28).ljust(28, b"\0"))
        if magic == 0:
            return  # no flush yet
        if magic != MAGIC or version != 1:
            raise AssertionError(f"{path} is no write log: magic {magic:x}, version {version}")
        at = size
        while True:
            log.seek(at)
            head = log.read(size)
            if len(head) < size:
                return
            sector, sectors, flags, length = struct.unpack_from("<QQQQ", head)
            if flags & ~(FLUSH | FUA | DISCARD | MARK):
                raise AssertionError(f"{path}: an entry with flags {flags:x} at byte {at}")
            if sectors == 0 and flags == 0 and length == 0:
                return  # room that was never written
            at += size
            data = None
            if not flags & DISCARD:
                data = log.read(sectors * size)
                if len(data) < sectors * size:
                    return
                at += sectors * size
            yield flags, sector * size, data, sectors * size


def replay(path, model):
    """Applies a log to a BarrierModel, a barrier at each flush. Gives (writes, flushes, bytes)."""
    writes = flushes = written = 0
    for flags, offset, data, count in entries(path):
        if count > 0:
            model.write(bytes(count) if data is None else data, offset)
            writes, written = writes + 1, written + count
        if flags & (FLUSH | FUA):
            model.barrier()
            flushes += 1
    return writes, flushes, written
