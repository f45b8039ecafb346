//! Events that a projection cannot apply: parked with their error in the step
//! that passes them, so the projection goes on and nothing is forgotten. Later
//! events of the same session wait, since what they say rests on the parked
//! one.
//!
//! An operator has a session tried again, or discards an event for good. Both
//! are only wishes, written into the table; the projection's worker, who alone
//! applies events, acts on them.

use eventlog::Logged;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Transaction};

use crate::CommitError;

pub mod actions;
mod admin;
mod index;
mod publish;

pub use admin::{DeadLetter, Found, LetterId, Outcome, discard, find, list, outcome, retry};
pub(crate) use index::{DeadLetterIndex, MAX_LETTERS, Disposition, held, text};
pub use publish::publish;

/// What a step does to the dead letters.
#[derive(Debug, Default)]
pub struct DeadLetterChanges {
    /// Events that it passes without applying them.
    pub parked: Vec<NewDeadLetter>,
    /// Global positions of parked events that it applies after all.
    pub settled: Vec<i64>,
    /// Sessions that it erases: nothing waits for them any more, and an error
    /// may quote what was in them.
    pub erased: Vec<String>,
}

/// An event that is not applied.
#[derive(Debug)]
pub struct NewDeadLetter {
    /// Its place in the log.
    pub global_position: i64,
    /// Its session.
    pub session_id: String,
    /// Its place in the session.
    pub sequence: i64,
    /// Why it is not applied.
    pub why: Why,
}

/// Why an event is not applied.
#[derive(Clone, Debug)]
pub enum Why {
    /// It cannot be; with the error.
    Parked(String),
    /// One before it in its session, at this global position, cannot be.
    Waiting(i64),
}

impl NewDeadLetter {
    /// A letter of an event.
    #[must_use]
    pub fn of(event: &Logged, why: Why) -> Self {
        Self {
            global_position: event.global_position(),
            session_id: event.session_id(),
            sequence: event.sequence(),
            why,
        }
    }
}

impl DeadLetterChanges {
    fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.settled.is_empty() && self.erased.is_empty()
    }

    /// Adds that a session is erased, whose events may have been parked.
    pub(crate) fn erase(&mut self, session_id: String) {
        self.parked.retain(|letter| letter.session_id != session_id);
        self.erased.push(session_id);
    }

    /// Removes all letters of the sessions that are erased, discarded ones too.
    pub(crate) async fn forget(
        &self,
        database: impl PgExecutor<'_>,
        projection: &str,
    ) -> Result<(), CommitError> {
        sqlx::query!(
            "delete from dead_letters where projection = $1 and session_id = any ($2)",
            projection,
            &self.erased
        )
        .execute(database)
        .await?;
        Ok(())
    }

    /// Removes the letters of events that are applied now.
    pub(crate) async fn settle(
        &self,
        database: impl PgExecutor<'_>,
        projection: &str,
    ) -> Result<(), CommitError> {
        let settled = sqlx::query!(
            "delete from dead_letters
            where projection = $1 and global_position = any ($2) and state <> 'discarded'",
            projection,
            &self.settled
        )
        .execute(database)
        .await?
        .rows_affected();
        // Somebody else has applied one of them, or an operator discarded it.
        if usize::try_from(settled) == Ok(self.settled.len()) {
            Ok(())
        } else {
            Err(CommitError::Moved)
        }
    }

    /// Writes the letters of events that are passed.
    pub(crate) async fn park(
        &self,
        database: impl PgExecutor<'_>,
        projection: &str,
    ) -> Result<(), CommitError> {
        let mut positions = Vec::new();
        let mut sessions = Vec::new();
        let mut sequences = Vec::new();
        let mut states = Vec::new();
        let mut errors = Vec::new();
        for letter in &self.parked {
            positions.push(letter.global_position);
            sessions.push(letter.session_id.as_str());
            sequences.push(letter.sequence);
            let (state, error) = match &letter.why {
                Why::Parked(error) => ("parked", error.clone()),
                Why::Waiting(on) => ("waiting", format!("waits for the event at {on}")),
            };
            states.push(state);
            errors.push(error);
        }
        // Where the store cannot take part in the step (Redis), a letter may
        // have been written by a step that was not made.
        sqlx::query!(
            "insert into dead_letters (projection, global_position, session_id, sequence, state, error)
            select $1, * from unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])
            on conflict (projection, global_position) do nothing",
            projection,
            &positions,
            &sessions as _,
            &sequences,
            &states as _,
            &errors,
        )
        .execute(database)
        .await?;
        Ok(())
    }
}

/// A step in Postgres: one statement that moves the checkpoint and writes the
/// rows; with dead letters, or where others come before it, a transaction of it
/// and them.
pub(crate) enum TableCommit {
    Plain(PoolConnection<Postgres>),
    WithMore(Transaction<'static, Postgres>),
}

impl TableCommit {
    /// Begins a step; `more` when it has another statement.
    pub(crate) async fn begin(pool: &PgPool, letters: &DeadLetterChanges, more: bool) -> sqlx::Result<Self> {
        Ok(if letters.is_empty() && !more {
            Self::Plain(pool.acquire().await?)
        } else {
            Self::WithMore(pool.begin().await?)
        })
    }

    /// Where the statement runs.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::WithMore(transaction) => transaction,
        }
    }

    /// Ends it: nothing is written when the checkpoint has not moved.
    pub(crate) async fn end(
        self,
        moved: bool,
        letters: &DeadLetterChanges,
        projection: &str,
    ) -> Result<(), CommitError> {
        if !moved {
            return Err(CommitError::Moved);
        }
        if let Self::WithMore(mut transaction) = self {
            if !letters.erased.is_empty() {
                letters.forget(&mut *transaction, projection).await?;
            }
            if !letters.parked.is_empty() {
                letters.park(&mut *transaction, projection).await?;
            }
            if !letters.settled.is_empty() {
                letters.settle(&mut *transaction, projection).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// Notes that a session was tried again in vain: the event at a position cannot
/// be applied, and the others of the session wait for it.
pub(crate) async fn refuse(
    pool: &PgPool,
    projection: &str,
    session_id: &str,
    global_position: i64,
    error: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update dead_letters
        set asked = false,
            tries = tries + (global_position = $3)::int,
            error = case
                when global_position = $3 then $4
                else 'waits for the event at ' || $3
            end,
            state = case when global_position = $3 then 'parked' else 'waiting' end
        where projection = $1 and session_id = $2 and state <> 'discarded'",
        projection,
        session_id,
        global_position,
        error
    )
    .execute(pool)
    .await?;
    Ok(())
}
