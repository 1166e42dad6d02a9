# shellcheck shell=bash
# Functions shared by the checks in this folder, in addition to those of scripts/lib.sh. Source it: it only defines functions
# and variables.
#
#   start_server BINARY FOLDER, stop_server   starts and stops an Octopus on a free port
#   use_venv FOLDER PACKAGE==VERSION ...      installs Python packages

# shellcheck source-path=SCRIPTDIR source=../scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

SERVER_PID=
SERVER_LOG=

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
