#!/usr/bin/env bash
# Manages API keys. Wants an admin key in OCTOPUS_API_KEY.
#
#   scripts/manage-api-keys.sh list                                all keys, the inactive ones too
#   scripts/manage-api-keys.sh create NAME [SCOPES] [EXPIRES_AT]   SCOPES like read,write (default read),
#                                                                  EXPIRES_AT like 2030-12-31T00:00:00Z
#   scripts/manage-api-keys.sh show ID
#   scripts/manage-api-keys.sh rotate ID                           a new key with the same properties; the old one ends
#   scripts/manage-api-keys.sh deactivate ID
#   scripts/manage-api-keys.sh delete ID
#   scripts/manage-api-keys.sh audit                               the newest 50 entries of the audit log
#
# OCTOPUS_URL names the server (default http://localhost:8000).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
KEYS=/api/v1/api-keys

usage() {
  sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# Ends the script unless its argument is a number.
id() {
  [[ $1 =~ ^[0-9]+$ ]] || die "ID is a number, see: scripts/manage-api-keys.sh list"
}

# The last answer as a person reads it: the secret comes on a line of its own, to be copied.
show_key() {
  field 'to_entries[] | select(.value != null and .key != "key") | "\(.key): \(.value)" | gsub("[[:cntrl:]]"; "?")'
}
show_new_key() {
  show_key
  printf '\nThe key. Keep it somewhere safe, it cannot be shown again:\n%s\n' "$(field .key)"
}

# A list, from rows of @tsv.
table() {
  local a b c d e
  while IFS=$'\t' read -r a b c d e; do
    printf '%-6s %-30s %-18s %-9s %s\n' "$a" "$b" "$c" "$d" "$e"
  done
}

[ $# -ge 1 ] || { usage >&2; exit 2; }
case "$1:$#" in
  help:* | -h:* | --help:*) usage; exit 0 ;;
  list:1 | audit:1 | create:[234] | show:2 | rotate:2 | deactivate:2 | delete:2) ;;
  *) usage >&2; exit 2 ;;
esac
need curl jq
use_api_key

case $1 in
  list)
    must GET "$KEYS/?include_inactive=true&limit=1000"
    field '["ID", "NAME", "SCOPES", "ACTIVE", "EXPIRES"], (.[] | [.id, .name, .scopes, .is_active, .expires_at // "never"])
      | map(tostring | gsub("[[:cntrl:]]"; "?")) | @tsv' | table
    ;;
  create)
    must POST "$KEYS/" "$(jq -nc --arg name "$2" --arg scopes "${3:-read}" --arg expires_at "${4-}" \
      '{$name, $scopes} + if $expires_at == "" then {} else {$expires_at} end')"
    show_new_key
    ;;
  show)
    id "$2"
    must GET "$KEYS/$2"
    show_key
    ;;
  rotate)
    id "$2"
    must POST "$KEYS/$2/rotate"
    show_new_key
    ;;
  deactivate)
    id "$2"
    must POST "$KEYS/$2/deactivate"
    echo "Key $2 is deactivated."
    ;;
  delete)
    id "$2"
    must DELETE "$KEYS/$2"
    echo "Key $2 is deleted."
    ;;
  audit)
    must GET "$KEYS/audit-logs/?limit=50"
    field '["KEY", "TIME", "ACTION", "BY KEY", "FROM"],
      (.[] | [.api_key_id // "-", .timestamp, .action, .performed_by_key_id // "-", .performed_by_ip // "-"])
      | map(tostring) | @tsv' | table
    ;;
esac
