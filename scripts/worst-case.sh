#!/usr/bin/env bash
# Measures the most expensive legal request of every operation: processor time, peak memory and the size of the answer;
# and how long others wait while eight of the worst are in flight from one account. On SQLite and on Postgres.
#
#   scripts/worst-case.sh [--output FILE] --start target/release/octopus
#
# Fails if a request exceeds its bound, or if the slowest hundredth of /health takes 100 ms or more. Needs an idle machine,
# as the clients run on the same cores. tests/it/worst_case/table.rs has the requests.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' OUTPUT=()
wants() { [ $# -ge 2 ] || die "$1 wants a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) wants "$@"; BINARY=$2; shift 2 ;;
    --output) wants "$@"; OUTPUT=(--output "$2"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
exec "$HERE/torture.sh" --binary "$BINARY" ${OUTPUT[@]+"${OUTPUT[@]}"} worst_case::the_worst worst_case::eight
