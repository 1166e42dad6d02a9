#!/usr/bin/env bash
# Makes the first API key of a fresh server. It is shown once and never again.
#
#   scripts/bootstrap.sh              prints the command that sets OCTOPUS_API_KEY
#   eval "$(scripts/bootstrap.sh)"    sets it in this shell
#
# OCTOPUS_URL names the server (default http://localhost:8000). If the server has a BOOTSTRAP_TOKEN, put the same
# token into OCTOPUS_BOOTSTRAP_TOKEN.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need curl jq

# shellcheck disable=SC2034 # read by call
KEY_HEADER=Octopus-Bootstrap-Token KEY=${OCTOPUS_BOOTSTRAP_TOKEN:-}
must POST /bootstrap

echo "Made the master key ($(field .scopes)). Keep it somewhere safe: it cannot be shown again." >&2
printf 'export OCTOPUS_API_KEY=%q\n' "$(field .api_key)"
