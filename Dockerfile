# One image for all roles; each container runs one: `docker run IMAGE serve --role api`.
# It needs BuildKit for the cache mounts. The build downloads only crates, the base
# images and the package tzdata. The digest after each image is that of its tag;
# `make pin` writes the current ones.

# The same Debian release as the final image, so that the glibc versions match.
FROM rust:1.95-trixie@sha256:f49565f188ee00bc2a18dd418183f2c5f23ef7d6e691890517ed341a598f67c3 AS build
WORKDIR /src
# sqlx checks queries against the committed .sqlx, so no database is needed.
ENV SQLX_OFFLINE=true CARGO_INCREMENTAL=0
COPY . .
# The cache mounts keep downloaded crates and compiled dependencies between builds.
# Cargo detects changes by timestamp, and an older checkout may be built after a
# newer one. `touch` therefore forces a compilation of the workspace's own crates.
# `make profile` measures what the service runs under load. With its file the compiler
# optimises for that (profile-guided optimisation). The compiler finds functions in the
# file only if both builds use `--target`. Cargo compiles all crates again if the path of
# the file changes, so the path contains a checksum.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    host=$(rustc -vV | sed -n 's/^host: //p') \
    && find . -path ./target -prune -o -type f -exec touch {} + \
    && if [ -f .profile/service.profdata ]; then \
        profile=/tmp/$(sha256sum .profile/service.profdata | cut -c 1-16).profdata \
        && cp .profile/service.profdata "$profile" \
        && export RUSTFLAGS="-Cprofile-use=$profile"; \
    fi \
    && cargo build --locked --release --target "$host" --package server \
        --no-default-features --bin reading-sessions \
    && cp "target/$host/release/reading-sessions" /usr/local/bin/

FROM debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
LABEL org.opencontainers.image.title="Reading Sessions" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Certificate authorities, for TLS connections to servers.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# Time zone rules. The executable contains a copy, and uses these where they are newer.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tzdata \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin reading
COPY --from=build /usr/local/bin/reading-sessions /usr/local/bin/
# Memory, because the root file system may be read-only. A heap profile needs a file.
ENV TMPDIR=/dev/shm
# Other containers connect to this one's own address, so loopback is not enough.
ENV HTTP_ADDR=0.0.0.0:8080 ADMIN_ADDR=0.0.0.0:8081 LOG_FORMAT=json
EXPOSE 8080 8081
USER 10001:10001
ENTRYPOINT ["reading-sessions"]
CMD ["serve"]
