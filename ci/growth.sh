#!/usr/bin/env bash
# Measures disk use: fills an SQLite database through the API and prints the bytes per message, key, audit entry and so on.
#
#   ci/growth.sh [--messages N] --start target/release/octopus
#
# N messages of about 200 characters (default 100000), and 2000 of each other kind. Needs sqlite3 with dbstat, such as Debian's.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' MESSAGES=100000
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) require_value "$@"; BINARY=$2; shift 2 ;;
    --messages) require_value "$@"; MESSAGES=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
need curl jq python3 sqlite3
sqlite3 :memory: 'SELECT 1 FROM dbstat' >/dev/null 2>&1 || die "this sqlite3 has no dbstat"

FOLDER=$(mktemp -d)
finish() {
  local code=$?
  [ "$code" -eq 0 ] || show_server_log
  if server_runs; then stop_server || true; fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

unset DATABASE_URL
export RATE_LIMIT_ENABLED=false
start_server "$BINARY" "$FOLDER"
must POST /bootstrap
KEY=$(field .api_key)

printf '%s' "$KEY" | python3 /dev/fd/3 "${OCTOPUS_URL##*:}" "$MESSAGES" 3<<'PYTHON'
import http.client, json, random, sys
port, messages = int(sys.argv[1]), int(sys.argv[2])
key = sys.stdin.read()
server = http.client.HTTPConnection("127.0.0.1", port)
def send(path, body, key=key, method="POST"):
    headers = {"Content-Type": "application/json", "Octopus-API-Key": key}
    server.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = server.getresponse()
    text = response.read()
    if response.status >= 300:
        sys.exit(f"{path} returned {response.status}: {text}")
    return json.loads(text)
random.seed(1)
# word frequencies follow Zipf's law, as in natural language
words = ["".join(random.choices("etaoinshrdlucmfwypvbgk", k=random.randint(2, 9))) for _ in range(20000)]
weights = [1 / (n + 1) for n in range(len(words))]
def text():
    return " ".join(random.choices(words, weights, k=31))
one = send("/api/v1/users", {"username": "one", "email": "one@example.com", "password": "quiet-harbour-41"})["id"]
conversation = 0
for start in range(0, messages, 1000):
    if start % 10000 == 0:
        conversation = send("/api/v1/conversations", {"participant_ids": [one]})["id"]
    batch = [{"role": "user", "content": text(), "user_id": one} for _ in range(1000)]
    send(f"/api/v1/conversations/{conversation}/messages/batch", {"messages": batch})
for n in range(2000):
    created = send("/api/v1/api-keys", {"name": f"program number {n}", "scopes": "read,write"})
    send("/api/v1/api-keys/me", None, created["key"], "GET")
for n in range(2000):
    send("/api/v1/conversations", {"title": f"conversation of day {n}", "participant_ids": [one]})
PYTHON
stop_server

database=$FOLDER/smoke.db
printf 'database file: %d bytes\n' "$(stat -c %s "$database")"
printf '%-34s %10s %10s\n' 'bytes per row, with indexes' bytes rows
# report TEXT TABLE: prints the bytes per row in the pages of the table and its indexes
report() {
  sqlite3 "$database" "SELECT printf('%-34s %10.0f %10d', '$1', sum(s.pgsize) * 1.0 / n.n, n.n) FROM dbstat s,
    (SELECT count(*) AS n FROM $2) n WHERE s.name = '$2' OR s.name IN (SELECT name FROM sqlite_master WHERE tbl_name = '$2')"
}
report 'a message of about 200 characters' messages
sqlite3 "$database" "SELECT printf('%-34s %10.0f %10d', '  its search index', sum(pgsize) * 1.0 / n.n, n.n) FROM dbstat,
  (SELECT count(*) AS n FROM messages) n WHERE name LIKE 'message_search%'"
report '  its event' conversation_events
report 'a conversation' conversations
report 'a participant' participants
report 'a key' api_keys
report 'an hour in which a key was used' api_key_usage
report 'an audit entry' api_key_audit_logs
sqlite3 "$database" "SELECT printf('%-34s %10.0f', 'characters of a message', avg(length(content))) FROM messages"
