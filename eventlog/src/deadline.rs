//! A deadline of our own on what we ask of Postgres. Its timeouts end a
//! statement that takes long; they say nothing to a client whose connection is
//! half open, and that one would wait for as long as the kernel does.

use std::io;
use std::time::Duration;

/// A call's answer, or [`sqlx::Error::Io`] when it does not come in time.
/// Whether the statement takes effect is then unknown, and its connection is
/// of no more use: one of our own is to be dropped, one of a pool is asked
/// when it comes back there, within a deadline too, and closed.
///
/// # Errors
/// Those of the call.
pub async fn with_deadline<T, E: From<sqlx::Error>>(
    deadline: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()),
    }
}
