//! Compares two ways to load a session: from three events, as commands and the cache do,
//! and completely through postgres-es.
//!
//! The complete load is an independent check of the assumption behind the short one, that
//! three events determine the state of a session (decision 0018).

use domain::{ReadingSession, SessionId};
use eventlog::cqrs_es::{FullLoadError, load_full};
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::error::error_chain;
use eventlog::upcast::DecodeError;
use eventlog::{LogError, load_state, read};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Compared, Difference};
use crate::OperationError;

/// The most sessions that are compared. Bounds the time: a complete load reads every event
/// of a session, and a session may have 10,000. Each verification takes another sample.
const SAMPLE_SIZE: i64 = 200;

/// Maximum number of attempts to load a session in both ways with equal results. An erasure
/// that begins between the two loads makes the first comparison differ.
const MAX_ATTEMPTS: u32 = 2;

/// Compares a random sample of sessions, spread over the log. Omits sessions with events
/// in versions that this build does not know: they are dead letters.
pub(super) async fn compare_sample(
    pool: &PgPool,
    stop: &CancellationToken,
) -> Result<Compared, OperationError> {
    let mut compared = Compared::new("sessions");
    for session_id in sample(pool).await? {
        if stop.is_cancelled() {
            return Err(OperationError::Stopped);
        }
        let mut comparison = Comparison::Omitted;
        for _ in 0..MAX_ATTEMPTS {
            comparison = compare(pool, session_id).await?;
            if !matches!(comparison, Comparison::Different(_)) {
                break;
            }
        }
        match comparison {
            Comparison::Omitted => {}
            Comparison::Equal => compared.rows += 1,
            Comparison::Different(difference) => {
                compared.rows += 1;
                compared.differs(difference);
            }
        }
    }
    Ok(compared)
}

enum Comparison {
    Equal,
    Different(Difference),
    Omitted,
}

async fn sample(pool: &PgPool) -> Result<Vec<SessionId>, OperationError> {
    let head = with_deadline(STATEMENT_DEADLINE, read::head(pool)).await?;
    let ids = sqlx::query_file_scalar!("src/verify/sample.sql", head, SAMPLE_SIZE).fetch_all(pool);
    let ids = with_deadline(STATEMENT_DEADLINE, ids).await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Loads a session completely, and then the same number of events in the short way.
async fn compare(pool: &PgPool, session_id: SessionId) -> Result<Comparison, OperationError> {
    let full = match load_full(pool, session_id).await {
        Ok((complete, sequence)) => Ok((complete.session, sequence)),
        Err(FullLoadError::Unavailable(error)) => {
            return Err(OperationError::Log(LogError::Unavailable(error)));
        }
        Err(error @ FullLoadError::Undecodable { .. }) => Err(error_chain(&error)),
    };
    let sequence = full.as_ref().map_or(i64::MAX, |(_, sequence)| *sequence);
    let wanted = [(session_id, sequence)];
    let loaded = with_deadline(STATEMENT_DEADLINE, load_state::sessions(pool, &wanted)).await?;
    let Some(short) = loaded.into_iter().next() else {
        return Ok(Comparison::Omitted);
    };
    let expected = match full {
        Ok((session, sequence)) if (&session, sequence) == (&short.session, short.sequence) => {
            return Ok(Comparison::Equal);
        }
        Ok((session, sequence)) => shown(session_id, sequence, &session),
        Err(_) if has_unknown_version(pool, session_id).await? => return Ok(Comparison::Omitted),
        Err(error) => json!({ "session_id": session_id, "error": error }),
    };
    Ok(Comparison::Different(Difference {
        found: Some(shown(session_id, short.sequence, &short.session)),
        expected: Some(expected),
    }))
}

async fn has_unknown_version(pool: &PgPool, session_id: SessionId) -> Result<bool, OperationError> {
    let events = with_deadline(STATEMENT_DEADLINE, read::session(pool, session_id, 0)).await?;
    Ok(events.iter().any(|event| {
        let Err(LogError::Undecodable { source, .. }) = event.decode() else {
            return false;
        };
        matches!(
            source,
            DecodeError::UnknownVersion { .. } | DecodeError::UnknownEvent(_)
        )
    }))
}

fn shown(session_id: SessionId, sequence: i64, session: &ReadingSession) -> Value {
    json!({ "session_id": session_id, "sequence": sequence, "session": session })
}
