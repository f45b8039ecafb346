//! The log through cqrs-es and postgres-es.
//!
//! The log has the columns of postgres-es, so the tools of both crates can read
//! it. The service uses them in two places:
//! - [`load_full`] loads a session from all of its events. `verify` compares the
//!   result with [`crate::load_state`], which reads only three events. The two
//!   share no query and no decoder.
//! - [`CqrsEventRepository`] runs cqrs-es's framework on the log, in tests: it
//!   proves that the aggregate and the log fit cqrs-es.
//!
//! No request uses this module. Commands append through [`Appender`], because
//! postgres-es 0.5.0 inserts row by row, keeps no global order, and reports every
//! unique violation as a conflict.
//!
//! Only the plain event store ([`PersistedEventStore::new_event_store`]) is
//! correct. In cqrs-es 0.5.0 the snapshot and the aggregate store apply each event
//! twice: `EventSink::write` applies it, and `commit` applies it again. There are
//! no snapshots, and none are needed: three events determine the state of a
//! session, however many it has.

use std::error::Error;

use cqrs_es::persist::{
    PersistedEventRepository, PersistedEventStore, PersistenceError, ReplayStream, SerializedEvent,
    SerializedSnapshot,
};
use cqrs_es::{Aggregate, AggregateError, EventStore};
use domain::SessionId;
use domain::session::CompleteSession;
use postgres_es::PostgresEventRepository;
use serde_json::Value;
use sqlx::PgPool;

use crate::append::{Append, NewEvent};
use crate::deadline::{STATEMENT_DEADLINE, with_deadline};
use crate::upcast::{self, DecodeError};
use crate::{AppendError, Appender};

/// Loading a session through postgres-es failed.
#[derive(Debug, thiserror::Error)]
pub enum FullLoadError {
    /// Postgres is unreachable or returned an error.
    #[error("the event log is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// cqrs-es cannot decode an event of the session.
    #[error("session {session_id} cannot be decoded by cqrs-es")]
    Undecodable {
        session_id: SessionId,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<sqlx::Error> for FullLoadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Loads a session from all of its events, as postgres-es reads them. Returns the
/// session and the sequence of its last event, which is 0 if it has no events.
///
/// The memory for the events is not bounded: use this for checks, not for
/// requests.
pub async fn load_full(
    pool: &PgPool,
    session_id: SessionId,
) -> Result<(CompleteSession, i64), FullLoadError> {
    let repository = PostgresEventRepository::new(pool.clone());
    let store = PersistedEventStore::<_, CompleteSession>::new_event_store(repository)
        .with_upcasters(upcast::upcasters());
    let id = session_id.to_string();
    let load = async {
        store
            .load_aggregate(&id)
            .await
            .map_err(|error| match error {
                AggregateError::DeserializationError(source) => {
                    FullLoadError::Undecodable { session_id, source }
                }
                AggregateError::DatabaseConnectionError(source)
                | AggregateError::UnexpectedError(source) => FullLoadError::Unavailable(source),
                AggregateError::AggregateConflict | AggregateError::UserError(_) => {
                    FullLoadError::Unavailable(Box::new(error))
                }
            })
    };
    let context = with_deadline(STATEMENT_DEADLINE, load).await?;
    let sequence = i64::try_from(context.current_sequence).expect("far below 2^63 events");
    Ok((context.aggregate, sequence))
}

/// The log as an event repository of cqrs-es: reads through postgres-es, appends
/// through [`Appender`].
pub struct CqrsEventRepository {
    reader: PostgresEventRepository,
    appender: Appender,
}

impl CqrsEventRepository {
    #[must_use]
    pub fn new(pool: PgPool, appender: Appender) -> Self {
        Self {
            reader: PostgresEventRepository::new(pool),
            appender,
        }
    }
}

impl PersistedEventRepository for CqrsEventRepository {
    async fn get_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.reader.get_events::<A>(aggregate_id).await
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
        last_sequence: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.reader
            .get_last_events::<A>(aggregate_id, last_sequence)
            .await
    }

    /// Always `None`: the log has no snapshots.
    async fn get_snapshot<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        Ok(None)
    }

    /// Appends the events and ignores the snapshot.
    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        _snapshot_update: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        let events = events.iter().map(new_event).collect::<Result<_, _>>()?;
        let append = Append {
            events,
            ..Append::default()
        };
        match self.appender.append(append).await {
            Ok(_) => Ok(()),
            Err(AppendError::Conflict) => Err(PersistenceError::OptimisticLockError),
            Err(error) => Err(PersistenceError::UnknownError(Box::new(error))),
        }
    }

    /// Always fails. A stream of postgres-es 0.5.0 ends silently at a database
    /// error, and it orders the events of all sessions by their sequence. Use
    /// [`crate::read`] instead.
    async fn stream_events<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> Result<ReplayStream, PersistenceError> {
        Err(PersistenceError::UnknownError(NO_STREAMS.into()))
    }

    /// Always fails, as [`Self::stream_events`].
    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        Err(PersistenceError::UnknownError(NO_STREAMS.into()))
    }
}

const NO_STREAMS: &str = "streams are not supported; use eventlog::read";

fn new_event(event: &SerializedEvent) -> Result<NewEvent, PersistenceError> {
    let undecodable = |error: DecodeError| PersistenceError::DeserializationError(error.into());
    let session_id = event.aggregate_id.parse();
    let payload = event.payload.to_string();
    let decoded = upcast::decode(&event.event_type, &event.event_version, &payload);
    Ok(NewEvent {
        session_id: session_id.map_err(|error: uuid::Error| undecodable(error.into()))?,
        sequence: i64::try_from(event.sequence).expect("far below 2^63 events"),
        event: decoded.map_err(undecodable)?,
        metadata: event.metadata.to_string(),
    })
}
