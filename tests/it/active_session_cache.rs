//! A Redis entry is never newer than the log, never reappears after its session
//! ended, and never stays outdated, however queries and the projection interleave.
//! These tests execute both step by step, in the dangerous orders.

mod damaged_cache;
mod several_sessions;

use domain::command::Occurrence;
use domain::session::{CompleteSession, Rules};
use domain::{
    EndSession, Position, ReaderId, ReadingSession, SessionCommand, SessionId, Standing,
    StartSession, UpdatePosition,
};
use eventlog::RecordedEvent;
use projections::active_sessions::{self, CacheLookup, CachedSession, FillResult, MissedAt};
use projections::cache::{Cache, CacheError};
use projections::dead_letters::DeadLetterChanges;
use projections::{
    ActiveSessions, BatchRange, Checkpoint, CommitError, Projection, fold_all, new_revision,
};
use redis::AsyncCommands;
use server::connect;
use tests::{Stack, app, eventually_ok, invariants, stack};
use uuid::Uuid;

/// The cache, with a projection whose batches the test commits itself.
struct Harness {
    projection: ActiveSessions,
    cache: Cache,
    env: stack::TestEnv,
    reached: i64,
}

impl Harness {
    async fn new() -> Self {
        let env = Stack::shared().await.new_env().await;
        let cache = connect::cache(&app::settings(&env, &[]).redis).unwrap();
        let pool = app::pool(&env).await;
        let mut projection = ActiveSessions::new(cache.clone(), pool);
        let reached = projection.checkpoint().await.unwrap().global_position;
        Self {
            projection,
            cache,
            env,
            reached,
        }
    }

    async fn apply(&mut self, event: &RecordedEvent) -> Result<(), CommitError> {
        self.apply_all(std::slice::from_ref(event)).await
    }

    /// Applies events in one batch.
    async fn apply_all(&mut self, events: &[RecordedEvent]) -> Result<(), CommitError> {
        let last = events.last().expect("a batch has events");
        let to = last.global_position;
        let range = BatchRange {
            from: Checkpoint::at(self.reached),
            to,
            written_to: to,
            revision: new_revision(),
        };
        let rows = fold_all::<ActiveSessions>(events);
        let none = DeadLetterChanges::default();
        self.projection.commit(rows, range, &none).await?;
        self.reached = to;
        Ok(())
    }

    /// The result of a query.
    async fn find(&self, reader: ReaderId) -> CacheLookup {
        invariants::cached(&self.cache, reader).await
    }

    async fn assert_active(&self, reader: ReaderId, events: &[RecordedEvent]) {
        assert_eq!(self.find(reader).await, active(events));
    }

    /// Starts a query that misses the cache.
    async fn miss(&self) -> MissedAt {
        retried(async || active_sessions::missed_at(&self.cache).await).await
    }

    /// Fills the cache from a query that read these events of the log.
    async fn fill(&self, missed: MissedAt, read: &[RecordedEvent]) -> FillResult {
        let head = read.last().unwrap().global_position;
        self.fill_with_log_at(head, missed, read).await
    }

    /// Like [`Harness::fill`], with other readers' events in the log up to `head`.
    async fn fill_with_log_at(
        &self,
        head: i64,
        missed: MissedAt,
        read: &[RecordedEvent],
    ) -> FillResult {
        let last = read.last().unwrap();
        let (reader, version) = (last.event.reader_id(), last.global_position);
        let entry = Some(entry(read)).filter(|entry| entry.session.is_active());
        let (cache, entry) = (&self.cache, entry.as_ref());
        let fill =
            async || active_sessions::fill(cache, missed, reader, entry, version, head).await;
        retried(fill).await
    }

    /// Moves the checkpoint back to the start of a log.
    async fn reset(&mut self) {
        let mut redis = self.redis().await;
        let _: () = redis
            .set("reading_session:projection", "0 1")
            .await
            .unwrap();
        self.reached = 0;
    }

