#!/usr/bin/env bash
# Builds the image for real, looks at what is in it, starts it and takes scripts/smoke.sh's walk through it.
#
#   scripts/container.sh
#
# With a Docker engine that is `docker build` and `docker run`. Without one it is buildah, as root (apt-get install buildah
# debootstrap): the base image is then made here, of Debian and this machine's Rust toolchain, under its official name. It and
# the layer of dependencies stay in buildah's storage, so the next run is quick. That storage has the driver vfs, which works
# everywhere but copies the whole tree for each layer: STORAGE_DRIVER=overlay is lighter where the kernel lets you, and
# `buildah --storage-driver vfs rmi --all` gives the room back.
# PORT is the first port to try (8080), DEBIAN_MIRROR where debootstrap looks.
set -euo pipefail
cd "$(dirname "$0")/.."

image=octopus limit=30000000 user=10001 binary=/usr/local/bin/octopus
base=$(sed -n 's/^FROM \(rust:[^ ]*\) AS build$/\1/p' Dockerfile)
port=${PORT:-8080}
while (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done

work=$(mktemp -d)
touch "$work/log"
container='' pid='' engine=buildah
if docker info >/dev/null 2>&1; then engine=docker; fi

say() { printf '== %s\n' "$*"; }
fail() {
  printf 'container.sh: %s\n' "$*" >&2
  exit 1
}

buildah() { BUILDAH_ISOLATION=chroot command buildah --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"; }

# What differs between the two engines.

docker_build() { docker build --tag "$1" --file "$2" "$3"; }
docker_rootfs() { # the files of an image, unpacked
  local made
  made=$(docker create "$1" /none)
  mkdir "$work/rootfs"
  docker export "$made" | tar -x -C "$work/rootfs"
  docker rm --volumes "$made" >/dev/null
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
docker_forget() { docker rmi --force "$1" >/dev/null; }

buildah_build() { # the certificates this machine trusts are the ones its network needs
  buildah bud --layers --pull=never --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --tag "$1" --file "$2" "$3"
}
buildah_rootfs() {
  container=$(buildah from --pull=never "localhost/$1")
  rootfs=$(buildah mount "$container")
}
buildah_start() { # the network is the host's, and an unprivileged user may not take port 80 of that
  buildah run --env "PORT=$port" "$container" -- "$binary" >"$work/log" 2>&1 &
  runner=$!
  for _ in {1..100}; do
    pid=$runner
    while child=$(pgrep -P "$pid" | head -n 1) && [ -n "$child" ]; do pid=$child; done
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = octopus ]; then return; fi
    sleep 0.1
  done
  fail "it did not start: $(cat "$work/log")"
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
buildah_forget() { buildah rmi --force "$1" >/dev/null; }

make_base() {
  local rust made root sysroot bin
  rust=${base#rust:} rust=${rust%%-*}
  case $(rustc --version) in
    "rustc $rust".*) ;;
    *) fail "$base needs Rust $rust here, this is $(rustc --version)" ;;
  esac
  say "making $base"
  made=$(buildah from scratch)
  container=$made
  root=$(buildah mount "$made")
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
    --label org.opencontainers.image.description="stand-in for $base, made by scripts/container.sh" "$made"
  buildah commit --quiet --rm "$made" "docker.io/library/$base" >/dev/null
  container=''
}

finish() {
  status=$?
  if [ "$status" != 0 ] && [ -n "$container" ]; then "${engine}_log" >&2 || true; fi
  if [ -n "$container" ]; then "${engine}_remove" || true; fi
  rm -rf "$work"
}
trap finish EXIT

if [ "$engine" = buildah ]; then
  [ "$(id -u)" = 0 ] || fail 'buildah needs root here'
  buildah images --quiet "docker.io/library/$base" >/dev/null 2>&1 || make_base
fi

say "building $image with $engine"
"${engine}_build" "$image" Dockerfile .

# A context with secrets lying in it, and everything of it that the builder gets to see.
mkdir -p "$work/context/.git"
cp -r .dockerignore Cargo.* src migrations "$work/context"
for secret in .env .env.local .git/config chat_conversations.db src/.env src/a.db src/a.db-wal migrations/a.db.backup src/a.db.audit-key audit.key target; do
  echo secret >"$work/context/$secret"
done
printf 'FROM scratch\nCOPY . /\n' >"$work/Dockerfile"
"${engine}_build" octopus-context "$work/Dockerfile" "$work/context" >/dev/null
"${engine}_rootfs" octopus-context
[ -e "$rootfs/src/main.rs" ] || fail 'the sources are not in the context'
leaked=$(grep -rlx secret "$rootfs" || true)
[ -z "$leaked" ] || fail "in the build context: $leaked"
if [ "$engine" = buildah ]; then buildah_remove; else rm -rf "$rootfs"; fi
container=''
"${engine}_forget" octopus-context
say 'no secret in the build context'

"${engine}_rootfs" "$image"
find "$rootfs" -xdev -type f -printf '%9s /%P\n' | sort -k 2
size=$(du -sb "$rootfs" | cut -f 1)
[ "$size" -lt "$limit" ] || fail "the image has $size bytes, $limit are too many"
programs=$(find "$rootfs" -type f -path '*bin/*' -printf '/%P\n')
[ "$programs" = "$binary" ] || fail "programs in the image: $programs"
say "size: $size bytes; no program but $binary, no shell"

"${engine}_start"
for _ in {1..100}; do
  if curl -fs "http://127.0.0.1:$port/health" >/dev/null; then break; fi
  sleep 0.1
done
uid=$("${engine}_uid")
[ "$uid" = "$user" ] || fail "it runs as user $uid"
"${engine}_exec" "$binary" healthcheck || fail 'the health check fails'
say "runs as user $user, healthy"
OCTOPUS_URL=http://127.0.0.1:$port scripts/smoke.sh
"${engine}_stop" || fail 'it did not stop cleanly'
say 'stopped cleanly'
