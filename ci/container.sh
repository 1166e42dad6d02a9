#!/usr/bin/env bash
# Builds the image, checks its contents, starts it as its user, runs ci/smoke.sh against it and stops it.
#
#   ci/container.sh [--extract FILE]         --extract copies the binary of the image to FILE
#   ci/container.sh --build                  only builds the image
#   ci/container.sh --test [--extract FILE]  only tests the image built earlier
#   ci/container.sh --context [PROGRAM]      only checks the build context; takes seconds, compiles nothing
#
# --context checks that the build context contains no secret, that cargo can read the manifest with only the files in it, and,
# if PROGRAM.d (target/dist/octopus.d) lists the sources of a build, that it contains each of them.
#
# With a Docker engine it uses `docker build` and `docker run`. Without one it uses buildah as root (apt-get install buildah
# debootstrap) and creates the base image, under its official name, from Debian and the Rust toolchain of this machine. The base
# image and the build caches are kept, so the next run compiles only Octopus. The default storage driver, vfs, works everywhere
# but copies the whole file tree for each stage; STORAGE_DRIVER=overlay needs less space and time where the kernel supports it.
# `buildah --storage-driver vfs rmi --all` and `rm -r /var/tmp/buildah-cache` free the space.
# PORT is the first port to try (8080), DEBIAN_MIRROR the mirror that debootstrap uses.
set -euo pipefail
cd "$(dirname "$0")/.."

image=octopus limit=30000000 user=10001 binary=/usr/local/bin/octopus
base=$(sed -n 's/^FROM \(rust:[^ ]*\) AS build$/\1/p' Dockerfile)
port=${PORT:-8080}
while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done

