//! What operators may ask of a dead letter, on the command line and over HTTP,
//! and why not.

use std::fmt;

use crate::dead_letters::{self, DeadLetter, Found, LetterId};
use sqlx::PgPool;

use crate::operations::ProjectionName;

/// More dead letters than a projection may have.
const ALL: i64 = 20_000;

/// Why it is not done.
#[derive(Debug)]
pub enum ActionError {
    /// There is no such letter.
    Unknown(LetterId),
    /// It was discarded.
    Discarded(LetterId),
    /// It only waits for another one of its session.
    Waiting {
        /// The letter.
        id: LetterId,
        /// For which.
        on: Option<LetterId>,
    },
    /// Postgres did not answer.
    Unavailable(sqlx::Error),
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) if ProjectionName::named(&id.projection).is_none() => write!(
                f,
                "There is no projection {}, only {}",
                id.projection,
                ProjectionName::list()
            ),
            Self::Unknown(id) => write!(f, "There is no dead letter {id}"),
            Self::Discarded(id) => write!(f, "{id} was discarded, and stays so"),
            Self::Waiting { id, on: Some(on) } => write!(
                f,
                "{id} only waits for an event before it in its session: discard {on} instead"
            ),
            Self::Waiting { id, on: None } => {
                write!(f, "{id} waits for nothing any more, and is about to go on")
            }
            Self::Unavailable(_) => f.write_str("Postgres does not answer"),
        }
    }
}

impl std::error::Error for ActionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(error) => Some(error),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for ActionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// A letter and its event.
///
/// # Errors
/// [`ActionError::Unknown`], [`ActionError::Unavailable`].
pub async fn find(pool: &PgPool, id: &LetterId) -> Result<Found, ActionError> {
    let found = dead_letters::find(pool, id).await?;
    found.ok_or_else(|| ActionError::Unknown(id.clone()))
}

/// Has a letter's session tried again, as soon as its worker comes to it.
///
/// # Errors
/// See [`ActionError`].
pub async fn retry(pool: &PgPool, id: &LetterId) -> Result<(), ActionError> {
    if dead_letters::retry(pool, id).await? {
        return Ok(());
    }
    match find(pool, id).await?.letter.state.as_str() {
        "discarded" => Err(ActionError::Discarded(id.clone())),
        // There is no parked one left in its session: it goes on by itself.
        _ => Ok(()),
    }
}

/// Leaves a letter's event out for good.
///
/// # Errors
/// See [`ActionError`].
pub async fn discard(pool: &PgPool, id: &LetterId) -> Result<(), ActionError> {
    if dead_letters::discard(pool, id).await? {
        return Ok(());
    }
    let waiting = find(pool, id).await?.letter;
    let parked = dead_letters::list(pool, Some(&id.projection), Some("parked"), None, ALL).await?;
    let on = parked
        .iter()
        .find(|letter| letter.session_id == waiting.session_id)
        .map(DeadLetter::id);
    Err(ActionError::Waiting { id: id.clone(), on })
}
