//! Checks of NATS: the server, the permissions of the relay, the stream, and whether a
//! relay publishes the log.

use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream;
use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use eventlog::health::{Failure, HealthRegistry};
use messaging::relay::{self, Published, RelayError};
use messaging::{Subjects, stream};
use sqlx::PgPool;

use super::super::format::{counted, span};
use super::{Finding, TIMEOUT};
use crate::config::NatsArgs;
use crate::connect;

/// The oldest supported version.
const MIN_NATS: (u64, u64) = (2, 11);

/// Events wait longer only if a relay does not publish them.
const MAX_WAITING: Duration = Duration::from_secs(30);

/// How long no relay may lead: another one takes over in this time.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// `pool` is `None` if Postgres is unavailable.
pub(super) async fn check(args: &NatsArgs, pool: Option<&PgPool>) -> Vec<Finding> {
    if !args.is_set() {
        return vec![Finding::warning("NATS", "NATS_URL is not set; set it")];
    }
    let failures = HealthRegistry::default();
    let refused = failures.register(Failure::NatsPermissionRefused);
    let subjects = Subjects::new(&args.nats_prefix);
    let connect = async {
        connect::check_nats(args).await?;
        let jetstream = connect::jetstream_with_health(args, refused).await?;
        let reached = tokio::time::timeout(TIMEOUT, jetstream.client().flush()).await;
        reached.with_context(|| format!("NATS did not respond in {} s", TIMEOUT.as_secs()))??;
        relay::try_permissions(&jetstream.client(), &subjects)
            .await
            .map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok(jetstream)
    };
    let jetstream = match connect.await {
        Ok(jetstream) => jetstream,
        Err(error) => return vec![Finding::failure("NATS", error_chain(error.as_ref()))],
    };
    let mut findings = vec![
        version(&jetstream),
        event_stream(&jetstream, &subjects).await,
    ];
    if let Some(pool) = pool {
        findings.push(check_relay(&jetstream, &subjects, pool).await);
    }
    // The checks above were answered, or timed out. So NATS has reported each refusal.
    tokio::time::sleep(POLL_INTERVAL).await;
    findings.push(permissions(&failures));
    findings
}

fn version(jetstream: &jetstream::Context) -> Finding {
    let version = jetstream.client().server_info().version;
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    let parsed = (parts.next(), parts.next());
    if matches!(parsed, (Some(a), Some(b)) if (a, b) >= MIN_NATS) {
        Finding::ok("NATS", version)
    } else {
        let (major, minor) = MIN_NATS;
        let details =
            format!("{version} is older than {major}.{minor}: it silently ignores settings");
        Finding::failure("NATS", details)
    }
}

async fn event_stream(jetstream: &jetstream::Context, subjects: &Subjects) -> Finding {
    let name = subjects.stream();
    match stream::find(jetstream, subjects).await {
        Ok(Some(stream)) => {
            let events = counted(stream.cached_info().state.messages, "event", "events");
            Finding::ok("stream", format!("{name} contains {events}"))
        }
        Ok(None) => Finding::warning(
            "stream",
            format!("{name} does not exist; a relay creates it and publishes the log"),
        ),
        Err(error) => Finding::failure("stream", error_chain(&error)),
    }
}

async fn check_relay(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
    pool: &PgPool,
) -> Finding {
    let began_at = Instant::now();
    loop {
        let read = async {
            let mut connection = pool.acquire().await?;
            relay::published(jetstream, subjects, &mut connection).await
        };
        let published = with_deadline(2 * TIMEOUT, read).await;
        let is_changing = matches!(&published, Ok(published) if !published.is_led);
        if is_changing && began_at.elapsed() < TAKEOVER_TIMEOUT {
            tokio::time::sleep(POLL_INTERVAL).await;
            continue;
        }
        return relay_finding(published);
    }
}

fn relay_finding(published: Result<Published, RelayError>) -> Finding {
    match published {
        Err(error) => Finding::failure("relay", format!("cannot publish: {}", error_chain(&error))),
        Ok(Published { is_led: false, .. }) => Finding::failure(
            "relay",
            "no relay publishes; start a process with the role relay, or see its process log",
        ),
        Ok(Published {
            waiting: Some(waiting),
            ..
        }) if waiting > MAX_WAITING => Finding::failure(
            "relay",
            format!(
                "events have waited for {}; see /readyz and the process log of the relay",
                span(waiting)
            ),
        ),
        Ok(published) => Finding::ok(
            "relay",
            format!(
                "has published up to global position {}",
                published.global_position
            ),
        ),
    }
}

fn permissions(failures: &HealthRegistry) -> Finding {
    let refused = failures
        .failures()
        .into_iter()
        .find_map(|(_, reason)| reason);
    match refused {
        Some(reason) => Finding::failure("NATS permissions", reason),
        None => Finding::ok("NATS permissions", "those of a relay are granted"),
    }
}
