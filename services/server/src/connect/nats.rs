//! The client of NATS, and log lines about its connection.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use api::secret::Secret;
use async_nats::{ConnectOptions, Event, ServerAddr, jetstream};
use eventlog::error::error_chain;
use eventlog::health::{Failure, HealthFlag, HealthRegistry};
use futures::FutureExt;
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;

use super::nats_permissions;
use super::tls::{self, TlsSettings};
use crate::config::{NatsArgs, Role, ServeArgs};

/// The client reconnects after two missed pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The prefix of the inboxes of a process that neither publishes nor consumes the stream; see
/// nats/server.conf.
const API_INBOX: &str = "_INBOX_api";

const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(3);

/// Published messages that wait for an acknowledgement at most.
const MAX_UNACKNOWLEDGED: usize = 1_024;

const TLS: TlsSettings = TlsSettings {
    server: "NATS",
    url: "NATS_URL",
    authorities: "NATS_CA_FILE",
    client: "NATS_CERT_FILE and NATS_KEY_FILE",
    enable: "begin the addresses in NATS_URL with tls://",
    disable: "begin the addresses in NATS_URL with nats:// and remove NATS_CA_FILE and \
              NATS_CERT_FILE",
};

/// A client of `JetStream`. NATS need not run yet: the client connects in the
/// background and retries without end.
///
/// # Errors
/// When an address is missing or invalid, or a file with credentials or certificates
/// cannot be read.
#[must_use]
pub fn jetstream(args: &NatsArgs) -> BoxFuture<'_, anyhow::Result<jetstream::Context>> {
    let unread = HealthRegistry::default().register(Failure::NatsPermissionRefused);
    jetstream_with_health(args, unread)
}

/// Like [`jetstream`]. `refused` receives the permissions that NATS refuses.
#[must_use]
pub fn jetstream_with_health(
    args: &NatsArgs,
    refused: HealthFlag,
) -> BoxFuture<'_, anyhow::Result<jetstream::Context>> {
    connect(args, None, refused).boxed()
}

/// The client of a process with roles. A process that only serves requests and runs jobs has
/// inboxes of its own: its user can read the responses to its requests and no others.
#[must_use]
pub fn service_jetstream(
    args: &ServeArgs,
    refused: HealthFlag,
) -> BoxFuture<'_, anyhow::Result<jetstream::Context>> {
    let consumes = args.has(Role::Relay) || args.has(Role::Projections);
    let inbox = (!consumes).then_some(API_INBOX);
    connect(&args.nats, inbox, refused).boxed()
}

async fn connect(
    args: &NatsArgs,
    inbox: Option<&str>,
    refused: HealthFlag,
) -> anyhow::Result<jetstream::Context> {
    let addresses = addresses(args)?;
    let mut options = options(args, &addresses)?;
    if let Some(inbox) = inbox {
        options = options.custom_inbox_prefix(inbox);
    }
    let client = reconnecting(options, &addresses, refused)
        .connect(addresses)
        .await
        .context("cannot create a client of NATS")?;
    Ok(jetstream::ContextBuilder::new()
        .timeout(JETSTREAM_TIMEOUT)
        .ack_timeout(JETSTREAM_TIMEOUT)
        .max_ack_inflight(MAX_UNACKNOWLEDGED)
        .build(client))
}

/// Connects once, to report why NATS is unreachable: the client of [`jetstream`]
/// retries without end.
///
/// # Errors
/// Like [`jetstream`], and when NATS refuses the connection or does not respond.
pub(crate) async fn check_nats(args: &NatsArgs) -> anyhow::Result<()> {
    let addresses = addresses(args)?;
    let options = options(args, &addresses)?;
    let hosts = hosts(&addresses);
    let client = options.connect(addresses).await.map_err(|error| {
        let cause = tls::with_advice(&error_chain(&error), TLS);
        anyhow!("cannot connect to NATS at {hosts}: {cause}")
    })?;
    // Only closes the connection.
    let _ = client.drain().await;
    Ok(())
}

/// The addresses of the servers of one cluster, at least one.
///
/// # Errors
/// When no address is set, or one is invalid.
pub(super) fn addresses(args: &NatsArgs) -> anyhow::Result<Vec<ServerAddr>> {
    let parse = |url: Secret| {
        ServerAddr::from_str(url.expose())
            .ok()
            .filter(|address| matches!(address.scheme(), "nats" | "tls"))
            .filter(|address| !address.host().is_empty())
            .ok_or_else(|| anyhow!("NATS_URL is not an address of NATS: {}", url.redacted_url()))
    };
    args.addresses()?.into_iter().map(parse).collect()
}

/// Hosts and ports, without credentials.
pub(super) fn hosts(addresses: &[ServerAddr]) -> String {
    let hosts = addresses
        .iter()
        .map(|address| format!("{}:{}", address.host(), address.port()));
    hosts.collect::<Vec<_>>().join(", ")
}

/// Whether the client refuses connections without TLS. One `tls://` is enough: the
/// client also connects to servers that the cluster reports, without a scheme.
pub(super) fn requires_tls(args: &NatsArgs, addresses: &[ServerAddr]) -> bool {
    args.nats_ca_file.is_some()
        || args.nats_cert_file.is_some()
        || addresses.iter().any(ServerAddr::tls_required)
}

