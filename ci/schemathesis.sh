#!/usr/bin/env bash
# Starts Octopus and tests every route of its OpenAPI document with schemathesis: no 5xx, no undocumented response.
#
#   ci/schemathesis.sh [--short] [--max-examples N] [--seed N] --start target/release/octopus
#
# --short takes about a minute and always uses the same seed, so that its result changes only if the program changes.
# The default is 100 examples per route and a random seed, which is printed; --seed repeats a run.
# DATABASE_URL may name an empty database to use. OCTOPUS_VENV is the folder for the Python packages.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' EXAMPLES=100 SEED=$((RANDOM * 32768 + RANDOM))
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --short) EXAMPLES=20 SEED=1; shift ;;
    --max-examples) require_value "$@"; EXAMPLES=$2; shift 2 ;;
    --seed) require_value "$@"; SEED=$2; shift 2 ;;
    --start) require_value "$@"; BINARY=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
need curl jq

VENV=${OCTOPUS_VENV:-$HERE/../target/venv}
mkdir -p "$VENV"
VENV=$(cd "$VENV" && pwd)
use_venv "$VENV" schemathesis==4.32.5 hypothesis==6.170.15 openapi-spec-validator==0.9.0

FOLDER=$(mktemp -d)
finish() {
  local code=$?
  if server_runs; then
    stop_server || true
  fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

export RATE_LIMIT_ENABLED=false
start_server "$BINARY" "$FOLDER"

call GET /openapi.json
[ "$STATUS" = 200 ] || fail_step "the OpenAPI document" "GET /openapi.json to return 200"
printf '%s' "$BODY" >"$FOLDER/openapi.json"
"$VENV/bin/openapi-spec-validator" --schema 3.1 --validation-errors all "$FOLDER/openapi.json"

# Two admin keys: the run uses one. schemathesis_hooks.py changes requests that would disable it to use the spare key.
must POST /bootstrap
KEY=$(field .api_key)
must GET /api/v1/api-keys/me
OCTOPUS_SPARE_KEY_ID=$(field .id)
must POST /api/v1/api-keys/ '{"name": "schemathesis", "scopes": "admin,read,write"}'
OCTOPUS_OWN_KEY_ID=$(field .id)
KEY=$(field .key)
export OCTOPUS_SPARE_KEY_ID OCTOPUS_OWN_KEY_ID
cat >"$FOLDER/schemathesis.toml" <<'TOML'
headers = { "Octopus-API-Key" = "${OCTOPUS_OWN_KEY}" }

# Pages for people and probes ignore unknown query parameters, so a 2xx response to them is correct.
[generation]
allow-extra-parameters = false
TOML

printf 'schemathesis: %s examples per route, seed %s\n' "$EXAMPLES" "$SEED"
code=0
(
  cd "$FOLDER" || exit
  OCTOPUS_OWN_KEY=$KEY SCHEMATHESIS_HOOKS=$HERE/schemathesis_hooks.py \
    "$VENV/bin/schemathesis" --config-file schemathesis.toml run "$OCTOPUS_URL/openapi.json" \
    --checks all --exclude-checks positive_data_acceptance \
    --max-examples "$EXAMPLES" --seed "$SEED" --generation-database none
) || code=$?

server_runs || {
  show_server_log
  die "the server exited during the run"
}
# if the key stopped working during the run, later requests only tested the 401
must GET /api/v1/api-keys/me
holds '.scopes == "admin,read,write" and .is_active' || fail_step "the key of the run" "to be still an active admin key"
stop_server || {
  show_server_log
  die "the server did not exit with 0 after SIGTERM"
}
[ "$code" -eq 0 ] || exit "$code"
