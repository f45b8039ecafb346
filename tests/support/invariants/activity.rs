//! Which session of a reader is active.

use std::collections::{BTreeMap, BTreeSet};

use domain::{ReaderId, SessionEvent, SessionId, Timestamp};
use eventlog::StoredEvent;
use sqlx::PgPool;
use uuid::Uuid;

use super::FoldedSession;

/// After each event of the log, a reader has at most one active session. It has the
/// newest observation of the sessions that are in the log. The active-session claims at
/// the end name the active sessions.
pub async fn active_sessions_match_the_log(
    pool: &PgPool,
    log: &[StoredEvent],
    sessions: &BTreeMap<SessionId, FoldedSession>,
) {
    let active = fold(log);
    let claims: Vec<(Uuid, String)> =
        sqlx::query_as("select reader_id, session_id from claims order by reader_id")
            .fetch_all(pool)
            .await
            .unwrap();
    let named: Vec<(Uuid, String)> = active
        .iter()
        .map(|(reader_id, id)| (reader_id.uuid(), id.to_string()))
        .collect();
    assert_eq!(claims, named, "active-session claims");

    let newest = newest_observations(log);
    let started = |id: &SessionId| sessions[id].session.started().unwrap();
    for id in sessions.keys() {
        let reader_id = started(id).start.reader_id;
        if let Some(active) = active.get(&reader_id) {
            let (observed, latest) = (newest[id], started(active).progress.latest.at);
            assert!(
                observed <= latest,
                "session {id} has a newer observation, {observed}, than the active session \
                {active}, {latest}"
            );
        }
    }
}

/// The active session of each reader at the end of the log.
fn fold(log: &[StoredEvent]) -> BTreeMap<ReaderId, SessionId> {
    let mut sessions: BTreeMap<SessionId, FoldedSession> = BTreeMap::new();
    let mut active: BTreeMap<ReaderId, BTreeSet<SessionId>> = BTreeMap::new();
    for stored in log {
        let recorded = stored.decode().unwrap();
        let reader_id = recorded.event.reader_id();
        let id = recorded.session_id;
        let folded = sessions.entry(id).or_default();
        folded.session.apply(&recorded.event);
        let of_reader = active.entry(reader_id).or_default();
        if folded
            .session
            .started()
            .is_some_and(domain::session::StartedSession::is_active)
        {
            of_reader.insert(id);
        } else {
            of_reader.remove(&id);
        }
        assert!(
            of_reader.len() <= 1,
            "after global position {}, reader {reader_id} has the active sessions {of_reader:?}",
            stored.global_position
        );
    }
    active
        .into_iter()
        .filter_map(|(reader_id, ids)| Some((reader_id, ids.into_iter().next()?)))
        .collect()
}

/// The newest observation of each session. An end is not an observation.
fn newest_observations(log: &[StoredEvent]) -> BTreeMap<SessionId, Timestamp> {
    let mut newest: BTreeMap<SessionId, Timestamp> = BTreeMap::new();
    for stored in log {
        let recorded = stored.decode().unwrap();
        if let SessionEvent::SessionStarted(_) | SessionEvent::PositionUpdated(_) = recorded.event {
            let at = recorded.event.occurred_at();
            newest
                .entry(recorded.session_id)
                .and_modify(|newest| *newest = at.max(*newest))
                .or_insert(at);
        }
    }
    newest
}
