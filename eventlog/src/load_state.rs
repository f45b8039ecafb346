//! Loads the state of sessions from three events each, however many they have.
//!
//! Events contain absolute values. Therefore the first event, the last one and the
//! last one that moved the position determine the state. Every event moves it but a
//! `PositionUpdated` whose `applied` is false: a late observation, also one that arrives
//! after the end. `verify` checks this against [`crate::cqrs_es::load_full`], which reads
//! all events.
//!
//! Some decisions need all observations of a session: [`timeline`] reads all events.

use domain::{ReadingSession, SessionId, Timeline, TimelineBuilder};
use futures::TryStreamExt;
use sqlx::PgExecutor;

use crate::{LogError, RecordedEvent, StoredEvent};

/// A session after some or all of its events.
#[derive(Clone, Debug)]
pub struct LoadedSession {
    pub session_id: SessionId,
    pub session: ReadingSession,
    /// The sequence of the last event that is applied.
    pub sequence: i64,
    /// The global position of that event.
    pub global_position: i64,
}

impl LoadedSession {
    fn empty(session_id: SessionId) -> Self {
        Self {
            session_id,
            session: ReadingSession::default(),
            sequence: 0,
            global_position: 0,
        }
    }

    /// Ignores an event that is applied already: two of the three may be the same.
    fn apply(&mut self, event: &RecordedEvent) {
        if self.sequence < event.sequence {
            self.session.apply(&event.event);
            self.sequence = event.sequence;
            self.global_position = event.global_position;
        }
    }
}

/// The session after all of its events; `None` if it has none.
pub async fn session(
    database: impl PgExecutor<'_>,
    id: SessionId,
) -> Result<Option<LoadedSession>, LogError> {
    let events = sqlx::query_file_as!(
        StoredEvent,
        "src/load_state/sessions.sql",
        &[id.to_string()],
        &[i64::MAX]
    )
    .fetch_all(database)
    .await?;
    let mut loaded = LoadedSession::empty(id);
    for stored in events {
        loaded.apply(&stored.decode()?);
    }
    Ok(Some(loaded).filter(|loaded| loaded.sequence > 0))
}

/// The given sessions, each after its first events up to the given sequence, in the
/// order of their ids. Leaves out sessions that this build cannot decode.
pub async fn sessions(
    database: impl PgExecutor<'_>,
    wanted: &[(SessionId, i64)],
) -> Result<Vec<LoadedSession>, LogError> {
    let ids: Vec<String> = wanted.iter().map(|(id, _)| id.to_string()).collect();
    let up_to: Vec<i64> = wanted.iter().map(|(_, sequence)| *sequence).collect();
    let mut events = sqlx::query_file_as!(StoredEvent, "src/load_state/sessions.sql", &ids, &up_to)
        .fetch(database);
    let mut loaded: Vec<LoadedSession> = Vec::with_capacity(wanted.len());
    let mut undecodable = None;
    while let Some(stored) = events.try_next().await? {
        if undecodable.as_ref() == Some(&stored.session_id) {
            continue;
        }
        let Ok(event) = stored.decode() else {
            if loaded
                .last()
                .is_some_and(|last| last.session_id.to_string() == stored.session_id)
            {
                loaded.pop();
            }
            undecodable = Some(stored.session_id);
            continue;
        };
        if loaded
            .last()
            .is_none_or(|last| last.session_id != event.session_id)
        {
            loaded.push(LoadedSession::empty(event.session_id));
        }
        let last = loaded.last_mut().expect("it was just pushed");
        last.apply(&event);
    }
    Ok(loaded)
}

/// All observations of a session after its first `sequence` events. Reads and decodes one
/// event at a time, so that the payloads of a long session are never in memory together.
pub async fn timeline(
    database: impl PgExecutor<'_>,
    id: SessionId,
    sequence: i64,
) -> Result<Timeline, LogError> {
    let mut events = sqlx::query_file_as!(StoredEvent, "src/read/session.sql", id.to_string(), 0)
        .fetch(database);
    let mut timeline = TimelineBuilder::default();
    while let Some(stored) = events.try_next().await? {
        if stored.sequence > sequence {
            break;
        }
        timeline.apply(&stored.decode()?.event);
    }
    Ok(timeline.build())
}

/// The sequence that each of the given sessions had at a global position of its own.
/// Leaves out sessions without an event up to there.
pub async fn sequences(
    database: impl PgExecutor<'_>,
    wanted: &[(SessionId, i64)],
) -> Result<Vec<(SessionId, i64)>, LogError> {
    let ids: Vec<String> = wanted.iter().map(|(id, _)| id.to_string()).collect();
    let up_to: Vec<i64> = wanted.iter().map(|(_, position)| *position).collect();
    let rows = sqlx::query!(
        r#"select wanted.session_id as "session_id!", last.sequence
        from unnest($1::text[], $2::bigint[]) as wanted (session_id, up_to)
        cross join lateral (
            select events.sequence from events
            where events.aggregate_id = wanted.session_id
                and events.global_position <= wanted.up_to
            order by events.sequence desc
            limit 1
        ) as last"#,
        &ids,
        &up_to
    )
    .fetch_all(database)
    .await?;
    let sequences = rows
        .into_iter()
        .filter_map(|row| Some((row.session_id.parse().ok()?, row.sequence)));
    Ok(sequences.collect())
}
