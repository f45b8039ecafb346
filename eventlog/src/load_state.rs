//! Sessions as they stood after some of their events, many at a time: to put
//! them into a cache, or to compare one with the log.

use domain::{ReadingSession, SessionId};
use futures::TryStreamExt;
use sqlx::PgExecutor;

use crate::{LogError, Recorded, Stored};

/// A session as its first events left it.
#[derive(Clone, Debug)]
pub struct Folded {
    /// Its id.
    pub session_id: SessionId,
    /// The session.
    pub session: ReadingSession,
    /// How many events that is.
    pub sequence: i64,
    /// The global position of the last of them.
    pub global_position: i64,
}

impl Folded {
    /// A session without events.
    fn before(session_id: SessionId) -> Self {
        Self {
            session_id,
            session: ReadingSession::default(),
            sequence: 0,
            global_position: 0,
        }
    }

    /// The same event twice is one.
    fn apply(&mut self, event: &Recorded) {
        if self.sequence < event.sequence {
            self.session.apply(&event.event);
            self.sequence = event.sequence;
            self.global_position = event.global_position;
        }
    }
}

/// A session with all its events; `None` when it has none. Three of them are read,
/// however many it has.
///
/// # Errors
/// [`LogError::Unavailable`], and [`LogError::Undecodable`] when one of the three
/// is of no version that is known.
pub async fn session(
    database: impl PgExecutor<'_>,
    id: SessionId,
) -> Result<Option<Folded>, LogError> {
    let events = sqlx::query_file_as!(
        Stored,
        "src/load_state/sessions.sql",
        &[id.to_string()],
        &[i64::MAX]
    )
    .fetch_all(database)
    .await?;
    let mut folded = Folded::before(id);
    for stored in events {
        folded.apply(&stored.decode()?);
    }
    Ok(Some(folded).filter(|folded| folded.sequence > 0))
}

/// Some sessions, each as its first so many events left it, in the order of
/// their ids. Those that cannot be decoded are left out. Of each session three
/// events are read, however many it has.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn sessions(
    database: impl PgExecutor<'_>,
    wanted: &[(SessionId, i64)],
) -> Result<Vec<Folded>, LogError> {
    let ids: Vec<String> = wanted.iter().map(|(id, _)| id.to_string()).collect();
    let most: Vec<i64> = wanted.iter().map(|(_, most)| *most).collect();
    let mut events =
        sqlx::query_file_as!(Stored, "src/load_state/sessions.sql", &ids, &most).fetch(database);
    let mut folded: Vec<Folded> = Vec::with_capacity(wanted.len());
    let mut skipped = None;
    while let Some(stored) = events.try_next().await? {
        if skipped.as_ref() == Some(&stored.session_id) {
            continue;
        }
        let Ok(event) = stored.decode() else {
            if folded
                .last()
                .is_some_and(|last| last.session_id.to_string() == stored.session_id)
            {
                folded.pop();
            }
            skipped = Some(stored.session_id);
            continue;
        };
        if folded
            .last()
            .is_none_or(|last| last.session_id != event.session_id)
        {
            folded.push(Folded::before(event.session_id));
        }
        let last = folded.last_mut().expect("it was just pushed");
        last.apply(&event);
    }
    Ok(folded)
}

/// How many events each of some sessions has up to a global position; those
/// without any are left out.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn sequences(
    database: impl PgExecutor<'_>,
    sessions: &[SessionId],
    up_to: i64,
) -> Result<Vec<(SessionId, i64)>, LogError> {
    let ids: Vec<String> = sessions.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"select wanted.session_id as "session_id!", last.sequence
        from unnest($1::text[]) as wanted (session_id)
        cross join lateral (
            select events.sequence from events
            where events.aggregate_id = wanted.session_id and events.global_position <= $2
            order by events.sequence desc
            limit 1
        ) as last"#,
        &ids,
        up_to
    )
    .fetch_all(database)
    .await?;
    let known = |(id, sequence): (String, i64)| Some((id.parse().ok()?, sequence));
    let rows = rows.into_iter().map(|row| (row.session_id, row.sequence));
    Ok(rows.filter_map(known).collect())
}
