//! Tasks of a service that are told to stop together.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Such tasks.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Stage {
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// The end of a task that was not told to stop. Does not return while
    /// there is none.
    pub(super) async fn broken(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(panic)) => anyhow::Error::new(panic).context("a task of the service broke"),
            Some(Ok(())) => anyhow::anyhow!("a task of the service ended by itself"),
            None => std::future::pending().await,
        }
    }

    /// Tells the tasks to stop, and cuts off those that do not.
    pub(super) async fn end(mut self, deadline: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks were cut off");
            self.tasks.shutdown().await;
        }
    }
}
