#!/usr/bin/env bash
# Creates the first API key of a new server. The key is shown only once.
#
#   scripts/bootstrap.sh              prints the command that sets OCTOPUS_API_KEY
#   eval "$(scripts/bootstrap.sh)"    sets it in this shell
#
# OCTOPUS_URL is the server (default http://localhost:8000). If the server has a BOOTSTRAP_TOKEN, set
# OCTOPUS_BOOTSTRAP_TOKEN to the same token.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need curl jq

# shellcheck disable=SC2034 # read by call
KEY_HEADER=Octopus-Bootstrap-Token KEY=${OCTOPUS_BOOTSTRAP_TOKEN:-}
must POST /bootstrap

echo "Created the master key ($(field .scopes)). Store it safely: it cannot be shown again." >&2
printf 'export OCTOPUS_API_KEY=%q\n' "$(field .api_key)"
