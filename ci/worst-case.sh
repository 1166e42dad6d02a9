#!/usr/bin/env bash
# Measures the most expensive valid request of every operation: processor time, peak memory and the size of the response;
# and how long other users wait while one user has eight of the worst in flight. On SQLite and on Postgres.
#
#   ci/worst-case.sh [--output FILE] --start target/release/octopus
#
# Fails if a request exceeds its limit, or if the 99th percentile of /health is 100 ms or more. Needs an idle machine, because
# the clients use the same cores. The requests are in tests/it/operations/.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' OUTPUT=()
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) require_value "$@"; BINARY=$2; shift 2 ;;
    --output) require_value "$@"; OUTPUT=(--output "$2"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
exec "$HERE/torture.sh" --binary "$BINARY" ${OUTPUT[@]+"${OUTPUT[@]}"} worst_case::the_worst worst_case::eight
