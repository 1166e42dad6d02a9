# shellcheck shell=bash
# Functions shared by the scripts in this folder. Source it: it only defines functions and variables.
#
#   call METHOD PATH [JSON]                      sends a request; sets STATUS, TYPE and BODY
#   must METHOD PATH [JSON]                      the same, but exits unless the status is 2xx
#   step TEXT METHOD PATH STATUS FILTER [JSON]   sends a request, checks the response, prints a line
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
