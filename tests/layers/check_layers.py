#!/usr/bin/env python3
"""Checks the repository's own rules: floors (floors.py), room sizes, words, and that every test is run.

usage: check_layers.py [ROOT]

Prints one line a finding, FILE:LINE: what; exit code 1 when there is any. Reads only. Python's standard
library only.
"""

import os
import pathlib
import re
import sys

import floors

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SKIPPED = re.compile(r"^(build.*|\.git|__pycache__|\.cache|golden|corpus)$")


def all_files(root):
    """Every file below root, as paths relative to it with forward slashes."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not SKIPPED.match(name))
        for name in sorted(set(files) - {".git"}):  # a file where the tree is a second one of its repository
            yield pathlib.Path(folder, name).relative_to(root).as_posix()


def lines_of(root, path):
    return (root / path).read_text(encoding="utf-8", errors="replace").splitlines()


def folder_of(path):
    """The room that a file is in: a key of MAY_INCLUDE or OUTSIDE; None when the table does not know it."""
    folder = path.rpartition("/")[0]
    for room in floors.WITH_SUBFOLDERS + floors.OUTSIDE:
        if folder == room or folder.startswith(room + "/"):
            return room
    return folder if folder in floors.MAY_INCLUDE else None


def home_finding(header, room):
    for pattern, what, homes in floors.HOMES:
        if re.search(pattern, header) and room not in homes:
            return f"{what} ({header}) is for {', '.join(homes)} only"
    return None


def include_finding(header, quoted, room):
    """Why a file in `room` may not include `header`, or None."""
    if room in floors.OUTSIDE:
        return None
    finding = home_finding(header, room)
    if finding or not quoted:
        return finding
    if re.search(floors.HOMES[0][0], header):
        return None
    if "/" not in header or header.startswith("."):
        return f'"{header}": write the path from the top of the repository'
    target = folder_of(header)
    if target is None:
        return f'"{header}" lies in no folder that tests/layers/floors.py knows'
    if target in floors.OUTSIDE:
        return f'"{header}": products do not include {target}/'
    if target != room and target not in floors.MAY_INCLUDE[room]:
        return f'"{header}" points up: {room} may not include {target}'
    return None


def check_includes(root):
    tops = {folder.split("/")[0] for folder in floors.MAY_INCLUDE} | set(floors.OUTSIDE)
    for path in all_files(root):
        if not path.endswith((".cc", ".h")) or path.split("/")[0] not in tops:
            continue
        room = folder_of(path)
        if room is None:
            yield f"{path}:1: a folder that tests/layers/floors.py does not know"
            continue
        for number, line in enumerate(lines_of(root, path), 1):
            match = INCLUDE.match(line)
            if match:
                finding = include_finding(match[2], match[1] == '"', room)
                if finding:
                    yield f"{path}:{number}: {finding}"


def check_sizes(root):
    for path in all_files(root):
        if path.endswith(floors.LINE_LIMITED):
            count = len(lines_of(root, path))
            if count > floors.LINES_MAX:
                yield f"{path}:{count}: {count} lines, more than {floors.LINES_MAX}: split the room"


def check_words(root):
    patterns = [(re.compile(pattern), why) for pattern, why in floors.FORBIDDEN]
    for path in all_files(root):
        if pathlib.PurePosixPath(path).suffix not in floors.TEXT:
            continue
        for number, line in enumerate(lines_of(root, path), 1):
            for pattern, why in patterns:
                match = pattern.search(line)
                if match:
                    yield f"{path}:{number}: '{match[0]}': {why}"


def check_tests_listed(root):
    listed = ""
    for path in all_files(root):
        if path.startswith("tests/") and path.endswith(("CMakeLists.txt", ".cmake")):
            # A commented-out test is not listed.
            listed += "\n".join(line.split("#")[0] for line in lines_of(root, path)) + "\n"
    for path in all_files(root):
        name = path.rpartition("/")[2]
        if path.startswith("tests/") and re.search(r"_(test|fuzz)\.(cc|py)$|^test_.*\.(py|sh)$", name):
            if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", listed):
                yield f"{path}:1: no CMakeLists.txt names this test: it never runs"


CHECKS = (check_includes, check_sizes, check_words, check_tests_listed)


def findings(root):
    root = pathlib.Path(root)
    return [finding for check in CHECKS for finding in check(root)]


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__, end="")
        return 0 if len(sys.argv) == 2 else 2
    root = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else pathlib.Path(__file__).parents[2])
    sources = [path for path in all_files(root) if path.endswith((".cc", ".h"))]
    if not sources:
        print(f"{root}: no C++ files: is this the repository?", file=sys.stderr)
        return 1
    found = findings(root)
    print("\n".join(found + [f"{len(sources)} C++ files read, {len(found)} findings"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
