//! Client-side deadlines for calls to Postgres.
//!
//! The server's timeouts end a slow statement. They do not help a client whose
//! connection is half open: without a deadline of its own, the client waits as
//! long as the kernel does.

use std::io;
use std::time::Duration;

/// The deadline for a statement that may use the whole default
/// `statement_timeout` (30 s). It is 5 s longer, so that the server gives up
/// first: the outcome is then known and the connection stays usable.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(35);

/// The result of `call`, or [`sqlx::Error::Io`] with kind `TimedOut` after the
/// deadline.
///
/// After a timeout it is unknown whether the statement takes effect, and the
/// connection cannot be used any more. A caller that owns the connection must
/// drop it. A pool pings each returned connection, with a deadline too, and
/// closes one that does not respond.
pub async fn with_deadline<T, E: From<sqlx::Error>>(
    deadline: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()),
    }
}
