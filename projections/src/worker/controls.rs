//! What makes a live worker write rows before their window ends.

use std::collections::BTreeSet;
use std::time::Instant;

use domain::ReaderId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::flush::MAX_WAIT;

/// The most requests that a worker keeps. Further ones are dropped; queries repeat them.
const MAX_REQUESTS: usize = 1_024;

/// A request to write the rows of a reader.
#[derive(Debug)]
pub struct FlushRequest {
    pub reader_id: ReaderId,
    /// The events up to this global position must be written.
    pub global_position: i64,
    pub received_at: Instant,
    /// Notified once they are.
    pub done: oneshot::Sender<()>,
}

/// The sending side of [`Controls`].
#[derive(Clone, Debug)]
pub struct ControlHandle {
    pub requests: mpsc::Sender<FlushRequest>,
    /// Whether the worker writes every row at once.
    pub window_closed: watch::Sender<bool>,
}

/// Requests to a worker.
#[derive(Debug)]
pub(super) struct Controls {
    requests: mpsc::Receiver<FlushRequest>,
    window_closed: watch::Receiver<bool>,
    /// Requests that are not answered yet.
    waiting: Vec<FlushRequest>,
}

pub(super) fn controls() -> (ControlHandle, Controls) {
    let (requests, received) = mpsc::channel(MAX_REQUESTS);
    let (window_closed, is_closed) = watch::channel(false);
    let handle = ControlHandle {
        requests,
        window_closed,
    };
    let controls = Controls {
        requests: received,
        window_closed: is_closed,
        waiting: Vec::new(),
    };
    (handle, controls)
}

impl Controls {
    pub(super) fn is_window_closed(&self) -> bool {
        *self.window_closed.borrow()
    }

    /// Waits for a request, or until the window is closed or opened.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            Some(request) = self.requests.recv() => {
                if self.waiting.len() < MAX_REQUESTS {
                    self.waiting.push(request);
                }
            }
            Ok(()) = self.window_closed.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// Receives what has arrived, and returns the readers whose events are all folded:
    /// `folded` is the global position of the last one.
    pub(super) fn readers_to_write(&mut self, folded: i64) -> BTreeSet<ReaderId> {
        while self.waiting.len() < MAX_REQUESTS
            && let Ok(request) = self.requests.try_recv()
        {
            self.waiting.push(request);
        }
        // No query waits for these any more.
        self.waiting
            .retain(|request| request.received_at.elapsed() < MAX_WAIT);
        self.waiting
            .iter()
            .filter(|request| request.global_position <= folded)
            .map(|request| request.reader_id)
            .collect()
    }

    /// Answers the requests of readers whose rows are complete up to `folded`.
    pub(super) fn written(&mut self, readers: &BTreeSet<ReaderId>, folded: i64) {
        for request in self.waiting.extract_if(.., |request| {
            request.global_position <= folded && readers.contains(&request.reader_id)
        }) {
            // The query may have given up.
            let _ = request.done.send(());
        }
    }
}
