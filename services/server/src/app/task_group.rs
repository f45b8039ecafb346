//! Tasks of a service that are stopped together.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(super) struct TaskGroup {
    /// Its tasks must end when this is cancelled.
    pub(super) token: CancellationToken,
    tasks: JoinSet<()>,
}

impl TaskGroup {
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until a task ends without being stopped. Never completes for an
    /// empty group.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(panic)) => anyhow::Error::new(panic).context("a task of the service panicked"),
            Some(Ok(())) => anyhow::anyhow!("a task of the service ended unexpectedly"),
            None => std::future::pending().await,
        }
    }

    /// Cancels `token`, and aborts the tasks that have not ended by the timeout.
    pub(super) async fn stop(mut self, timeout: Duration) {
        self.token.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, ended).await.is_err() {
            let tasks = self.tasks.len();
            tracing::warn!(
                tasks,
                "shutdown timed out after {timeout:?}: aborting {tasks} tasks"
            );
            self.tasks.shutdown().await;
        }
    }
}
