#!/usr/bin/env bash
# Manages API keys. Requires an admin key in OCTOPUS_API_KEY.
#
#   scripts/manage-api-keys.sh list                                all keys, including inactive ones
#   scripts/manage-api-keys.sh create NAME [SCOPES] [EXPIRES_AT]   SCOPES like read,write (default read),
#                                                                  EXPIRES_AT like 2030-12-31T00:00:00Z
#   scripts/manage-api-keys.sh show ID
#   scripts/manage-api-keys.sh usage ID                            requests with the key in the last 30 days, by day
#   scripts/manage-api-keys.sh rotate ID [SECONDS]                 creates a new key with the same properties; the old key
#                                                                  expires after SECONDS (default 0)
#   scripts/manage-api-keys.sh deactivate ID
#   scripts/manage-api-keys.sh delete ID
#   scripts/manage-api-keys.sh audit                               the newest 50 entries of the audit log
#   scripts/manage-api-keys.sh verify [SEQ:HASH]                   verifies that the audit log is unmodified, and with an
#                                                                  anchor SEQ:HASH that it was not truncated
#
# OCTOPUS_URL is the server (default http://localhost:8000).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
KEYS=/api/v1/api-keys

usage() {
  sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# Exits unless the argument is a number.
id() {
  [[ $1 =~ ^[0-9]+$ ]] || die "ID must be a number; scripts/manage-api-keys.sh list shows the ids"
}

# Prints the last response as lines of text, without the key itself.
show_key() {
  field 'to_entries[] | select(.value != null and .key != "key") | "\(.key): \(.value)" | gsub("[[:cntrl:]]"; "?")'
}
show_new_key() {
  show_key
  printf '\nThe key. Store it safely: it cannot be shown again.\n%s\n' "$(field .key)"
}

# Formats rows of jq's @tsv as a table.
table() {
  local a b c d e
  while IFS=$'\t' read -r a b c d e; do
    printf '%-6s %-30s %-18s %-9s %s\n' "$a" "$b" "$c" "$d" "$e"
  done
}

[ $# -ge 1 ] || { usage >&2; exit 2; }
case "$1:$#" in
  help:* | -h:* | --help:*) usage; exit 0 ;;
  list:1 | audit:1 | verify:[12] | create:[234] | show:2 | usage:2 | rotate:[23] | deactivate:2 | delete:2) ;;
  *) usage >&2; exit 2 ;;
esac
need curl jq
use_api_key

case $1 in
  list)
    must GET "$KEYS/?include_inactive=true&limit=1000"
    field '["ID", "NAME", "SCOPES", "ACTIVE", "EXPIRES"], (.[] | [.id, .name, .scopes, .is_active, ([.expires_at, .grace_expires_at] | map(values) | min // "never")])
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
  usage)
    id "$2"
    must GET "$KEYS/$2/usage"
    field '["DAY", "OK", "DENIED", "LIMITED", "EXPIRED"],
      ((.buckets + [.total + {start: "total"}])[]
        | [.start[:10], .ok, .denied_scope + .denied_address, .rate_limited, .expired]) | map(tostring) | @tsv' |
      while IFS=$'\t' read -r day ok denied limited expired; do
        printf '%-12s %10s %10s %10s %10s\n' "$day" "$ok" "$denied" "$limited" "$expired"
      done
    ;;
  rotate)
    id "$2"
    [[ ${3:-0} =~ ^[0-9]+$ ]] || die "SECONDS must be a number"
    must POST "$KEYS/$2/rotate" "{\"grace_period_seconds\": ${3:-0}}"
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
    field '["KEY", "TIME", "ACTION", "BY", "FROM"],
      (.[] | [.api_key_id // "-", .timestamp, .action,
        if .performed_by == "key" then "key \(.performed_by_key_id)" else .performed_by end, .performed_by_ip // "-"])
      | map(tostring) | @tsv' | table
    ;;
  verify)
    must GET "/api/v1/admin/audit/verify${2+?anchor=$2}"
    holds .intact || die "$(field '"the audit log is invalid at entry \(.first_bad.seq): \(.first_bad.problem)"')"
    field '"The audit log is intact: \(.verified_rows) entries.\nIts head, to be stored elsewhere: \(.head)"'
    ;;
esac
