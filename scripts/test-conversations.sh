#!/usr/bin/env bash
# Creates two users and a conversation between them, reads it back, and deletes all of it. Requires an admin key in
# OCTOPUS_API_KEY, because only an administrator may delete users.
#
# OCTOPUS_URL is the server (default http://localhost:8000).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need curl jq
use_api_key

CREATED=() # paths of the created resources, deleted at exit even after an error
delete_all() {
  local code=$? path
  for path in ${CREATED[@]+"${CREATED[@]}"}; do
    call DELETE "$path"
    [ "$STATUS" = 204 ] || [ "$STATUS" = 200 ] || echo "could not delete $path: $STATUS $(detail)" >&2
  done
  exit "$code"
}
trap delete_all EXIT

random() { od -An -N8 -tx1 /dev/urandom | tr -d ' \n'; }
new_user() { # NAME
  step "$1 registers" POST /api/v1/users/ 201 ".username == \"$1\"" \
    "{\"username\": \"$1\", \"email\": \"$1@example.com\", \"password\": \"$(random)-$(random)\"}"
  CREATED+=("/api/v1/users/$(field .id)")
}

RUN=$(random)
new_user "ada-$RUN"
ADA=$(field .id)
new_user "ben-$RUN"
BEN=$(field .id)

step "a conversation is created" POST /api/v1/conversations/ 201 "[.participants[].id] | sort == [$ADA, $BEN]" \
  "{\"title\": \"Test $RUN\", \"participant_ids\": [$ADA, $BEN]}"
CONVERSATION=/api/v1/conversations/$(field .id)
CREATED=("$CONVERSATION" "${CREATED[@]}")

step "ada writes" POST "$CONVERSATION/messages" 201 ".user_id == $ADA" \
  "{\"role\": \"user\", \"content\": \"Hello Ben\", \"user_id\": $ADA}"
step "ben answers" POST "$CONVERSATION/messages" 201 ".user_id == $BEN" \
  "{\"role\": \"user\", \"content\": \"Hello Ada\", \"user_id\": $BEN}"
step "an assistant answers" POST "$CONVERSATION/messages" 201 '.role == "assistant" and .user == null' \
  '{"role": "assistant", "content": "Hello both"}'

step "the messages are read back in order" GET "$CONVERSATION" 200 \
  '.message_count == 3 and [.messages[].content] == ["Hello Ben", "Hello Ada", "Hello both"]'
step "the conversations of ada are listed" GET "/api/v1/conversations/user/$ADA" 200 "map(.title) == [\"Test $RUN\"]"

step "the conversation is deleted" DELETE "$CONVERSATION" 204 ''
CREATED=("/api/v1/users/$ADA" "/api/v1/users/$BEN")
step "ada is deleted" DELETE "/api/v1/users/$ADA" 204 ''
CREATED=("/api/v1/users/$BEN")
step "ben is deleted" DELETE "/api/v1/users/$BEN" 204 ''
CREATED=()
echo "All $STEPS steps passed."
