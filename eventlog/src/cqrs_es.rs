//! The event store as a cqrs-es event repository, so that the tools of cqrs-es
//! and postgres-es work on the log. Only tests and `verify` use it: postgres-es
//! loads every event of a session, which makes it an independent check of
//! [`crate::load_state`].

use cqrs_es::Aggregate;
use cqrs_es::persist::{
    PersistedEventRepository, PersistenceError, ReplayStream, SerializedEvent, SerializedSnapshot,
};
use postgres_es::PostgresEventRepository;
use serde_json::Value;
use sqlx::PgPool;

use crate::append::{Append, NewEvent};
use crate::{AppendError, Appender, upcast};

/// Reads through postgres-es, appends through [`Appender`].
pub struct CqrsEventRepository {
    log: PostgresEventRepository,
    appender: Appender,
}

impl CqrsEventRepository {
    #[must_use]
    pub fn new(pool: PgPool, appender: Appender) -> Self {
        Self {
            log: PostgresEventRepository::new(pool),
            appender,
        }
    }
}

/// The log as the tools of cqrs-es see it. Reading is postgres-es's, appending
/// is ours; there are no snapshots, since sessions are short.
impl PersistedEventRepository for CqrsEventRepository {
    async fn get_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.log.get_events::<A>(aggregate_id).await
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
        last_sequence: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.log
            .get_last_events::<A>(aggregate_id, last_sequence)
            .await
    }

    async fn get_snapshot<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        Ok(None)
    }

    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        _snapshot_update: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        let unknown = |error| PersistenceError::UnknownError(Box::new(error));
        let mut append = Append::default();
        for event in events {
            append.events.push(NewEvent {
                session_id: event.aggregate_id.parse().map_err(|error| {
                    PersistenceError::DeserializationError(Box::<uuid::Error>::new(error))
                })?,
                sequence: i64::try_from(event.sequence).expect("far below 2^63 events"),
                event: upcast::decode(
                    &event.event_type,
                    &event.event_version,
                    &event.payload.to_string(),
                )
                .map_err(|error| PersistenceError::DeserializationError(Box::new(error)))?,
                metadata: event.metadata.to_string(),
            });
        }
        match self.appender.append(append).await {
            Ok(_) => Ok(()),
            Err(AppendError::Conflict) => Err(PersistenceError::OptimisticLockError),
            Err(error) => Err(unknown(error)),
        }
    }

    /// Refused: the stream of postgres-es ends at an error as at the end of the
    /// log. [`eventlog::read`] reads in order, and says when it cannot.
    async fn stream_events<A: Aggregate>(
        &self,
        _aggregate_id: &str,
    ) -> Result<ReplayStream, PersistenceError> {
        Err(PersistenceError::UnknownError(STREAMED.into()))
    }

    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        Err(PersistenceError::UnknownError(STREAMED.into()))
    }
}

const STREAMED: &str = "events are read in order by eventlog::read, not streamed";
