#!/usr/bin/env bash
# Writes what is in the program as a CycloneDX document (JSON, 1.6), and validates it.
#
#   scripts/sbom.sh [--target TRIPLE] [--binary FILE] [--timestamp] [FILE]
#
# To FILE, or to standard output. What is in it: the crates that are linked into the program for the target
# (x86_64-unknown-linux-gnu), and what they bring along that is no crate: SQLite, mimalloc, Swagger UI, Rust's standard
# library. With --binary its SHA-256, too; it fails when that program names a crate the document does not have.
# The same sources and compiler make the same document: --timestamp, or SOURCE_DATE_EPOCH, puts a time in.
# OCTOPUS_VENV is where the Python packages go. It builds nothing.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"
need cargo python3

VENV=${OCTOPUS_VENV:-$HERE/../target/venv}
mkdir -p "$VENV"
use_venv "$VENV" 'cyclonedx-python-lib[json-validation]==11.12.0'
cargo fetch --quiet --locked --manifest-path "$HERE/../Cargo.toml"
exec "$VENV/bin/python" "$HERE/sbom.py" "$@"
