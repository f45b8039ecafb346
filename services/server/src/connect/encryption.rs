//! Which connections to servers the settings encrypt and verify. This module opens
//! no connection.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::anyhow;
use api::secret::Secret;
use redis::ConnectionAddr;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{nats, redis as redis_client};
use crate::config::{DatabaseArgs, NatsArgs, RedisArgs, ServeArgs, TraceArgs};

/// How the connection to one server is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// It is encrypted, and the certificate of the server is verified.
    Verified,
    /// It does not leave this machine.
    Local,
    /// It leaves this machine without encryption or verification. Contains the
    /// problem and the setting to change.
    Weak(String),
}

/// Logs a warning for each server whose connection leaves this machine without
/// encryption or verification.
pub(crate) fn log_weak(args: &ServeArgs) {
    let mut links = vec![("Postgres", postgres(&args.database))];
    if let Ok(Some(url)) = args.replica.url() {
        links.push(("Postgres replica", postgres_at("DATABASE_READ_URL", &url)));
    }
    links.extend(others(&args.nats, &args.redis));
    for (server, protection) in links {
        // The error of an invalid address ends the process later.
        if let Ok(Protection::Weak(problem)) = protection {
            tracing::warn!(server, "{problem}");
        }
    }
    if let Some(problem) = weak_headers(&args.traces) {
        tracing::warn!("{problem}");
    }
}

/// The protection of the connection to each server with a valid address.
pub(crate) fn by_server(
    database: &DatabaseArgs,
    nats: &NatsArgs,
    redis: &RedisArgs,
) -> Vec<(&'static str, Protection)> {
    let mut links = vec![("Postgres", postgres(database))];
    links.extend(others(nats, redis));
    links
        .into_iter()
        .filter_map(|(server, protection)| Some((server, protection.ok()?)))
        .collect()
}

fn others(nats: &NatsArgs, redis: &RedisArgs) -> Vec<(&'static str, anyhow::Result<Protection>)> {
    vec![("NATS", nats_servers(nats)), ("Redis", redis_server(redis))]
}

fn postgres(args: &DatabaseArgs) -> anyhow::Result<Protection> {
    postgres_at("DATABASE_URL", &args.url()?)
}

fn postgres_at(setting: &str, url: &Secret) -> anyhow::Result<Protection> {
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| anyhow!("not an address of Postgres: {}", url.redacted_url()))?;
    let problem = match options.get_ssl_mode() {
        PgSslMode::VerifyFull => return Ok(Protection::Verified),
        PgSslMode::VerifyCa => {
            "is encrypted, but any host with a certificate of the authority \
                                is accepted"
        }
        PgSslMode::Require => "is encrypted, but the server is not verified",
        PgSslMode::Prefer => {
            "is encrypted only if the server offers it, and the server is not \
                              verified"
        }
        PgSslMode::Allow | PgSslMode::Disable => "is not encrypted",
    };
    let host = options.get_host();
    if options.get_socket().is_some() || host.starts_with('/') || is_loopback(host) {
        return Ok(Protection::Local);
    }
    Ok(Protection::Weak(format!(
        "the connection to Postgres at {host}:{} {problem}; set sslmode=verify-full in {setting}",
        options.get_port()
    )))
}

fn nats_servers(args: &NatsArgs) -> anyhow::Result<Protection> {
    let addresses = nats::addresses(args)?;
    if nats::requires_tls(args, &addresses) {
        return Ok(Protection::Verified);
    }
    if addresses.iter().all(|address| is_loopback(address.host())) {
        return Ok(Protection::Local);
    }
    Ok(Protection::Weak(format!(
        "the connection to NATS at {} is encrypted only if the server requires it; begin the \
         addresses in NATS_URL with tls://",
        nats::hosts(&addresses)
    )))
}

