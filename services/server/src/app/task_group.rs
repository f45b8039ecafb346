//! Tasks of a service that are stopped together.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(super) struct TaskGroup {
    pub(super) token: CancellationToken,
    tasks: JoinSet<()>,
}

impl TaskGroup {
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits for a task that ends without being stopped. Never returns while
    /// the group is empty.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(panic)) => {
                anyhow::Error::new(panic).context("a task of the service panicked")
            }
            Some(Ok(())) => anyhow::anyhow!("a task of the service ended unexpectedly"),
            None => std::future::pending().await,
        }
    }

    /// Cancels the tasks, and aborts those that have not ended in time.
    pub(super) async fn stop(mut self, timeout: Duration) {
        self.token.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, ended).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks aborted at shutdown: timeout");
            self.tasks.shutdown().await;
        }
    }
}
