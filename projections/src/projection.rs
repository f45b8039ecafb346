//! What a projection is: a pure fold of events into a batch, and one atomic
//! step that writes the batch and moves the checkpoint.

use std::time::Duration;

use eventlog::Recorded;
use thiserror::Error;

/// How long Postgres may take over a step; somewhat longer than a statement
/// may take there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(35);

/// A read model of the log.
pub trait Projection: Send {
    /// Its name, of its checkpoint too.
    const NAME: &'static str;

    /// What many events come to before they are written.
    type Batch: Default + Send;

    /// Adds an event to a batch. Pure: no clock, no I/O.
    fn fold(batch: &mut Self::Batch, event: &Recorded);

    /// The global position up to which events have been applied.
    fn checkpoint(&mut self) -> impl Future<Output = Result<i64, CommitError>> + Send;

    /// Writes a batch and moves the checkpoint in one atomic step. Nothing is
    /// written unless the checkpoint still is where the step begins.
    fn commit(
        &mut self,
        batch: Self::Batch,
        step: Step,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// The way of a checkpoint: the events after `from` up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The global position of the last event applied before.
    pub from: i64,
    /// The global position of the last event in the batch.
    pub to: i64,
}

/// A step was not made.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The checkpoint is elsewhere: another worker is at the same projection,
    /// or an earlier step was made after all. Nothing was written.
    #[error("the checkpoint has moved")]
    Moved,
    /// The store did not answer; whether the step was made is not known.
    #[error("the read side is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
