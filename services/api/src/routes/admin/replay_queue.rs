//! Replays that operators start over HTTP. They run in this process and stop with
//! it; a later start resumes an interrupted replay. At most one replay per
//! projection runs at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use eventlog::error::error_chain;
use futures::FutureExt;
use futures::future::BoxFuture;
use projections::OperationError;
use projections::operations::{ProjectionName, ProjectionOps};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Starts replays. Clones are cheap and share the queue.
#[derive(Clone)]
pub struct ReplayQueue {
    requests: mpsc::Sender<ReplayRequest>,
    running: RunningReplays,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartResult {
    Started,
    AlreadyRunning,
    ShuttingDown,
}

/// The projections that this process replays.
type RunningReplays = Arc<Mutex<BTreeSet<ProjectionName>>>;

struct ReplayRequest {
    name: ProjectionName,
    restart: bool,
    guard: ReplayGuard,
}

/// Removes the projection from the running ones when it is dropped, also by a
/// panic.
struct ReplayGuard {
    name: ProjectionName,
    running: RunningReplays,
}

impl Drop for ReplayGuard {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.name);
    }
}

impl ReplayQueue {
    /// Returns the queue, and the task that runs the replays until `stop`. Replays
    /// that run at that time stop at their next batch.
    #[must_use]
    pub fn new(ops: ProjectionOps, stop: CancellationToken) -> (Self, BoxFuture<'static, ()>) {
        // Never full: each projection has at most one request.
        let (requests, receiver) = mpsc::channel(ProjectionName::ALL.len());
        let running = RunningReplays::default();
        let queue = Self { requests, running };
        (queue, run(ops, receiver, stop).boxed())
    }

    /// Starts a replay, unless one of the projection runs in this process.
    #[must_use]
    pub fn start(&self, name: ProjectionName, restart: bool) -> StartResult {
        let is_new = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(name)
        };
        if !is_new {
            return StartResult::AlreadyRunning;
        }
        let guard = ReplayGuard {
            name,
            running: Arc::clone(&self.running),
        };
        let request = ReplayRequest {
            name,
            restart,
            guard,
        };
        match self.requests.try_send(request) {
            Ok(()) => StartResult::Started,
            Err(_) => StartResult::ShuttingDown,
        }
    }
}

async fn run(
    ops: ProjectionOps,
    mut requests: mpsc::Receiver<ReplayRequest>,
    stop: CancellationToken,
) {
    let mut replays = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(request) = requests.recv() => {
                replays.spawn(replay(ops.clone(), request, stop.clone()));
            }
            Some(result) = replays.join_next() => log_panic(result),
        }
    }
    requests.close();
    while let Some(result) = replays.join_next().await {
        log_panic(result);
    }
}

/// A panic of one replay must end neither this task nor other replays.
fn log_panic(result: Result<(), JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "replay panicked: {error}; start it again to resume");
    }
}

async fn replay(ops: ProjectionOps, request: ReplayRequest, stop: CancellationToken) {
    let ReplayRequest {
        name,
        restart,
        guard,
    } = request;
    tracing::info!(projection = %name, restart, "replay of {name} started");
    let progress = watch::Sender::default();
    match ops.replay(name, restart, &progress, &stop).await {
        Ok(result) => tracing::info!(projection = %name, ?result, "replay of {name} completed"),
        Err(OperationError::Stopped) => {
            tracing::info!(
                projection = %name,
                "replay of {name} stopped; the next replay resumes it"
            );
        }
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(
                projection = %name,
                error,
                "replay of {name} failed: {error}; its progress is kept, start it again to resume"
            );
        }
    }
    drop(guard);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use projections::operations::Connections;
    use projections::zones::Zones;

    use super::*;

    #[tokio::test]
    async fn failed_replay_stops_neither_the_queue_nor_the_next_replay() {
        let connections = Connections {
            migrations: Arc::new(|| Err("Postgres is unreachable".into())),
            projections: Arc::new(|| Err("Postgres is unreachable".into())),
            replay: Arc::new(|_| Err("Postgres is unreachable".into())),
            cache: Arc::new(|| Err("Redis is unreachable".into())),
        };
        let ops = ProjectionOps::new(connections, Zones::built_in());
        let stop = CancellationToken::new();
        let (queue, task) = ReplayQueue::new(ops, stop.clone());
        let task = tokio::spawn(task);
        let start = |name| queue.start(name, false);
        assert_eq!(start(ProjectionName::History), StartResult::Started);
        assert_eq!(start(ProjectionName::History), StartResult::AlreadyRunning);
        assert_eq!(start(ProjectionName::DailyStats), StartResult::Started);
        let ended = async {
            while start(ProjectionName::History) == StartResult::AlreadyRunning {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        ended.expect("a failed replay drops its guard");
        assert!(!task.is_finished());
        stop.cancel();
        task.await.unwrap();
        assert_eq!(
            start(ProjectionName::ActiveSessions),
            StartResult::ShuttingDown
        );
    }
}
