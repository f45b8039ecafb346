//! The connection to NATS, and what the log tells of it.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_nats::{Event, ServerAddr, jetstream};

use crate::config::NatsArgs;

/// How soon a connection that is dead is noticed: two missed pings.
const PING: Duration = Duration::from_secs(5);

/// How long JetStream may take to answer.
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(3);

/// JetStream. NATS itself need not be there yet: it is connected to in the
/// background, again and again.
///
/// # Errors
/// When the address is not valid.
pub async fn jetstream(args: &NatsArgs) -> anyhow::Result<jetstream::Context> {
    let url = args.url()?;
    let address = ServerAddr::from_str(url.expose())
        .map_err(|_| anyhow::anyhow!("NATS_URL is not an address of NATS: {}", url.as_address()))?;
    // The client does not take credentials from the address by itself.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => async_nats::ConnectOptions::new(),
    };
    let news = ConnectionLog::of(&address);
    let client = options
        .name("reading-sessions")
        .event_callback(move |event| {
            news.tell(&event);
            std::future::ready(())
        })
        .ping_interval(PING)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(100 * u64::try_from(attempt.min(10)).unwrap_or(10))
        })
        .connect(address.clone())
        .await
        .context("cannot use NATS")?;
    Ok(jetstream::ContextBuilder::new()
        .timeout(JETSTREAM_TIMEOUT)
        .ack_timeout(JETSTREAM_TIMEOUT)
        .max_ack_inflight(1_024)
        .build(client))
}

/// What the log tells of the connection: that it is lost, and that it is back.
/// The client tries to connect up to ten times a second; of that it tells what
/// it did not tell just before.
struct ConnectionLog {
    address: String,
    lost: Mutex<Option<String>>,
}

impl ConnectionLog {
    /// Of a server, by its host and port; credentials are not told.
    fn of(address: &ServerAddr) -> Self {
        Self {
            address: format!("{}:{}", address.host(), address.port()),
            lost: Mutex::default(),
        }
    }

    fn tell(&self, event: &Event) {
        let address = self.address.as_str();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected if lost.take().is_some() => tracing::warn!(address, "NATS is back"),
            Event::Connected => tracing::info!(address, "NATS is connected"),
            Event::Closed => tracing::debug!(address, "NATS is closed"),
            Event::Disconnected => {
                *lost = Some(String::new());
                tracing::warn!(address, "NATS is lost; it is tried again until it is back");
            }
            Event::ClientError(error) => {
                let cause = error.to_string();
                if lost.as_ref() != Some(&cause) {
                    tracing::warn!(address, cause, "NATS cannot be reached");
                    *lost = Some(cause);
                }
            }
            event => tracing::warn!(address, %event, "NATS"),
        }
    }
}
