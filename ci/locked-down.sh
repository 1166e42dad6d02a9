#!/usr/bin/env bash
# Runs the program with the restrictions of deploy/compose.yaml, without a Docker engine: as user 10001 without capabilities,
# with no-new-privileges, in a read-only root directory that has only the program and its libraries, with a writable /data.
# Runs smoke.sh against it.
#
#   ci/locked-down.sh --start target/release/octopus
#
# Requires root, for the mounts. DATABASE_URL may name an empty Postgres database, over TCP.
# Variables that lib.sh sets in a subshell are not used here, and the strings in single quotes are programs:
# shellcheck disable=SC2031,SC2016
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

if [ "${1-}" != --start ] || [ $# != 2 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
[ -x "$2" ] || die "$2 is not an executable file"
[ "$(id -u)" = 0 ] || die "this script requires root"
need curl jq ldd python3 unshare
BINARY=$(realpath "$2")

FOLDER=$(mktemp -d)
chmod 755 "$FOLDER"
ROOT=$FOLDER/root
finish() {
  local code=$?
  [ "$code" -eq 0 ] || show_server_log
  if server_runs; then stop_server || true; fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

# The files that the Dockerfile copies into the image.
install -D "$BINARY" "$ROOT/usr/local/bin/octopus"
ldd "$BINARY" | grep -o '/[^ ]*' | xargs cp -L --parents -t "$ROOT"
mkdir -p "$ROOT"/{etc,proc,tmp}
echo 'hosts: files dns' >"$ROOT/etc/nsswitch.conf"
install -d -o 10001 -g 10001 -m 700 "$ROOT/data" "$FOLDER/data"
# A secret that only this user can read.
install -D -o 10001 -g 10001 -m 400 <(openssl rand -hex 32) "$ROOT/run/secrets/audit_key"

PORT=$(free_port)
export PORT HOST=127.0.0.1 TMPDIR=/data AUDIT_KEY_FILE=/run/secrets/audit_key RATE_LIMIT_ENABLED=false
export DATABASE_URL=${DATABASE_URL:-sqlite:////data/chat_conversations.db}
unset MASTER_API_KEY MASTER_API_KEY_FILE BOOTSTRAP_TOKEN BOOTSTRAP_TOKEN_FILE REGISTRATION DOCS_ENABLED METRICS_ADDR AUDIT_KEY

# Changes the root directory, drops all privileges and executes the program.
DROP_PRIVILEGES='
import ctypes, os, sys
root, arguments = sys.argv[1], sys.argv[2:]
os.chroot(root)
os.chdir("/data")
prctl = ctypes.CDLL(None, use_errno=True).prctl
for capability in range(64):
    prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.setgroups([])
os.setresgid(10001, 10001, 10001)
os.setresuid(10001, 10001, 10001)
if prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
    sys.exit("no-new-privileges cannot be set")
os.execv("/usr/local/bin/octopus", ["octopus", *arguments])
'
MOUNT='
mount --bind "$1" "$1" && mount --bind "$2" "$1/data" && mount -t proc proc "$1/proc" && mount -o remount,ro,bind "$1" &&
  exec python3 -c "$3" "$1" "${@:4}"
'
inside() { unshare --mount bash -c "$MOUNT" - "$ROOT" "$FOLDER/data" "$DROP_PRIVILEGES" "$@"; }

unshare --mount bash -c "$MOUNT" - "$ROOT" "$FOLDER/data" "$DROP_PRIVILEGES" serve >"$FOLDER/server.log" 2>&1 &
SERVER_PID=$! SERVER_LOG=$FOLDER/server.log OCTOPUS_URL=http://127.0.0.1:$PORT
wait_until_ready
inside healthcheck
passed 'the health check succeeds'
status=$(cat "/proc/$SERVER_PID/status")
for line in 'Uid: 10001' 'CapEff: 0+$' 'CapPrm: 0+$' 'CapBnd: 0+$' 'NoNewPrivs: 1'; do
  tr '\t' ' ' <<<"$status" | grep -qE "^$line" || die "/proc/PID/status does not match: $line"
done
passed 'user 10001, no capabilities, no new privileges'
TMPDIR=$FOLDER OCTOPUS_URL=$OCTOPUS_URL "$HERE/smoke.sh" >"$FOLDER/smoke" || { cat "$FOLDER/smoke" >&2; die "smoke.sh failed"; }
passed "smoke.sh: $(grep -c '^ok' "$FOLDER/smoke") steps"
KEY=$(inside keys create --name locked-down --scopes admin | grep -o 'octopus_[0-9A-Za-z]*')
# An import that is too large for memory is buffered in /data.
python3 - >"$FOLDER/import.ndjson" <<'PYTHON'
import json
at = "2026-01-31T09:30:00Z"
print(json.dumps({"type": "conversation", "external_id": "large", "created_at": at}))
for n in range(40):
    print(json.dumps({"type": "message", "role": "user", "content": "x" * 500000, "created_at": at}))
PYTHON
STATUS=$(curl -s --output "$FOLDER/answer" --write-out '%{http_code}' --request POST -T "$FOLDER/import.ndjson" \
  --header @<(printf '%s' "$KEY_HEADER: $KEY") "$OCTOPUS_URL/api/v1/conversations/import")
[ "$STATUS" = 200 ] || die "the import returned $STATUS: $(cat "$FOLDER/answer")"
passed 'an import of 20 MB'
inside verify >/dev/null
passed 'octopus verify runs while the server is running'
stop_server || die "the server did not stop cleanly"
passed 'the server stops cleanly'
find "$FOLDER/data" -type f -printf '%m %f\n' | sort
[ -z "$(find "$FOLDER/data" -type f -perm /077)" ] || die "other users can read files in /data"
passed 'other users cannot read files in /data'
