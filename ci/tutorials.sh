#!/usr/bin/env bash
# Runs the commands of README.md, docs/TUTORIAL.md and scripts/README.md, each page against a fresh server. Every command must
# succeed, and every request must get a 2xx, unless its comment names another status ("# 403: …").
#
#   ci/tutorials.sh --start target/release/octopus
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

if [ "${1-}" != --start ] || [ $# != 2 ]; then
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
need awk curl jq
BINARY=$(realpath "$2")
ROOT=$(realpath "$HERE/..")
FOLDER=$(mktemp -d)
finish() {
  local code=$?
  [ "$code" -eq 0 ] || show_server_log
  if server_runs; then stop_server || true; fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

# blocks FILE HEADING ...: the bash blocks under these headings, in the order of the file.
blocks() {
  local file=$1
  shift
  awk -v headings="$(printf '%s\n' "$@")" '
    BEGIN { n = split(headings, list, "\n"); for (i = 1; i <= n; i++) wanted[list[i]] = 1 }
    /^```/ { inside = !inside && $0 == "```bash" && take; next }
    inside { print; next }
    /^#/ { heading = $0; sub(/^#+ /, "", heading); take = heading in wanted; if (take) found++ }
    END { if (found != n) exit 1 }' "$file" || die "$file no longer has these headings: $*"
}

# refused FILE: the statuses other than 2xx, in order, of what curl wrote there.
refused() { grep -oE '^http [0-9]{3}$' "$1" | cut -d ' ' -f 2 | grep -v '^2' || true; }

# follow FILE HEADING ...: runs these blocks as one script.
follow() {
  local folder
  folder=$(mktemp -d -p "$FOLDER")
  start_server "$BINARY" "$folder"
  blocks "$@" | sed "s#http://localhost:8000#$OCTOPUS_URL#g" >"$folder/commands"
  grep -q curl "$folder/commands" || grep -q scripts/ "$folder/commands" || die "$1 has no commands under: ${*:2}"
  cat - "$folder/commands" >"$folder/script" <<'BASH'
set -euo pipefail
curl() { command curl --write-out '%{stderr}\nhttp %{http_code}\n' "$@"; }
BASH
  ln -s "$ROOT/scripts" "$folder/scripts"
  if ! (cd "$folder" && OCTOPUS_URL=$OCTOPUS_URL bash script >out 2>err); then
    tail -n 5 "$folder/out" "$folder/err" >&2
    die "a command of $1 failed"
  fi
  refused "$folder/err" >"$folder/refused"
  grep -oE '# [345][0-9]{2}\b' "$folder/commands" | cut -d ' ' -f 2 >"$folder/promised" || true
  diff "$folder/promised" "$folder/refused" >&2 || die "$1 promises other statuses (<) than the server answers (>)"
  stop_server
  passed "${1#"$ROOT/"}: $(grep -c '^http ' "$folder/err" || true) requests by curl, $(wc -l <"$folder/refused") refused as promised"
}

follow "$ROOT/README.md" 'First API key' 'First calls'
follow "$ROOT/docs/TUTORIAL.md" 'API keys and conversations' 'Users'
follow "$ROOT/scripts/README.md" 'First steps'
