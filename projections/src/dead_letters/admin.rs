//! What operators do with dead letters. They look, and they write down what
//! they want; nothing is applied here.

use std::fmt;
use std::str::FromStr;

use domain::Timestamp;
use sqlx::PgPool;
use thiserror::Error;

/// Names a dead letter: its projection and its event's global position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterId {
    /// Whose letter it is.
    pub projection: String,
    /// Its place in the log.
    pub global_position: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.projection, self.global_position)
    }
}

/// Not the name of a dead letter.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a projection, a dot and a global position, as history.1234")]
pub struct NotALetterId;

impl FromStr for LetterId {
    type Err = NotALetterId;

    fn from_str(text: &str) -> Result<Self, NotALetterId> {
        let (projection, position) = text.rsplit_once('.').ok_or(NotALetterId)?;
        Ok(Self {
            projection: projection.to_owned(),
            global_position: position.parse().map_err(|_| NotALetterId)?,
        })
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Whose letter it is.
    pub projection: String,
    /// Its place in the log.
    pub global_position: i64,
    /// Its session.
    pub session_id: String,
    /// Its place in the session.
    pub sequence: i64,
    /// `parked`, `waiting` or `discarded`.
    pub state: String,
    /// Why it is not applied.
    pub error: String,
    /// Since when.
    pub parked_at: Timestamp,
    /// How often it was tried.
    pub tries: i32,
}

impl DeadLetter {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> LetterId {
        LetterId {
            projection: self.projection.clone(),
            global_position: self.global_position,
        }
    }
}

/// A dead letter and its event as the log has it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The letter.
    pub letter: DeadLetter,
    /// The event's name.
    pub event_type: String,
    /// The version of its payload.
    pub event_version: String,
    /// The event, as JSON.
    pub payload: String,
}

/// Dead letters in the order of the log, of one projection and in one state or
/// of all, at most `limit`; those after `after` alone.
///
/// # Errors
/// Those of Postgres.
pub async fn list(
    pool: &PgPool,
    projection: Option<&str>,
    state: Option<&str>,
    after: Option<&LetterId>,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    sqlx::query_as!(
        DeadLetter,
        "select projection, global_position, session_id, sequence, state, error, parked_at, tries
        from dead_letters
        where ($1::text is null or projection = $1)
            and ($2::text is null or state = $2)
            and (global_position, projection) > ($3, $4)
        order by global_position, projection
        limit $5",
        projection,
        state,
        after.map_or(-1, |after| after.global_position),
        after.map_or("", |after| after.projection.as_str()),
        limit
    )
    .fetch_all(pool)
    .await
}

/// A dead letter and its event.
///
/// # Errors
/// Those of Postgres.
pub async fn find(pool: &PgPool, id: &LetterId) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query!(
        r#"select d.projection, d.global_position, d.session_id, d.sequence, d.state, d.error,
            d.parked_at, d.tries, e.event_type, e.event_version, e.payload::text as "payload!"
        from dead_letters as d
        join events as e on e.aggregate_id = d.session_id and e.sequence = d.sequence
        where d.projection = $1 and d.global_position = $2"#,
        id.projection,
        id.global_position
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Found {
        letter: DeadLetter {
            projection: row.projection,
            global_position: row.global_position,
            session_id: row.session_id,
            sequence: row.sequence,
            state: row.state,
            error: row.error,
            parked_at: row.parked_at,
            tries: row.tries,
        },
        event_type: row.event_type,
        event_version: row.event_version,
        payload: row.payload,
    }))
}

/// Asks for a letter's session to be tried again. False when there is no such
/// letter, or it was discarded.
///
/// # Errors
/// Those of Postgres.
pub async fn retry(pool: &PgPool, id: &LetterId) -> sqlx::Result<bool> {
    let asked = sqlx::query!(
        "update dead_letters as d set asked = true
        from dead_letters as named
        where named.projection = $1 and named.global_position = $2
            and named.state <> 'discarded'
            and d.projection = named.projection and d.session_id = named.session_id
            and d.state = 'parked'",
        id.projection,
        id.global_position
    )
    .execute(pool)
    .await?;
    Ok(asked.rows_affected() > 0)
}

/// Discards a letter: its event is left out of its projection for good, and
/// those that wait for it go on. False when there is no such letter, or it only
/// waits for another.
///
/// # Errors
/// Those of Postgres.
pub async fn discard(pool: &PgPool, id: &LetterId) -> sqlx::Result<bool> {
    let discarded = sqlx::query!(
        "update dead_letters set state = 'discarded', asked = false
        where projection = $1 and global_position = $2 and state <> 'waiting'",
        id.projection,
        id.global_position
    )
    .execute(pool)
    .await?;
    Ok(discarded.rows_affected() > 0)
}

/// What has become of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its event was applied; there is no letter any more.
    Applied,
    /// The worker has yet to try it.
    Pending,
    /// It is where it was, with this error.
    Parked(String),
    /// It was discarded.
    Discarded,
}

/// What has become of a letter whose session was asked for.
///
/// # Errors
/// Those of Postgres.
pub async fn outcome(pool: &PgPool, id: &LetterId) -> sqlx::Result<Outcome> {
    let row = sqlx::query!(
        r#"select d.state, d.error,
            exists (
                select from dead_letters as o
                where o.projection = d.projection and o.session_id = d.session_id and o.asked
            ) as "asked!"
        from dead_letters as d
        where d.projection = $1 and d.global_position = $2"#,
        id.projection,
        id.global_position
    )
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        None => Outcome::Applied,
        Some(row) if row.state == "discarded" => Outcome::Discarded,
        Some(row) if row.asked => Outcome::Pending,
        Some(row) => Outcome::Parked(row.error),
    })
}
