#!/usr/bin/env bash
# Measures the memory of idle event streams: starts a server, opens the streams and prints its memory before and after.
#
#   ci/streams.sh [--count N] [--at-most KILOBYTES] --start target/release/octopus
#
# N is the number of streams (default 1000). With --at-most, the script fails if all streams together take more memory.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' COUNT=1000 AT_MOST=''
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) require_value "$@"; BINARY=$2; shift 2 ;;
    --count) require_value "$@"; COUNT=$2; shift 2 ;;
    --at-most) require_value "$@"; AT_MOST=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
need curl jq python3
# Each stream is an open file in the server and in the client.
ulimit -n "$((COUNT + 200))" || die "the system does not allow $((COUNT + 200)) open files"

FOLDER=$(mktemp -d)
finish() {
  local code=$?
  [ "$code" -eq 0 ] || show_server_log
  if server_runs; then
    stop_server || true
  fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

export RATE_LIMIT_ENABLED=false
# All streams come from one address.
export MAX_CONNECTIONS_PER_CLIENT=$((COUNT + 100))
start_server "$BINARY" "$FOLDER"
must POST /bootstrap
KEY=$(field .api_key)
must POST /api/v1/conversations '{}'
STREAM=/api/v1/conversations/$(field .id)/events
# A key may have at most 20 streams.
for ((created = 0; created < COUNT; created += 20)); do
  must POST /api/v1/api-keys "{\"name\": \"key $created\", \"scopes\": \"conversations:read\"}"
  field .key >>"$FOLDER/keys"
done

resident() { awk '/^VmRSS:/ { print $2 }' "/proc/$SERVER_PID/status"; }
report() { printf '%-44s %8d kB\n' "$1" "$2"; }
sleep 2
BEFORE=$(resident)
report "without streams" "$BEFORE"

# Opens the streams with the keys on standard input, prints their number, and keeps them open until it is killed.
OPEN_STREAMS='
import itertools, resource, socket, sys, time
port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
keys = sys.stdin.read().split()
streams = []
for key in itertools.islice(itertools.chain.from_iterable([key] * 20 for key in keys), count):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nOctopus-API-Key: {key}\r\n\r\n".encode())
    received = b""
    while b"event: begin" not in received:
        received += stream.recv(4096) or sys.exit(f"no stream: {received}")
    streams.append(stream)
print(len(streams), flush=True)
time.sleep(600)
'
exec 3< <(exec python3 -c "$OPEN_STREAMS" "${OCTOPUS_URL##*:}" "$STREAM" "$COUNT" <"$FOLDER/keys")
CLIENT_PID=$!
read -r -t 120 -u 3 OPEN || die "the streams did not open"
# Long enough for each stream to poll and to send heartbeats.
sleep 35
AFTER=$(resident)
TOOK=$((AFTER - BEFORE))
report "with $OPEN idle streams" "$AFTER"
report "all streams" "$TOOK"
report "per stream" "$((TOOK / OPEN))"
kill "$CLIENT_PID"
if [ -n "$AT_MOST" ] && [ "$TOOK" -gt "$AT_MOST" ]; then
  die "$OPEN streams take $TOOK kB, more than $AT_MOST"
fi
