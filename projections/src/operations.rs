//! Projections by their names: made again from the log, or compared with it,
//! for whoever asks, on the command line or over HTTP. How that is done the
//! projections know; here is only which of them, and with which connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::active_sessions::{self, Rebuilt};
use crate::rebuild::{self, Replayed};
use crate::verify::{self, Compared};
use crate::{ActiveSessions, DailyStats, History, TableProjection, Projection, status, worker};
use clap::ValueEnum;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;

/// How often a replay of the cache says how far it is.
const REPORT: Duration = Duration::from_secs(1);

/// A projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ProjectionName {
    /// All sessions of each reader, and the claims on the active ones.
    History,
    /// Days and hours.
    DailyStats,
    /// The cache in Redis.
    ActiveSessions,
}

impl ProjectionName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::History, Self::DailyStats, Self::ActiveSessions];

    /// As it stands everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::History => History::NAME,
            Self::DailyStats => DailyStats::NAME,
            Self::ActiveSessions => ActiveSessions::NAME,
        }
    }

    /// The projection of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// All names, as a sentence says them.
    #[must_use]
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for ProjectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a replay or a comparison is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationProgress {
    /// Events, or entries of the cache, that it has gone through by itself.
    pub done: u64,
    /// Where it is: as `done`, but with what an earlier one did.
    pub at: u64,
    /// Where it ends, about.
    pub of: u64,
}

/// What a replay did.
#[derive(Clone, Copy, Debug)]
pub enum ReplayResult {
    /// With tables.
    Tables(Replayed),
    /// With the cache.
    Cache(Rebuilt),
}

/// What a comparison came to.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The place in the log at which tables were compared; the entries of the
    /// cache have one each.
    pub position: Option<i64>,
    /// The tables, or the cache.
    pub compared: Vec<Compared>,
    /// Of a cache, how many active sessions it could hold.
    pub of: Option<u64>,
}

/// Opens a pool for one operation.
type OpenPool = Arc<dyn Fn() -> anyhow::Result<PgPool> + Send + Sync>;

/// Opens what an operation needs, when it needs it.
#[derive(Clone)]
pub struct Connections {
    /// For statements that may take any time and name their schemas.
    pub migrations: OpenPool,
    /// For the statements of projection workers.
    pub projections: OpenPool,
    /// As `projections`, with the read tables of another schema.
    pub replay: Arc<dyn Fn(&str) -> anyhow::Result<PgPool> + Send + Sync>,
    pub cache: Arc<dyn Fn() -> anyhow::Result<Cache> + Send + Sync>,
}

/// Replays, comparisons and warm-ups of projections by name.
#[derive(Clone)]
pub struct ProjectionOps {
    connections: Connections,
}

impl ProjectionOps {
    #[must_use]
    pub fn new(connections: Connections) -> Self {
        Self { connections }
    }

