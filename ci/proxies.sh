#!/usr/bin/env bash
# Tests deploy/nginx.conf and deploy/Caddyfile, and those for a path below another site: runs nginx and Caddy with TLS, each in
# front of a server, and checks the responses. Both run at the same time, because the tests mostly wait.
#
#   ci/proxies.sh [--only nginx|caddy] --start target/release/octopus
#
# Needs nginx and caddy (on Debian: apt-get install nginx-light caddy), and root if nginx requires it for its folders.
# The test changes in the files: ports, certificates, paths of logs, and to keep the test short, nginx's read timeout of streams
# and the keep-alive time of both proxies.
# Variables that lib.sh sets in a subshell are not used here:
# shellcheck disable=SC2031
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

usage() {
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

BINARY='' PROXIES=(nginx caddy)
require_value() { [ $# -ge 2 ] || die "$1 requires a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --start) require_value "$@"; BINARY=$2; shift 2 ;;
    --only) require_value "$@"; PROXIES=("$2"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[ -n "$BINARY" ] || { usage >&2; exit 2; }
PATH=$PATH:/usr/sbin
need curl jq openssl python3 "${PROXIES[@]}"

SITE=octopus.example.com
FOLDER=$(mktemp -d)
PROXY_PID='' STREAM_PID=''
declare -A RUNS=()
end() { # stops a process that this script started
  [ -n "$1" ] || return 0
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}
finish() {
  local code=$?
  if [ "$code" -ne 0 ]; then
    show_server_log
    tail -n 20 "$FOLDER/proxy.err" >&2 2>/dev/null || true
  fi
  for run in "${RUNS[@]}"; do end "$run"; done
  end "$STREAM_PID"
  end "$PROXY_PID"
  if server_runs; then stop_server || true; fi
  rm -rf "$FOLDER"
  exit "$code"
}
trap finish EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$SITE" \
  -addext "subjectAltName=DNS:$SITE" -keyout "$FOLDER/key.pem" -out "$FOLDER/cert.pem" 2>/dev/null

# The proxy connects to the server from 127.0.0.1. Clients have other addresses, so that the server can tell them apart.
CLIENT=127.0.0.7
curl() { command curl --interface "$CLIENT" --resolve "$SITE:$HTTPS:127.0.0.1" --resolve "$SITE:$HTTP:127.0.0.1" --cacert "$FOLDER/cert.pem" "$@"; }

# replace_in FILE OLD NEW ...: prints the file with each OLD text, which must exist, replaced by NEW.
replace_in() {
  local text old
  text=$(cat "$1")
  shift
  while [ $# -gt 0 ]; do
    old=$1
    [[ $text == *"$old"* ]] || die "the configuration of ${PROXY} no longer contains: $old"
    text=${text//"$old"/$2}
    shift 2
  done
  printf '%s\n' "$text"
}

# start_nginx [subpath], start_caddy [subpath]: starts the proxy with its file for a host name, or for a path.
start_nginx() {
  replace_in "$HERE/../deploy/nginx${1:+-$1}.conf" "$SITE;" "$SITE;" \
    'listen 80;' "listen 127.0.0.1:$HTTP;" 'listen [::]:80;' '' \
    'listen 443 ssl http2;' "listen 127.0.0.1:$HTTPS ssl http2;" 'listen [::]:443 ssl http2;' '' \
    "/etc/letsencrypt/live/$SITE/fullchain.pem" "$FOLDER/cert.pem" "/etc/letsencrypt/live/$SITE/privkey.pem" "$FOLDER/key.pem" \
    'server 127.0.0.1:8000;' "server 127.0.0.1:$PORT;" '/var/log/nginx/octopus.log' "$FOLDER/access.log" \
    'keepalive_timeout 20s' 'keepalive_timeout 4s' 'proxy_read_timeout 60s' 'proxy_read_timeout 5s' >"$FOLDER/octopus.conf"
  cat >"$FOLDER/nginx.conf" <<CONF
pid $FOLDER/nginx.pid;
error_log $FOLDER/proxy.err info;
daemon off;
events { worker_connections 512; }
http {
  client_body_temp_path $FOLDER/body;
  proxy_temp_path $FOLDER/proxy;
  fastcgi_temp_path $FOLDER/f;
  uwsgi_temp_path $FOLDER/u;
  scgi_temp_path $FOLDER/s;
  include $FOLDER/octopus.conf;
}
CONF
  if [ "$(id -u)" = 0 ]; then sed -i '1i user root;' "$FOLDER/nginx.conf"; fi
  nginx -p "$FOLDER" -c "$FOLDER/nginx.conf" -t -q
  nginx -p "$FOLDER" -c "$FOLDER/nginx.conf" &
  PROXY_PID=$!
}

start_caddy() {
  {
    printf '{\n\tadmin off\n\thttp_port %s\n\thttps_port %s\n\tdefault_bind 127.0.0.1\n}\n\n' "$HTTP" "$HTTPS"
    replace_in "$HERE/../deploy/Caddyfile${1:+.$1}" $'octopus.example.com} {\n' \
      "octopus.example.com} {"$'\n\t'"tls $FOLDER/cert.pem $FOLDER/key.pem"$'\n' 'keepalive 20s' 'keepalive 4s'
  } >"$FOLDER/Caddyfile"
  export OCTOPUS_UPSTREAM=127.0.0.1:$PORT OCTOPUS_LOG=$FOLDER/access.log XDG_DATA_HOME=$FOLDER XDG_CONFIG_HOME=$FOLDER
  caddy run --adapter caddyfile --config "$FOLDER/Caddyfile" 2>"$FOLDER/proxy.err" &
  PROXY_PID=$!
}

# Starts the server on the same port each time.
start_octopus() {
  (
    cd "$FOLDER" || exit
    exec "$BINARY"
  ) >>"$FOLDER/server.log" 2>&1 &
  SERVER_PID=$! SERVER_LOG=$FOLDER/server.log OCTOPUS_URL=http://127.0.0.1:$PORT
  wait_until_ready
  OCTOPUS_URL=https://$SITE:$HTTPS
}

wait_for_proxy() {
  for _ in {1..100}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$HTTPS") 2>/dev/null; then break; fi
    sleep 0.1
  done
}

# header_of NAME OPTIONS PATH: prints the value of a response header; writes the body to $FOLDER/body.json
header_of() {
  curl --silent --show-error --max-time 30 --dump-header - --output "$FOLDER/body.json" "${@:2:$#-2}" \
    --header @<(printf '%s' "${KEY:+$KEY_HEADER: $KEY}") "$OCTOPUS_URL${*: -1}" | tr -d '\r' | sed -n "s/^$1: //Ip"
}
# head_of OPTIONS PATH: prints the response headers in lower case; writes the body to $FOLDER/body.json
head_of() {
  curl --silent --show-error --max-time 30 --dump-header - --output "$FOLDER/body.json" "${@:1:$#-1}" \
    --header @<(printf '%s' "${KEY:+$KEY_HEADER: $KEY}") "$OCTOPUS_URL${*: -1}" | tr -d '\r' | tr '[:upper:]' '[:lower:]'
}
# check TEXT COMMAND ...: exits unless the command succeeds.
check() {
  "${@:2}" || { printf 'FAILED %s\n' "$1" >&2; exit 1; }
  passed "$1"
}
has() { grep -q -- "$2" <<<"$1"; }
lacks() { ! grep -q -- "$2" "$1"; }
json_matches() { jq --exit-status "$2" "$1" >/dev/null; }
responded() { [ "$STATUS" = "$1" ] && holds "$2"; }
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'; }

# subscribe CONVERSATION: writes each line of the event stream to $FOLDER/stream, with the time of arrival.
subscribe() {
  curl --silent --no-buffer --http2 --header @<(printf '%s' "$KEY_HEADER: $KEY") "$OCTOPUS_URL/api/v1/conversations/$1/events" |
    while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "$line"; done >"$FOLDER/stream" &
  STREAM_PID=$!
  wait_for "$FOLDER/stream" 'event: begin' 5
}
wait_for() { # FILE TEXT SECONDS
  local until=$((SECONDS + $3))
  until grep -q -- "$2" "$1" 2>/dev/null; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.02
  done
}
stream_stays_open() { # SECONDS
  sleep "$1"
  kill -0 "$STREAM_PID" && lacks "$FOLDER/stream" 'event: end'
}
# event_arrives CONVERSATION TEXT: creates a message, and sets TOOK to the seconds until its event arrives, which must be
# less than 1.
event_arrives() {
  local before=$EPOCHREALTIME arrival
  must POST "/api/v1/conversations/$1/messages" "{\"role\": \"assistant\", \"content\": \"$2\"}"
  wait_for "$FOLDER/stream" "$2" 10 || return 1
  arrival=$(grep -m1 -- "$2" "$FOLDER/stream" | cut -d' ' -f1)
  TOOK=$(awk -v a="$before" -v b="$arrival" 'BEGIN { printf "%.3f", b - a }')
  awk -v t="$TOOK" 'BEGIN { exit !(t < 1) }'
}

# Prints conversations with a pause after each, as a slow client sends them.
lines() { # NUMBER SECONDS BYTES
  python3 - "$@" <<'PYTHON'
import json, sys, time
number, pause, length = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for n in range(number):
    at = "2026-01-31T09:30:00Z"
    conversation = {"type": "conversation", "external_id": f"slow:{length}:{n}", "title": f"arrived {length} {n}", "created_at": at}
    print(json.dumps(conversation))
    print(json.dumps({"type": "message", "role": "user", "content": "x" * length, "created_at": at}), flush=True)
    time.sleep(pause)
PYTHON
}
batch() { # NUMBER: prints a batch of messages of 100000 characters
  jq -nc --argjson n "$1" '{messages: [range($n) | {role: "user", content: ("x" * 100000)}]}'
}
import() {
  curl --silent --show-error --max-time 120 --request POST --upload-file - --header 'Content-Type: application/x-ndjson' \
    --header @<(printf '%s' "$KEY_HEADER: $KEY") "$OCTOPUS_URL/api/v1/conversations/import"
}
partly_imported() { # some conversations exist, but not all
  call GET "/api/v1/conversations?order=desc&limit=1"
  holds '.[0].title | test("^arrived 1000 [0-6]$")'
}

test_proxy() {
  local head before client id conversation
  PROXY=$1 KEY='' CLIENT=127.0.0.7
  HTTP=$(free_port) HTTPS=$(free_port) PORT=$(free_port)
  rm -f "$FOLDER"/{server.log,access.log,stream} "$FOLDER"/*.db*
  export PORT OCTOPUS_SITE=$SITE HOST=127.0.0.1 TRUSTED_PROXIES=127.0.0.1 LOG_FORMAT=json
  export DATABASE_URL=sqlite:///./proxies.db IDLE_TIMEOUT_SECONDS=6
  unset MASTER_API_KEY MASTER_API_KEY_FILE BOOTSTRAP_TOKEN BOOTSTRAP_TOKEN_FILE REGISTRATION METRICS_ADDR AUDIT_KEY AUDIT_KEY_FILE
  echo "== $PROXY"
  : >"$FOLDER/proxy.err"
  "start_$PROXY"

  OCTOPUS_URL=https://$SITE:$HTTPS
  wait_for_proxy
  head=$(head_of /health)
  check 'without a running server, a 503' has "$head" '^http/2 503'
  check '… with Retry-After' has "$head" '^retry-after: 2'
  check '… and a detail' json_matches "$FOLDER/body.json" '.detail | type == "string"'

  start_octopus
  head=$(head_of /health)
  check 'TLS and HTTP/2, without a restart of the proxy' has "$head" '^http/2 200'
  check 'responses have Strict-Transport-Security' has "$head" '^strict-transport-security: max-age='
  head=$(curl --silent --head "http://$SITE:$HTTP/docs" | tr -d '\r')
  check 'HTTP is redirected to HTTPS' has "$head" "^[Ll]ocation: https://$SITE"
  call POST /bootstrap
  check 'bootstrap is not reachable through the proxy' [ "$STATUS" = 404 ]
  call POST /bootstrap/
  check '… nor with a trailing slash' [ "$STATUS" = 404 ]
  KEY=$(command curl --silent --request POST "http://127.0.0.1:$PORT/bootstrap" | jq -r .api_key)

  head=$(head_of --header 'X-Forwarded-For: 6.6.6.6' --header 'X-Real-IP: 6.6.6.6' --header 'Forwarded: for=6.6.6.6' \
    --header 'X-Request-Id: from-outside' /api/v1/api-keys/me)
  must GET /api/v1/api-keys/me
  check "the server uses the client's address and ignores forged headers" holds ".last_used_ip == \"$CLIENT\""
  id=$(sed -n 's/^x-request-id: //p' <<<"$head")
  check 'the response has a request id of the proxy' test -n "$id" -a "$id" != from-outside
  check '… which is in the log of the server' wait_for "$FOLDER/server.log" "\"request_id\":\"$id\"" 3
  check '… and in the log of the proxy' wait_for "$FOLDER/access.log" "$id" 3

  client=$CLIENT CLIENT=127.0.0.8
  for _ in {1..11}; do head=$(KEY=a-guess head_of --header 'X-Forwarded-For: 127.0.0.9' /api/v1/api-keys/me); done
  check 'a 429 is passed on unchanged' has "$head" '^http/2 429'
  check '… with Retry-After' has "$head" '^retry-after: [0-9]'
  check '… and its detail' json_matches "$FOLDER/body.json" '.detail | test("Rate limit")'
  CLIENT=127.0.0.9
  head=$(KEY=a-guess head_of /api/v1/api-keys/me)
  check 'other clients are not rate limited' has "$head" '^http/2 401'
  CLIENT=$client

  must POST /api/v1/conversations '{}'
  conversation=$(field .id)
  subscribe "$conversation" || die "the event stream did not open"
  before=$EPOCHREALTIME
  check 'an event arrives within a second' event_arrives "$conversation" first-word
  printf '       %s s after the message\n' "$TOOK"
  check 'a stream stays open longer than the read timeout of the proxy' stream_stays_open 11
  check '… and an event still arrives within a second' event_arrives "$conversation" last-word
  printf '       %s s after the message, %s s after the stream opened, %s heartbeats\n' "$TOOK" "$(seconds "$before")" \
    "$(grep -c ' :$' "$FOLDER/stream")"
  must POST "/api/v1/conversations/$conversation/events/ticket"
  id=$(field .ticket)
  curl --silent --max-time 1 "$OCTOPUS_URL/api/v1/conversations/$conversation/events?ticket=$id" >"$FOLDER/by-ticket" || true
  check 'a stream opens with a ticket' grep -q 'event: begin' "$FOLDER/by-ticket"
  check 'the log of the proxy has no ticket' lacks "$FOLDER/access.log" "$id"
  check 'the log of the proxy has no key' lacks "$FOLDER/access.log" "$KEY"

  # 9 seconds and 25 MB exceed the limits of other requests.
  lines 9 1 1000 | import >"$FOLDER/slow.json" &
  before=$!
  sleep 3
  check 'an import is read while it arrives' partly_imported
  wait "$before" || die "the slow import failed"
  check '… and may take long' json_matches "$FOLDER/slow.json" '.imported == 9'
  lines 50 0 500000 | import >"$FOLDER/large.json"
  check '… and may be large' json_matches "$FOLDER/large.json" '.imported == 50'
  call GET "/api/v1/conversations/$conversation/export"
  check 'an export succeeds' has "$BODY" last-word

  must POST "/api/v1/conversations/$conversation/messages/batch" "$(batch 60)"
  passed 'a batch of 6 MB succeeds'
  call POST /api/v1/conversations "{\"title\": \"$(head -c 2500000 /dev/zero | tr '\0' x)\"}"
  check 'the server rejects a large body with 413 and a detail' responded 413 '.detail | type == "string"'
  call POST "/api/v1/conversations/$conversation/messages/batch" "$(batch 190)"
  check '… and so does the proxy' responded 413 '.detail | type == "string"'

  for _ in 1 2 3; do # the server closes its end of an idle connection after 6 seconds, the proxy after 4
    sleep 5.9
    must POST /api/v1/conversations '{}'
  done
  passed 'no write is sent on a connection that the server has closed'

  python3 - "$FOLDER/proxies.db" <<'PYTHON' &
import sqlite3, sys, time
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
open(sys.argv[1] + ".locked", "w").close()
time.sleep(4)
PYTHON
  before=$!
  for _ in $(seq 100); do
    [ ! -e "$FOLDER/proxies.db.locked" ] || break
    sleep 0.1
  done
  call GET /ready
  check 'a 503 of the server is passed on unchanged' responded 503 '.detail | startswith("database locked")'
  wait "$before"

  kill -TERM "$SERVER_PID"
  check 'a stopping server sends an end event to its streams' wait_for "$FOLDER/stream" server_stopping 5
  end "$STREAM_PID"
  wait "$SERVER_PID" || die "the server did not stop cleanly"
  start_octopus
  must GET /api/v1/api-keys/me
  passed 'requests succeed after a restart of the server'
  check 'the server logged no untrusted proxy' lacks "$FOLDER/server.log" proxy.untrusted
  end "$PROXY_PID"
  PROXY_PID=''
  stop_server
}

# edit TAG PATH: edits a message with If-Match, and prints the status.
edit() {
  curl --silent --show-error --max-time 30 --output /dev/null --write-out '%{http_code}' --request PATCH --header "If-Match: $1" \
    --header 'Content-Type: application/json' --data '{"content": "edited"}' \
    --header @<(printf '%s' "$KEY_HEADER: $KEY") "$OCTOPUS_URL$2"
}

# Tests the file for a path below another site, with the server, the key and the ports of test_proxy.
test_subpath() {
  local url tag next path conversation
  echo "== $PROXY, below /octopus/"
  "start_$PROXY" subpath
  wait_for_proxy
  start_octopus
  OCTOPUS_URL=https://$SITE:$HTTPS/octopus
  check '/docs redirects below the path' [ "$(header_of location /docs)" = /octopus/docs/ ]
  curl --silent --location "$OCTOPUS_URL/docs" >"$FOLDER/page.html"
  check '… and opens' grep -q swagger-ui "$FOLDER/page.html"
  url=$(curl --silent "$OCTOPUS_URL/docs/swagger-initializer.js" | sed -n 's/.*"\{0,1\}url"\{0,1\}: *"\([^"]*\)".*/\1/p' | head -n 1)
  url=$(python3 -c 'import sys, urllib.parse; print(urllib.parse.urljoin(*sys.argv[1:]))' "$OCTOPUS_URL/docs/" "$url")
  check 'Swagger UI requests the document below the path' [ "$url" = "$OCTOPUS_URL/openapi.json" ]
  tag=$(header_of etag --compressed /openapi.json)
  check '… which names the path as its server' json_matches "$FOLDER/body.json" '.servers == [{"url": "/octopus"}]'
  check '… and is a 304 the next time' has "$(head_of --compressed --header "If-None-Match: $tag" /openapi.json)" '^http/2 304'

  must POST /api/v1/conversations '{}'
  conversation=$(field .id)
  must POST /api/v1/conversations '{}'
  next=$(header_of link --header 'X-Forwarded-Prefix: /forged' '/api/v1/conversations?limit=1' |
    sed -n 's/^<\([^>]*\)>; rel="next".*/\1/p')
  check 'Link has the path, and not what the client sent' has "$next" '^/octopus/api/v1/conversations?'
  OCTOPUS_URL=https://$SITE:$HTTPS
  must GET "$next"
  OCTOPUS_URL=$OCTOPUS_URL/octopus
  passed '… and works'

  must POST "/api/v1/conversations/$conversation/messages" '{"role": "user", "content": "hello"}'
  path=/api/v1/conversations/$conversation/messages/$(field .id)
  tag=$(header_of etag --compressed "$path")
  if [ "$PROXY" = nginx ]; then check 'nginx made the ETag weak' [ "$tag" = 'W/"1"' ]; fi
  check 'an edit with the ETag just read succeeds' [ "$(edit "$tag" "$path")" = 200 ]
  check '… and with an older one it does not' [ "$(edit "$tag" "$path")" = 412 ]

  call POST /bootstrap
  check 'bootstrap is not reachable below the path' [ "$STATUS" = 404 ]
  subscribe "$conversation" || die "the event stream did not open below the path"
  check 'an event arrives within a second below the path' event_arrives "$conversation" below-the-path
  end "$STREAM_PID"
  STREAM_PID=''
  check 'an import succeeds below the path' json_matches <(lines 2 0 2000 | import) '.imported == 2'
  end "$PROXY_PID"
  PROXY_PID=''
  stop_server
}

# Tests each proxy in a separate process, and prints its output when it exits.
test_all() {
  local proxy code=0
  for proxy in "${PROXIES[@]}"; do
    "${BASH_SOURCE[0]}" --only "$proxy" --start "$BINARY" >"$FOLDER/$proxy.out" 2>&1 &
    RUNS[$proxy]=$!
  done
  for proxy in "${PROXIES[@]}"; do
    wait "${RUNS[$proxy]}" || code=1
    unset "RUNS[$proxy]"
    cat "$FOLDER/$proxy.out"
  done
  return "$code"
}

BINARY=$(realpath "$BINARY")
if [ ${#PROXIES[@]} = 1 ]; then test_proxy "${PROXIES[0]}"; test_subpath; else test_all; fi
