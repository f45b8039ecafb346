//! The client of NATS, and log lines about its connection.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::{ConnectOptions, Event, ServerAddr, jetstream};
use eventlog::health::{Failure, HealthFlag, HealthRegistry};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::nats_permissions;
use crate::config::NatsArgs;

/// The client reconnects after two missed pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(3);

/// Published messages that wait for an acknowledgement at most.
const MAX_UNACKNOWLEDGED: usize = 1_024;

/// A client of `JetStream`. NATS need not run yet: the client connects in the
/// background and retries without end.
///
/// # Errors
/// When the address is missing or invalid.
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
    async {
        let address = address(args)?;
        let client = options(&address, refused)
            .connect(address)
            .await
            .context("cannot create a client of NATS")?;
        Ok(jetstream::ContextBuilder::new()
            .timeout(JETSTREAM_TIMEOUT)
            .ack_timeout(JETSTREAM_TIMEOUT)
            .max_ack_inflight(MAX_UNACKNOWLEDGED)
            .build(client))
    }
    .boxed()
}

/// Connects once, to report why NATS is unreachable: the client of [`jetstream`]
/// retries without end.
///
/// # Errors
/// When the address is missing or invalid, or NATS refuses the connection or does
/// not respond.
pub(crate) async fn check_nats(args: &NatsArgs) -> anyhow::Result<()> {
    let address = address(args)?;
    let (host, port) = (address.host().to_owned(), address.port());
    let client = credentials(&address).connect(address).await;
    let client = client.with_context(|| format!("cannot connect to NATS at {host}:{port}"))?;
    // Only closes the connection.
    let _ = client.drain().await;
    Ok(())
}

fn address(args: &NatsArgs) -> anyhow::Result<ServerAddr> {
    let url = args.url()?;
    ServerAddr::from_str(url.expose())
        .map_err(|_| anyhow!("NATS_URL is not an address of NATS: {}", url.redacted_url()))
}

fn credentials(address: &ServerAddr) -> ConnectOptions {
    // The client ignores credentials in the address.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    options.name("reading-sessions")
}

fn options(address: &ServerAddr, refused: HealthFlag) -> ConnectOptions {
    let log = ConnectionLog::new(address);
    credentials(address)
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
    /// Host and port, without credentials.
    address: String,
    /// The last logged error, empty if there was none yet; `None` while
    /// connected.
    outage: Mutex<Option<String>>,
}

impl ConnectionLog {
    fn new(address: &ServerAddr) -> Self {
        Self {
            address: format!("{}:{}", address.host(), address.port()),
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
                let error = error.to_string();
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
