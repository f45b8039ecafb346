//! Lags between the log and the read side. Watchers poll some sessions in Redis, in the
//! history and in the statistics, and note when each event first appears. The lag is the
//! time since the event's `recorded_at`, from the clock of the same machine.
//! `recorded_at` precedes the commit, so the reported lag is at least the lag since the
//! commit. It includes up to one poll interval.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::ensure;
use domain::Timestamp;
use eventlog::clock;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::generator::percentile;

pub const REDIS_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The tables lag by seconds.
pub const TABLE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A watched session.
#[derive(Clone)]
pub struct Watched {
    pub reader: Uuid,
    pub session: String,
}

/// The columns that identify an event in a table.
#[derive(Clone, Copy)]
pub enum Table {
    /// The sequence of the session's last event.
    History,
    /// The time of the session's last observation, in microseconds since 1970.
    Statistics,
}

impl Table {
    const fn query(self) -> &'static str {
        match self {
            Self::History => "select session_id, version from history where session_id = any($1)",
            Self::Statistics => {
                "select session_id, (1000000 * extract(epoch from max(last_at)))::bigint
                from session_days where session_id = any($1) and last_at is not null
                group by session_id"
            }
        }
    }
}

/// Lags of all watched events, in milliseconds.
#[derive(Debug)]
pub struct Lags {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// Polls Redis until `stop` is cancelled.
pub async fn watch_redis(
    url: String,
    watched: Vec<Watched>,
    stop: CancellationToken,
) -> anyhow::Result<Watch> {
    let redis = redis::Client::open(url)?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let mut query = redis::cmd("MGET");
    for Watched { reader, .. } in &watched {
        query.arg(format!("reading_session:active:{reader}"));
    }
    // The third field is the sequence.
    let version = |entry: String| entry.split([' ', '\n']).nth(2)?.parse().ok();
    let mut watch = Watch::default();
    while !stop.is_cancelled() {
        let entries: Vec<Option<String>> = query.query_async(&mut redis).await?;
        let now = clock::now();
        for (watched, entry) in watched.iter().zip(entries) {
            let version = entry.and_then(version).unwrap_or(0);
            watch.note(&watched.session, version, now);
        }
        tokio::time::sleep(REDIS_POLL_INTERVAL).await;
    }
    Ok(watch)
}

/// Polls a read table until `stop` is cancelled.
pub async fn watch_table(
    table: Table,
    pool: PgPool,
    watched: Vec<Watched>,
    stop: CancellationToken,
) -> anyhow::Result<Watch> {
    let sessions: Vec<String> = watched.into_iter().map(|watched| watched.session).collect();
    let mut watch = Watch::default();
    while !stop.is_cancelled() {
        let newest: Vec<(String, i64)> = sqlx::query_as(table.query())
            .bind(&sessions)
            .fetch_all(&pool)
            .await?;
        let now = clock::now();
        for (session, newest) in newest {
            watch.note(&session, newest, now);
        }
        tokio::time::sleep(TABLE_POLL_INTERVAL).await;
    }
    Ok(watch)
}

/// The observations of a watcher for each session: the last event and when it appeared, in
/// order. The first one may have appeared before the watcher started.
#[derive(Debug, Default)]
pub struct Watch(HashMap<String, Vec<(i64, Timestamp)>>);

impl Watch {
    fn note(&mut self, session: &str, newest: i64, now: Timestamp) {
        if let Some(seen) = self.0.get_mut(session) {
            if seen.last().is_none_or(|(last, _)| *last < newest) {
                seen.push((newest, now));
            }
        } else {
            self.0.insert(session.to_owned(), vec![(newest, now)]);
        }
    }

    /// The time at which an event appeared. `None` if it did not, or appeared before the
    /// watcher started.
    fn appeared(&self, session: &str, event: i64) -> Option<Timestamp> {
        let seen = self.0.get(session)?;
        let n = seen.iter().position(|(newest, _)| *newest >= event)?;
        (n > 0).then(|| seen[n].1)
    }

    /// The lags of the updates that `table` has shown, which must be `expected`.
    pub async fn lags(&self, pool: &PgPool, table: Table, expected: usize) -> anyhow::Result<Lags> {
        let sessions: Vec<&String> = self.0.keys().collect();
        let updates: Vec<(String, i64, i64, Timestamp)> = sqlx::query_as(
            "select aggregate_id, sequence,
                (1000000 * extract(epoch from (payload ->> 'occurred_at')::timestamptz))::bigint,
                recorded_at
            from events where aggregate_id = any($1) and event_type = 'PositionUpdated'",
        )
        .bind(sessions)
        .fetch_all(pool)
        .await?;
        let mut micros = Vec::with_capacity(updates.len());
        for (session, sequence, occurred_at, recorded_at) in updates {
            let event = match table {
                Table::History => sequence,
                Table::Statistics => occurred_at,
            };
            if let Some(at) = self.appeared(&session, event) {
                let lag = (at - recorded_at).num_microseconds().unwrap_or(i64::MAX);
                micros.push(u32::try_from(lag.max(0)).unwrap_or(u32::MAX));
            }
        }
        ensure!(
            micros.len() == expected,
            "the watcher has seen {} of {expected} updates",
            micros.len()
        );
        Ok(Lags::new(micros))
    }
}

impl Lags {
    pub fn new(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        Self {
            p50: percentile(&micros, 50),
            p99: percentile(&micros, 99),
            max: percentile(&micros, 100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_appear_with_the_first_newer_one() {
        let start = clock::now();
        let at = |ms| start + chrono::TimeDelta::milliseconds(ms);
        let mut watch = Watch::default();
        for (newest, ms) in [(1, 0), (1, 5), (4, 10), (4, 15), (5, 20)] {
            watch.note("s", newest, at(ms));
        }
        let appeared = |event| watch.appeared("s", event);
        assert_eq!(appeared(1), None, "before the watcher started");
        assert_eq!(appeared(2), Some(at(10)));
        assert_eq!(appeared(4), Some(at(10)));
        assert_eq!(appeared(5), Some(at(20)));
        assert_eq!(appeared(6), None, "not yet");
        assert_eq!(watch.appeared("other", 1), None);
    }

    #[test]
    fn lags_are_percentiles_in_milliseconds() {
        let lags = Lags::new((1..=100).rev().map(|ms| ms * 1_000).collect());
        assert!((lags.p50 - 51.0).abs() < f64::EPSILON);
        assert!((lags.p99 - 100.0).abs() < f64::EPSILON);
        assert!((lags.max - 100.0).abs() < f64::EPSILON);
    }
}