    /// Makes a projection again from the log. `restart` forgets what an earlier
    /// replay of tables has done; the cache is always made from the beginning.
    ///
    /// # Errors
    /// [`rebuild::ReplayError`], and when the address of Postgres is not valid.
    pub async fn replay(
        &self,
        name: ProjectionName,
        restart: bool,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> anyhow::Result<ReplayResult> {
        match name {
            ProjectionName::History => self.tables::<History>(restart, progress, stop).await,
            ProjectionName::DailyStats => self.tables::<DailyStats>(restart, progress, stop).await,
            ProjectionName::ActiveSessions => self.rebuild(progress, stop).await,
        }
    }

    /// Compares a projection with the log.
    ///
    /// # Errors
    /// As [`ProjectionOps::replay`].
    pub async fn verify(
        &self,
        name: ProjectionName,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Verified> {
        match name {
            ProjectionName::History => self.compare::<History>(progress, stop).await,
            ProjectionName::DailyStats => self.compare::<DailyStats>(progress, stop).await,
            ProjectionName::ActiveSessions => {
                let pool = (self.connections.projections)()?;
                let cache = (self.connections.cache)()?;
                let compared = active_sessions::check(&cache, &pool, stop).await?;
                let of = eventlog::active_claims::count(&pool).await?;
                Ok(Verified {
                    position: None,
                    compared: vec![compared],
                    of: Some(of.unsigned_abs()),
                })
            }
        }
    }

    async fn tables<P: TableProjection>(
        &self,
        restart: bool,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> anyhow::Result<ReplayResult> {
        let live = (self.connections.migrations)()?;
        let shadow = (self.connections.replay)(&rebuild::schema_of(P::NAME))?;
        let applied = watch::Sender::default();
        let head = rebuild::head(&live).await?;
        let done = tokio::select! {
            done = rebuild::replay::<P>(&live, shadow, restart, &applied, stop) => done,
            never = follow(applied.subscribe(), progress, |now| through(now, head)) => never,
        };
        // Where it is at its end, also when it was stopped.
        progress.send_replace(through(applied.borrow().clone(), head));
        Ok(ReplayResult::Tables(done?))
    }

    async fn compare<P: TableProjection>(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Verified> {
        let live = (self.connections.migrations)()?;
        let scratch = (self.connections.replay)(&verify::schema_of(P::NAME))?;
        let applied = watch::Sender::default();
        let head = rebuild::head(&live).await?;
        let (position, compared) = tokio::select! {
            done = verify::tables::<P>(&live, scratch, &applied, stop) => done?,
            never = follow(applied.subscribe(), progress, |now| through(now, head)) => never,
        };
        Ok(Verified {
            position: Some(position),
            compared,
            of: None,
        })
    }

    /// Fills the cache with every active session; what is wrong there stays, and
    /// what is newer too.
    ///
    /// # Errors
    /// As [`ProjectionOps::replay`].
    pub async fn warm_up(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Rebuilt> {
        let pool = (self.connections.projections)()?;
        let cache = (self.connections.cache)()?;
        let looked_at = watch::Sender::default();
        let done = tokio::select! {
            done = active_sessions::warm_up(&cache, &pool, &looked_at, stop) => done,
            never = follow(looked_at.subscribe(), progress, entries) => never,
        };
        progress.send_replace(entries(*looked_at.borrow()));
        Ok(done?)
    }

    async fn rebuild(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> anyhow::Result<ReplayResult> {
        let pool = (self.connections.projections)()?;
        let cache = (self.connections.cache)()?;
        let looked_at = watch::Sender::default();
        let head = rebuild::head(&pool).await?;
        let rebuilt = tokio::select! {
            rebuilt = active_sessions::rebuild(&cache, &pool, &looked_at, stop) => rebuilt,
            never = follow(looked_at.subscribe(), progress, entries) => never,
            never = report(&pool, looked_at.subscribe(), head) => never,
        };
        if let Err(error) = status::report_replay_over(&pool, ActiveSessions::NAME, None).await {
            tracing::debug!(%error, "the end of the replay was not reported");
        }
        Ok(ReplayResult::Cache(rebuilt?))
    }
}

/// Passes on how far something is, in other words.
async fn follow<T: Clone>(
    mut from: watch::Receiver<T>,
    to: &watch::Sender<OperationProgress>,
    words: impl Fn(T) -> OperationProgress,
) -> ! {
    while from.changed().await.is_ok() {
        let now = from.borrow_and_update().clone();
        to.send_replace(words(now));
    }
    std::future::pending().await
}

#[expect(clippy::needless_pass_by_value, reason = "as `follow` gives it")]
fn through(now: worker::WorkerProgress, head: i64) -> OperationProgress {
    let at = now.read.unsigned_abs();
    OperationProgress {
        done: now.events + now.folding,
        at,
        of: head.unsigned_abs().max(at),
    }
}

fn entries(now: Rebuilt) -> OperationProgress {
    OperationProgress {
        done: now.sessions,
        at: now.sessions,
        of: now.of.max(now.sessions),
    }
}

/// Says where operators look how far the cache is; it has no position of its
/// own, so that part of the log is named.
async fn report(pool: &PgPool, looked_at: watch::Receiver<Rebuilt>, head: i64) -> ! {
    loop {
        let now = entries(*looked_at.borrow());
        let part = i128::from(head) * i128::from(now.at) / i128::from(now.of.max(1));
        let part = i64::try_from(part).unwrap_or(head);
        if let Err(error) = status::report_replay(pool, ActiveSessions::NAME, part).await {
            tracing::debug!(%error, "the replay was not reported");
        }
        tokio::time::sleep(REPORT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_is_called_the_same_everywhere() {
        for name in ProjectionName::ALL {
            let value = name.to_possible_value().unwrap();
            assert_eq!(value.get_name(), name.as_str());
            assert_eq!(ProjectionName::named(name.as_str()), Some(name));
        }
        assert_eq!(ProjectionName::named("cooks"), None);
    }
}
