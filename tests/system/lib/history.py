"""Which values a sector may hold after a crash: the last acknowledged write, or a later one that got no answer.

Every write gives each of its sectors a value of its own, so that what a sector holds tells which write put it
there. Two writes in flight at the same time may be applied in either order.
"""
import struct

SECTOR = 512
ZERO = 0  # the value of a sector that was zeroed


def sector_bytes(sector, value):
    return bytes(SECTOR) if value == ZERO else struct.pack("<QQ", sector, value) * (SECTOR // 16)


class _Write:
    __slots__ = ("value", "began", "answered")

    def __init__(self, value, began, answered=None):
        self.value, self.began, self.answered = value, began, answered


class History:
    def __init__(self, settled):
        self.settled = settled   # bytearray: the disk at the start of the round
        self.clock = 0
        self.touched = {}        # sector -> [_Write]; without a write that surely is overwritten

    def tick(self):
        self.clock += 1
        return self.clock

    def begin(self, first, count, value):
        """A write is sent. Returns what acknowledge() takes."""
        write = _Write(value, self.tick())
        for sector in range(first, first + count):
            if sector not in self.touched:
                self.touched[sector] = [_Write(None, -1, 0)]  # None: what was settled
            self.touched[sector].append(write)
        return first, count, write

    def acknowledge(self, sent):
        first, count, write = sent
        write.answered = self.tick()
        for sector in range(first, first + count):
            self.touched[sector] = [w for w in self.touched[sector]
                                    if w is write or w.answered is None or w.answered > write.began]

    def settle(self, disk):
        """Checks a whole disk read after the crash and takes over what it holds. Gives the number of
        sectors that were checked because a write had touched them."""
        for sector, writes in self.touched.items():
            at = sector * SECTOR
            got = bytes(disk[at:at + SECTOR])
            before = bytes(self.settled[at:at + SECTOR])
            allowed = [before if w.value is None else sector_bytes(sector, w.value) for w in writes]
            if got not in allowed:
                raise AssertionError(self.describe(sector, writes, got, before))
            self.settled[at:at + SECTOR] = got
        checked = len(self.touched)
        self.touched.clear()
        if self.settled != disk:
            bad = next(s for s in range(len(disk) // SECTOR)
                       if self.settled[s * SECTOR:(s + 1) * SECTOR] != disk[s * SECTOR:(s + 1) * SECTOR])
            raise AssertionError(f"sector {bad} changed although nobody wrote to it")
        return checked

    @staticmethod
    def describe(sector, writes, got, before):
        place, value = struct.unpack_from("<QQ", got)
        known = [(w.value, "answered" if w.answered else "in flight") for w in writes]
        what = "zeros" if got == bytes(SECTOR) else "what it held before this round" if got == before else \
            f"write {value} of sector {place}" if got == sector_bytes(place, value) else f"bytes nobody wrote: {got[:32].hex()}"
        return f"an acknowledged write is lost: sector {sector} holds {what}; possible are {known}"
