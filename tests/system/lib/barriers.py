"""A disk in memory whose state is known at every flush, so that a head can be found among them."""
import hashlib

PAGE = 4096
_MASK = (1 << 128) - 1


def _term(page, data):
    return int.from_bytes(hashlib.blake2b(data, digest_size=16, salt=page.to_bytes(8, "little") + bytes(8)).digest(), "little")


def digest_of(disk):
    """Order-independent sum over all pages: one changed page changes it by two terms."""
    return sum(_term(p, disk[p * PAGE:(p + 1) * PAGE]) for p in range(len(disk) // PAGE)) & _MASK


class BetweenBarriers(AssertionError):
    def __init__(self, write, barrier):
        super().__init__(f"the disk is like this after write {write}, which is between flush {barrier} and the next")
        self.write, self.barrier = write, barrier


class BarrierModel:
    """Writes go to a bytearray; barrier() notes the state. The disk is whole pages, a write need not be."""

    def __init__(self, disk):
        self.disk = disk
        self.terms = [_term(p, disk[p * PAGE:(p + 1) * PAGE]) for p in range(len(disk) // PAGE)]
        self.digest = sum(self.terms) & _MASK
        self.barriers = {self.digest: 0}  # digest -> number of the newest barrier with it
        self.count = 0
        self.writes = {}  # digest after a write -> (number of the write, barriers before it): tells what went wrong

    def write(self, data, offset):
        self.disk[offset:offset + len(data)] = data
        for page in range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1):
            term = _term(page, self.disk[page * PAGE:(page + 1) * PAGE])
            self.digest = (self.digest - self.terms[page] + term) & _MASK
            self.terms[page] = term
        self.writes[self.digest] = (len(self.writes) + 1, self.count)

    def barrier(self):
        self.count += 1
        self.barriers[self.digest] = self.count

    def find(self, disk):
        """The number of the barrier at which the disk was like this."""
        digest = digest_of(disk)
        if digest in self.barriers:
            return self.barriers[digest]
        if digest in self.writes:
            raise BetweenBarriers(*self.writes[digest])
        raise AssertionError(f"the disk was never like this, after none of {len(self.writes)} writes")
