//! Operations on projections by name, for the command line, the admin API and the jobs:
//! replay, verification and warm-up.
//!
//! This module only selects the projection and its connections. The projections and the
//! modules [`rebuild`] and [`verify`] do the work.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::PgPool;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::active_sessions::{self, RebuildProgress};
use crate::cache::Cache;
use crate::rebuild::{self, Replayed};
use crate::verify::{self, Compared};
use crate::worker::{WorkerProgress, forward};
use crate::zones::Zones;
use crate::{
    ActiveSessions, DailyStats, History, OperationError, Projection, TableProjection, status,
};

/// The interval between two reports of a replay of the cache.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The names of the projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProjectionName {
    History,
    DailyStats,
    /// The cache in Redis; the other projections are tables in Postgres.
    ActiveSessions,
}

impl ProjectionName {
    pub const ALL: [Self; 3] = [Self::History, Self::DailyStats, Self::ActiveSessions];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::History => History::NAME,
            Self::DailyStats => DailyStats::NAME,
            Self::ActiveSessions => ActiveSessions::NAME,
        }
    }

    /// The names of all projections, separated by commas.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for ProjectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Contains the unknown name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("there is no projection {0:?}; the projections are {names}", names = ProjectionName::names())]
pub struct UnknownProjection(String);

impl FromStr for ProjectionName {
    type Err = UnknownProjection;

    fn from_str(name: &str) -> Result<Self, UnknownProjection> {
        Self::ALL
            .into_iter()
            .find(|projection| projection.as_str() == name)
            .ok_or_else(|| UnknownProjection(name.to_owned()))
    }
}

/// The progress of an operation, in events of the log or in entries of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationProgress {
    /// Events or entries that this operation has processed.
    pub done: u64,
    /// How far it is: a global position, or a number of entries. Includes the work of an
    /// operation that this one resumed.
    pub reached: u64,
    /// The approximate value of `reached` at the end.
    pub total: u64,
}

/// The result of a replay.
#[derive(Clone, Copy, Debug)]
pub enum ReplayResult {
    Tables(Replayed),
    Cache(RebuildProgress),
}

/// The result of a verification.
#[derive(Clone, Debug)]
pub struct VerifyResult {
    /// The global position at which tables were compared. `None` for the cache, where each
    /// entry has its own.
    pub global_position: Option<i64>,
    pub compared: Vec<Compared>,
    /// The number of active sessions in the log; `None` unless the cache was compared.
    pub active_sessions: Option<u64>,
}

type Open<T> = Arc<dyn Fn() -> Result<T, ConnectError> + Send + Sync>;
type OpenWithSchema = Arc<dyn Fn(&str) -> Result<PgPool, ConnectError> + Send + Sync>;

/// The reason why a connection cannot be opened, usually a setting.
pub type ConnectError = Box<dyn Error + Send + Sync>;

/// Opens the connections that an operation needs. Connections are opened for each
/// operation, because most processes never run one.
#[derive(Clone)]
pub struct Connections {
    /// Without a statement timeout. Statements qualify the names of tables.
    pub migrations: Open<PgPool>,
    /// For the statements of projection workers.
    pub projections: Open<PgPool>,
    /// Like `projections`, with the read tables of the given schema.
    pub replay: OpenWithSchema,
    pub cache: Open<Cache>,
}

impl Connections {
    fn migrations(&self) -> Result<PgPool, OperationError> {
        (self.migrations)().map_err(OperationError::Connect)
    }

    fn projections(&self) -> Result<PgPool, OperationError> {
        (self.projections)().map_err(OperationError::Connect)
    }

    fn replay(&self, schema: &str) -> Result<PgPool, OperationError> {
        (self.replay)(schema).map_err(OperationError::Connect)
    }

    fn cache(&self) -> Result<Cache, OperationError> {
        (self.cache)().map_err(OperationError::Connect)
    }
}

