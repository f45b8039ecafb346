//! Decisions on a memory that is ahead of the log.

use chrono::TimeDelta;
use domain::{ReaderId, SessionId};
use eventlog::active_claims::IdleSession;
use uuid::Uuid;

use super::*;

#[test]
fn idle_session_with_more_remembered_events_is_loaded_again() {
    let session_id = SessionId::new(eventlog::clock::now());
    let reader_id = ReaderId::from(Uuid::new_v4());
    let remembered = VersionedSession {
        sequence: 3,
        ..VersionedSession::default()
    };
    let mut known = Known::default();
    known.sessions.insert(session_id, Arc::new(remembered));
    let command = Command::EndIdle(IdleSession {
        reader_id,
        session_id,
        sequence: 1,
    });
    let rules = Rules {
        active_gap: TimeDelta::minutes(2),
    };
    let decided = decide(&known, reader_id, &command, rules);
    let missing = Undecided::Missing(Missing::NewestSession(session_id));
    assert_eq!(decided.unwrap_err(), missing);
    // The newest state has an event that the job has not seen.
    known.newest.insert(session_id);
    let decided = decide(&known, reader_id, &command, rules).unwrap();
    assert!(decided.events.is_empty());
}
