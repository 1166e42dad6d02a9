#!/usr/bin/env bash
# Measures the cost of requests: starts Octopus and a bare axum server on one core, sends requests from the other core,
# and prints a table. It only reports: slow requests do not make it fail.
#
#   ci/bench.sh [--seconds N] [--cores 1|2] [--database FILE|URL] [--size small|large] [--only PATTERN]
#
# --cores 2 gives the server both cores and sends requests from two threads. --database names an SQLite file or an empty
# Postgres database: the first run fills it and stores its keys (in FILE.keys or target/bench-postgres.keys), later runs
# reuse it. --size large fills it with 100,000 keys, users and conversations and 5,000,000 messages. --only measures the
# routes whose name contains PATTERN.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"
cd "$HERE/.."

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

LENGTH=8 CORES=1 DATABASE='' SIZE=small ONLY=''
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) require_value "$@"; LENGTH=$(($2 < 4 ? 4 : $2)); shift 2 ;;
    --cores) require_value "$@"; CORES=$2; shift 2 ;;
    --database) require_value "$@"; DATABASE=$2; shift 2 ;;
    --size) require_value "$@"; SIZE=$2; shift 2 ;;
    --only) require_value "$@"; ONLY=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
case $SIZE in
  small) CONVERSATIONS=300 SIZES=() ;;
  large) CONVERSATIONS=100000 SIZES=(--keys 100000 --users 100000 --conversations 100000 --messages 5000000) ;;
  *) die "--size must be small or large" ;;
esac
case $CORES in
  1) ON_SERVER=(taskset -c 0) ON_CLIENT=(taskset -c 1) ;;
  2) ON_SERVER=() ON_CLIENT=() ;;
  *) die "--cores must be 1 or 2" ;;
esac
need cargo curl jq wrk taskset

FOLDER=$(mktemp -d)
PIDS=()
finish() {
  local code=$? pid
  [ "$code" -eq 0 ] || show_server_log
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

# bench NAME: builds benches/NAME.rs and prints the path of the binary.
bench() {
  cargo build --profile dist --locked --bench "$1" --message-format json |
    jq -r 'select(.executable and .target.name == "'"$1"'") | .executable'
}

cargo build --profile dist --locked
BARE=$(bench bare) SEED=$(bench seed)

case $DATABASE in
  '') DATABASE_URL=sqlite:///$FOLDER/bench.db KEYS=$FOLDER/keys ;;
  postgres*) DATABASE_URL=$DATABASE KEYS=target/bench-postgres.keys ;;
  *) DATABASE=$(realpath "$DATABASE") DATABASE_URL=sqlite:///$DATABASE KEYS=$DATABASE.keys ;;
esac
export DATABASE_URL
# shellcheck disable=SC2031 # lib.sh sets it only for the server that it starts
case $DATABASE_URL in postgres*) export AUDIT_KEY=the-audit-key-of-a-database-that-is-thrown-away ;; esac
if [ ! -s "$KEYS" ]; then
  (umask 077 && "$SEED" "${SIZES[@]}" >"$KEYS.new" && mv "$KEYS.new" "$KEYS")
fi
read -r ADMIN READER <"$KEYS"

