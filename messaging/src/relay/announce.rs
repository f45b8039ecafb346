//! Notifies relays in other processes of commits.

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Subjects;

/// Notifies the relays of other processes of commits in this process, until
/// `shutdown`. For a process without a relay. After a lost notification a relay
/// still finds the events within its poll interval.
///
/// The future is boxed so that this crate alone compiles it (decision 0020).
#[must_use]
pub fn announce_commits(
    client: async_nats::Client,
    subjects: Subjects,
    mut head: watch::Receiver<i64>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = announce_forever(client, &subjects, &mut head) => {}
        }
    })
}

pub(super) async fn announce_forever(
    client: async_nats::Client,
    subjects: &Subjects,
    head: &mut watch::Receiver<i64>,
) {
    while head.changed().await.is_ok() {
        if let Err(error) = client
            .publish(subjects.wake().to_owned(), Bytes::new())
            .await
        {
            tracing::debug!(%error, "sending a wake-up failed: {error}; relays poll the log instead");
        }
    }
    // The sender is dropped: this process appends nothing more.
    std::future::pending::<()>().await;
}
