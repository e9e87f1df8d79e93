"""Disks to begin with: made from the test's seed, so that a run can be repeated."""
import os
import random
import subprocess

MIB = 1 << 20


def random_bytes(rng, count):
    return rng.randbytes(count)


def random_file(path, size, rng):
    with open(path, "wb") as out:
        while size > 0:
            out.write(rng.randbytes(min(size, MIB)))
            size -= MIB
    return path


def zero_file(path, size):
    with open(path, "wb") as out:
        out.truncate(size)
    return path


def half_compressible_file(path, size, rng):
    """Pages that all differ, but of which zstd leaves a quarter: much mapped data in little space."""
    filler = b"the quick brown fox jumps over the lazy dog. " * 69
    with open(path, "wb") as out:
        write_compressible(out, size, rng, filler)
    return path


def write_compressible(out, size, rng, filler=b"all work and no play makes jack a dull boy. " * 70):
    for _ in range(size // 4096):
        out.write(rng.randbytes(1024) + filler[:3072])


def sparse_file(path, size, pieces, piece_bytes, rng):
    """Pieces of compressible data at random page-aligned places of an empty disk."""
    with open(path, "wb") as out:
        out.truncate(size)
        places = set()
        while len(places) < pieces:
            places.add(rng.randrange(size // piece_bytes))
        for place in sorted(places):
            out.seek(place * piece_bytes)
            write_compressible(out, piece_bytes, rng)
    return path


def ext4_file(path, size, rng, folder):
    """An ext4 file system full of files of many sizes."""
    left = size // 2
    number = 0
    while left > 0:
        sub = folder / f"d{rng.randrange(8)}"
        sub.mkdir(parents=True, exist_ok=True)
        length = min(left, int(rng.paretovariate(0.6) * 200), 2 * MIB)
        if rng.random() < 0.5:
            data = rng.randbytes(length)
        else:
            words = random.Random(rng.randrange(4)).choices(["alpha", "beta", "gamma", "delta\n", "epsilon "], k=length // 5 + 1)
            data = " ".join(words).encode()[:length]
        (sub / f"f{number}").write_bytes(data)
        left -= length
        number += 1
    with open(path, "wb") as out:
        out.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", str(folder), str(path)], check=True,
                   env=dict(os.environ, E2FSPROGS_FAKE_TIME="1700000000"))
    return path