/// The client reads the files with certificates at each connection. They are read
/// here too, because the client trusts no authority if a file has no certificate.
fn options(args: &NatsArgs, addresses: &[ServerAddr]) -> anyhow::Result<ConnectOptions> {
    let mut options = authenticated(args, addresses)?
        .name("reading-sessions")
        .require_tls(requires_tls(args, addresses));
    if let Some(file) = &args.nats_ca_file {
        tls::read_certificates(file, "NATS_CA_FILE")?;
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(certificate), Some(key)) = (&args.nats_cert_file, &args.nats_key_file) {
        tls::read_certificates(certificate, "NATS_CERT_FILE")?;
        tls::read_key(key, "NATS_KEY_FILE")?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// The client ignores credentials in an address, and has one user for all servers.
fn authenticated(args: &NatsArgs, addresses: &[ServerAddr]) -> anyhow::Result<ConnectOptions> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut users = addresses.iter().filter_map(|address| {
        let (user, password) = (address.username()?, address.password()?);
        Some((decoded(user), decoded(password)))
    });
    let user = users.next();
    if users.any(|other| Some(&other) != user.as_ref()) {
        bail!("NATS_URL contains different users; use one user for all addresses");
    }
    match (&args.nats_creds, user) {
        (Some(_), Some(_)) => bail!("NATS_CREDS is set, and NATS_URL contains a user; remove one"),
        (Some(file), None) => {
            let credentials = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {} (NATS_CREDS)", file.display()))?;
            ConnectOptions::with_credentials(&credentials).with_context(|| {
                format!("{} (NATS_CREDS) is not a credentials file", file.display())
            })
        }
        (None, Some((user, password))) => {
            Ok(ConnectOptions::with_user_and_password(user, password))
        }
        (None, None) => Ok(ConnectOptions::new()),
    }
}

fn reconnecting(
    options: ConnectOptions,
    addresses: &[ServerAddr],
    refused: HealthFlag,
) -> ConnectOptions {
    let log = ConnectionLog::new(hosts(addresses));
    options
        .event_callback(move |event| {
            log.record(&event);
            nats_permissions::record(&event, &refused);
            std::future::ready(())
        })
        .ping_interval(PING_INTERVAL)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(100 * u64::try_from(attempt.min(10)).unwrap_or(10))
        })
}

/// Logs when the connection is lost and when it is available again. The client
/// makes up to ten attempts a second, so an attempt is logged only if its error
/// differs from the one before.
struct ConnectionLog {
    /// Hosts and ports, without credentials.
    address: String,
    /// The last logged error, empty if there was none yet; `None` while
    /// connected.
    outage: Mutex<Option<String>>,
}

impl ConnectionLog {
    fn new(address: String) -> Self {
        Self {
            address,
            outage: Mutex::default(),
        }
    }

    fn record(&self, event: &Event) {
        let address = self.address.as_str();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected if outage.take().is_some() => {
                tracing::warn!(address, "NATS available again at {address}");
            }
            Event::Connected => tracing::info!(address, "connected to NATS at {address}"),
            Event::Closed => tracing::debug!(address, "connection to NATS closed"),
            Event::Disconnected => {
                *outage = Some(String::new());
                tracing::warn!(
                    address,
                    "connection to NATS at {address} lost; reconnecting"
                );
            }
            Event::ClientError(error) => {
                let error = tls::with_advice(&error.to_string(), TLS);
                if outage.as_ref() != Some(&error) {
                    tracing::warn!(
                        address,
                        error,
                        "connecting to NATS at {address} failed: {error}; retrying"
                    );
                    *outage = Some(error);
                }
            }
            event => tracing::warn!(address, %event, "NATS client at {address}: {event}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> NatsArgs {
        NatsArgs {
            nats_url: Some(Secret::from(url.to_owned())),
            ..NatsArgs::default()
        }
    }

    fn error(args: &NatsArgs) -> String {
        let options = addresses(args).and_then(|addresses| options(args, &addresses));
        format!("{:#}", options.map(|_| ()).unwrap_err())
    }

    #[test]
    fn addresses_are_separated_by_commas() {
        let list = addresses(&args("tls://a.example, nats://b.example:4223,c.example"));
        assert_eq!(
            hosts(&list.unwrap()),
            "a.example:4222, b.example:4223, c.example:4222"
        );
    }

    #[test]
    fn invalid_address_is_refused_without_its_password() {
        for url in [
            "http://nats.example",
            "nats://a.example,",
            "nats://app:s3cret@a.example:port",
            // The comma in the password should have been percent-encoded.
            "nats://app:12,s3cret@a.example",
            "nats://a.example,app:s3cret@b.example",
        ] {
            let error = error(&args(url));
            assert!(error.contains("NATS_URL is not"), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn addresses_share_one_user() {
        let same = args("nats://app:s3cret@a.example,nats://app:s3cret@b.example,c.example");
        assert!(options(&same, &addresses(&same).unwrap()).is_ok());
        let different = args("nats://app:s3cret@a.example,nats://app:other@b.example");
        assert!(error(&different).contains("one user"));
        let with_file = NatsArgs {
            nats_creds: Some("app.creds".into()),
            ..args("nats://app:s3cret@a.example")
        };
        assert!(error(&with_file).contains("remove one"));
    }

    #[test]
    fn one_encrypted_address_encrypts_all() {
        let requires = |args: &NatsArgs| requires_tls(args, &addresses(args).unwrap());
        assert!(requires(&args("nats://a.example,tls://b.example")));
        assert!(!requires(&args("nats://a.example,nats://b.example")));
        let with_authority = NatsArgs {
            nats_ca_file: Some("ca.pem".into()),
            ..args("nats://a.example")
        };
        assert!(requires(&with_authority));
    }
}
