//! Replays that operators begin over HTTP: they run in this process and stop
//! with it. One that is cut off goes on from where it was when it is asked for
//! again. At most one of a projection runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use projections::rebuild::ReplayError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use projections::operations::{ProjectionName, ProjectionOps};

/// Where replays are asked for; cheap to clone.
#[derive(Clone)]
pub struct ReplayQueue {
    orders: mpsc::Sender<ReplayRequest>,
    running: Running,
}

/// Whether a replay was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartResult {
    /// It runs.
    Yes,
    /// There is one here already.
    Running,
    /// The service stops.
    Stopping,
}

/// The projections that are replayed here.
type Running = Arc<Mutex<BTreeSet<ProjectionName>>>;

struct ReplayRequest {
    name: ProjectionName,
    restart: bool,
    turn: ReplayGuard,
}

/// That a projection is replayed here; over when it is dropped, also by a panic.
struct ReplayGuard {
    name: ProjectionName,
    running: Running,
}

impl Drop for ReplayGuard {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.name);
    }
}

impl ReplayQueue {
    /// The place to ask, and the task that does it until `stop`.
    pub fn new(
        source: ProjectionOps,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        // Never full: each projection has one turn.
        let (orders, taken) = mpsc::channel(ProjectionName::ALL.len());
        let running = Running::default();
        (Self { orders, running }, run(source, taken, stop))
    }

    /// Begins a replay, if none of the projection runs here.
    #[must_use]
    pub fn begin(&self, name: ProjectionName, restart: bool) -> StartResult {
        let fresh = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(name)
        };
        if !fresh {
            return StartResult::Running;
        }
        let turn = ReplayGuard {
            name,
            running: Arc::clone(&self.running),
        };
        let order = ReplayRequest {
            name,
            restart,
            turn,
        };
        match self.orders.try_send(order) {
            Ok(()) => StartResult::Yes,
            Err(_) => StartResult::Stopping,
        }
    }
}

/// Does not end before it is told to; replays that are not over by then stop
/// where they are, or with this task.
async fn run(source: ProjectionOps, mut orders: mpsc::Receiver<ReplayRequest>, stop: CancellationToken) {
    let mut replays = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(order) = orders.recv() => {
                replays.spawn(replay(source.clone(), order, stop.clone()));
            }
            Some(ended) = replays.join_next() => told(ended),
        }
    }
    orders.close();
    while let Some(ended) = replays.join_next().await {
        told(ended);
    }
}

/// A replay that breaks takes nothing with it.
fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a replay broke");
    }
}

async fn replay(source: ProjectionOps, order: ReplayRequest, stop: CancellationToken) {
    let ReplayRequest {
        name,
        restart,
        turn,
    } = order;
    tracing::info!(projection = %name, restart, "a replay begins");
    let progress = watch::Sender::default();
    match source.replay(name, restart, &progress, &stop).await {
        Ok(done) => tracing::info!(projection = %name, ?done, "a replay is done"),
        Err(error) if matches!(error.downcast_ref(), Some(ReplayError::Stopped)) => {
            tracing::info!(projection = %name, "a replay stops");
        }
        Err(error) => tracing::error!(
            projection = %name,
            error = format!("{error:#}"),
            "a replay came to nothing; what it has done is kept"
        ),
    }
    drop(turn);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::Arc;

    use projections::operations::Connections;

    use super::*;

    #[tokio::test]
    async fn a_replay_that_fails_ends_neither_the_service_nor_the_next_one() {
        let source = ProjectionOps::new(Connections {
            migrations: Arc::new(|| anyhow::bail!("Postgres is unreachable")),
            projections: Arc::new(|| anyhow::bail!("Postgres is unreachable")),
            replay: Arc::new(|_| anyhow::bail!("Postgres is unreachable")),
            cache: Arc::new(|| anyhow::bail!("Redis is unreachable")),
        });
        let stop = CancellationToken::new();
        let (background, task) = ReplayQueue::new(source, stop.clone());
        let task = tokio::spawn(task);
        assert_eq!(background.begin(ProjectionName::History, false), StartResult::Yes);
        assert_eq!(background.begin(ProjectionName::History, false), StartResult::Running);
        assert_eq!(background.begin(ProjectionName::DailyStats, false), StartResult::Yes);
        let over = async {
            while background.begin(ProjectionName::History, false) == StartResult::Running {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let over = tokio::time::timeout(Duration::from_secs(20), over).await;
        over.expect("a replay that fails gives its turn back");
        assert!(!task.is_finished());
        stop.cancel();
        task.await.unwrap();
        assert_eq!(
            background.begin(ProjectionName::ActiveSessions, false),
            StartResult::Stopping
        );
    }
}
