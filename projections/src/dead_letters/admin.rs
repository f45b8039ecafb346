//! The operator's side of dead letters: queries, and requests to retry or
//! discard. Nothing is applied here: the worker acts on the requests.

use std::fmt;
use std::str::FromStr;

use domain::Timestamp;
use sqlx::PgPool;
use thiserror::Error;

use super::State;
use crate::operations::ProjectionName;

/// Identifies a dead letter. Its text form is `history.1234`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterId {
    pub projection: String,
    pub global_position: i64,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.projection, self.global_position)
    }
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a projection, a dot and a global position, as history.1234")]
pub struct DeadLetterIdError;

impl FromStr for DeadLetterId {
    type Err = DeadLetterIdError;

    fn from_str(text: &str) -> Result<Self, DeadLetterIdError> {
        let (projection, global_position) = text.rsplit_once('.').ok_or(DeadLetterIdError)?;
        Ok(Self {
            projection: projection.to_owned(),
            global_position: global_position.parse().map_err(|_| DeadLetterIdError)?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub projection: String,
    pub global_position: i64,
    pub session_id: String,
    pub sequence: i64,
    pub state: State,
    /// The reason why the event is not applied.
    pub error: String,
    pub parked_at: Timestamp,
    /// Number of attempts to apply the event, including the first.
    pub tries: i32,
}

impl DeadLetter {
    #[must_use]
    pub fn id(&self) -> DeadLetterId {
        DeadLetterId {
            projection: self.projection.clone(),
            global_position: self.global_position,
        }
    }
}

/// A dead letter with its event as stored in the log.
#[derive(Clone, Debug)]
pub struct DeadLetterWithEvent {
    pub dead_letter: DeadLetter,
    pub event_type: String,
    pub event_version: String,
    /// JSON.
    pub payload: String,
}

/// The reason why an action on a dead letter failed. Nothing was changed.
#[derive(Debug, Error)]
pub enum ActionError {
    #[error("{}", not_found(.0))]
    NotFound(DeadLetterId),
    #[error("Dead letter {0} was discarded permanently and cannot be retried")]
    Discarded(DeadLetterId),
    /// A waiting dead letter cannot be discarded. `blocked_by` is the parked one
    /// of its session. It is `None` if the worker is about to apply the event.
    #[error("{}", waiting(id, blocked_by.as_ref()))]
    Waiting {
        id: DeadLetterId,
        blocked_by: Option<DeadLetterId>,
    },
    #[error("Postgres is unavailable")]
    Unavailable(#[from] sqlx::Error),
}

fn not_found(id: &DeadLetterId) -> String {
    if id.projection.parse::<ProjectionName>().is_ok() {
        format!("There is no dead letter {id}")
    } else {
        format!(
            "There is no projection {}; the projections are {}",
            id.projection,
            ProjectionName::names()
        )
    }
}

fn waiting(id: &DeadLetterId, blocked_by: Option<&DeadLetterId>) -> String {
    match blocked_by {
        Some(parked) => format!(
            "Dead letter {id} waits for an earlier event of its session; discard {parked} instead"
        ),
        None => format!("Dead letter {id} is no longer blocked; its projection applies it soon"),
    }
}

/// Returns at most `limit` dead letters by global position, filtered by
/// projection and state, starting after `after`.
pub async fn list(
    pool: &PgPool,
    projection: Option<&str>,
    state: Option<State>,
    after: Option<&DeadLetterId>,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    sqlx::query_as!(
        DeadLetter,
        r#"select projection, global_position, session_id, sequence, state as "state: State",
            error, parked_at, tries
        from dead_letters
        where ($1::text is null or projection = $1)
            and ($2::text is null or state = $2)
            and (global_position, projection) > ($3, $4)
        order by global_position, projection
        limit $5"#,
        projection,
        state.map(State::as_str),
        after.map_or(-1, |after| after.global_position),
        after.map_or("", |after| after.projection.as_str()),
        limit
    )
    .fetch_all(pool)
    .await
}

/// Loads a dead letter with its event.
pub async fn find(pool: &PgPool, id: &DeadLetterId) -> Result<DeadLetterWithEvent, ActionError> {
    let row = sqlx::query!(
        r#"select d.projection, d.global_position, d.session_id, d.sequence,
            d.state as "state: State", d.error, d.parked_at, d.tries, e.event_type,
            e.event_version, e.payload::text as "payload!"
        from dead_letters as d
        join events as e on e.aggregate_id = d.session_id and e.sequence = d.sequence
        where d.projection = $1 and d.global_position = $2"#,
        id.projection,
        id.global_position
    )
    .fetch_optional(pool)
    .await?
    .ok_or_else(|| ActionError::NotFound(id.clone()))?;
    Ok(DeadLetterWithEvent {
        dead_letter: DeadLetter {
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
    })
}

/// Requests that the worker retries the session of a dead letter. If no event
/// of the session is parked any more, the worker does so without a request.
pub async fn retry(pool: &PgPool, id: &DeadLetterId) -> Result<(), ActionError> {
    let state = sqlx::query_scalar!(
        r#"with target as (
            select session_id, state from dead_letters
            where projection = $1 and global_position = $2
        ),
        requested as (
            update dead_letters as d set asked = true
            from target
            where target.state <> 'discarded'
                and d.projection = $1 and d.session_id = target.session_id
                and d.state = 'parked'
        )
        select state as "state: State" from target"#,
        id.projection,
        id.global_position
    )
    .fetch_optional(pool)
    .await?;
    match state {
        None => Err(ActionError::NotFound(id.clone())),
        Some(State::Discarded) => Err(ActionError::Discarded(id.clone())),
        Some(State::Parked | State::Waiting) => Ok(()),
    }
}

/// Discards a parked dead letter: its projection skips the event permanently and
/// applies the later events of the session.
pub async fn discard(pool: &PgPool, id: &DeadLetterId) -> Result<(), ActionError> {
    // `for update`: a worker may change the state while the statement runs. The
    // result and the update must use the same state.
    let row = sqlx::query!(
        r#"with target as (
            select session_id, state from dead_letters
            where projection = $1 and global_position = $2
            for update
        ),
        discarded as (
            update dead_letters as d set state = 'discarded', asked = false
            from target
            where target.state <> 'waiting' and d.projection = $1 and d.global_position = $2
        )
        select state as "state: State",
            (
                select min(d.global_position) from dead_letters as d
                where d.projection = $1 and d.session_id = target.session_id
                    and d.state = 'parked'
            ) as blocked_by
        from target"#,
        id.projection,
        id.global_position
    )
    .fetch_optional(pool)
    .await?
    .ok_or_else(|| ActionError::NotFound(id.clone()))?;
    if row.state != State::Waiting {
        return Ok(());
    }
    Err(ActionError::Waiting {
        id: id.clone(),
        blocked_by: row.blocked_by.map(|global_position| DeadLetterId {
            projection: id.projection.clone(),
            global_position,
        }),
    })
}

/// The result of a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryStatus {
    /// The event is applied, and the dead letter is deleted.
    Applied,
    /// The worker has not retried the session yet.
    Pending,
    /// The event is not applied. Contains the error.
    Failed(String),
    Discarded,
}

pub async fn retry_status(pool: &PgPool, id: &DeadLetterId) -> sqlx::Result<RetryStatus> {
    let row = sqlx::query!(
        r#"select d.state as "state: State", d.error,
            exists (
                select from dead_letters as o
                where o.projection = d.projection and o.session_id = d.session_id and o.asked
            ) as "pending!"
        from dead_letters as d
        where d.projection = $1 and d.global_position = $2"#,
        id.projection,
        id.global_position
    )
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        None => RetryStatus::Applied,
        Some(row) if row.state == State::Discarded => RetryStatus::Discarded,
        Some(row) if row.pending => RetryStatus::Pending,
        Some(row) => RetryStatus::Failed(row.error),
    })
}
