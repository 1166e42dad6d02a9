#!/usr/bin/env bash
# Runs the long forms of the tests in docs/RELIABILITY.md, one after the other, and prints a table of their measurements.
#
#   ci/torture.sh [--binary target/release/octopus] [--short] [--output FILE] [--list] [PART …]
#
# Runs all of them, or those whose name contains a PART, such as "crash" or "torture::cancel::". Each test starts its own
# server. They use the Postgres at TEST_DATABASE_URL, or start one. Without Postgres, the tests on it are skipped.
#
#   --binary FILE  tests this binary instead of the one that cargo test builds, which is not optimised
#   --short        runs the short forms, like cargo test; they measure nothing
#   --output FILE  also writes the table to FILE
#   --list         only lists the tests
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# The tests that have a long form, as a pattern for "TARGET::NAME".
LONG='^(torture|fuzz)::|^it::(backup::.*a_restore_that_is_killed|worst_case::(the_worst|eight))|^[a-z_]*::the_worst_request'

FORM=long OUTPUT='' LIST='' PARTS=()
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --binary)
      require_value "$@"
      [ -x "$2" ] || die "$2 is not an executable file"
      OCTOPUS_BINARY=$(realpath "$2")
      export OCTOPUS_BINARY
      shift 2
      ;;
    --short) FORM=short; shift ;;
    --output) require_value "$@"; OUTPUT=$(realpath "$2"); shift 2 ;;
    --list) LIST=1; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) PARTS+=("$1"); shift ;;
  esac
done
need cargo jq
cd "$HERE/.."

echo "building" >&2
# The executable of each test target.
declare -A TARGETS=()
while read -r target executable; do TARGETS[$target]=$executable; done < <(
  cargo test --locked --tests --no-run --message-format=json-render-diagnostics | jq -r \
    'select(.reason == "compiler-artifact" and .target.kind == ["test"] and .executable != null) | "\(.target.name) \(.executable)"')
[ "${#TARGETS[@]}" -gt 0 ] || die "the tests were not built"

# Names such as "torture::crash::…::sqlite".
names() {
  local target
  for target in "${!TARGETS[@]}"; do
    "${TARGETS[$target]}" --list 2>/dev/null | sed -n "s/^\\(.*\\): test$/$target::\\1/p"
  done | grep -E "$LONG" | sort
}
selected() {
  local name part
  while read -r name; do
    [ "${#PARTS[@]}" -gt 0 ] || echo "$name"
    for part in ${PARTS[@]+"${PARTS[@]}"}; do
      case $name in *"$part"*) echo "$name"; break ;; esac
    done
  done < <(names)
}
mapfile -t SELECTED < <(selected)
[ "${#SELECTED[@]}" -gt 0 ] || die "no test has such a name; --list shows the names"
if [ -n "$LIST" ]; then
  printf '%s\n' "${SELECTED[@]}"
  exit 0
fi

LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
TABLE=$'| test | result | seconds | measured |\n|---|---|---|---|'
FAILED=0
for name in "${SELECTED[@]}"; do
  echo "$name" >&2
  started=$SECONDS result=passed
  # One test at a time, so that tests do not affect each other's measurements.
  if ! OCTOPUS_TORTURE=$FORM "${TARGETS[${name%%::*}]}" --exact "${name#*::}" --test-threads 1 >"$LOG" 2>&1; then
    result=FAILED
    FAILED=$((FAILED + 1))
    cat "$LOG" >&2
  fi
  # The line may follow the name of the test.
  measured=$(sed -n 's/^.*measured: //p' "$LOG" | sed 's/|/\\|/g' | paste -sd '~' | sed 's/~/<br>/g')
  [ -z "$measured" ] || printf '  %s\n' "${measured//<br>/$'\n'  }" >&2
  TABLE+=$'\n'"| \`$name\` | $result | $((SECONDS - started)) | $measured |"
done
printf '%s\n' "$TABLE"
[ -z "$OUTPUT" ] || printf '%s\n' "$TABLE" >"$OUTPUT"
[ "$FAILED" -eq 0 ] || die "$FAILED of ${#SELECTED[@]} failed"
