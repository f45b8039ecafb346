//! Writes one batch to Postgres and classifies failures.

use std::slice;
use std::time::Duration;

use sqlx::PgConnection;

use super::AppendResult;
use super::rows::{Columns, Rows};
use crate::AppendError;
use crate::deadline::with_deadline;
use crate::sqlstate::SqlState;

/// The deadline for one append. It is longer than the `statement_timeout` of the
/// appending connection, so that the server gives up first and the outcome is
/// known.
pub(super) const APPEND_TIMEOUT: Duration = Duration::from_secs(7);

/// Why Postgres did not commit an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Postgres refuses the data. Nothing was written.
    BadData,
    /// A lock or the statement timed out. Nothing was written.
    Busy,
    /// Postgres refuses writes, or this connection. Nothing was written.
    Unavailable,
    /// The connection broke. The events may be written.
    Unknown,
}

impl Failure {
    fn from_state(state: SqlState) -> Self {
        match state {
            // A missing partition is also a constraint violation.
            SqlState::InvalidData | SqlState::ConstraintViolation => Self::BadData,
            SqlState::LockNotAvailable
            | SqlState::QueryCanceled
            | SqlState::SerializationFailure
            | SqlState::Deadlock
            | SqlState::TransactionRollback => Self::Busy,
            // The server is shutting down, read-only or out of a resource, or it
            // has another schema. A new connection may reach a better one.
            SqlState::InvalidStatement
            | SqlState::NotPermitted
            | SqlState::OperatorIntervention
            | SqlState::Other => Self::Unavailable,
        }
    }

    /// Whether the connection can append the next batch.
    pub(super) fn keeps_connection(self) -> bool {
        matches!(self, Self::BadData | Self::Busy)
    }
}

impl From<Failure> for AppendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::BadData | Failure::Busy | Failure::Unavailable => Self::Unavailable,
            Failure::Unknown => Self::Unknown,
        }
    }
}

/// Writes a batch. If Postgres refuses its data, writes it again command by
/// command, so that only the bad commands fail. Returns a result per command, and
/// the last failure.
pub(super) async fn write_batch(
    connection: &mut PgConnection,
    batch: &[Rows],
) -> (Vec<AppendResult>, Option<Failure>) {
    let count = batch.len();
    let failure = match write(connection, batch).await {
        Ok(results) => return (results, None),
        Err(failure) => failure,
    };
    let mut results = Vec::with_capacity(count);
    let mut last = failure;
    if last == Failure::BadData && count > 1 {
        for rows in batch {
            match write(connection, slice::from_ref(rows)).await {
                Ok(result) => results.extend(result),
                Err(failure) => {
                    results.push(Err(failure.into()));
                    last = failure;
                    // The remaining commands would fail in the same way.
                    if last != Failure::BadData {
                        break;
                    }
                }
            }
        }
    }
    // If commands were tried one by one, the remaining ones were not sent: they are
    // certainly not written.
    let rest = if results.is_empty() {
        last.into()
    } else {
        AppendError::Unavailable
    };
    results.resize(count, Err(rest));
    (results, Some(last))
}

/// One round trip. The statement is its own transaction, so its result means that
/// the events are on disk.
async fn write(
    connection: &mut PgConnection,
    batch: &[Rows],
) -> Result<Vec<AppendResult>, Failure> {
    let commands = batch.len();
    let error = match with_deadline(APPEND_TIMEOUT, append_events(connection, batch)).await {
        Ok(written) => return Ok(split_global_positions(batch, &written)),
        Err(error) => error,
    };
    if let sqlx::Error::Database(error) = &error {
        let code = error.code().unwrap_or_default();
        tracing::warn!(
            %error,
            %code,
            commands,
            "append failed: Postgres refused the batch: {error}"
        );
        Err(Failure::from_state(SqlState::from_code(&code)))
    } else {
        tracing::warn!(
            %error,
            commands,
            "append failed: the connection broke: {error}; the events may be written"
        );
        Err(Failure::Unknown)
    }
}

struct Written {
    /// The indexes of the commands that conflict.
    refused: Vec<i32>,
    /// The global positions of all events of the other commands, in order.
    positions: Vec<i64>,
}

async fn append_events(connection: &mut PgConnection, batch: &[Rows]) -> sqlx::Result<Written> {
    let columns = Columns::new(batch);
    sqlx::query_file_as!(
        Written,
        "src/append/append.sql",
        &columns.events.commands,
        columns.events.session_ids as _,
        &columns.events.sequences,
        columns.events.aggregate_types as _,
        columns.events.event_types as _,
        columns.events.event_versions as _,
        columns.events.payloads as _,
        columns.events.metadatas as _,
        &columns.claims.commands,
        &columns.claims.readers,
        columns.claims.expected as _,
        columns.claims.next as _,
        columns.claims.expected_newest as _,
        columns.claims.next_newest as _,
        &columns.seen.commands,
        columns.seen.session_ids as _,
        &columns.seen.sequences,
        &columns.responses.commands,
        &columns.responses.readers,
        columns.responses.keys as _,
        columns.responses.fingerprints as _,
        columns.responses.responses as _,
    )
    .fetch_one(&mut *connection)
    .await
}

/// Assigns the global positions to the commands.
fn split_global_positions(batch: &[Rows], written: &Written) -> Vec<AppendResult> {
    let mut global_positions = written.positions.iter().copied();
    (0..)
        .zip(batch)
        .map(|(command, rows)| {
            if written.refused.contains(&command) {
                Err(AppendError::Conflict)
            } else {
                Ok(global_positions.by_ref().take(rows.events.len()).collect())
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_and_busy_failures_keep_the_connection() {
        for (code, failure) in [
            ("22P05", Failure::BadData),
            ("23514", Failure::BadData),
            ("55P03", Failure::Busy),
            ("57014", Failure::Busy),
            ("40P01", Failure::Busy),
            ("57P01", Failure::Unavailable),
            ("25006", Failure::Unavailable),
            ("42883", Failure::Unavailable),
        ] {
            let actual = Failure::from_state(SqlState::from_code(code));
            assert_eq!(actual, failure, "{code}");
            let keeps = matches!(failure, Failure::BadData | Failure::Busy);
            assert_eq!(actual.keeps_connection(), keeps, "{code}");
        }
    }
}
