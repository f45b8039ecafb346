//! The input of the command side: a command, and the context of its request.

use domain::{CorrectSession, EndSession, Position, SessionId, StartSession, UpdatePosition};
use eventlog::active_claims::IdleSession;
use eventlog::idempotency::IdempotencyKey;
use eventlog::stored_bytes::StorageMeter;
use eventlog::trace::{ParentSpan, Span, TraceParent};

/// A command of one reader. It can be decided several times, so deciding only
/// borrows it.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        session_id: SessionId,
        start: StartSession,
    },
    UpdatePosition {
        session_id: SessionId,
        update: UpdatePosition,
    },
    UpdateBatch(Vec<BatchUpdate>),
    End {
        session_id: SessionId,
        end: EndSession,
    },
    /// A job sends this command, not the reader.
    EndIdle(IdleSession),
    /// Boxed, because every command is moved several times.
    Sync(Box<SyncSession>),
    Correct {
        session_id: SessionId,
        correction: CorrectSession,
    },
}

/// The number of observations that one permit covers: those of the largest batch.
const OBSERVATIONS_PER_PERMIT: usize = 50;

impl Command {
    /// The share of this command in the bound on commands in progress, so that the bound
    /// also limits the memory for large ones.
    pub(crate) fn permits(&self) -> u32 {
        let observations = match self {
            Self::Sync(sync) => sync.observations.len(),
            Self::UpdateBatch(updates) => updates.len(),
            _ => 1,
        };
        let permits = observations.div_ceil(OBSERVATIONS_PER_PERMIT).max(1);
        u32::try_from(permits).unwrap_or(u32::MAX)
    }
}

/// One position update of a batch.
#[derive(Clone, Debug)]
pub struct BatchUpdate {
    pub session_id: SessionId,
    pub update: UpdatePosition,
}

/// A whole session, as a device recorded it. It is merged into the session if that
/// exists.
#[derive(Clone, Debug)]
pub struct SyncSession {
    pub session_id: SessionId,
    /// Its position is `start_position`, or the start of the book.
    pub start: StartSession,
    /// `None` if the device did not record it.
    pub start_position: Option<Position>,
    pub observations: Vec<UpdatePosition>,
    /// `None` if the reader has not ended the session.
    pub end: Option<EndSession>,
}

/// The context of a command's request.
#[derive(Clone, Debug, Default)]
pub struct CommandContext {
    /// The trace context of the request. It is stored in the metadata of the events.
    pub traceparent: Option<TraceParent>,
    /// The span of the request, if its trace is sampled. It is the parent of the append,
    /// and the events then contain the trace context of the append.
    pub span: Option<ParentSpan>,
    /// Makes the command repeatable: its response is stored under this key.
    pub key: Option<IdempotencyKey>,
    /// Records what the command stores. `None` if the reader has no budget.
    pub meter: Option<StorageMeter>,
}

impl CommandContext {
    /// The metadata of the command's events, as a JSON object. `append` is the span of their
    /// append.
    pub(crate) fn metadata(&self, append: Option<&Span>) -> String {
        let traceparent = append.map(Span::traceparent).or(self.traceparent);
        traceparent.map_or_else(|| "{}".to_owned(), TraceParent::to_metadata)
    }
}
