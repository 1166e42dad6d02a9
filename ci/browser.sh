#!/usr/bin/env bash
# Tests a chat of two users in a headless browser: sign-in, tickets and event streams, on one page for each user.
#
#   ci/browser.sh [--screenshot FILE] --start target/release/octopus
#
# Needs python3 and Chromium; BROWSER is the command of another Chromium-based browser.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' SCREENSHOT=''
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) require_value "$@"; BINARY=$2; shift 2 ;;
    --screenshot) require_value "$@"; SCREENSHOT=$(realpath "$2"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
BROWSER=${BROWSER:-chromium}
need curl jq python3 "$BROWSER"

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

PAGES=$(free_port)
export CORS_ALLOWED_ORIGINS=http://127.0.0.1:$PAGES
start_server "$BINARY" "$FOLDER"

must POST /bootstrap
KEY=$(field .api_key)
PASSWORD=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
NAMES=(ada ben) IDS=()
for name in "${NAMES[@]}"; do
  must POST /api/v1/users "{\"username\": \"$name\", \"email\": \"$name@example.com\", \"password\": \"$PASSWORD-$name\"}"
  IDS+=("$(field .id)")
done
must POST /api/v1/conversations "{\"title\": \"Picnic\", \"participant_ids\": [${IDS[0]}, ${IDS[1]}]}"
CONVERSATION=$(field .id)

jq -n --arg api "$OCTOPUS_URL" --arg conversation "$CONVERSATION" --arg password "$PASSWORD" '
  {api: $api, conversation: $conversation, users: [("ada", "ben") | {username: ., password: "\($password)-\(.)"}]}' |
  python3 "$HERE/browser/run.py" "$PAGES" "$BROWSER" "$FOLDER/profile" "$SCREENSHOT"

stop_server || die "the server exited with $? after SIGTERM, not with 0"
echo "Both users received all messages in the same order."
