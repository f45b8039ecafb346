//! Watches the stream while the relay leads: measures it, and saves the relay's cursor.
//! A failure here never delays publishing.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::Stream;
use eventlog::availability::Availability;
use eventlog::error::error_chain;
use tokio::sync::watch;

use super::cursor::Cursor;
use super::saved_cursor;
use crate::Subjects;
use crate::stream::{self, StreamError};

/// How often the stream is measured, and the cursor saved if it has changed.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The pause after the cursor could not be saved. A permission that NATS refuses fails at
/// every attempt.
const SAVE_RETRY_DELAY: Duration = Duration::from_mins(1);

/// The size of the stream and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSize {
    pub messages: u64,
    /// Before compression, as the limit counts them.
    pub bytes: u64,
    /// 0 for no limit.
    pub max_bytes: u64,
}

pub(super) struct StreamWatch {
    pub(super) jetstream: jetstream::Context,
    pub(super) subjects: Subjects,
    pub(super) stream: Stream,
    pub(super) replicas: usize,
    /// The end of the stream.
    pub(super) cursor: watch::Receiver<Cursor>,
    pub(super) size: watch::Sender<Option<StreamSize>>,
}

impl StreamWatch {
    pub(super) async fn run(self) -> Infallible {
        tokio::select! {
            never = self.measure() => never,
            never = self.save_cursor() => never,
        }
    }

    async fn measure(&self) -> Infallible {
        loop {
            let size = self.stream.get_info().await.ok().map(|info| StreamSize {
                messages: info.state.messages,
                bytes: info.state.bytes,
                max_bytes: info.config.max_bytes.try_into().unwrap_or(0),
            });
            self.size.send_replace(size);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn save_cursor(&self) -> Infallible {
        let availability = Availability::new(
            "relay cursor",
            "the relay cannot resume if all messages leave the stream while it is stopped",
        );
        let mut saved = None;
        let mut exists = false;
        loop {
            let cursor = *self.cursor.borrow();
            let mut delay = POLL_INTERVAL;
            if saved != Some(cursor.stream_sequence) {
                match self.save(cursor, exists).await {
                    Ok(()) => {
                        saved = Some(cursor.stream_sequence);
                        exists = true;
                        availability.succeeded();
                    }
                    Err(error) => {
                        exists = false;
                        availability.failed(&error_chain(&error));
                        delay = SAVE_RETRY_DELAY;
                    }
                }
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn save(&self, cursor: Cursor, stream_exists: bool) -> Result<(), StreamError> {
        let (jetstream, subjects) = (&self.jetstream, &self.subjects);
        if !stream_exists {
            stream::ensure_cursor(jetstream, subjects, self.replicas).await?;
        }
        saved_cursor::save(jetstream, subjects, &self.stream, cursor).await
    }
}
