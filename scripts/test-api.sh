#!/usr/bin/env bash
# Checks that a running server responds: the public routes, then the routes that OCTOPUS_API_KEY may read. Read-only.
#
# OCTOPUS_URL is the server (default http://localhost:8000).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need curl jq

step "root" GET / 200 '.message'
step "health" GET /health 200 '.status == "healthy"'
step "ready" GET /ready 200 '.status == "ready"'
step "OpenAPI document" GET /openapi.json 200 '.openapi | startswith("3.1")'
step "a request without a key is rejected" GET /api/v1/api-keys/me 401 '.detail == "API key required: send it in the header field Octopus-API-Key"'

use_api_key
step "the key is valid" GET /api/v1/api-keys/me 200 '.is_active'
SCOPES=,$(field .scopes),
echo "       \"$(field '.name | gsub("[[:cntrl:]]"; "?")')\", scopes $(field .scopes)"

if [[ $SCOPES == *,read,* || $SCOPES == *,admin,* ]]; then
  step "users" GET '/api/v1/users/?limit=1' 200 'type == "array"'
  step "conversations" GET '/api/v1/conversations/?limit=1&message_limit=0' 200 'type == "array"'
  step "items" GET /api/v1/items/ 200 'type == "object"'
fi
if [[ $SCOPES == *,admin,* ]]; then
  step "API keys" GET '/api/v1/api-keys/?limit=1' 200 'type == "array"'
  step "audit log" GET '/api/v1/api-keys/audit-logs/?limit=1' 200 'type == "array"'
  step "statistics" GET /api/v1/admin/stats 200 'type == "object"'
fi
echo "All $STEPS checks passed."
