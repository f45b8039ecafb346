//! Takes the snapshots of all streams of a process, once a second, while at least one stream
//! is open. A slow client does not delay others: it skips snapshots.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::snapshot::SnapshotSource;

const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// The poller of a process. Clones share it.
#[derive(Clone)]
pub(super) struct SharedPoller {
    source: SnapshotSource,
    running: Arc<Mutex<Weak<Poller>>>,
}

/// Polls until it is dropped, with the last of its [`Snapshots`].
struct Poller {
    /// The newest snapshot as JSON.
    newest: watch::Receiver<Arc<str>>,
    _task: AbortOnDropHandle<()>,
}

/// The snapshots of one stream.
pub(super) struct Snapshots {
    newest: watch::Receiver<Arc<str>>,
    _poller: Arc<Poller>,
}

impl SharedPoller {
    pub(super) fn new(source: SnapshotSource) -> Self {
        Self {
            source,
            running: Arc::default(),
        }
    }

    /// The snapshots from now on. The first one is the newest of the poller.
    pub(super) fn subscribe(&self) -> Snapshots {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let poller = running.upgrade().unwrap_or_else(|| {
            let poller = Arc::new(Poller::start(self.source.clone()));
            *running = Arc::downgrade(&poller);
            poller
        });
        Snapshots {
            newest: poller.newest.clone(),
            _poller: poller,
        }
    }
}

impl Poller {
    fn start(source: SnapshotSource) -> Self {
        let (sender, newest) = watch::channel(Arc::from(""));
        let task = tokio::spawn(poll(source, sender));
        Self {
            newest,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl Snapshots {
    /// The newest snapshot that this stream has not sent. `None` if the poller has failed.
    pub(super) async fn next(&mut self) -> Option<Arc<str>> {
        self.newest.changed().await.ok()?;
        Some(Arc::clone(&self.newest.borrow_and_update()))
    }
}

async fn poll(source: SnapshotSource, newest: watch::Sender<Arc<str>>) {
    let mut ticks = interval(SNAPSHOT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshot = source.take().await;
        let json = serde_json::to_string(&snapshot).expect("a snapshot is plain JSON");
        newest.send_replace(json.into());
    }
}
