# docker build -t octopus . && docker run -p 8000:80 -v octopus:/data octopus
# The volume /data contains the database and the audit key. On Postgres, set AUDIT_KEY or AUDIT_KEY_FILE.
# Requires BuildKit, the default since Docker 23. Without Docker, ci/container.sh builds and tests the image with buildah.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .

# The build caches keep downloads and compiled dependencies, so a change of the sources compiles only Octopus. `cargo clean`
# ensures that it does: cargo compares modification times, and a changed source file may be older than the cache.
# /rootfs gets the program, the loader and the libraries that it links (glibc includes name resolution), and a user.
# /owned gets the data folder, which the user of the service owns.
RUN --mount=type=cache,id=octopus-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=octopus-target,target=/build/target,sharing=locked \
    cargo clean --profile dist --locked --package octopus \
    && cargo build --profile dist --locked \
    && install -D target/dist/octopus /rootfs/usr/local/bin/octopus \
    && ldd target/dist/octopus | grep -o '/[^ ]*' | xargs cp -L --parents -t /rootfs \
    && mkdir -p /rootfs/etc \
    && echo 'octopus:x:10001:10001::/data:/nonexistent' > /rootfs/etc/passwd \
    && echo 'octopus:x:10001:' > /rootfs/etc/group \
    && echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf \
    && install -d -m 1777 /rootfs/tmp \
    && install -d -m 700 /owned/data

FROM scratch
LABEL org.opencontainers.image.title="Octopus" \
      org.opencontainers.image.description="API keys a team can trust, users and conversations, in one self-hosted binary" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /rootfs/ /
COPY --from=build --chown=10001:10001 /owned/ /
ENV HOST=0.0.0.0 \
    PORT=80 \
    DATABASE_URL=sqlite:////data/chat_conversations.db
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 80
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/octopus", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/octopus"]