work=$(mktemp -d)
touch "$work/log"
container='' pid='' engine=buildah extract='' only='' program=''
usage() { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; }
while [ $# -gt 0 ]; do
  case $1 in
    --extract) extract=${2:?--extract requires a file}; shift 2 ;;
    --build) only=build; shift ;;
    --test) only='test'; shift ;;
    --context) only=context program=${2-}; shift $(($# > 1 ? 2 : 1)) ;;
    *) usage; exit 2 ;;
  esac
done
if docker info >/dev/null 2>&1; then engine=docker; fi

say() { printf '== %s\n' "$*"; }
fail() {
  printf 'container.sh: %s\n' "$*" >&2
  exit 1
}

buildah() { BUILDAH_ISOLATION=chroot command buildah --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"; }

# The operations of each engine.

docker_build() { DOCKER_BUILDKIT=1 docker build --tag "$1" --file "$2" "$3"; }
docker_rootfs() { # unpacks the files of an image
  local created
  created=$(docker create "$1" /none)
  mkdir "$work/rootfs"
  docker export "$created" | tar -x -C "$work/rootfs"
  docker rm --volumes "$created" >/dev/null
  rootfs=$work/rootfs
}
docker_start() {
  container=$(docker run --detach --publish "127.0.0.1:$port:80" "$image")
}
docker_uid() { docker top "$container" -o pid,uid | awk 'NR == 2 { print $2 }'; }
docker_exec() { docker exec "$container" "$@"; }
docker_stop() {
  docker stop "$container" >/dev/null
  [ "$(docker inspect --format '{{.State.ExitCode}}' "$container")" = 0 ]
}
docker_log() { docker logs "$container"; }
docker_remove() { docker rm --force --volumes "$container" >/dev/null; }
docker_remove_image() { docker rmi --force "$1" >/dev/null; }

buildah_build() { # mounts the trusted certificates of this machine, which its network may need
  local before
  before=$(buildah images --quiet "localhost/$1" 2>/dev/null || true)
  buildah bud --pull=never --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --tag "$1" --file "$2" "$3"
  [ -z "$before" ] || [ "$before" = "$(buildah images --quiet "localhost/$1")" ] || buildah_remove_image "$before"
}
buildah_rootfs() {
  container=$(buildah from --pull=never "localhost/$1")
  rootfs=$(buildah mount "$container")
}
buildah_start() { # uses the host's network, where an unprivileged user cannot bind port 80
  buildah run --env "PORT=$port" "$container" -- "$binary" >"$work/log" 2>&1 &
  runner=$!
  for _ in {1..100}; do
    pid=$runner
    while child=$(pgrep -P "$pid" | head -n 1) && [ -n "$child" ]; do pid=$child; done
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = octopus ]; then return; fi
    sleep 0.1
  done
  fail "the container did not start: $(cat "$work/log")"
}
buildah_uid() { awk '/^Uid:/ { print $2 }' "/proc/$pid/status"; }
buildah_exec() { buildah run --env "PORT=$port" "$container" -- "$@"; }
buildah_stop() {
  kill -TERM "$pid"
  pid=''
  wait "$runner"
}
buildah_log() { cat "$work/log"; }
buildah_remove() {
  if [ -n "$pid" ]; then
    kill -TERM "$pid" 2>/dev/null || true
    wait "$runner" || true
  fi
  buildah rm "$container" >/dev/null
}
buildah_remove_image() { buildah rmi --force "$1" >/dev/null; }

make_base() {
  local rust created root sysroot bin
  rust=${base#rust:} rust=${rust%%-*}
  case $(rustc --version) in
    "rustc $rust".*) ;;
    *) fail "to create $base, install Rust $rust; found $(rustc --version)" ;;
  esac
  say "creating $base"
  created=$(buildah from scratch)
  container=$created
  root=$(buildah mount "$created")
  debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates "${base##*-}" "$root" \
    ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/debootstrap.log" || fail "$(tail -n 20 "$work/debootstrap.log")"
  sysroot=/usr/local/rustup/toolchains/$rust
  mkdir -p "$root$sysroot/bin" "$root/usr/local/cargo/bin"
  cp -a "$(rustc --print sysroot)/lib" "$root$sysroot"
  rm -rf "$root$sysroot/lib/rustlib/src" "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
  for bin in cargo rustc; do
    cp -a "$(rustc --print sysroot)/bin/$bin" "$root$sysroot/bin"
    ln -s "$sysroot/bin/$bin" "$root/usr/local/cargo/bin"
  done
  buildah config --env RUSTUP_HOME=/usr/local/rustup --env CARGO_HOME=/usr/local/cargo \
    --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --label org.opencontainers.image.description="substitute for $base, created by ci/container.sh" "$created"
  buildah commit --quiet --rm "$created" "docker.io/library/$base" >/dev/null
  container=''
}

finish() {
  status=$?
  if [ "$status" != 0 ] && [ -n "$container" ]; then "${engine}_log" >&2 || true; fi
  if [ -n "$container" ]; then "${engine}_remove" || true; fi
  rm -rf "$work"
}
trap finish EXIT

# receive_context FOLDER: unpacks the build context of a folder into $rootfs.
receive_context() {
  printf 'FROM scratch\nCOPY . /\n' >"$work/Dockerfile"
  "${engine}_build" octopus-context "$work/Dockerfile" "$1" >"$work/context.log" 2>&1 || fail "$(cat "$work/context.log")"
  "${engine}_rootfs" octopus-context
}
remove_context() {
  if [ "$engine" = buildah ]; then buildah_remove; else rm -rf "$rootfs"; fi
  container=''
  "${engine}_remove_image" octopus-context >/dev/null
}

# targets_in FOLDER: lists the targets of the manifest, without tests: cargo finds those by their files, and the image contains
# none. `cargo fetch` fails on an invalid manifest like `cargo build`, whereas `cargo metadata` omits targets without a file.
targets_in() {
  cd "$1" &&
    cargo fetch --quiet --locked --offline --target "$host" &&
    cargo metadata --quiet --locked --offline --no-deps --format-version 1 |
    jq -r '.packages[].targets[] | select(.kind != ["test"]) | "\(.kind | join(",")) \(.name)"'
}

