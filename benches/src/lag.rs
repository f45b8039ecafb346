//! How long an event takes from its row in the log to where it is read. Some
//! sessions are looked up in Redis and in the read table, again and again; when a
//! version is seen for the first time, its event's row says when it was written,
//! by the same machine's clock. That is before its commit, so the lags told are
//! longer than those from the commit on, never shorter; and they are longer by up
//! to the pause between two looks.

use std::collections::HashMap;
use std::time::Duration;

use domain::Timestamp;
use eventlog::clock;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::generator::percentile;

/// The pauses between two looks.
pub const REDIS_PAUSE: Duration = Duration::from_millis(2);
pub const TABLE_PAUSE: Duration = Duration::from_millis(5);

/// When which version of a session was first seen.
type Seen = Vec<(String, i64, Timestamp)>;

/// A session that is watched, and whose it is.
pub struct Watched {
    /// The reader.
    pub reader: Uuid,
    /// The session, as it is written.
    pub session: String,
}

/// Lags of one place, in milliseconds.
pub struct Lags {
    /// How many versions were seen.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// All but one in a hundred are at most this.
    pub p99: f64,
}

/// Looks at Redis until it is told to stop.
pub async fn in_redis(
    url: String,
    watched: Vec<Watched>,
    stop: CancellationToken,
) -> anyhow::Result<Seen> {
    let redis = redis::Client::open(url)?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let mut look = redis::pipe();
    for Watched { reader, .. } in &watched {
        look.hget(format!("reading_session:active:{reader}"), "sequence");
    }
    let mut seen = Watch::default();
    while !stop.is_cancelled() {
        let versions: Vec<Option<i64>> = look.query_async(&mut redis).await?;
        let now = clock::now();
        for (watched, version) in watched.iter().zip(versions) {
            seen.note(&watched.session, version.unwrap_or(0), now);
        }
        tokio::time::sleep(REDIS_PAUSE).await;
    }
    Ok(seen.seen)
}

/// Looks at the read table until it is told to stop.
pub async fn in_table(
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
        tokio::time::sleep(TABLE_PAUSE).await;
    }
    Ok(seen.seen)
}

/// The newest versions, and when they were first seen.
#[derive(Default)]
struct Watch {
    newest: HashMap<String, i64>,
    seen: Seen,
}

impl Watch {
    /// A version also says that those before it are there.
    fn note(&mut self, session: &str, version: i64, now: Timestamp) {
        let Some(newest) = self.newest.get_mut(session) else {
            // What was there before nobody saw come.
            self.newest.insert(session.to_owned(), version);
            return;
        };
        for version in *newest + 1..=version {
            self.seen.push((session.to_owned(), version, now));
        }
        *newest = version.max(*newest);
    }
}

/// The lags of what was seen.
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
