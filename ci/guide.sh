#!/usr/bin/env bash
# Follows docs/FEATURE_IMPLEMENTATION_GUIDE.md in a temporary copy of the working tree: creates the feature, applies the diffs,
# runs its tests and clippy, and removes it again, which must leave no difference. Then removes `items` and compiles the tests.
#
#   ci/guide.sh
#
# Compiles in the target directory of the project, so that dependencies are not compiled again. tests/it/guide.rs checks in
# seconds what needs no compiler.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

if [ $# != 0 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
need awk cargo git tar
ROOT=$(realpath "$HERE/..")
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
COPY=$(mktemp -d)
trap 'rm -rf "$COPY"' EXIT

say() { printf -- '--- %s (%d s so far)\n' "$1" "$SECONDS"; }

# Without files that were deleted and not yet committed.
cd "$ROOT"
git ls-files -z --cached --others --exclude-standard |
  while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
  tar --create --null --files-from=- | tar --extract --directory "$COPY"
cd "$COPY"
git init --quiet
# The reader of the guide may have made it.
[ ! -d src/features/notes ] || scripts/remove-feature notes --no-build
git add --all
git -c user.name=ci -c user.email=ci@example.com -c commit.gpgsign=false commit --quiet --message 'The working tree'

say "scripts/new-feature notes"
scripts/new-feature notes
say "the tests of the new feature"
cargo test --locked --quiet --test notes

# The number of the migration changes with each new migration.
number=$(basename -s _notes.sql migrations/sqlite/[0-9][0-9][0-9][0-9]_notes.sql | tail -n 1)
awk -v folder="$COPY/.git" '
  /^```diff$/ { n++; file = sprintf("%s/%02d.guide.diff", folder, n); next }
  /^```/ { file = "" }
  file != "" { print > file }' docs/FEATURE_IMPLEMENTATION_GUIDE.md
for diff in .git/*.guide.diff; do
  say "$(grep '^+++' "$diff" | sed 's/^+++ b.//' | tr '\n' ' ')"
  sed "s/[0-9]\{4\}_notes\.sql/${number}_notes.sql/" "$diff" >"$diff.numbered"
  git apply "$diff.numbered"
done

say "the tests of the changed feature"
cargo fmt --check
cargo run --locked --quiet -- openapi >"$COPY/.git/openapi.json"
cat "$COPY/.git/openapi.json" >tests/openapi.json
cargo test --locked --quiet --test notes
cargo test --locked --quiet --test it -- guide:: layers:: lengths:: migrations:: openapi:: operations:: reference:: scopes:: vocabulary::
cargo clippy --locked --quiet --lib --test notes -- -D warnings

say "scripts/remove-feature notes"
scripts/remove-feature notes
git status --porcelain >.git/left
if [ -s .git/left ]; then
  git --no-pager diff
  die "scripts/remove-feature left: $(cat .git/left)"
fi

if [ -d src/features/items ]; then
  say "scripts/remove-feature items"
  scripts/remove-feature items
  cargo fmt --check
  cargo check --locked --quiet --tests
fi
say "the guide works"
