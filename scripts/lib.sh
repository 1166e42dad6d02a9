# shellcheck shell=bash
# What the scripts in this folder share. Source it; it does nothing by itself.
#
#   call METHOD PATH [JSON]                      one request; leaves STATUS, TYPE and BODY
#   must METHOD PATH [JSON]                      the same, but any answer other than 2xx ends the script
#   step TEXT METHOD PATH STATUS FILTER [JSON]   one checked request, one printed line
#   start_server BINARY FOLDER, stop_server      an Octopus of our own, on a free port
#
# Requests carry the key in $KEY, or none while it is empty, and the field in $EXTRA_HEADER, likewise. Keys and bodies reach curl through pipes, never as
# arguments: the process list is public.

OCTOPUS_URL=${OCTOPUS_URL:-http://localhost:8000}
OCTOPUS_URL=${OCTOPUS_URL%/}
KEY=
KEY_HEADER=Octopus-API-Key
EXTRA_HEADER=
STATUS='' TYPE='' BODY=''
STEPS=0
SERVER_PID=
SERVER_LOG=

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || die "$tool is not installed"
  done
}

# Speak with the caller's own key.
use_api_key() {
  KEY=${OCTOPUS_API_KEY:-}
  [ -n "$KEY" ] || die "OCTOPUS_API_KEY is not set: export OCTOPUS_API_KEY=... (make one with scripts/bootstrap.sh)"
  [[ $KEY != *[[:space:]]* ]] || die "OCTOPUS_API_KEY has a blank or a line break in it"
}

call() {
  local answer options=(--silent --show-error --max-time 60 --request "$1")
  if [ $# -ge 3 ]; then
    options+=(--header 'Content-Type: application/json' --data-binary @-)
  fi
  if [ -n "$EXTRA_HEADER" ]; then
    options+=(--header "$EXTRA_HEADER")
  fi
  answer=$(printf '%s' "${3-}" | curl "${options[@]}" --header @<(printf '%s' "${KEY:+$KEY_HEADER: $KEY}") \
    --write-out '\n%{content_type}\n%{http_code}' "$OCTOPUS_URL$2") ||
    die "no answer from $OCTOPUS_URL (is the server running there?)"
  STATUS=${answer##*$'\n'} answer=${answer%$'\n'*}
  # shellcheck disable=SC2034 # for the scripts
  TYPE=${answer##*$'\n'} BODY=${answer%$'\n'*}
}

must() {
  call "$@"
  [[ $STATUS == 2?? ]] || die "$1 $2 answered $STATUS: $(detail)"
}

# The server's own words for what went wrong.
detail() {
  jq -r '.detail | if type == "array" then map("\(.loc | map(tostring) | join(".")): \(.msg)") | join("; ") else . end' \
    <<<"$BODY" 2>/dev/null || printf '%s\n' "$BODY"
}

# A value from the last answer: field .id
field() {
  jq -r "$1" <<<"$BODY"
}

step() {
  call "$2" "$3" "${@:6}"
  if [ "$STATUS" != "$4" ] || ! holds "$5"; then
    wrong "$1" "$2 $3 to answer $4${5:+ with $5}"
  fi
  passed "$1"
}

# Whether the last answer's body satisfies a jq filter; an empty filter wants an empty body.
holds() {
  if [ -z "$1" ]; then
    [ -z "$BODY" ]
  else
    jq --exit-status "$1" <<<"$BODY" >/dev/null 2>&1
  fi
}

passed() {
  STEPS=$((STEPS + 1))
  printf 'ok %2d  %s\n' "$STEPS" "$1"
}

# Ends the script: which step, what was expected, and the answer got (without secrets).
wrong() {
  printf 'WRONG  %s\n  expected  %s\n  got       %s %s\n' "$1" "$2" "$STATUS" "${BODY:0:2000}" |
    sed -E 's/oct(opus|s|r|e)_[0-9A-Za-z]{8,}/oct\1_***/g' >&2
  exit 1
}

# start_server BINARY FOLDER: starts Octopus on a free port with FOLDER as its working folder, and waits until it is
# ready. Leaves OCTOPUS_URL, SERVER_PID and SERVER_LOG. The database is an SQLite file in FOLDER, unless DATABASE_URL
# already names another empty one.
start_server() {
  local binary port
  [[ -f $1 && -x $1 ]] || die "$1 is not a program that can be run"
  binary=$(realpath "$1")
  port=$(free_port)
  OCTOPUS_URL=http://127.0.0.1:$port
  SERVER_LOG=$2/server.log
  (
    cd "$2" || exit
    # the caller's settings for a server of their own must not change what is tested here
    unset MASTER_API_KEY MASTER_API_KEY_FILE BOOTSTRAP_TOKEN BOOTSTRAP_TOKEN_FILE REGISTRATION DOCS_ENABLED METRICS_ADDR
    unset AUDIT_KEY AUDIT_KEY_FILE AUDIT_KEYS_OLD AUDIT_KEYS_OLD_FILE
    export HOST=127.0.0.1 PORT="$port" DATABASE_URL="${DATABASE_URL:-sqlite:///./smoke.db}"
    # on Postgres there must be one; on SQLite a file beside the database has it
    case $DATABASE_URL in postgres*) export AUDIT_KEY=the-audit-key-of-a-database-that-is-thrown-away ;; esac
    exec "$binary"
  ) >"$SERVER_LOG" 2>&1 &
  SERVER_PID=$!
  wait_until_ready
}

wait_until_ready() {
  local tries status=
  for ((tries = 0; tries < 300; tries++)); do
    server_runs || {
      show_server_log
      die "the server ended before it was ready"
    }
    status=$(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "$OCTOPUS_URL/ready") || true
    [ "$status" != 200 ] || return 0
    sleep 0.1
  done
  show_server_log
  die "the server is not ready after 30 seconds: /ready answers $status"
}

# A port nobody listens on, below those the system hands out by itself.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

server_runs() {
  [ -n "$SERVER_PID" ] && kill -0 "$SERVER_PID" 2>/dev/null
}

# Sends SIGTERM to the server that start_server started, and returns its exit code.
stop_server() {
  local pid=$SERVER_PID tries code=0
  kill -TERM "$pid" 2>/dev/null || true
  for ((tries = 0; tries < 200; tries++)); do
    server_runs || break
    sleep 0.1
  done
  if server_runs; then
    printf 'the server did not stop within 20 seconds of SIGTERM\n' >&2
    kill -KILL "$pid"
  fi
  wait "$pid" || code=$?
  SERVER_PID=
  return "$code"
}

# Only once, however many ask for it.
show_server_log() {
  [ -n "$SERVER_LOG" ] || return 0
  printf -- '--- the end of the server log ---\n' >&2
  tail -n 20 "$SERVER_LOG" >&2
  SERVER_LOG=
}

# use_venv FOLDER PACKAGE==VERSION ...: a Python environment in FOLDER with these packages.
use_venv() {
  need python3
  [ -x "$1/bin/pip" ] || python3 -m venv "$1" || die "python3 cannot make a venv (on Debian: apt-get install python3-venv)"
  "$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}" || die "pip could not install ${*:2}"
}
