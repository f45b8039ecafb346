//! Lags between the log and the read side. Two watchers poll some sessions in Redis and
//! in the read table, and note when each version first appears. The lag is the time
//! since the event's `recorded_at`, from the clock of the same machine. `recorded_at`
//! precedes the commit, so the reported lag is at least the lag since the commit. It
//! includes up to one poll interval.

use std::collections::HashMap;
use std::time::Duration;

use domain::Timestamp;
use eventlog::clock;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::generator::percentile;

pub const REDIS_POLL_INTERVAL: Duration = Duration::from_millis(2);
pub const TABLE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Session id, version, and the time at which the version was first seen.
type Seen = Vec<(String, i64, Timestamp)>;

/// A watched session.
pub struct Watched {
    pub reader: Uuid,
    pub session: String,
}

/// Percentiles of lags, in milliseconds.
pub struct Lags {
    /// The number of versions seen.
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
}

/// Polls Redis until `stop` is cancelled.
pub async fn watch_redis(
    url: String,
    watched: Vec<Watched>,
    stop: CancellationToken,
) -> anyhow::Result<Seen> {
    let redis = redis::Client::open(url)?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let mut query = redis::cmd("MGET");
    for Watched { reader, .. } in &watched {
        query.arg(format!("reading_session:active:{reader}"));
    }
    // The third field is the sequence.
    let version = |entry: String| entry.split([' ', '\n']).nth(2)?.parse().ok();
    let mut seen = Watch::default();
    while !stop.is_cancelled() {
        let entries: Vec<Option<String>> = query.query_async(&mut redis).await?;
        let now = clock::now();
        for (watched, entry) in watched.iter().zip(entries) {
            let version = entry.and_then(version).unwrap_or(0);
            seen.note(&watched.session, version, now);
        }
        tokio::time::sleep(REDIS_POLL_INTERVAL).await;
    }
    Ok(seen.seen)
}

/// Polls the read table until `stop` is cancelled.
pub async fn watch_table(
    pool: PgPool,
    watched: Vec<Watched>,
    stop: CancellationToken,
) -> anyhow::Result<Seen> {
    let sessions: Vec<String> = watched.into_iter().map(|watched| watched.session).collect();
    let mut seen = Watch::default();
    while !stop.is_cancelled() {
        let versions: Vec<(String, i64)> =
            sqlx::query_as("select session_id, version from history where session_id = any($1)")
                .bind(&sessions)
                .fetch_all(&pool)
                .await?;
        let now = clock::now();
        for (session, version) in versions {
            seen.note(&session, version, now);
        }
        tokio::time::sleep(TABLE_POLL_INTERVAL).await;
    }
    Ok(seen.seen)
}

/// The newest version of each session, and all versions seen.
#[derive(Default)]
struct Watch {
    newest: HashMap<String, i64>,
    seen: Seen,
}

impl Watch {
    /// Records a version, and all versions since the previous one.
    fn note(&mut self, session: &str, version: i64, now: Timestamp) {
        let Some(newest) = self.newest.get_mut(session) else {
            // The first version may have appeared before the watcher started.
            self.newest.insert(session.to_owned(), version);
            return;
        };
        for version in *newest + 1..=version {
            self.seen.push((session.to_owned(), version, now));
        }
        *newest = version.max(*newest);
    }
}

/// Computes the lags of the seen versions.
pub async fn lags(pool: &PgPool, seen: Seen) -> anyhow::Result<Lags> {
    let (sessions, versions): (Vec<String>, Vec<i64>) = seen
        .iter()
        .map(|(session, version, _)| (session.clone(), *version))
        .unzip();
    let recorded: Vec<(String, i64, Timestamp)> = sqlx::query_as(
        "select aggregate_id, sequence, recorded_at from events
        join unnest($1::text[], $2::bigint[]) as seen (session_id, version)
            on aggregate_id = seen.session_id and sequence = seen.version",
    )
    .bind(sessions)
    .bind(versions)
    .fetch_all(pool)
    .await?;
    let recorded: HashMap<(String, i64), Timestamp> = recorded
        .into_iter()
        .map(|(session, version, at)| ((session, version), at))
        .collect();
    let mut micros = Vec::with_capacity(seen.len());
    for (session, version, at) in seen {
        if let Some(recorded) = recorded.get(&(session, version)) {
            let lag = (at - *recorded).num_microseconds().unwrap_or(i64::MAX);
            micros.push(u32::try_from(lag.max(0)).unwrap_or(u32::MAX));
        }
    }
    micros.sort_unstable();
    Ok(Lags {
        count: micros.len(),
        p50: percentile(&micros, 50),
        p99: percentile(&micros, 99),
    })
}
