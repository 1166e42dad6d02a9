#!/usr/bin/env bash
# Starts Octopus and lets schemathesis try every route of its OpenAPI document: no 5xx, no undocumented answer.
#
#   scripts/schemathesis.sh [--short] [--max-examples N] [--seed N] --start target/release/octopus
#
# --short takes a minute or so and always the same seed, so that a red run means a changed program and not bad luck.
# Without it: 100 examples a route and a new seed, which is printed; --seed repeats it.
# With DATABASE_URL set, that database is used; it must be empty. OCTOPUS_VENV is where the Python packages go.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' EXAMPLES=100 SEED=$((RANDOM * 32768 + RANDOM))
wants() { [ $# -ge 2 ] || die "$1 wants a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --short) EXAMPLES=20 SEED=1; shift ;;
    --max-examples) wants "$@"; EXAMPLES=$2; shift 2 ;;
    --seed) wants "$@"; SEED=$2; shift 2 ;;
    --start) wants "$@"; BINARY=$2; shift 2 ;;
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
[ "$STATUS" = 200 ] || wrong "the OpenAPI document" "GET /openapi.json to answer 200"
printf '%s' "$BODY" >"$FOLDER/openapi.json"
"$VENV/bin/openapi-spec-validator" --schema 3.1 --validation-errors all "$FOLDER/openapi.json"

# Two admin keys: the run uses its own, and schemathesis_hooks.py sends to the spare one what would end the run.
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

# Unknown query parameters are ignored, as the contract says: sending them is no mistake to be found.
[generation]
allow-extra-parameters = false
TOML

printf 'schemathesis: %s examples a route, seed %s\n' "$EXAMPLES" "$SEED"
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
  die "the server died during the run"
}
# had the key stopped working on the way, the rest of the run would have tested nothing but 401s
must GET /api/v1/api-keys/me
holds '.scopes == "admin,read,write" and .is_active' || wrong "the key of the run" "to be an active admin key still"
stop_server || {
  show_server_log
  die "the server did not exit with 0 after SIGTERM"
}
[ "$code" -eq 0 ] || exit "$code"