    async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.env.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

/// Retries a call that exceeds its deadline, since the machine may be busy.
async fn retried<T>(call: impl AsyncFn() -> Result<T, CacheError>) -> T {
    eventually_ok("a response of Redis", app::SETTLE, call).await
}

/// The cache entry that results from these events.
fn entry(events: &[RecordedEvent]) -> CachedSession {
    let last = events.last().unwrap();
    let session = ReadingSession::fold(events.iter().map(|event| &event.event));
    CachedSession {
        session_id: last.session_id,
        sequence: last.sequence,
        session: session.started().unwrap().clone(),
    }
}

fn active(events: &[RecordedEvent]) -> CacheLookup {
    CacheLookup::Active(Box::new(entry(events)))
}

/// A session's start, two updates and end, as recorded in the log.
fn session_events(reader_id: ReaderId) -> Vec<RecordedEvent> {
    session_events_after(reader_id, 100)
}

/// Like [`session_events`], recorded after a global position.
fn session_events_after(reader_id: ReaderId, after: i64) -> Vec<RecordedEvent> {
    let occurred = Occurrence::untimed(eventlog::clock::now());
    let session_id = SessionId::new(eventlog::clock::now());
    let update = |percent| {
        SessionCommand::UpdatePosition(UpdatePosition {
            position: Position::new(percent).unwrap(),
            locator: None,
            occurred,
            standing: Standing::Active,
        })
    };
    let commands = [
        SessionCommand::Start(StartSession {
            reader_id,
            book_id: Uuid::new_v4().into(),
            position: Position::START,
            device_type: None,
            device_id: None,
            time_zone: None,
            locator: None,
            book: None,
            occurred,
            standing: Standing::Active,
        }),
        update(5.0),
        update(6.0),
        SessionCommand::End(EndSession {
            position: None,
            locator: None,
            occurred,
        }),
    ];
    let mut session = CompleteSession::default();
    let mut events = Vec::new();
    for command in commands {
        for event in session.decide(command, Rules::default()).unwrap() {
            session.apply(&event);
            let sequence = i64::try_from(events.len()).unwrap() + 1;
            events.push(RecordedEvent {
                global_position: after + sequence,
                session_id,
                sequence,
                event,
            });
        }
    }
    events
}

fn reader() -> ReaderId {
    Uuid::new_v4().into()
}

#[tokio::test]
async fn fill_read_before_an_update_is_rejected() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);

    // The query misses and reads the log up to the second event. Before its fill,
    // the projection commits the third.
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
    let missed = harness.miss().await;
    harness.apply(&events[2]).await.unwrap();
    assert_eq!(
        harness.fill(missed, &events[..2]).await,
        FillResult::Stored(0)
    );
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);

    // The next miss reads the third event, so its fill is accepted.
    let missed = harness.miss().await;
    assert_eq!(
        harness.fill(missed, &events[..3]).await,
        FillResult::Stored(1)
    );
    harness.assert_active(reader, &events[..3]).await;
}

#[tokio::test]
async fn fill_read_before_the_end_does_not_revive_the_session() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    let missed = harness.miss().await;
    for event in &events {
        harness.apply(event).await.unwrap();
    }
    assert_eq!(
        harness.fill(missed, &events[..3]).await,
        FillResult::Stored(0)
    );
    assert_eq!(harness.find(reader).await, CacheLookup::Inactive);
}

/// A process that stalls for longer than a tombstone lives, or a Redis that is
/// paused with the fill in its socket: Redis has no record of the end any more.
#[tokio::test]
async fn fill_after_its_tombstone_expired_is_rejected() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    let MissedAt(now) = harness.miss().await;
    let missed = MissedAt(now - 6_000_000);
    harness.apply(&events[3]).await.unwrap();
    let mut redis = harness.redis().await;
    let entry = format!("reading_session:active:{reader}");
    let _: () = redis.del(&entry).await.unwrap();
    // Pretend that the cache was initialised long before.
    let projection = format!("{} 1", harness.reached);
    let _: () = redis
        .set("reading_session:projection", projection)
        .await
        .unwrap();
    assert_eq!(
        harness.fill(missed, &events[..3]).await,
        FillResult::TooLate
    );
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
}

/// Redis ran out of memory and evicted the tombstone.
#[tokio::test]
async fn fill_after_its_tombstone_was_evicted_is_rejected() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    let missed = harness.miss().await;
    harness.apply(&events[3]).await.unwrap();
    let mut redis = harness.redis().await;
    let entry = format!("reading_session:active:{reader}");
    let _: () = redis.del(&entry).await.unwrap();
    assert_eq!(
        harness.fill(missed, &events[..3]).await,
        FillResult::Stored(0)
    );
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
    // A fill that includes the projection's last event needs no tombstone.
    let head = events[3].global_position;
    let filled = harness.fill_with_log_at(head, missed, &events[..4]).await;
    assert_eq!(filled, FillResult::Stored(1));
    assert_eq!(harness.find(reader).await, CacheLookup::Inactive);
}

#[tokio::test]
async fn fill_no_newer_than_the_projection_changes_nothing() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    for event in &events[..3] {
        harness.apply(event).await.unwrap();
    }
    let missed = harness.miss().await;
    assert_eq!(
        harness.fill(missed, &events[..2]).await,
        FillResult::Stored(0)
    );
    let _ = harness.fill(missed, &events[..3]).await;
    harness.assert_active(reader, &events[..3]).await;
}

#[tokio::test]
async fn absence_is_cached_until_a_session_starts() {
    let mut harness = Harness::new().await;
    let (reader, other) = (reader(), Uuid::new_v4().into());
    let events = session_events(reader);
    // The last event in the log belongs to another reader.
    let before = session_events_after(other, 50).pop().unwrap();
    let missed = harness.miss().await;
    let cache = harness.cache.clone();
    let none = async |version| {
        let fill =
            async || active_sessions::fill(&cache, missed, reader, None, version, version).await;
        retried(fill).await
    };
    assert_eq!(none(before.global_position).await, FillResult::Stored(1));
    assert_eq!(harness.find(reader).await, CacheLookup::Inactive);
    harness.apply(&events[0]).await.unwrap();
    harness.assert_active(reader, &events[..1]).await;
    // A query that read the log before the start fills after it.
    assert_eq!(none(before.global_position).await, FillResult::Stored(0));
    harness.assert_active(reader, &events[..1]).await;
}

#[tokio::test]
async fn min_position_is_served_once_the_cache_reaches_it() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    harness.apply(&events[0]).await.unwrap();
    let reached = events[0].global_position;
    let get = async |position| {
        let call = async || active_sessions::get(&harness.cache, reader, Some(position)).await;
        retried(call).await
    };
    assert_eq!(get(reached).await, active(&events[..1]));
    assert_eq!(get(reached + 1).await, CacheLookup::Miss);
}
