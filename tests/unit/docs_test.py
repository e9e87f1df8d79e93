#!/usr/bin/env python3
"""Checks docs/ and README.md: every link leads to a file, every file that is named exists, every test that is quoted
beside a test file's name exists; every document that the code names exists; the tables of traps and of mutants name what there is.

usage: docs_test.py [ROOT]

Prints one line a finding, FILE:LINE: what; exit code 1 when there is any. Reads only.
"""

import pathlib
import re
import sys

LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(#[^)]*)?\)")
CODE = re.compile(r"`([^`]+)`")
QUOTED = re.compile(r'"([^"]{8,})"')
# Long names are cut into several literals.
TEST = re.compile(r'TEST_CASE(?:_METHOD)?\((?:\s*\w+,)?\s*((?:"(?:[^"\\]|\\.)*"\s*)+)')
# Code text that names a file of the repository: from a folder of its top, with an ending.
DOCUMENT = re.compile(r"\bdocs/[\w./-]+\.md\b")
CODE_FILES = (".cc", ".h", ".proto", ".py", ".cmake", ".sh", "")
NAMED = re.compile(r"(?:common|nbdkit-ldim|rdim-server|image-tools|proto|tests|bench|scripts|docs)/[\w./{},*-]+")


# A name that stands for many.
PLACEHOLDER = re.compile(r"\.\.\.|[A-Z]{4,}|NNN")


def pages(root):
    return sorted(root.glob("docs/**/*.md")) + [root / "README.md"]


def exists(root, name):
    """`a/b.{h,cc}` and `a/*_test.cc` stand for several."""
    braces = re.search(r"\{([^}]*)\}", name)
    if braces:
        return all(exists(root, name[:braces.start()] + part + name[braces.end():]) for part in braces[1].split(","))
    if "*" in name:
        return any(root.glob(name))
    return (root / name).exists()


def code_findings(root):
    for top in ("common", "nbdkit-ldim", "rdim-server", "image-tools", "proto", "tests", "bench", "scripts"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in CODE_FILES or not path.is_file() or path.name.endswith("docs_test.py"):
                continue
            for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
                for name in DOCUMENT.findall(line):
                    if not (root / name).exists() and "check_layers_test" not in path.name:
                        yield f"{path.relative_to(root)}:{number}: there is no {name}"


def findings(root):
    yield from page_findings(root)
    yield from code_findings(root)


def page_findings(root):
    cases = "\n".join(re.sub(r'"\s*"', "", name) for path in root.glob("tests/**/*.cc")
                      for name in TEST.findall(path.read_text("utf-8")))
    for page in pages(root):
        where = page.relative_to(root)
        fenced = False
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            if line.startswith("```"):
                fenced = not fenced
            if fenced:
                continue
            for target, _ in LINK.findall(line):
                if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                    yield f"{where}:{number}: the link leads nowhere: {target}"
            for code in CODE.findall(line):
                name = code.rstrip("/.,")
                if NAMED.fullmatch(name) and not PLACEHOLDER.search(name) and not exists(root, name):
                    yield f"{where}:{number}: there is no {name}"
            if "_test.cc" in line:
                for name in QUOTED.findall(line):
                    if name.removesuffix("...").strip() not in cases:
                        yield f"{where}:{number}: no test is called '{name}'"


# The table of traps names tests: cases, files, or programs of ctest.
def trap_findings(root):
    known = "\n".join(re.sub(r'"\s*"', "", path.read_text("utf-8")) for path in sorted(root.glob("tests/**/*")) if path.suffix in (".cc", ".cmake"))
    known += "\n".join(str(path) for path in root.glob("tests/**/*"))
    known += (root / "tests/sim/CMakeLists.txt").read_text("utf-8")
    page = root / "docs/reliability.md"
    lines = page.read_text("utf-8").splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("## Traps"))
    for number, line in enumerate(lines[begin + 1:], begin + 2):
        if line.startswith("## "):
            return
        cells = line.split("|")
        if len(cells) != 4 or set(cells[1].strip()) <= set("-") or cells[1].strip().startswith(("**", "what went")):
            continue
        names = CODE.findall(cells[2])
        if not names:
            yield f"docs/reliability.md:{number}: no test is named for: {cells[1].strip()}"
        for name in names:
            short = name.removesuffix("...").strip().split("/")[-1]
            if short.replace("sim_", "") not in known:
                yield f"docs/reliability.md:{number}: no test is called '{name}'"


# The document's table of mutants is the one that scripts/mutants plants.
def mutant_findings(root):
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(root / "tests/mutants"))
    import table
    lines = (root / "docs/reliability.md").read_text("utf-8").splitlines()
    begin = lines.index("| mutant | killed by |")
    shown = []
    for line in lines[begin + 2:]:
        if not line.startswith("|"):
            break
        shown.append(line)
    if shown != list(table.rows()):
        yield f"docs/reliability.md:{begin + 1}: the table of mutants is not that of tests/mutants/table.py: 'scripts/mutants --table' prints it"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else pathlib.Path(__file__).parents[2])
    found = list(findings(root))
    if (root / "docs/reliability.md").exists():
        found += [*trap_findings(root), *mutant_findings(root)]
    print("\n".join(found + [f"{len(pages(root))} pages read, {len(found)} findings"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
