# shellcheck shell=bash
# Functions shared by the scripts in this folder. Source it: it only defines functions and variables.
#
#   call METHOD PATH [JSON]                      sends a request; sets STATUS, TYPE and BODY
#   must METHOD PATH [JSON]                      the same, but exits unless the status is 2xx
#   step TEXT METHOD PATH STATUS FILTER [JSON]   sends a request, checks the response, prints a line
#   start_server BINARY FOLDER, stop_server      starts and stops an Octopus on a free port
#
# Requests send the key in $KEY and the header in $EXTRA_HEADER, unless these are empty. Keys and bodies are passed to curl
# through pipes, never as arguments: other users of the machine can list the arguments of a process.

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

# Sends the key in OCTOPUS_API_KEY with the following requests.
use_api_key() {
  KEY=${OCTOPUS_API_KEY:-}
  [ -n "$KEY" ] || die "OCTOPUS_API_KEY is not set: export OCTOPUS_API_KEY=... (scripts/bootstrap.sh creates one)"
  [[ $KEY != *[[:space:]]* ]] || die "OCTOPUS_API_KEY contains a space or a line break"
}

call() {
  local response options=(--silent --show-error --max-time 60 --request "$1")
  if [ $# -ge 3 ]; then
    options+=(--header 'Content-Type: application/json' --data-binary @-)
  fi
  if [ -n "$EXTRA_HEADER" ]; then
    options+=(--header "$EXTRA_HEADER")
  fi
  response=$(printf '%s' "${3-}" | curl "${options[@]}" --header @<(printf '%s' "${KEY:+$KEY_HEADER: $KEY}") \
    --write-out '\n%{content_type}\n%{http_code}' "$OCTOPUS_URL$2") ||
    die "no response from $OCTOPUS_URL (is the server running there?)"
  STATUS=${response##*$'\n'} response=${response%$'\n'*}
  # shellcheck disable=SC2034 # used by the scripts
  TYPE=${response##*$'\n'} BODY=${response%$'\n'*}
}

must() {
  call "$@"
  [[ $STATUS == 2?? ]] || die "$1 $2 returned $STATUS: $(detail)"
}

# Prints the error text of the last response.
detail() {
  jq -r '.detail | if type == "array" then map("\(.loc | map(tostring) | join(".")): \(.msg)") | join("; ") else . end' \
    <<<"$BODY" 2>/dev/null || printf '%s\n' "$BODY"
}

# Prints a value of the last response: field .id
field() {
  jq -r "$1" <<<"$BODY"
}

step() {
  call "$2" "$3" "${@:6}"
  if [ "$STATUS" != "$4" ] || ! holds "$5"; then
    fail_step "$1" "$2 $3 to return $4${5:+ with $5}"
  fi
  passed "$1"
}

# Tests the body of the last response with a jq filter. An empty filter requires an empty body.
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

# fail_step TEXT EXPECTED: prints the step, what was expected and the response (without secrets), and exits.
fail_step() {
  printf 'FAILED %s\n  expected  %s\n  got       %s %s\n' "$1" "$2" "$STATUS" "${BODY:0:2000}" |
    sed -E 's/oct(opus|s|r|e)_[0-9A-Za-z]{8,}/oct\1_***/g' >&2
  exit 1
}

# start_server BINARY FOLDER: starts Octopus on a free port with FOLDER as its working directory, and waits until it is
# ready. Sets OCTOPUS_URL, SERVER_PID and SERVER_LOG. The database is an SQLite file in FOLDER, unless DATABASE_URL is set;
# it must then name an empty database.
start_server() {
  local binary port
  [[ -f $1 && -x $1 ]] || die "$1 is not an executable file"
  binary=$(realpath "$1")
  port=$(free_port)
  OCTOPUS_URL=http://127.0.0.1:$port
  SERVER_LOG=$2/server.log
  (
    cd "$2" || exit
    # settings in the caller's environment must not affect this server
    unset MASTER_API_KEY MASTER_API_KEY_FILE BOOTSTRAP_TOKEN BOOTSTRAP_TOKEN_FILE REGISTRATION DOCS_ENABLED METRICS_ADDR
    unset AUDIT_KEY AUDIT_KEY_FILE AUDIT_KEYS_OLD AUDIT_KEYS_OLD_FILE
    export HOST=127.0.0.1 PORT="$port" DATABASE_URL="${DATABASE_URL:-sqlite:///./smoke.db}"
    # Postgres requires an audit key; on SQLite the server creates one in a file beside the database
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
      die "the server exited before it was ready"
    }
    status=$(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "$OCTOPUS_URL/ready") || true
    [ "$status" != 200 ] || return 0
    sleep 0.1
  done
  show_server_log
  die "the server is not ready after 30 seconds: /ready returns $status"
}

# Prints a port that is not in use, below the ephemeral range of the system.
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

# Prints the last lines of the server log, the first time it is called.
show_server_log() {
  [ -n "$SERVER_LOG" ] || return 0
  printf -- '--- last lines of the server log ---\n' >&2
  tail -n 20 "$SERVER_LOG" >&2
  SERVER_LOG=
}

# use_venv FOLDER PACKAGE==VERSION ...: creates a Python environment in FOLDER, if missing, and installs these packages.
use_venv() {
  need python3
  [ -x "$1/bin/pip" ] || python3 -m venv "$1" || die "python3 cannot create a venv (on Debian: apt-get install python3-venv)"
  "$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}" || die "pip could not install ${*:2}"
}
