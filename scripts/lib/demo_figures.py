#!/usr/bin/env python3
"""What scripts/demo reads out of the JSON that the programs print. Python's standard library only.

usage: demo_figures.py boot REPORT              one line on a boot (a report of guest.py)
       demo_figures.py output REPORT N          the output of the N-th command of a boot
       demo_figures.py newest VERSIONS          the newest version's sequence number
       demo_figures.py newer BEFORE VERSIONS    exit code 1 unless VERSIONS has one newer than image info BEFORE
       demo_figures.py filled STATUS            exit code 1 unless all that the cache has room for is in it
       demo_figures.py summary DIRECTORY NAME=VALUE...
"""

import json
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def boot(report_path):
    report = load(report_path)
    timings = report["timings"]
    for command in report["commands"]:
        print(f"    guest# {command['command']}")
        for line in command["output"].splitlines():
            print(f"    {line}")
    line = f"    login prompt after {timings['login_s']:.1f} s"
    if timings.get("shutdown_s") is not None:
        line += f", shut down in {timings['shutdown_s']:.1f} s"
    elif not report["running"]:
        line += ", nobody listened to the power button: switched off"
    print(line)


def size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024


def sequences(versions_path):
    return [version["sequence"] for version in load(versions_path)["versions"]]


def disk_lines(status):
    cache, fetched, requests = status["cache"], status["fetched"], status["requests"]
    return [
        ("fetched", f"{size(fetched['bytes'])} in {fetched['chunks']} chunks and {fetched['nodes']} nodes"),
        ("guest read", f"{size(requests['bytes_read'])} in {requests['reads']} requests; of its pages "
                       f"{cache['pages_hit']} came from the cache, {cache['pages_missed']} were fetched, "
                       f"{cache['pages_zero']} were zero (hit rate {100 * cache['hit_rate']:.1f} %)"),
        ("guest wrote", f"{size(requests['bytes_written'])} in {requests['writes']} requests, "
                        f"{requests['flushes']} flushes"),
    ]


def summary(directory, pairs):
    seconds = dict(pair.split("=", 1) for pair in pairs)
    image = load(f"{directory}/image-1.json")
    end = load(f"{directory}/image-2.json")
    first, offline = load(f"{directory}/status-first.json"), load(f"{directory}/status-offline.json")
    boots = {name: load(f"{directory}/guest-{name}.json")["timings"] for name in ("first", "offline")}
    synced, arrived = load(f"{directory}/status-synced.json"), load(f"{directory}/status-end.json")

    lines = [("image", image_line(image)), ("import", f"{seconds['import_s']} s"), ("", "")]
    lines += [("first boot", boot_line(boots["first"]))] + disk_lines(first)
    lines += [("write-back", write_back_line(synced) + f"; the last took {seconds['sync_s']} s"), ("", "")]
    lines += [("offline boot", boot_line(boots["offline"]))] + disk_lines(offline)
    lines += [("write-back", write_back_line(arrived) + " after the server came back"), ("", "")]
    lines += [("versions", ", ".join(f"@{number}" for number in sorted(sequences(f"{directory}/versions-end.json")))),
              ("version now", image_line(end)), ("export", f"{seconds['export_s']} s"),
              ("all of it", f"{seconds['total_s']} s")]
    for name, text in lines:
        print(f"    {name:<14}{text}" if name else "")


def boot_line(timings):
    return f"login prompt after {timings['login_s']:.1f} s"


def write_back_line(status):
    sent = status["write_back"]
    return (f"{sent['commits']} commits of {sent['pages']} pages in {sent['chunks']} chunks; "
            f"{size(sent['bytes_sent'])} went over the wire")


def image_line(info):
    figures = info["figures"]
    about = "about " if figures["estimated"] else ""
    return (f"@{head_sequence(info)}: {size(info['image_bytes'])} disk, {size(figures['mapped_bytes'])} not zero, stored in "
            f"{about}{size(figures['sealed_bytes'])}: {figures['reduction_ratio']:.2f} = "
            f"{figures['dedup_ratio']:.2f} dedup x {figures['compression_ratio']:.2f} compression")


def head_sequence(info):
    return info["sequence"]


def main():
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__, end="")
        return 0 if len(sys.argv) > 1 else 2
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb == "boot":
        boot(arguments[0])
    elif verb == "output":
        print(load(arguments[0])["commands"][int(arguments[1])]["output"], end="")
    elif verb == "newest":
        print(max(sequences(arguments[0])))
    elif verb == "newer":
        return 0 if max(sequences(arguments[1])) > head_sequence(load(arguments[0])) else 1
    elif verb == "filled":
        fill = load(arguments[0]).get("fill", {"done": True, "no_room": False})
        return 0 if fill["done"] or fill["no_room"] else 1
    elif verb == "summary":
        summary(arguments[0], arguments[1:])
    else:
        print(f"demo_figures.py: unknown verb '{verb}'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
