# One image, a role per container: `docker run IMAGE serve --role api`.
# Needs BuildKit, for the cache mounts; nothing but crates.io and the base
# images is fetched.

# The same Debian as below, for the same glibc.
FROM rust:1.95-trixie AS build
WORKDIR /src
# Queries are checked against the committed .sqlx: no database is needed.
ENV SQLX_OFFLINE=true CARGO_INCREMENTAL=0
COPY . .
# Crates and compiled dependencies stay in the cache mounts from one build to
# the next. Cargo tells by time stamps what has changed, and an older checkout
# may come after a newer one: what is ours is always compiled.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --locked --release --package services --bin reading-sessions \
    && cp target/release/reading-sessions /usr/local/bin/

FROM debian:trixie-slim
LABEL org.opencontainers.image.title="Reading Sessions" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Certificate authorities, for servers that are reached by TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin reading
COPY --from=build /usr/local/bin/reading-sessions /usr/local/bin/
# Others reach a container by its own address, never by loopback.
ENV HTTP_ADDR=0.0.0.0:8080 ADMIN_ADDR=0.0.0.0:8081 LOG_FORMAT=json
EXPOSE 8080 8081
USER 10001:10001
ENTRYPOINT ["reading-sessions"]
CMD ["serve"]
