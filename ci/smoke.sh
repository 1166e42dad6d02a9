#!/usr/bin/env bash
# Runs the steps of the tutorial on a new server and checks every response. Stops at the first unexpected one.
#
#   ci/smoke.sh                                  uses the server at $OCTOPUS_URL, which must have no API key yet
#   ci/smoke.sh --start target/release/octopus   starts a server in a temporary folder
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY=
while [ $# -gt 0 ]; do
  case $1 in
    --start) [ $# -ge 2 ] || die "--start requires the path of the octopus binary"; BINARY=$2; shift 2 ;;
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
  # keep the master key of a server that this script did not start: bootstrap cannot create another one
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

# jq filters used below. A key is "octopus_", 43 random characters and a checksum of 6.
A_KEY='test("^octopus_[0-9A-Za-z]{49}$")'
A_TIME='test("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z$")'
PARTICIPANT_IDS='[.participants[].id] | sort'

echo "Octopus at $OCTOPUS_URL"

# --- health and docs
step "the server is alive" GET /health 200 '. == {"status": "healthy"}'
step "the database is ready" GET /ready 200 '. == {"status": "ready"}'
step "the root route links to the documentation" GET / 200 \
  '.message == "Hello! Visit /docs for API documentation" and (.version | type == "string")'
call GET /docs/
[[ $STATUS == 200 && $TYPE == text/html* && $BODY == *[Ss]wagger* ]] ||
  fail_step "the documentation is a page" "GET /docs/ to return 200 with Swagger UI as text/html"
passed "the documentation is a page"
step "the OpenAPI document lists the routes" GET /openapi.json 200 \
  '(.openapi | startswith("3.1")) and (.paths | has("/api/v1/users") and has("/api/v1/conversations/{conversation_id}"))'

# --- the first key
step "a request without a key is rejected" GET /api/v1/api-keys/me 401 '.detail == "API key required: send it in the header field Octopus-API-Key"'
step "bootstrap creates the master key" POST /bootstrap 200 \
  ".name == \"Master API Key\" and .scopes == \"admin,read,write\" and (.api_key | $A_KEY) and (.instructions | keys == [\"1\", \"2\", \"3\"])"
(umask 077 && field .api_key >"$FOLDER/master.key")
[ -n "$(find "$FOLDER/master.key" -perm 600)" ] || die "$FOLDER/master.key does not have mode 600"
MASTER=$(<"$FOLDER/master.key")
passed "the key is saved in a file that only its owner can read"
step "bootstrap works only once" POST /bootstrap 400 '.detail | startswith("Bootstrap already completed.")'
KEY=$MASTER
step "the saved key works" GET /api/v1/api-keys/me 200 \
  '.name == "Master API Key" and .is_active and .expires_at == null and (has("key") | not)'
MASTER_ID=$(field .id)

# --- three users; registration requires no key
KEY=
register() {
  step "$1 registers" POST /api/v1/users/ 201 \
    ".username == \"$1\" and .email == \"$1@example.com\" and .is_active and (.is_superuser | not)
      and (.created_at | $A_TIME) and (has(\"password\") or has(\"password_hash\") | not)" \
    "{\"username\": \"$1\", \"email\": \"$1@example.com\", \"password\": \"quiet-harbour-41-$1\", \"full_name\": \"$1 of the smoke test\"}"
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
  ".name == \"smoke: reader\" and .scopes == \"read\" and .is_active and (.key | $A_KEY) and (.expires_at | $A_TIME)" \
  "{\"name\": \"smoke: reader\", \"expires_at\": \"$IN_THREE_DAYS\"}"
READER=$(field .key)
READER_ID=$(field .id)
step "a read-write key is created" POST /api/v1/api-keys/ 201 \
  ".scopes == \"read,write\" and (.key | $A_KEY) and .expires_at == null and .rotated_from_id == null" \
  '{"name": "smoke: writer", "scopes": "write, read"}'
WRITER=$(field .key)
WRITER_ID=$(field .id)

# --- a conversation
KEY=$WRITER
step "ada and ben start a conversation" POST /api/v1/conversations/ 201 \
  ".title == \"Picnic\" and ($PARTICIPANT_IDS) == [$ADA, $BEN] and .message_count == 0" \
  "{\"title\": \"Picnic\", \"participant_ids\": [$ADA, $BEN]}"
PICNIC=/api/v1/conversations/$(field .id)
step "ada writes" POST "$PICNIC/messages" 201 \
  ".role == \"user\" and .content == \"Sunday?\" and .user_id == $ADA and .user.username == \"ada\"" \
  "{\"role\": \"user\", \"content\": \"Sunday?\", \"user_id\": $ADA}"
step "ben answers" POST "$PICNIC/messages" 201 \
  ".role == \"user\" and .user_id == $BEN and .user.username == \"ben\"" \
  "{\"role\": \"user\", \"content\": \"Sunday! 🧺\", \"user_id\": $BEN}"
step "an assistant writes" POST "$PICNIC/messages" 201 \
  '.role == "assistant" and .user_id == null and .user == null' \
  '{"role": "assistant", "content": "It will be sunny."}'
step "cleo, who is not a participant, may not write" POST "$PICNIC/messages" 403 \
  '.detail == "User is not a participant in this conversation"' \
  "{\"role\": \"user\", \"content\": \"Me too!\", \"user_id\": $CLEO}"
step "cleo is added" POST "$PICNIC/participants" 201 "($PARTICIPANT_IDS) == [$ADA, $BEN, $CLEO]" "{\"user_id\": $CLEO}"
step "cleo is removed" DELETE "$PICNIC/participants/$CLEO" 200 "($PARTICIPANT_IDS) == [$ADA, $BEN]"

# --- signed-in users
KEY=
sign_in() {
  KEY='' KEY_HEADER=Octopus-API-Key
  step "$1 signs in" POST /api/v1/users/login 200 \
    ".token_type == \"bearer\" and (.access_token | test(\"^octs_[0-9A-Za-z]{49}$\")) and (.expires_at | $A_TIME)
      and .user.username == \"$1\"" "{\"username\": \"$1\", \"password\": \"quiet-harbour-41-$1\"}"
  KEY_HEADER=Authorization KEY="Bearer $(field .access_token)"
}
step "a wrong password is rejected" POST /api/v1/users/login 401 '.detail == "Incorrect email or password"' \
  '{"username": "ada", "password": "quiet-harbour-42-ada"}'
step "an unknown username is rejected with the same error" POST /api/v1/users/login 401 \
  '.detail == "Incorrect email or password"' '{"username": "nobody", "password": "quiet-harbour-41-ada"}'
sign_in cleo
step "cleo does not see conversations of other users" GET /api/v1/conversations 200 '. == []'
step "a conversation of other users is reported as not found" GET "$PICNIC" 404 '.detail == "Conversation not found"'
sign_in ben
BEN_TOKEN=$KEY
step "ben sees his own email, but not those of other users" GET "$PICNIC" 200 \
  '[.participants[] | [.username, .email]] == [["ada", null], ["ben", "ben@example.com"]] and .last_message_at != null'
step "ben starts a conversation with cleo by username" POST /api/v1/conversations 201 \
  "($PARTICIPANT_IDS) == [$BEN, $CLEO]" '{"title": "Surprise", "participant_usernames": ["cleo"]}'
SURPRISE=/api/v1/conversations/$(field .id)
EXTRA_HEADER='Idempotency-Key: smoke-1'
step "ben writes with an idempotency key" POST "$SURPRISE/messages" 201 '.seq == 1 and .user.username == "ben"' \
  '{"role": "user", "content": "A cake for ada? 東京ばな奈!"}'
MESSAGE=$SURPRISE/messages/$(field .id)
step "a retry returns the same message" POST "$SURPRISE/messages" 201 ".seq == 1 and .id == $(field .id)" \
  '{"role": "user", "content": "A cake for ada? 東京ばな奈!"}'
EXTRA_HEADER=
step "ben may not write as another user" POST "$SURPRISE/messages" 403 '.detail == "A signed-in user can only post as themselves"' \
  "{\"role\": \"user\", \"content\": \"I like cake\", \"user_id\": $ADA}"
step "a search finds the message by a word" GET '/api/v1/conversations/search?q=CAKE' 200 \
  'length == 1 and .[0].title == "Surprise" and (.[0].snippet | contains("<mark>cake</mark>"))'
step "a search finds Japanese text" GET '/api/v1/conversations/search?q=%E6%9D%B1%E4%BA%AC' 200 'length == 1'
EXTRA_HEADER='If-Match: "1"'
step "ben edits the message" PATCH "$MESSAGE" 200 '.version == 2 and .edited_at != null' '{"content": "A pie for ada?"}'
step "an edit of an outdated version is rejected" PATCH "$MESSAGE" 412 '.detail | startswith("The resource has changed")' \
  '{"content": "A tart for ada?"}'
EXTRA_HEADER=
step "a search no longer finds the old text" GET '/api/v1/conversations/search?q=cake' 200 '. == []'
sign_in ada
step "a search by ada does not find it" GET '/api/v1/conversations/search?q=pie' 200 '. == []'
step "ada may not edit it" PATCH "$MESSAGE" 404 '.detail == "Conversation not found"' '{"content": "No pie"}'
step "ada signs out" POST /api/v1/users/logout 204 ''
step "the token of a signed-out session is rejected" GET /api/v1/users/me 401 '.detail == "Invalid or expired session"'
KEY=$BEN_TOKEN
step "ben deletes the message" DELETE "$MESSAGE" 204 ''
step "the deleted message keeps its sequence number" GET "$MESSAGE" 200 '.content == "" and .deleted_at != null and .seq == 1'
KEY_HEADER=Octopus-API-Key

# --- permissions of the read key
KEY=$READER
step "the read key reads the conversation" GET "$PICNIC" 200 \
  "($PARTICIPANT_IDS) == [$ADA, $BEN] and .message_count == 3 and (.messages_truncated | not)
    and [.messages[].content] == [\"Sunday?\", \"Sunday! 🧺\", \"It will be sunny.\"]"
step "the read key lists the messages in order" GET "$PICNIC/messages" 200 \
  "map(.role) == [\"user\", \"user\", \"assistant\"] and map(.user_id) == [$ADA, $BEN, null]"
step "the read key may not write" POST "$PICNIC/messages" 403 '.detail | startswith("Write scope required to ")' \
  '{"role": "user", "content": "I should not be here."}'
step "the read key may not manage keys" GET /api/v1/api-keys/ 403 '.detail | startswith("Admin scope required to ")'

# --- rotation
KEY=$MASTER
step "the read-write key is rotated" POST "/api/v1/api-keys/$WRITER_ID/rotate" 200 \
  ".rotated_from_id == $WRITER_ID and .grace_expires_at == null and .id != $WRITER_ID and .name == \"smoke: writer\" and .scopes == \"read,write\"
    and .is_active and (.key | $A_KEY)"
ROTATED=$(field .key)
KEY=$WRITER
step "the old key is rejected" GET /api/v1/conversations/ 401 '.detail == "Invalid or inactive API Key"'
KEY=$ROTATED
step "the new key works" GET /api/v1/conversations/ 200 'map(.title) == ["Picnic", "Surprise"]'

# --- administration
KEY=$MASTER
step "the audit log lists the rotation, newest entry first" GET /api/v1/api-keys/audit-logs/ 200 \
  "any(.[]; (.action | test(\"rotat\")) and .performed_by_key_id == $MASTER_ID)
    and map(.timestamp) == (map(.timestamp) | sort | reverse) and all(.[].details; . == null or type == \"object\")"
step "the audit log is intact" GET /api/v1/admin/audit/verify 200 \
  '.intact and .verified_rows >= 5 and .first_bad == null and (.head | test("^[0-9]+:[0-9a-f]{64}$"))'
step "the usage of the read key is two accepted and two denied requests" GET "/api/v1/api-keys/$READER_ID/usage" 200 \
  '.total.ok == 2 and .total.denied_scope == 2 and .total.expired == 0'
step "another service can verify the read key" POST /api/v1/api-keys/verify 200 \
  ".valid and .code == \"VALID\" and .key_id == $READER_ID" "{\"key\": \"$READER\", \"scope\": \"conversations:read\"}"
step "the read key is listed as expiring within a week" GET '/api/v1/api-keys/expiring/?days=7' 200 \
  "map(.id) == [$READER_ID]"
step "the read key is not listed as expiring within a day" GET '/api/v1/api-keys/expiring/?days=1' 200 '. == []'
step "the read key is deactivated" POST "/api/v1/api-keys/$READER_ID/deactivate" 200 \
  ".id == $READER_ID and (.is_active | not)"
step "the key in use cannot be deactivated" POST "/api/v1/api-keys/$MASTER_ID/deactivate" 400 \
  ".detail == \"Cannot deactivate the API key you're currently using\""
KEY=$READER
step "the deactivated key is rejected" GET "$PICNIC" 401 '.detail == "Invalid or inactive API Key"'
KEY=$MASTER
step "the master key still works" GET /api/v1/api-keys/me 200 ".id == $MASTER_ID and .is_active"

if [ -n "$BINARY" ]; then
  stop_server || die "the server exited with $? after SIGTERM, not with 0"
  passed "the server stops cleanly on SIGTERM"
fi
echo "All $STEPS steps passed."
