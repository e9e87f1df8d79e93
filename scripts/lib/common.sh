# Shared by the scripts in scripts/: sourced, never run. Needs bash.
# shellcheck shell=bash
# What it gives: DIMS_ROOT, say/warn/die, as_root, and a list of processes to end on exit.

DIMS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
DIMS_BUILD=${DIMS_BUILD:-$DIMS_ROOT/build}
DIMS_SCRIPT=$(basename "$0")

if [[ -t 1 ]]; then
  DIMS_BOLD=$'\e[1m' DIMS_PLAIN=$'\e[0m'
else
  DIMS_BOLD='' DIMS_PLAIN=''
fi

say() { printf '%s%s:%s %s\n' "$DIMS_BOLD" "$DIMS_SCRIPT" "$DIMS_PLAIN" "$*"; }
warn() { printf '%s: warning: %s\n' "$DIMS_SCRIPT" "$*" >&2; }
die() {
  printf '%s: error: %s\n' "$DIMS_SCRIPT" "$*" >&2
  exit 1
}

# Wrong usage is told apart from failure: exit code 2.
usage_error() {
  printf '%s: %s\nTry: %s --help\n' "$DIMS_SCRIPT" "$*" "$0" >&2
  exit 2
}

# The comment block at the top of a script is its help text: from line 2 to the first other line.
show_help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# Option values are needed for real: --size --variant is a mistake, not a size.
need_value() { [[ $# -ge 2 && -n ${2:-} ]] || usage_error "$1 needs a value"; }

as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this step needs root: run it as root or install sudo ($*)"
  fi
}

# Whole seconds or fractions since the epoch; `elapsed FROM` prints the difference with one digit.
now() { date +%s.%N; }
elapsed() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# Parallel jobs: one a core, but never more than memory allows (a C++ job takes up to 1 GiB).
build_jobs() {
  local cores mem_gib
  cores=$(nproc)
  mem_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  ((mem_gib < 1)) && mem_gib=1
  echo $((cores < mem_gib ? cores : mem_gib))
}
