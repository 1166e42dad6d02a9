#!/usr/bin/env bash
# Runs the long forms of the tests of docs/RELIABILITY.md, one after the other, and prints what they measured as a table.
#
#   scripts/torture.sh [--binary target/release/octopus] [--short] [--output FILE] [--list] [PART …]
#
# All of them, or those whose names have one of the PARTs in them, such as "crash" or "torture::cancel::". They need no
# server: each starts its own, and a Postgres where there are its programs or TEST_DATABASE_URL.
#
#   --binary FILE  tries this program rather than the one that cargo test builds, which is not optimised
#   --short        the short forms, as cargo test runs them: they measure nothing
#   --output FILE  puts the table into FILE, too
#   --list         only says which tests there are
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# The beginnings of the names of tests that have a long form.
LONG=('torture::' 'fuzz::' 'backup::a_restore_that_is_killed' 'worst_case::the_worst' 'worst_case::eight')

FORM=long OUTPUT='' LIST='' PARTS=()
wants() { [ $# -ge 2 ] || die "$1 wants a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --binary)
      wants "$@"
      [ -x "$2" ] || die "$2 is no program"
      OCTOPUS_BINARY=$(realpath "$2")
      export OCTOPUS_BINARY
      shift 2
      ;;
    --short) FORM=short; shift ;;
    --output) wants "$@"; OUTPUT=$(realpath "$2"); shift 2 ;;
    --list) LIST=1; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) PARTS+=("$1"); shift ;;
  esac
done
need cargo jq
cd "$HERE/.."

echo "building" >&2
TESTS=$(cargo test --locked --test it --no-run --message-format=json-render-diagnostics |
  jq -r 'select(.reason == "compiler-artifact" and .target.name == "it" and .executable != null) | .executable')
[ -x "$TESTS" ] || die "the tests were not built"

# Lines such as "[sqlite] torture::crash::…: test".
names() {
  "$TESTS" --list 2>/dev/null | sed -n 's/^\(\[[a-z]*\] *\)\{0,1\}\(.*\): test$/\2/p' |
    grep "${LONG[@]/#/-e^}" | sort -u
}
chosen() {
  local name part
  while read -r name; do
    [ "${#PARTS[@]}" -gt 0 ] || echo "$name"
    for part in ${PARTS[@]+"${PARTS[@]}"}; do
      case $name in *"$part"*) echo "$name"; break ;; esac
    done
  done < <(names)
}
mapfile -t CHOSEN < <(chosen)
[ "${#CHOSEN[@]}" -gt 0 ] || die "no test has such a name; --list shows them"
if [ -n "$LIST" ]; then
  printf '%s\n' "${CHOSEN[@]}"
  exit 0
fi

SAID=$(mktemp)
trap 'rm -f "$SAID"' EXIT
TABLE=$'| test | result | seconds | measured |\n|---|---|---|---|'
FAILED=0
for name in "${CHOSEN[@]}"; do
  echo "$name" >&2
  began=$SECONDS result=passed
  # Nothing else runs meanwhile, or the numbers would be of both.
  if ! OCTOPUS_TORTURE=$FORM "$TESTS" --exact "$name" --test-threads 1 >"$SAID" 2>&1; then
    result=FAILED
    FAILED=$((FAILED + 1))
    cat "$SAID" >&2
  fi
  # The line may stand behind the name of its test.
  measured=$(sed -n 's/^.*measured: //p' "$SAID" | sed 's/|/\\|/g' | paste -sd '~' | sed 's/~/<br>/g')
  [ -z "$measured" ] || printf '  %s\n' "${measured//<br>/$'\n'  }" >&2
  TABLE+=$'\n'"| \`$name\` | $result | $((SECONDS - began)) | $measured |"
done
printf '%s\n' "$TABLE"
[ -z "$OUTPUT" ] || printf '%s\n' "$TABLE" >"$OUTPUT"
[ "$FAILED" -eq 0 ] || die "$FAILED of ${#CHOSEN[@]} failed"
