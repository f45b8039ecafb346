//! After a run: ends the sessions that are still active, or erases the new readers. Its
//! requests are not part of the figures.
//!
//! A signal stops it; the report contains the number of sessions that are left.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Load;
use super::figures::Failure;
use super::http::CallError;
use super::readers::{NewReaders, Readers};
use super::report::{NewReadersReport, ReadersReport};
use super::request::Request;
use super::scenario::OpenSession;
use crate::cli::format::counted;
use crate::cli::output::report;

/// Requests at a time.
const CONCURRENCY: usize = 32;

const MAX_ATTEMPTS: usize = 3;

/// Pause before a request is sent again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why readers are not erased although no request failed.
const STOPPED: &str = "stopped by a signal";

/// Requests that succeeded, and the last error of the first one that failed.
#[derive(Default)]
struct Completed {
    count: u64,
    error: Option<String>,
}

/// `open` is `None` if the sessions are not known, because a second signal ended the run.
pub async fn run(
    load: &Load,
    open: Option<Vec<OpenSession>>,
    erase_readers: bool,
    stop: &CancellationToken,
) -> ReadersReport {
    let mut readers = ReadersReport::default();
    match open {
        Some(open) if !erase_readers => {
            readers.sessions_not_ended = open.len() as u64;
            if !open.is_empty() {
                let sessions = counted(open.len(), "active session", "active sessions");
                report(&format!("Ending {sessions}"));
            }
            readers.sessions_ended = end(load, open, stop).await;
            readers.sessions_not_ended -= readers.sessions_ended;
        }
        Some(_) => {}
        // A user has at most one.
        None => readers.sessions_not_ended = load.users() as u64,
    }
    if let Readers::New(new) = &load.readers {
        let count = new.count();
        let mut erased = Completed::default();
        if erase_readers && readers.sessions_not_ended == 0 {
            report(&format!("Erasing {}", counted(count, "reader", "readers")));
            erased = erase(load, new, count, stop).await;
        }
        readers.new = Some(NewReadersReport {
            count,
            first: new.id(0).to_string(),
            last: new.id(count.saturating_sub(1)).to_string(),
            erased: erased.count,
            erase_error: (erase_readers && erased.count < count)
                .then(|| erased.error.unwrap_or_else(|| STOPPED.to_owned())),
            erase_command: new.erase_command(),
        });
    }
    readers
}

/// Returns how many sessions are not active any more.
async fn end(load: &Load, open: Vec<OpenSession>, stop: &CancellationToken) -> u64 {
    let ended = stream::iter(open)
        .map(|session| retry(async move || end_session(load, &session).await))
        .buffer_unordered(CONCURRENCY);
    completed(ended, stop).await.count
}

async fn end_session(load: &Load, session: &OpenSession) -> Result<(), CallError> {
    let request = Request::End {
        session: session.id,
        position: session.position,
    };
    match load.api.send(&session.token, request).await.1 {
        // The reader of a token from a file may have ended it.
        Err(error)
            if matches!(
                error.failure,
                Failure::Status {
                    status: 400 | 404,
                    ..
                }
            ) =>
        {
            Ok(())
        }
        result => result.map(|_| ()),
    }
}

async fn erase(load: &Load, new: &NewReaders, count: u64, stop: &CancellationToken) -> Completed {
    let erased = stream::iter(0..count)
        .map(|number| retry(async move || load.api.erase(&new.token(number), new.id(number)).await))
        .buffer_unordered(CONCURRENCY);
    completed(erased, stop).await
}

/// Returns the error of the last attempt.
async fn retry(request: impl AsyncFn() -> Result<(), CallError>) -> Result<(), CallError> {
    for _ in 1..MAX_ATTEMPTS {
        if request().await.is_ok() {
            return Ok(());
        }
        sleep(RETRY_PAUSE).await;
    }
    request().await
}

/// Runs a stream until its end, or until `stop` is cancelled.
async fn completed(
    results: impl Stream<Item = Result<(), CallError>>,
    stop: &CancellationToken,
) -> Completed {
    let mut results = std::pin::pin!(results.take_until(stop.cancelled()));
    let mut completed = Completed::default();
    while let Some(result) = results.next().await {
        match result {
            Ok(()) => completed.count += 1,
            Err(error) => {
                completed
                    .error
                    .get_or_insert_with(|| format!("{}: {}", error.failure, error.example));
            }
        }
    }
    completed
}
