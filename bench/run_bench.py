"""scripts/bench: runs the parts and prints their figures. Usage and parts: scripts/bench --help."""
import argparse
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent / "lib"), str(ROOT / "tests" / "system" / "lib"), str(ROOT / "scripts" / "lib")]

import boot_part  # noqa: E402
import dedup_part  # noqa: E402
import io_part  # noqa: E402
import link_part  # noqa: E402
import memory_part  # noqa: E402
import seal_part  # noqa: E402
import transfer_part  # noqa: E402
from dims_system import World  # noqa: E402
from measure import Bench, machine  # noqa: E402

PARTS = {"io": io_part, "transfer": transfer_part, "boot": boot_part, "dedup": dedup_part, "link": link_part,
         "memory": memory_part, "seal": seal_part}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--runs", type=int)
    parser.add_argument("--out")
    parser.add_argument("--calm", type=float)
    parser.add_argument("--mapped", type=int)
    parser.add_argument("--images")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if options.images and len(options.images.split(",")) != 3:
        parser.error("--images needs three files: A,B,C")
    if options.runs is None:
        options.runs = 2 if options.quick else 5
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.environ["LC_ALL"] = "C"
    print(f"machine: {machine()}", flush=True)
    if options.runs < 5:
        print("fewer than 5 rounds: these figures are not to be quoted", flush=True)
    results, failed = {"machine": machine(), "quick": options.quick, "runs": options.runs}, []
    for name in [n for n in PARTS if not options.only or n in options.only]:
        build = os.environ.get("DIMS_BUILD") or ROOT / "build"
        world = World(tempfile.mkdtemp(prefix=f"dims-bench-{name}."), build, 1, not options.quick)
        bench = Bench(world, options, ROOT, name)
        passed = False
        try:
            bench.begin((PARTS[name].__doc__ or "").strip().splitlines()[0])
            PARTS[name].run(bench)
            passed = True
        except Exception:  # noqa: BLE001  one part that fails must not take the others' figures
            traceback.print_exc(file=sys.stdout)
            failed.append(name)
        finally:
            bench.end_processes()
            world.end(passed, options.keep)
        results[name] = bench.finish()
        if options.out:
            Path(options.out).write_text(json.dumps(results, indent=1) + "\n")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