# check_manifest TREE: checks that the unpacked build context has every file that a build of TREE reads.
check_manifest() {
  local host path
  host=$(rustc -vV | sed -n 's/^host: //p')
  (targets_in "$1") >"$work/targets" || fail 'cargo cannot read the manifest'
  (targets_in "$rootfs") >"$work/received" || fail 'cargo cannot read the manifest in the build context: see .dockerignore'
  diff "$work/targets" "$work/received" >&2 || fail 'the build context lacks these targets: see .dockerignore'
  [ -n "$program" ] || return 0
  # a line "PROGRAM: FILE FILE …" with absolute paths
  sed 's/^[^:]*: //' "$program.d" | tr ' ' '\n' >"$work/sources"
  while IFS= read -r path; do
    path=${path#"$PWD/"}
    [ -e "$rootfs/$path" ] || fail "the build reads $path, which is not in the build context: see .dockerignore"
  done <"$work/sources"
}

check_context() {
  local tree=$work/tree secret leaked
  # A copy of the files that git tracks or would add, with secrets added.
  mkdir "$tree"
  git ls-files -z --cached --others --exclude-standard |
    tar --create --null --ignore-failed-read --files-from=- 2>/dev/null | tar --extract --directory "$tree"
  for secret in .env .env.local .git/config chat_conversations.db src/.env src/a.db src/a.db-wal migrations/a.db.backup \
    benches/.env src/a.db.audit-key audit.key deploy/secrets/audit_key deploy/octopus.env target/dist/octopus; do
    mkdir -p "$tree/$(dirname "$secret")"
    echo secret >"$tree/$secret"
  done
  receive_context "$tree"
  [ -e "$rootfs/src/main.rs" ] || fail 'the sources are not in the build context'
  leaked=$(grep -rlx secret "$rootfs" || true)
  [ -z "$leaked" ] || fail "in the build context: $leaked"
  say 'no secret in the build context'
  if [ "$only" = context ]; then
    check_manifest "$tree"
    say "the build context has every target of the manifest${program:+ and every source of $program}"
  fi
  remove_context
}

[ "$engine" = docker ] || [ "$(id -u)" = 0 ] || fail 'buildah requires root'
[ "$only" = build ] || check_context
[ "$only" != context ] || exit 0

if [ "$only" != test ]; then
  if [ "$engine" = buildah ]; then
    buildah images --quiet "docker.io/library/$base" >/dev/null 2>&1 || make_base
  fi
  say "building $image with $engine"
  "${engine}_build" "$image" Dockerfile .
fi
[ "$only" != build ] || exit 0

"${engine}_rootfs" "$image"
find "$rootfs" -xdev -type f -printf '%9s /%P\n' | sort -k 2
size=$(du -sb "$rootfs" | cut -f 1)
[ "$size" -lt "$limit" ] || fail "the image has $size bytes; it must have fewer than $limit"
programs=$(find "$rootfs" -type f -path '*bin/*' -printf '/%P\n')
[ "$programs" = "$binary" ] || fail "programs in the image: $programs"
say "size: $size bytes; no program but $binary, no shell"
[ -z "$extract" ] || install -D "$rootfs$binary" "$extract"

"${engine}_start"
for _ in {1..100}; do
  if curl -fs "http://127.0.0.1:$port/health" >/dev/null; then break; fi
  sleep 0.1
done
uid=$("${engine}_uid")
[ "$uid" = "$user" ] || fail "the program runs as user $uid, not $user"
"${engine}_exec" "$binary" healthcheck || fail 'the health check failed'
say "runs as user $user, healthy"
OCTOPUS_URL=http://127.0.0.1:$port ci/smoke.sh
"${engine}_stop" || fail 'the container did not stop cleanly'
say 'stopped cleanly'
