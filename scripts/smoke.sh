#!/usr/bin/env bash
# The walk of the README against a fresh server, every answer checked. Stops at the first wrong one.
#
#   scripts/smoke.sh                                  the server at $OCTOPUS_URL; its database must have no key yet
#   scripts/smoke.sh --start target/release/octopus   a server of its own, in a temporary folder
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY=
while [ $# -gt 0 ]; do
  case $1 in
    --start) [ $# -ge 2 ] || die "--start wants the path of the octopus binary"; BINARY=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
need curl jq

FOLDER=$(mktemp -d)
finish() {
  local code=$?
  [ "$code" -eq 0 ] || show_server_log
  if server_runs; then
    stop_server || true
  fi
  # against somebody's own server, the master key stays: nobody can make another one
  if [ -n "$BINARY" ] || [ ! -s "$FOLDER/master.key" ]; then
    rm -rf "$FOLDER"
  else
    printf 'The master key of %s is in %s\n' "$OCTOPUS_URL" "$FOLDER/master.key"
  fi
  exit "$code"
}
trap finish EXIT

if [ -n "$BINARY" ]; then
  start_server "$BINARY" "$FOLDER"
fi

# Pieces of jq used below. A key is "octopus_", 43 random characters and a checksum of 6.
A_KEY='test("^octopus_[0-9A-Za-z]{49}$")'
A_TIME='test("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z$")'
PEOPLE='[.participants[].id] | sort'

echo "Octopus at $OCTOPUS_URL"

# --- health and docs
step "the server is alive" GET /health 200 '. == {"status": "healthy"}'
step "the database is ready" GET /ready 200 '. == {"status": "ready"}'
step "the front door points to the docs" GET / 200 \
  '.message == "Hello! Visit /docs for API documentation" and (.version | type == "string")'
call GET /docs/
[[ $STATUS == 200 && $TYPE == text/html* && $BODY == *[Ss]wagger* ]] ||
  wrong "the documentation is a page" "GET /docs/ to answer 200 with Swagger UI as text/html"
passed "the documentation is a page"
step "the OpenAPI document is there" GET /openapi.json 200 \
  '(.openapi | startswith("3.1")) and (.paths | has("/api/v1/users") and has("/api/v1/conversations/{conversation_id}"))'

# --- the first key
step "nothing is shown without a key" GET /api/v1/api-keys/me 401 '.detail == "API key required"'
step "bootstrap makes the master key" POST /bootstrap 200 \
  ".name == \"Master API Key\" and .scopes == \"admin,read,write\" and (.api_key | $A_KEY) and (.instructions | keys == [\"1\", \"2\", \"3\"])"
(umask 077 && field .api_key >"$FOLDER/master.key")
[ -n "$(find "$FOLDER/master.key" -perm 600)" ] || die "$FOLDER/master.key does not have mode 600"
MASTER=$(<"$FOLDER/master.key")
passed "the key is saved, in a file only its owner can read"
step "bootstrap works only once" POST /bootstrap 400 '.detail | startswith("Bootstrap already completed.")'
KEY=$MASTER
step "the saved key works" GET /api/v1/api-keys/me 200 \
  '.name == "Master API Key" and .is_active and .expires_at == null and (has("key") | not)'
MASTER_ID=$(field .id)

# --- three users; anybody may register
KEY=
register() {
  step "$1 registers" POST /api/v1/users/ 201 \
    ".username == \"$1\" and .email == \"$1@example.com\" and .is_active and (.is_superuser | not)
      and (.created_at | $A_TIME) and (has(\"password\") or has(\"password_hash\") | not)" \
    "{\"username\": \"$1\", \"email\": \"$1@example.com\", \"password\": \"quiet-harbour-41-$1\", \"full_name\": \"$1 of the walk\"}"
}
register ada
ADA=$(field .id)
register ben
BEN=$(field .id)
register cleo
CLEO=$(field .id)

# --- two more keys
KEY=$MASTER
IN_THREE_DAYS=$(jq -nr 'now + 3 * 86400 | todate')
step "a read key is created" POST /api/v1/api-keys/ 201 \
  ".name == \"walk: reader\" and .scopes == \"read\" and .is_active and (.key | $A_KEY) and (.expires_at | $A_TIME)" \
  "{\"name\": \"walk: reader\", \"expires_at\": \"$IN_THREE_DAYS\"}"
READER=$(field .key)
READER_ID=$(field .id)
step "a read-write key is created" POST /api/v1/api-keys/ 201 \
  ".scopes == \"read,write\" and (.key | $A_KEY) and .expires_at == null and .rotated_from_id == null" \
  '{"name": "walk: writer", "scopes": "write, read"}'
WRITER=$(field .key)
WRITER_ID=$(field .id)

# --- a conversation
KEY=$WRITER
step "ada and ben start a conversation" POST /api/v1/conversations/ 201 \
  ".title == \"Picnic\" and ($PEOPLE) == [$ADA, $BEN] and .message_count == 0" \
  "{\"title\": \"Picnic\", \"participant_ids\": [$ADA, $BEN]}"
PICNIC=/api/v1/conversations/$(field .id)
step "ada writes" POST "$PICNIC/messages" 201 \
  ".role == \"user\" and .content == \"Sunday?\" and .user_id == $ADA and .user.username == \"ada\"" \
  "{\"role\": \"user\", \"content\": \"Sunday?\", \"user_id\": $ADA}"
step "ben answers" POST "$PICNIC/messages" 201 \
  ".role == \"user\" and .user_id == $BEN and .user.username == \"ben\"" \
  "{\"role\": \"user\", \"content\": \"Sunday! 🧺\", \"user_id\": $BEN}"
step "an assistant joins in" POST "$PICNIC/messages" 201 \
  '.role == "assistant" and .user_id == null and .user == null' \
  '{"role": "assistant", "content": "It will be sunny."}'
step "cleo, who is not in it, may not" POST "$PICNIC/messages" 403 \
  '.detail == "User is not a participant in this conversation"' \
  "{\"role\": \"user\", \"content\": \"Me too!\", \"user_id\": $CLEO}"
step "cleo is added" POST "$PICNIC/participants" 201 "($PEOPLE) == [$ADA, $BEN, $CLEO]" "{\"user_id\": $CLEO}"
step "cleo is removed" DELETE "$PICNIC/participants/$CLEO" 200 "($PEOPLE) == [$ADA, $BEN]"

# --- people who log in
KEY=
log_in() {
  KEY='' KEY_HEADER=Octopus-API-Key
  step "$1 logs in" POST /api/v1/users/login 200 \
    ".token_type == \"bearer\" and (.access_token | test(\"^octs_[0-9A-Za-z]{49}$\")) and (.expires_at | $A_TIME)
      and .user.username == \"$1\"" "{\"username\": \"$1\", \"password\": \"quiet-harbour-41-$1\"}"
  KEY_HEADER=Authorization KEY="Bearer $(field .access_token)"
}
step "a wrong password is refused" POST /api/v1/users/login 401 '.detail == "Incorrect email or password"' \
  '{"username": "ada", "password": "quiet-harbour-42-ada"}'
step "in the words that an unknown name is refused with" POST /api/v1/users/login 401 \
  '.detail == "Incorrect email or password"' '{"username": "nobody", "password": "quiet-harbour-41-ada"}'
log_in cleo
step "she does not see what she takes no part in" GET /api/v1/conversations 200 '. == []'
step "not even that it exists" GET "$PICNIC" 404 '.detail == "Conversation not found"'
log_in ben
BEN_TOKEN=$KEY
step "he sees himself, and others without their emails" GET "$PICNIC" 200 \
  '[.participants[] | [.username, .email]] == [["ada", null], ["ben", "ben@example.com"]] and .last_message_at != null'
step "he begins a talk with cleo, by her name" POST /api/v1/conversations 201 \
  "($PEOPLE) == [$BEN, $CLEO]" '{"title": "Surprise", "participant_usernames": ["cleo"]}'
SURPRISE=/api/v1/conversations/$(field .id)
EXTRA_HEADER='Idempotency-Key: smoke-1'
step "he writes in it" POST "$SURPRISE/messages" 201 '.seq == 1 and .user.username == "ben"' \
  '{"role": "user", "content": "A cake for ada? 東京ばな奈!"}'
MESSAGE=$SURPRISE/messages/$(field .id)
step "sent again, it is the same message" POST "$SURPRISE/messages" 201 ".seq == 1 and .id == $(field .id)" \
  '{"role": "user", "content": "A cake for ada? 東京ばな奈!"}'
EXTRA_HEADER=
step "and as nobody else" POST "$SURPRISE/messages" 403 '.detail == "A logged-in user may only post as themselves"' \
  "{\"role\": \"user\", \"content\": \"I like cake\", \"user_id\": $ADA}"
step "he finds it by a word" GET '/api/v1/conversations/search?q=CAKE' 200 \
  'length == 1 and .[0].title == "Surprise" and (.[0].snippet | contains("<mark>cake</mark>"))'
step "in any script" GET '/api/v1/conversations/search?q=%E6%9D%B1%E4%BA%AC' 200 'length == 1'
EXTRA_HEADER='If-Match: "1"'
step "he corrects it" PATCH "$MESSAGE" 200 '.version == 2 and .edited_at != null' '{"content": "A pie for ada?"}'
step "but not a version that is no more" PATCH "$MESSAGE" 412 '.detail | startswith("It was changed meanwhile")' \
  '{"content": "A tart for ada?"}'
EXTRA_HEADER=
step "the old words are found no more" GET '/api/v1/conversations/search?q=cake' 200 '. == []'
log_in ada
step "ada finds nothing of it" GET '/api/v1/conversations/search?q=pie' 200 '. == []'
step "and may not change it" PATCH "$MESSAGE" 404 '.detail == "Conversation not found"' '{"content": "No pie"}'
step "she logs out" POST /api/v1/users/logout 204 ''
step "and is nobody" GET /api/v1/users/me 401 '.detail == "Invalid or expired session"'
KEY=$BEN_TOKEN
step "ben deletes what he wrote" DELETE "$MESSAGE" 204 ''
step "its place stays" GET "$MESSAGE" 200 '.content == "" and .deleted_at != null and .seq == 1'
KEY_HEADER=Octopus-API-Key

# --- what the read key may do, and what not
KEY=$READER
step "the read key reads the conversation" GET "$PICNIC" 200 \
  "($PEOPLE) == [$ADA, $BEN] and .message_count == 3 and (.messages_truncated | not)
    and [.messages[].content] == [\"Sunday?\", \"Sunday! 🧺\", \"It will be sunny.\"]"
step "and its messages, in order" GET "$PICNIC/messages" 200 \
  "map(.role) == [\"user\", \"user\", \"assistant\"] and map(.user_id) == [$ADA, $BEN, null]"
step "but it may not write" POST "$PICNIC/messages" 403 '.detail | startswith("Write scope required to ")' \
  '{"role": "user", "content": "I should not be here."}'
step "nor manage keys" GET /api/v1/api-keys/ 403 '.detail | startswith("Admin scope required to ")'

# --- rotate
KEY=$MASTER
step "the read-write key is rotated" POST "/api/v1/api-keys/$WRITER_ID/rotate" 200 \
  ".rotated_from_id == $WRITER_ID and .grace_expires_at == null and .id != $WRITER_ID and .name == \"walk: writer\" and .scopes == \"read,write\"
    and .is_active and (.key | $A_KEY)"
ROTATED=$(field .key)
KEY=$WRITER
step "the old one is refused" GET /api/v1/conversations/ 401 '.detail == "Invalid or inactive API Key"'
KEY=$ROTATED
step "the new one works" GET /api/v1/conversations/ 200 'map(.title) == ["Picnic", "Surprise"]'

# --- what an administrator sees and does
KEY=$MASTER
step "the audit log tells of it, newest first" GET /api/v1/api-keys/audit-logs/ 200 \
  "any(.[]; (.action | test(\"rotat\")) and .performed_by_key_id == $MASTER_ID)
    and map(.timestamp) == (map(.timestamp) | sort | reverse) and all(.[].details; . == null or type == \"object\")"
step "and nobody has touched it" GET /api/v1/admin/audit/verify 200 \
  '.intact and .verified_rows >= 5 and .first_bad == null and (.head | test("^[0-9]+:[0-9a-f]{64}$"))'
step "the read key was let through twice and refused twice" GET "/api/v1/api-keys/$READER_ID/usage" 200 \
  '.total.ok == 2 and .total.denied_scope == 2 and .total.expired == 0'
step "a service may ask whether it is good" POST /api/v1/api-keys/verify 200 \
  ".valid and .code == \"VALID\" and .key_id == $READER_ID" "{\"key\": \"$READER\", \"scope\": \"conversations:read\"}"
step "the read key is listed as expiring within a week" GET '/api/v1/api-keys/expiring/?days=7' 200 \
  "map(.id) == [$READER_ID]"
step "and not within a day" GET '/api/v1/api-keys/expiring/?days=1' 200 '. == []'
step "the read key is deactivated" POST "/api/v1/api-keys/$READER_ID/deactivate" 200 \
  ".id == $READER_ID and (.is_active | not)"
step "the key in use cannot be" POST "/api/v1/api-keys/$MASTER_ID/deactivate" 400 \
  ".detail == \"Cannot deactivate the API key you're currently using\""
KEY=$READER
step "the deactivated key is refused" GET "$PICNIC" 401 '.detail == "Invalid or inactive API Key"'
KEY=$MASTER
step "the master key still works" GET /api/v1/api-keys/me 200 ".id == $MASTER_ID and .is_active"

if [ -n "$BINARY" ]; then
  stop_server || die "the server exited with $? after SIGTERM, not with 0"
  passed "the server stops cleanly on SIGTERM"
fi
echo "All $STEPS steps passed."
