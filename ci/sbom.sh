#!/usr/bin/env bash
# Writes a software bill of materials (SBOM) of the program as a CycloneDX document (JSON, 1.6), and validates it.
#
#   ci/sbom.sh [--target TRIPLE] [--binary FILE] [--timestamp] [FILE]
#
# Writes to FILE or standard output. The document lists the crates that are linked into the program for the target
# (default x86_64-unknown-linux-gnu) and the bundled components that are not crates: SQLite, mimalloc, Swagger UI and Rust's
# standard library. --binary adds the SHA-256 of the program, and fails if the program names a crate that the document lacks.
# The same sources and compiler produce the same document; --timestamp or SOURCE_DATE_EPOCH adds a time.
# OCTOPUS_VENV is the folder for the Python packages. Nothing is compiled.
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