# cpu_time PID: prints the processor time of all threads of a process in microseconds, user and system.
cpu_time() {
  local stat
  stat=$(<"/proc/$1/stat")
  # shellcheck disable=SC2086 # split into fields
  set -- ${stat##*) }
  echo $(((${12} + ${13}) * 1000000 / $(getconf CLK_TCK)))
}

resident() { awk '/^VmRSS:/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# load PID URL SECONDS: sets REQUESTS, P50 and P99 (microseconds), RATE (requests per second), COST (microseconds per request)
load() {
  local before after line errors broken took
  before=$(cpu_time "$1")
  line=$("${ON_CLIENT[@]}" wrk -t "$CORES" -c 32 -d "$3" --latency -s ci/bench/request.lua "$2" | grep '^measured ')
  after=$(cpu_time "$1")
  read -r _ REQUESTS took P50 P99 errors broken <<<"$line"
  [ "$broken" = 0 ] || die "$broken requests got no response"
  [ "$errors" = 0 ] || [ "$errors" = "$REQUESTS" ] || die "$errors of $REQUESTS requests were rejected"
  RATE=$((REQUESTS * 1000000 / took))
  COST=$(awk "BEGIN { printf \"%.2f\", ($after - $before) / $REQUESTS }")
}

# measure NAME PID URL: prints a row with the cheapest of four measurements, as other load on the machine only adds time
measure() {
  local best='' part
  load "$2" "$3" 2
  for part in 1 2 3 4; do
    load "$2" "$3" "$(((LENGTH + part - 1) / 4))"
    if [ -z "$best" ] || [ "$(awk "BEGIN { print ($COST < ${best##* }) }")" = 1 ]; then best="$RATE $P50 $P99 $COST"; fi
  done
  read -r RATE P50 P99 COST <<<"$best"
  case $1 in bare*) BASE=$COST ;; esac
  printf '%-34s %9d %9.2f %9.2f %9.1f %8.2f %8s\n' "$1" "$RATE" "$(awk "BEGIN { print $P50 / 1000 }")" \
    "$(awk "BEGIN { print $P99 / 1000 }")" "$COST" "$(awk "BEGIN { print $COST / $BASE }")" "$(resident "$2")"
}

# route NAME STATUS METHOD TARGET [KEY] [BODY]
route() {
  [[ $1 == *"$ONLY"* ]] || return 0
  export METHOD=$3 TARGET=$4 KEY=${5-} BODY=${6-} FIRST=$FIRST_OTHER LAST=$CONVERSATIONS
  call "$3" "${4//%d/$FIRST_OTHER}" ${6:+"$6"}
  [ "$STATUS" = "$2" ] || die "$1: expected $2, got $STATUS: $BODY"
  BODY=${6-} measure "$1" "$SERVER_PID" "$OCTOPUS_URL"
}

bare() {
  METHOD=GET TARGET=/ KEY='' BODY='' measure bare "$BARE_PID" "http://127.0.0.1:$BARE_PORT"
}

BARE_PORT=$(free_port)
"${ON_SERVER[@]}" "$BARE" "127.0.0.1:$BARE_PORT" &
BARE_PID=$!
PIDS+=("$BARE_PID")

export RUST_LOG=info LOG_FORMAT=json
for limit in IP AUTH_FAILURES KEY USER KEY_CREATION REGISTRATION LOGIN LOGIN_CLIENT; do
  export "RATE_LIMIT_${limit}_PER_MINUTE=1000000000"
done
PORT=$(free_port)
STARTED=$(date +%s%N)
(
  cd "$FOLDER"
  HOST=127.0.0.1 PORT=$PORT exec "${ON_SERVER[@]}" "$HERE/../target/dist/octopus"
) >"$FOLDER/server.log" 2>&1 &
SERVER_PID=$! SERVER_LOG=$FOLDER/server.log OCTOPUS_URL=http://127.0.0.1:$PORT
PIDS+=("$SERVER_PID")
until curl --silent --fail --output /dev/null "$OCTOPUS_URL/ready"; do
  server_runs || die "the server exited before it was ready"
  sleep 0.005
done
printf 'ready %d ms after the start, %s MB resident\n\n' "$((($(date +%s%N) - STARTED) / 1000000))" "$(resident "$SERVER_PID")"

# benches/seed.rs gives conversations 1 to 100 five messages each, and 101 twenty.
FIRST_OTHER=102
# A key with a wrong checksum, which is the end of a key.
INVALID=${READER%?}$([ "${READER: -1}" = 0 ] && echo 1 || echo 0)
TEXT='The quick brown fox jumps over the lazy dog, and then it sleeps until the sun comes up again over the hills and the sea.'
printf '%-34s %9s %9s %9s %9s %8s %8s\n' '' 'requests' 'p50' 'p99' 'CPU µs' 'ratio' 'resident'
printf '%-34s %9s %9s %9s %9s %8s %8s\n' '' '/s' 'ms' 'ms' '/request' 'to bare' 'MB'
bare
route 'GET /health' 200 GET /health
route 'GET /api-keys/me' 200 GET /api/v1/api-keys/me "$READER"
route 'GET /items/plumbus' 200 GET /api/v1/items/plumbus "$READER"
route 'GET a conversation of 20' 200 GET /api/v1/conversations/101 "$READER"
route 'GET 100 conversations of 5' 200 GET '/api/v1/conversations/?limit=100' "$READER"
route 'POST a message' 201 POST /api/v1/conversations/%d/messages "$ADMIN" "{\"role\": \"user\", \"content\": \"$TEXT\"}"
route 'reject an invalid key' 401 GET /api/v1/items/plumbus "$INVALID"
route 'POST /api-keys/verify' 200 POST /api/v1/api-keys/verify "$ADMIN" "{\"key\": \"$READER\"}"
bare
