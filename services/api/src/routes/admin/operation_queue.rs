//! Replays and verifications that operators start over HTTP. They run in this process and
//! stop with it; a later replay resumes an interrupted one. At most one operation per
//! projection runs at a time. The audit receives the outcome of each.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use eventlog::error::error_chain;
use futures::FutureExt;
use futures::future::BoxFuture;
use projections::OperationError;
use projections::operations::{
    OperationProgress, ProjectionName, ProjectionOps, ReplayResult, VerifyResult,
};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::recorded::RecordedAction;
use crate::problem::{Problem, ProblemCode};

/// Starts operations. Clones are cheap and share the queue.
#[derive(Clone)]
pub struct OperationQueue {
    requests: mpsc::Sender<Request>,
    running: Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Replay {
        /// Whether the progress of an interrupted replay is discarded.
        restart: bool,
    },
    Verify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartResult {
    Started,
    AlreadyRunning,
    ShuttingDown,
}

/// The projections with an operation in this process.
type Running = Arc<Mutex<BTreeSet<ProjectionName>>>;

struct Request {
    name: ProjectionName,
    operation: Operation,
    /// `None` in tests.
    recorded: Option<RecordedAction>,
    guard: RunningGuard,
}

/// Removes the projection from the running ones when it is dropped, also by a
/// panic.
struct RunningGuard {
    name: ProjectionName,
    running: Running,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.name);
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replay { .. } => "replay",
            Self::Verify => "verification",
        })
    }
}

impl OperationQueue {
    /// Returns the queue, and the task that runs the operations until `stop`. Operations
    /// that run at that time stop at their next batch.
    #[must_use]
    pub fn new(ops: ProjectionOps, stop: CancellationToken) -> (Self, BoxFuture<'static, ()>) {
        // Never full: each projection has at most one request.
        let (requests, receiver) = mpsc::channel(ProjectionName::ALL.len());
        let running = Running::default();
        let queue = Self { requests, running };
        (queue, run(ops, receiver, stop).boxed())
    }

    /// Starts an operation, unless one of the projection runs in this process.
    #[must_use]
    pub fn start(
        &self,
        name: ProjectionName,
        operation: Operation,
        recorded: Option<RecordedAction>,
    ) -> StartResult {
        let is_new = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(name)
        };
        if !is_new {
            return StartResult::AlreadyRunning;
        }
        let guard = RunningGuard {
            name,
            running: Arc::clone(&self.running),
        };
        if let Some(recorded) = &recorded {
            recorded.continues();
        }
        let request = Request {
            name,
            operation,
            recorded,
            guard,
        };
        match self.requests.try_send(request) {
            Ok(()) => StartResult::Started,
            Err(_) => StartResult::ShuttingDown,
        }
    }
}

impl StartResult {
    /// # Errors
    /// The problem if the operation was not started.
    pub fn into_result(self, name: ProjectionName) -> Result<(), Problem> {
        match self {
            Self::Started => Ok(()),
            Self::AlreadyRunning => Err(already_running(name)),
            Self::ShuttingDown => Err(Problem::shutting_down()),
        }
    }
}

pub(super) fn already_running(name: ProjectionName) -> Problem {
    let detail = format!("A replay or verification of {name} is running, or ended a moment ago");
    Problem::new(ProblemCode::ReplayRunning, detail)
}

async fn run(ops: ProjectionOps, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(request) = requests.recv() => {
                running.spawn(execute(ops.clone(), request, stop.clone()));
            }
            Some(result) = running.join_next() => log_panic(result),
        }
    }
    requests.close();
    while let Some(result) = running.join_next().await {
        log_panic(result);
    }
}

/// A panic of one operation must end neither this task nor other operations.
fn log_panic(result: Result<(), JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "operation on a projection panicked: {error}; start it again");
    }
}

async fn execute(ops: ProjectionOps, request: Request, stop: CancellationToken) {
    let Request {
        name,
        operation,
        recorded,
        guard,
    } = request;
    tracing::info!(projection = %name, "{operation} of {name} started");
    let progress = watch::Sender::<OperationProgress>::default();
    let result = match operation {
        Operation::Replay { restart } => {
            let replayed = ops.replay(name, restart, &progress, &stop).await;
            replayed.map(|result| replay_details(&result))
        }
        Operation::Verify => {
            let verified = ops.verify(name, &progress, &stop).await;
            verified.map(|result| verify_details(&result))
        }
    };
    let result = result.map_err(|error| {
        let text = error_chain(&error);
        if matches!(error, OperationError::Stopped) {
            tracing::info!(
                projection = %name,
                "{operation} of {name} stopped; start it again to continue"
            );
        } else {
            tracing::error!(
                projection = %name,
                error = text,
                "{operation} of {name} failed: {text}; start it again after the cause is solved"
            );
        }
        text
    });
    if let Ok(details) = &result {
        tracing::info!(projection = %name, ?details, "{operation} of {name} completed");
    }
    drop(guard);
    if let Some(recorded) = recorded {
        match result {
            Ok(details) => recorded.end(Ok(()), details).await,
            Err(error) => recorded.end(Err(&error), Map::new()).await,
        }
    }
}

fn replay_details(result: &ReplayResult) -> Map<String, Value> {
    let details = match result {
        ReplayResult::Tables(replayed) => json!({
            "events": replayed.events,
            "global_position": replayed.global_position,
        }),
        ReplayResult::Cache(rebuilt) => json!({
            "sessions": rebuilt.sessions,
            "stored": rebuilt.stored,
            "removed": rebuilt.removed,
        }),
    };
    members(details)
}

/// Without the rows that differ: they contain data of readers.
#[must_use]
pub fn verify_details(result: &VerifyResult) -> Map<String, Value> {
    let compared: Vec<Value> = result
        .compared
        .iter()
        .map(|compared| {
            json!({
                "name": compared.name,
                "rows": compared.rows,
                "differing": compared.differing,
            })
        })
        .collect();
    members(json!({
        "equal": result.compared.iter().all(|compared| compared.differing == 0),
        "compared": compared,
    }))
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
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
        let (queue, task) = OperationQueue::new(ops, stop.clone());
        let task = tokio::spawn(task);
        let replay = Operation::Replay { restart: false };
        let start = |name| queue.start(name, replay, None);
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