fn redis_server(args: &RedisArgs) -> anyhow::Result<Protection> {
    Ok(match redis_client::address(&args.url()?)? {
        ConnectionAddr::TcpTls { .. } => Protection::Verified,
        ConnectionAddr::Tcp(host, port) if !is_loopback(&host) => Protection::Weak(format!(
            "the connection to Redis at {host}:{port} is not encrypted; begin REDIS_URL with \
             rediss://"
        )),
        _ => Protection::Local,
    })
}

/// The headers for the collector of traces are secret. Its spans need no encryption, because
/// they contain no data of readers.
fn weak_headers(args: &TraceArgs) -> Option<&'static str> {
    // The error of a wrong setting ends the process later.
    let (url, headers) = (args.endpoint().ok()??, args.headers().ok()?);
    let is_encrypted = url.scheme() == "https" || url.host_str().is_some_and(is_loopback);
    (!is_encrypted && !headers.is_empty()).then_some(
        "the headers for the collector of traces are not encrypted; begin \
         OTEL_EXPORTER_OTLP_ENDPOINT with https://",
    )
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(url: &str) -> Secret {
        Secret::from(url.to_owned())
    }

    fn of_redis(url: &str) -> Protection {
        let redis_url = Some(secret(url));
        redis_server(&RedisArgs {
            redis_url,
            ..RedisArgs::default()
        })
        .unwrap()
    }

    fn of_nats(url: &str) -> Protection {
        let nats_url = Some(secret(url));
        nats_servers(&NatsArgs {
            nats_url,
            ..NatsArgs::default()
        })
        .unwrap()
    }

    fn of_postgres(url: &str) -> Protection {
        postgres_at("DATABASE_READ_URL", &secret(url)).unwrap()
    }

    fn is_weak(protection: &Protection) -> bool {
        matches!(protection, Protection::Weak(_))
    }

    #[test]
    fn remote_postgres_needs_verify_full() {
        let remote = "postgres://app:s3cret@db.example/reading";
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let protection = of_postgres(&format!("{remote}?sslmode={mode}"));
            assert!(is_weak(&protection), "{mode}: {protection:?}");
        }
        let verified = of_postgres(&format!("{remote}?sslmode=verify-full"));
        assert_eq!(verified, Protection::Verified);
        let Protection::Weak(problem) = of_postgres(remote) else {
            panic!("the default verifies nothing");
        };
        assert!(problem.contains("db.example:5432"), "{problem}");
        assert!(problem.contains("DATABASE_READ_URL"), "{problem}");
        assert!(!problem.contains("s3cret"), "{problem}");
    }

    #[test]
    fn loopback_and_unix_sockets_need_no_encryption() {
        for url in [
            "postgres://app@localhost/reading",
            "postgres://app@127.8.0.1:5433/reading",
            "postgres://app@[::1]/reading",
            "postgres://app@%2Fvar%2Frun%2Fpostgresql/reading",
            "postgres:///reading?host=/var/run/postgresql",
        ] {
            assert_eq!(of_postgres(url), Protection::Local, "{url}");
        }
        for url in [
            "redis://localhost",
            "redis://[::1]:6379",
            "unix:///run/redis",
        ] {
            assert_eq!(of_redis(url), Protection::Local, "{url}");
        }
        assert_eq!(
            of_nats("nats://127.0.0.1,nats://[::1]:4223"),
            Protection::Local
        );
    }

    #[test]
    fn remote_redis_and_nats_need_tls() {
        for url in ["redis://:s3cret@cache.example", "redis://192.0.2.1:6379/0"] {
            assert!(is_weak(&of_redis(url)), "{url}");
        }
        assert_eq!(of_redis("rediss://cache.example"), Protection::Verified);
        for url in [
            "nats://nats.example",
            "nats://localhost,nats://nats.example:4222",
            "localhost.example:4222",
        ] {
            assert!(is_weak(&of_nats(url)), "{url}");
        }
        // One encrypted address makes the client encrypt all.
        let mixed = "nats://a.example,tls://b.example";
        assert_eq!(of_nats(mixed), Protection::Verified);
    }
}