/// Runs operations on projections by name.
///
/// The methods return boxed futures so that this crate alone compiles the operations
/// (decision 0020).
#[derive(Clone)]
pub struct ProjectionOps {
    connections: Connections,
    zones: Zones,
}

impl ProjectionOps {
    #[must_use]
    pub fn new(connections: Connections, zones: Zones) -> Self {
        Self { connections, zones }
    }

    /// A handle to Redis.
    ///
    /// # Errors
    /// When a setting is missing or invalid.
    pub fn cache(&self) -> Result<Cache, OperationError> {
        self.connections.cache()
    }

    /// Rebuilds a projection from the log. `restart` discards the progress of an
    /// interrupted replay of tables. A replay of the cache always starts again.
    #[must_use]
    pub fn replay<'a>(
        &'a self,
        name: ProjectionName,
        restart: bool,
        progress: &'a watch::Sender<OperationProgress>,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<ReplayResult, OperationError>> {
        match name {
            ProjectionName::History => self
                .replay_tables::<History>(restart, progress, stop)
                .boxed(),
            ProjectionName::DailyStats => self
                .replay_tables::<DailyStats>(restart, progress, stop)
                .boxed(),
            ProjectionName::ActiveSessions => self.rebuild_cache(progress, stop).boxed(),
        }
    }

    /// Compares a projection with the log.
    #[must_use]
    pub fn verify<'a>(
        &'a self,
        name: ProjectionName,
        progress: &'a watch::Sender<OperationProgress>,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<VerifyResult, OperationError>> {
        match name {
            ProjectionName::History => self.verify_history(progress, stop).boxed(),
            ProjectionName::DailyStats => self.verify_daily_stats(progress, stop).boxed(),
            ProjectionName::ActiveSessions => self.verify_cache(stop).boxed(),
        }
    }

    /// Fills the cache with all active sessions. Keeps existing entries that are newer,
    /// and also wrong ones: [`ProjectionOps::replay`] removes those.
    #[must_use]
    pub fn warm_up<'a>(
        &'a self,
        progress: &'a watch::Sender<OperationProgress>,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<RebuildProgress, OperationError>> {
        self.fill_cache(progress, stop).boxed()
    }

    async fn replay_tables<P: TableProjection>(
        &self,
        restart: bool,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> Result<ReplayResult, OperationError> {
        let live = self.connections.migrations()?;
        let shadow = self.connections.replay(&rebuild::shadow_schema(P::NAME))?;
        let worker = watch::Sender::default();
        let head = rebuild::head(&live).await?;
        let replayed = tokio::select! {
            replayed = rebuild::replay::<P>(&live, shadow, &self.zones, restart, &worker, stop) => replayed,
            never = forward(worker.subscribe(), progress, |now| events(&now, head)) => never,
        };
        // The last progress, also after an error.
        progress.send_replace(events(&worker.borrow(), head));
        Ok(ReplayResult::Tables(replayed?))
    }

    /// The pool of the read tables of a projection, and that of its scratch tables.
    fn verification_pools(&self, projection: &str) -> Result<(PgPool, PgPool), OperationError> {
        let scratch = verify::scratch_schema(projection);
        Ok((
            self.connections.migrations()?,
            self.connections.replay(&scratch)?,
        ))
    }

    async fn verify_history(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> Result<VerifyResult, OperationError> {
        let (live, scratch) = self.verification_pools(History::NAME)?;
        let worker = watch::Sender::default();
        let verify = verify::history(&live, scratch, &self.zones, &worker, stop);
        Box::pin(verified(&live, &worker, progress, verify)).await
    }

    async fn verify_daily_stats(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> Result<VerifyResult, OperationError> {
        let (live, scratch) = self.verification_pools(DailyStats::NAME)?;
        let worker = watch::Sender::default();
        let verify = verify::tables::<DailyStats>(&live, scratch, &self.zones, &worker, stop);
        Box::pin(verified(&live, &worker, progress, verify)).await
    }

    async fn verify_cache(&self, stop: &CancellationToken) -> Result<VerifyResult, OperationError> {
        let pool = self.connections.projections()?;
        let cache = self.connections.cache()?;
        let compared = active_sessions::check(&cache, &pool, stop).await?;
        let claims = eventlog::active_claims::count(&pool).await?;
        Ok(VerifyResult {
            global_position: None,
            compared: vec![compared],
            active_sessions: Some(claims.unsigned_abs()),
        })
    }

    async fn fill_cache(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> Result<RebuildProgress, OperationError> {
        let pool = self.connections.projections()?;
        let cache = self.connections.cache()?;
        let filled = watch::Sender::default();
        let result = tokio::select! {
            result = active_sessions::warm_up(&cache, &pool, &filled, stop) => result,
            never = forward(filled.subscribe(), progress, entries) => never,
        };
        progress.send_replace(entries(*filled.borrow()));
        result
    }

    async fn rebuild_cache(
        &self,
        progress: &watch::Sender<OperationProgress>,
        stop: &CancellationToken,
    ) -> Result<ReplayResult, OperationError> {
        let pool = self.connections.projections()?;
        let cache = self.connections.cache()?;
        let filled = watch::Sender::default();
        let head = rebuild::head(&pool).await?;
        let result = tokio::select! {
            result = active_sessions::rebuild(&cache, &pool, &filled, stop) => result,
            never = forward(filled.subscribe(), progress, entries) => never,
            never = report_to_status(&pool, filled.subscribe(), head) => never,
        };
        let ended = status::report_replay_ended(&pool, ActiveSessions::NAME, None);
        if let Err(error) = ended.await {
            tracing::debug!(%error, "reporting the end of a replay of the cache failed: {error}");
        }
        Ok(ReplayResult::Cache(result?))
    }
}

/// Waits for a verification of tables, and forwards its progress.
async fn verified(
    live: &PgPool,
    worker: &watch::Sender<WorkerProgress>,
    progress: &watch::Sender<OperationProgress>,
    verify: impl Future<Output = Result<(i64, Vec<Compared>), OperationError>>,
) -> Result<VerifyResult, OperationError> {
    let head = rebuild::head(live).await?;
    let (global_position, compared) = tokio::select! {
        result = verify => result?,
        never = forward(worker.subscribe(), progress, |now| events(&now, head)) => never,
    };
    Ok(VerifyResult {
        global_position: Some(global_position),
        compared,
        active_sessions: None,
    })
}

/// The progress of a worker. `head` is the end of the log at the start.
fn events(now: &WorkerProgress, head: i64) -> OperationProgress {
    let reached = now.read.unsigned_abs();
    OperationProgress {
        done: now.events + now.folding,
        reached,
        total: head.unsigned_abs().max(reached),
    }
}

fn entries(now: RebuildProgress) -> OperationProgress {
    OperationProgress {
        done: now.sessions,
        reached: now.sessions,
        total: now.total.max(now.sessions),
    }
}

/// Reports the progress of a replay of the cache as a global position. Entries have no
/// common one, so the finished part of the entries is reported as that part of the log.
async fn report_to_status(pool: &PgPool, filled: watch::Receiver<RebuildProgress>, head: i64) -> ! {
    loop {
        let now = entries(*filled.borrow());
        let part = i128::from(head) * i128::from(now.reached) / i128::from(now.total.max(1));
        let part = i64::try_from(part).unwrap_or(head);
        if let Err(error) = status::report_replay(pool, ActiveSessions::NAME, part).await {
            tracing::debug!(%error, "reporting a replay of the cache failed: {error}");
        }
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_projection_name_parses_back() {
        for name in ProjectionName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn unknown_name_lists_all_projections() {
        let error = "books".parse::<ProjectionName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no projection \"books\"; the projections are history, daily_stats, \
             active_sessions"
        );
    }
}
