//! Events that a projection cannot apply.
//!
//! The commit that passes such an event stores it as a dead letter, with the
//! error, and the projection continues. Later events of the same session wait,
//! because they build on the parked one.
//!
//! An operator requests a retry for a session, or discards an event. Both only
//! update the table: the projection's worker alone applies events.

use domain::ReaderId;
use eventlog::LogEntry;
use eventlog::error::error_chain;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::CommitError;

mod admin;
mod index;
mod publish;

pub use admin::{
    ActionError, DeadLetter, DeadLetterId, DeadLetterIdError, DeadLetterWithEvent, RetryStatus,
    discard, find, list, retry, retry_status,
};
pub(crate) use index::{
    DeadLetterIndex, Disposition, MAX_DEAD_LETTERS, sessions_with_dead_letters,
};
pub use publish::publish;

/// The state of a dead letter, as stored in the column `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// The event cannot be applied.
    Parked,
    /// An earlier event of the session is parked.
    Waiting,
    /// An operator discarded the event: the projection skips it permanently.
    Discarded,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Parked, Self::Waiting, Self::Discarded];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Discarded => "discarded",
        }
    }
}

/// The changes that a commit makes to the dead letters of its projection.
#[derive(Debug, Default)]
pub struct DeadLetterChanges {
    /// Events that the batch passes without applying them.
    pub parked: Vec<NewDeadLetter>,
    /// Global positions of dead letters whose events the batch applies.
    pub resolved: Vec<i64>,
    /// Sessions that the batch erases. Their dead letters are deleted, since an
    /// error may quote the erased data.
    pub erased: Vec<String>,
}

/// A dead letter that is not stored yet.
#[derive(Debug)]
pub struct NewDeadLetter {
    pub global_position: i64,
    pub session_id: String,
    pub sequence: i64,
    /// The owner of the session; `None` if the event does not contain it.
    pub reader_id: Option<ReaderId>,
    pub reason: ParkReason,
}

/// The reason why an event is not applied.
#[derive(Clone, Debug)]
pub enum ParkReason {
    /// The event cannot be applied. Contains the error.
    Failed(String),
    /// An earlier event of the session cannot be applied. Contains the global
    /// position of that event.
    BlockedBy(i64),
}

impl NewDeadLetter {
    #[must_use]
    pub fn new(event: &LogEntry, reason: ParkReason) -> Self {
        Self {
            global_position: event.global_position(),
            session_id: event.session_id(),
            sequence: event.sequence(),
            reader_id: event.reader_id(),
            reason,
        }
    }
}

impl DeadLetterChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.resolved.is_empty() && self.erased.is_empty()
    }

    /// Records that the batch erases a session. Drops the events of the session
    /// that the batch has parked before.
    pub(crate) fn erase(&mut self, session_id: String) {
        self.parked.retain(|parked| parked.session_id != session_id);
        self.erased.push(session_id);
    }

    /// Writes all changes in a transaction of the caller.
    pub(crate) async fn write(
        &self,
        transaction: &mut PgConnection,
        projection: &str,
    ) -> Result<(), CommitError> {
        self.delete_erased(&mut *transaction, projection).await?;
        self.park(&mut *transaction, projection).await?;
        self.resolve(&mut *transaction, projection).await
    }

    /// Deletes all dead letters of the erased sessions, also the discarded ones.
    pub(crate) async fn delete_erased(
        &self,
        database: impl PgExecutor<'_>,
        projection: &str,
    ) -> Result<(), CommitError> {
        if self.erased.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "delete from dead_letters where projection = $1 and session_id = any ($2)",
            projection,
            &self.erased
        )
        .execute(database)
        .await?;
        Ok(())
    }

    /// Deletes the dead letters whose events the batch applies. Returns
    /// [`CommitError::CheckpointMoved`] if one of them is gone or discarded.
    pub(crate) async fn resolve(
        &self,
        database: impl PgExecutor<'_>,
        projection: &str,
    ) -> Result<(), CommitError> {
        if self.resolved.is_empty() {
            return Ok(());
        }
        let deleted = sqlx::query!(
            "delete from dead_letters
            where projection = $1 and global_position = any ($2) and state <> 'discarded'",
            projection,
            &self.resolved
        )
        .execute(database)
        .await?
        .rows_affected();
        // Otherwise another worker applied one, or an operator discarded one.
        if usize::try_from(deleted) == Ok(self.resolved.len()) {
            Ok(())
        } else {
            Err(CommitError::CheckpointMoved)
        }
    }

    /// Stores the dead letters of the events that the batch passes.
    pub(crate) async fn park(
        &self,
        database: impl PgExecutor<'_>,
        projection: &str,
    ) -> Result<(), CommitError> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let mut global_positions = Vec::new();
        let mut sessions = Vec::new();
        let mut sequences = Vec::new();
        let mut states = Vec::new();
        let mut errors = Vec::new();
        for parked in &self.parked {
            global_positions.push(parked.global_position);
            sessions.push(parked.session_id.as_str());
            sequences.push(parked.sequence);
            let (state, error) = match &parked.reason {
                ParkReason::Failed(error) => (State::Parked, error.clone()),
                ParkReason::BlockedBy(blocker) => {
                    (State::Waiting, format!("waits for the event at {blocker}"))
                }
            };
            states.push(state.as_str());
            errors.push(error);
        }
        // The Redis projection parks before its commit. If that commit failed, its
        // dead letters are already stored.
        sqlx::query!(
            "insert into dead_letters (projection, global_position, session_id, sequence, state, error)
            select $1, * from unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])
            on conflict (projection, global_position) do nothing",
            projection,
            &global_positions,
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

/// Records a failed retry of a session: the event at `global_position` cannot
/// be applied, and the other events of the session wait for it.
pub(crate) async fn mark_failed(
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

/// The longest stored error, in characters. Some errors quote their input.
const MAX_ERROR_LENGTH: usize = 1_000;

/// An error with its causes, as stored in a text column: shortened, and without
/// NUL characters, which Postgres rejects.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let storable = |c: char| match c {
        '\0' => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let text = error_chain(error);
    text.chars().take(MAX_ERROR_LENGTH).map(storable).collect()
}
