//! The log, read in order. Order of global position is order of visibility,
//! so one number says how far a reader has come.

use domain::{ReadingSession, SessionId, Timestamp};
use futures::TryStreamExt;
use sqlx::{PgExecutor, PgPool};

use crate::{LogError, Stored};

/// The events after a global position, in order, at most `limit`.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn after(
    database: impl PgExecutor<'_>,
    global_position: i64,
    limit: i64,
) -> Result<Vec<Stored>, LogError> {
    let events = sqlx::query_file_as!(Stored, "src/read/after.sql", global_position, limit)
        .fetch_all(database)
        .await?;
    Ok(events)
}

/// The events at some global positions, in order; those that the log does not
/// hold are left out.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn at(
    database: impl PgExecutor<'_>,
    global_positions: &[i64],
) -> Result<Vec<Stored>, LogError> {
    let events = sqlx::query_file_as!(Stored, "src/read/at.sql", global_positions)
        .fetch_all(database)
        .await?;
    Ok(events)
}

/// The events of one session after a sequence, in order.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn session(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    after: i64,
) -> Result<Vec<Stored>, LogError> {
    let events = sqlx::query_file_as!(
        Stored,
        "src/read/session.sql",
        session_id.to_string(),
        after
    )
    .fetch_all(database)
    .await?;
    Ok(events)
}

/// The global position of a session's event.
///
/// # Errors
/// [`LogError::Unavailable`], also when there is no such event.
pub async fn position(
    database: impl PgExecutor<'_>,
    session_id: SessionId,
    sequence: i64,
) -> Result<i64, LogError> {
    let position = sqlx::query_scalar!(
        "select global_position from events where aggregate_id = $1 and sequence = $2",
        session_id.to_string(),
        sequence
    )
    .fetch_one(database)
    .await?;
    Ok(position)
}

/// The global position of the newest event; 0 when there is none.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn head(database: impl PgExecutor<'_>) -> Result<i64, LogError> {
    let head = sqlx::query_scalar!(
        r#"select global_position from events order by global_position desc limit 1"#
    )
    .fetch_optional(database)
    .await?;
    Ok(head.unwrap_or(0))
}

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

/// Some sessions, each as its first so many events left it, in the order of
/// their ids. Those that cannot be decoded are left out. Takes the memory of
/// the sessions, not of their events.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn fold(
    database: impl PgExecutor<'_>,
    sessions: &[(SessionId, i64)],
) -> Result<Vec<Folded>, LogError> {
    let ids: Vec<String> = sessions.iter().map(|(id, _)| id.to_string()).collect();
    let most: Vec<i64> = sessions.iter().map(|(_, most)| *most).collect();
    let mut events =
        sqlx::query_file_as!(Stored, "src/read/sessions.sql", &ids, &most).fetch(database);
    let mut folded: Vec<Folded> = Vec::with_capacity(sessions.len());
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
            folded.push(Folded {
                session_id: event.session_id,
                session: ReadingSession::default(),
                sequence: 0,
                global_position: 0,
            });
        }
        let last = folded.last_mut().expect("it was just pushed");
        last.session.apply(&event.event);
        last.sequence = event.sequence;
        last.global_position = event.global_position;
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

/// The global position of the event before a position; 0 when there is none.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn before(database: impl PgExecutor<'_>, global_position: i64) -> Result<i64, LogError> {
    let before = sqlx::query_scalar!(
        "select global_position from events where global_position < $1
        order by global_position desc limit 1",
        global_position
    )
    .fetch_optional(database)
    .await?;
    Ok(before.unwrap_or(0))
}

/// The global position after which events were written at a time or later, by
/// halving: times are not indexed, but ascend with positions, as nearly as the
/// clock of Postgres does.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn before_time(pool: &PgPool, time: Timestamp) -> Result<i64, LogError> {
    // What is up to `low` was written before the time, what is after `high`
    // was not.
    let (mut low, mut high) = (0, head(pool).await?);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = sqlx::query!(
            "select global_position, recorded_at from events where global_position > $1
            order by global_position limit 1",
            middle
        )
        .fetch_optional(pool)
        .await?;
        match next {
            Some(next) if next.recorded_at < time => low = next.global_position,
            _ => high = middle,
        }
    }
    Ok(low)
}
