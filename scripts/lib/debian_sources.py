#!/usr/bin/env python3
"""Prints this machine's apt sources that belong to one Debian release, one line each.

usage: debian_sources.py SUITE [DIRECTORY]

Reads sources.list and sources.list.d/*.{list,sources} in DIRECTORY (default /etc/apt) and prints the
enabled `deb` entries of SUITE, SUITE-updates and SUITE-security, component main only, so that an image
built from them holds Debian and nothing else. Exit code 1 when there is none.
"""

import pathlib
import re
import sys


def one_line_entries(text):
    """Yields (options, uri, suite, components) of the classic format."""
    for line in text.splitlines():
        match = re.match(r"^deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$", line)
        if match:
            yield match[1] or "", match[2], match[3], match[4].split()


def deb822_entries(text):
    """Yields the same of the stanza format."""
    for stanza in re.split(r"\n\s*\n", text):
        fields, last = {}, None
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and last:
                fields[last] += " " + line.strip()
            elif ":" in line:
                last, value = line.split(":", 1)
                last = last.strip().lower()
                fields[last] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        key = fields.get("signed-by", "")
        options = f"signed-by={key}" if key.startswith("/") else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield options, uri, suite, fields.get("components", "").split()


def sources_of(suite, directory):
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    root = pathlib.Path(directory)
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]
    lines = []
    for path in files:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        read = deb822_entries if path.suffix == ".sources" else one_line_entries
        for options, uri, name, components in read(path.read_text(errors="replace")):
            if name in wanted and "main" in components:
                line = f"deb {f'[{options}] ' if options else ''}{uri} {name} main"
                if line not in lines:
                    lines.append(line)
    return lines


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] in ("-h", "--help"):
        print(__doc__, end="")
        return 0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2
    lines = sources_of(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "/etc/apt")
    print("\n".join(lines), end="\n" if lines else "")
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
