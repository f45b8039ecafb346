//! The client of Redis.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use api::secret::Secret;
use eventlog::error::error_chain;
use projections::cache::{Cache, CacheError};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ClientTlsConfig, ConnectionAddr, ErrorKind, InfoDict, TlsCertificates};

use super::tls::{self, TlsSettings};
use crate::config::RedisArgs;

/// A longer pause between attempts would delay recovery.
const MAX_RECONNECT_DELAY: Duration = Duration::from_millis(500);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// For calls without a shorter deadline of their own.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands that wait for the connection at most.
const MAX_PIPELINED: usize = 1_024;

const TLS: TlsSettings = TlsSettings {
    server: "Redis",
    url: "REDIS_URL",
    authorities: "REDIS_CA_FILE",
    client: "REDIS_CERT_FILE and REDIS_KEY_FILE",
    enable: "begin REDIS_URL with rediss://",
    disable: "begin REDIS_URL with redis://",
};

/// A client of Redis, which need not run yet.
///
/// # Errors
/// When the address is missing or invalid, or a file with certificates cannot be
/// read.
pub fn cache(args: &RedisArgs) -> anyhow::Result<Cache> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(MAX_RECONNECT_DELAY)
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(MAX_PIPELINED);
    let connection = ConnectionManager::new_lazy_with_config(client(args)?, config)
        .context("cannot create a client of Redis")?;
    Ok(Cache::new(connection))
}

/// Returns the output of `INFO`, or why Redis is unreachable and what to do.
///
/// # Errors
/// Like [`cache`], and when Redis refuses the connection or does not respond.
pub(crate) async fn redis_info(args: &RedisArgs, timeout: Duration) -> anyhow::Result<InfoDict> {
    let info = async |mut redis| redis::cmd("INFO").query_async(&mut redis).await;
    let (cache, url) = (cache(args)?, args.url()?);
    let is_plain = !matches!(address(&url)?, ConnectionAddr::TcpTls { .. });
    cache.call(timeout, info).await.map_err(|error| {
        let cause = error_chain(&error);
        let cause = if is_plain && may_require_tls(&error) {
            format!("{cause}; if Redis requires TLS, {}", TLS.enable)
        } else if !is_plain && is_timeout(&error) {
            format!(
                "{cause}; if Redis does not use TLS at this address, {}",
                TLS.disable
            )
        } else {
            tls::with_advice(&cause, TLS)
        };
        anyhow!("cannot connect to Redis at {}: {cause}", url.redacted_url())
    })
}

/// Whether the response to an unencrypted call can be that of a TLS server: a TLS
/// alert, which does not fit the protocol of Redis, or a closed connection.
fn may_require_tls(error: &CacheError) -> bool {
    match error {
        CacheError::Failed(error) => {
            error.kind() == ErrorKind::Parse || error.is_connection_dropped()
        }
        _ => false,
    }
}

/// A server without TLS takes the start of a handshake for an incomplete command,
/// and waits for the rest.
fn is_timeout(error: &CacheError) -> bool {
    match error {
        CacheError::TimedOut(_) => true,
        CacheError::Failed(error) => error.is_timeout(),
        CacheError::Unavailable => false,
    }
}

fn client(args: &RedisArgs) -> anyhow::Result<Client> {
    let url = args.url()?;
    let address = address(&url)?;
    let uses_tls = match &address {
        ConnectionAddr::TcpTls { insecure: true, .. } => bail!(
            "REDIS_URL disables the verification of the server with #insecure; remove it, and set \
             REDIS_CA_FILE to the certificate of the authority"
        ),
        ConnectionAddr::TcpTls { .. } => true,
        _ => false,
    };
    let settings = [
        ("REDIS_CA_FILE", &args.redis_ca_file),
        ("REDIS_CERT_FILE", &args.redis_cert_file),
    ];
    let set = settings.iter().find(|(_, file)| file.is_some());
    if let (Some((setting, _)), false) = (set, uses_tls) {
        bail!(
            "{setting} is set, but REDIS_URL does not encrypt the connection; begin it with \
             rediss://, or remove {setting}"
        );
    }
    let client = if uses_tls {
        Client::build_with_tls(url.expose(), certificates(args)?)
    } else {
        Client::open(url.expose())
    };
    client.context("cannot create a client of Redis")
}

/// The address in a URL.
///
/// # Errors
/// When the text is not an address of Redis.
pub(super) fn address(url: &Secret) -> anyhow::Result<ConnectionAddr> {
    let client = Client::open(url.expose()).map_err(|_| {
        anyhow!(
            "REDIS_URL is not an address of Redis: {}",
            url.redacted_url()
        )
    })?;
    Ok(client.get_connection_info().addr().clone())
}

/// The client reads the files once. A renewed certificate needs a restart.
fn certificates(args: &RedisArgs) -> anyhow::Result<TlsCertificates> {
    let authorities = args.redis_ca_file.as_deref();
    let root_cert = authorities
        .map(|file| tls::read_certificates(file, "REDIS_CA_FILE"))
        .transpose()?;
    let client_tls = match (&args.redis_cert_file, &args.redis_key_file) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: tls::read_certificates(certificate, "REDIS_CERT_FILE")?,
            client_key: tls::read_key(key, "REDIS_KEY_FILE")?,
        }),
        _ => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}
