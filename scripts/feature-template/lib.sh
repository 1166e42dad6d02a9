# shellcheck shell=bash
# Functions shared by scripts/new-feature and scripts/remove-feature. Source it: it only defines functions and variables. The
# current directory must be the root of the repository.

FEATURES=src/features/mod.rs
SCOPES=src/security/scope.rs
ADMIN=src/features/admin

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# pascal WORDS: MeetingNotes for meeting_notes.
pascal() {
  local word words
  IFS=_ read -ra words <<<"$1"
  for word in "${words[@]}"; do
    printf '%s%s' "$(printf %s "${word:0:1}" | tr '[:lower:]' '[:upper:]')" "${word:1}"
  done
}

# edit FILE SCRIPT: changes FILE with sed.
edit() {
  local changed
  changed=$(mktemp)
  sed "$2" "$1" >"$changed"
  cat "$changed" >"$1"
  rm "$changed"
}

# format FILE: formats a Rust file, without the modules that it declares.
format() {
  local formatted
  formatted=$(mktemp)
  rustfmt --edition 2024 <"$1" >"$formatted" || die "rustfmt cannot format $1"
  cat "$formatted" >"$1"
  rm "$formatted"
}

# table_exists NAME: whether the migrations create the table NAME and do not drop it afterwards.
table_exists() {
  local created dropped
  created=$(cat migrations/sqlite/*.sql | grep -c "^CREATE TABLE $1\b") || true
  dropped=$(cat migrations/sqlite/*.sql | grep -c "^DROP TABLE $1\b") || true
  [ "$created" -gt "$dropped" ]
}

# next_migration: the number of the next migration, with four digits.
next_migration() {
  local last
  last=$(basename -a migrations/*/*.sql | sort | tail -n 1)
  last=${last%%_*}
  printf '%04d' $((10#$last + 1))
}

# update_snapshot: writes the OpenAPI document of the changed program.
update_snapshot() {
  local document
  document=$(mktemp)
  cargo run --quiet -- openapi >"$document" || die "cargo run failed: correct the code, then run cargo run -q -- openapi > tests/openapi.json"
  cat "$document" >tests/openapi.json
  rm "$document"
}
