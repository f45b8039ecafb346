//! Reads a reader's active session from the log. Writes nothing.

use std::sync::Arc;

use domain::session::StartedSession;
use domain::{ReaderId, SessionId};
use eventlog::{LogError, active_claims};

use crate::repository::{Repository, VersionedSession};

/// Maximum number of attempts. An attempt fails if the session has ended since the
/// active-session claim was read.
const MAX_ATTEMPTS: u32 = 3;

/// A reader's active session.
#[derive(Clone, Debug)]
pub struct ActiveSession {
    pub session_id: SessionId,
    pub versioned: Arc<VersionedSession>,
}

/// Returns the reader's active session, if any, and the global position of the
/// log's end when the active-session claim was read.
pub(crate) async fn load(
    repository: &Repository,
    reader_id: ReaderId,
) -> Result<(Option<ActiveSession>, i64), LogError> {
    let mut claim = active_claims::active_claim(repository.pool(), reader_id).await?;
    for _ in 0..MAX_ATTEMPTS {
        let Some((session_id, sequence, claimed_at)) = claim.session else {
            return Ok((None, claim.head));
        };
        let versioned = repository
            .load_at_least(session_id, sequence, claimed_at)
            .await?;
        let session = versioned.session.started();
        if session.is_some_and(StartedSession::is_active) {
            let active = ActiveSession {
                session_id,
                versioned,
            };
            return Ok((Some(active), claim.head));
        }
        // The session ended after its claim was read. Another may be active.
        claim = active_claims::active_claim(repository.pool(), reader_id).await?;
    }
    Err(LogError::Unavailable(
        "the reader's active session changed during every attempt to read it".into(),
    ))
}
