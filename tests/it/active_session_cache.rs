//! I6: a Redis entry is never newer than the log, never brought back after its
//! end, and never left behind, however queries and the projection interleave.
//! Here the two take their steps one by one, in the orders that go wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use domain::command::Occurrence;
use domain::session::Rules;
use domain::{
    EndSession, Position, ReaderId, ReadingSession, SessionCommand, SessionId, StartSession,
    UpdatePosition,
};
use eventlog::Recorded;
use projections::active_sessions::{self, Entry, Filled, Known, Missed};
use projections::cache::{Cache, CacheError};
use projections::dead_letter::Letters;
use projections::{ActiveSessions, Checkpoint, CommitError, Projection, Step};
use redis::AsyncCommands;
use services::connect;
use tests::{Stack, app, check, stack};
use uuid::Uuid;

/// A projection that takes a step when it is told to.
struct Steps {
    projection: ActiveSessions,
    cache: Cache,
    corner: stack::Corner,
    reached: i64,
}

impl Steps {
    async fn begin() -> Self {
        let corner = Stack::shared().await.corner().await;
        let cache = connect::cache(&app::settings(&corner, &[]).redis).unwrap();
        let pool = app::pool(&corner).await;
        let mut projection = ActiveSessions::new(cache.clone(), pool);
        let reached = projection.checkpoint().await.unwrap().global_position;
        Self {
            projection,
            cache,
            corner,
            reached,
        }
    }

    async fn apply(&mut self, event: &Recorded) -> Result<(), CommitError> {
        let mut batch = BTreeMap::default();
        ActiveSessions::fold(&mut batch, event);
        let (from, to) = (Checkpoint::at(self.reached), event.global_position);
        let none = Letters::default();
        self.projection
            .commit(batch, Step { from, to }, &none)
            .await?;
        self.reached = to;
        Ok(())
    }

    /// What a query finds.
    async fn find(&self, reader: ReaderId) -> Known {
        check::known(&self.cache, reader).await
    }

    async fn finds(&self, reader: ReaderId, events: &[Recorded]) {
        assert_eq!(self.find(reader).await, active(events));
    }

    /// The query's miss.
    async fn miss(&self) -> Missed {
        in_time(async || active_sessions::miss(&self.cache).await).await
    }

    /// The query's fill with what the log held up to an event.
    async fn fill(&self, missed: Missed, read: &[Recorded]) -> Filled {
        let head = read.last().unwrap().global_position;
        self.fill_with_log_at(head, missed, read).await
    }

    /// As [`Steps::fill`], with other readers' events in the log after these.
    async fn fill_with_log_at(&self, head: i64, missed: Missed, read: &[Recorded]) -> Filled {
        let last = read.last().unwrap();
        let (reader, version) = (last.event.reader_id(), last.global_position);
        let entry = Some(entry(read)).filter(|entry| entry.session.is_active());
        let (cache, entry) = (&self.cache, entry.as_ref());
        let fill =
            async || active_sessions::fill(cache, missed, reader, entry, version, head).await;
        in_time(fill).await
    }

    async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.corner.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

/// Busy machines get more than one deadline's time.
async fn in_time<T>(call: impl AsyncFn() -> Result<T, CacheError>) -> T {
    let since = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(since.elapsed() < app::SETTLE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A session as its events leave it.
fn entry(events: &[Recorded]) -> Entry {
    let last = events.last().unwrap();
    let session = ReadingSession::fold(events.iter().map(|event| &event.event));
    Entry {
        session_id: last.session_id,
        sequence: last.sequence,
        session: session.started().unwrap().clone(),
    }
}

fn active(events: &[Recorded]) -> Known {
    Known::Active(Box::new(entry(events)))
}

/// A session's start, two updates and end, as the log holds them.
fn story(reader_id: ReaderId) -> Vec<Recorded> {
    story_of(reader_id, 100)
}

/// As [`story`], after a position.
fn story_of(reader_id: ReaderId, after: i64) -> Vec<Recorded> {
    let occurred = Occurrence::new(None, services::clock::now()).unwrap();
    let session_id = SessionId::at(services::clock::now());
    let update = |percent| {
        SessionCommand::UpdatePosition(UpdatePosition {
            position: Position::new(percent).unwrap(),
            locator: None,
            occurred,
        })
    };
    let commands = [
        SessionCommand::Start(StartSession {
            reader_id,
            book_id: Uuid::new_v4().into(),
            position: Position::START,
            device_type: None,
            device_id: None,
            time_zone: chrono_tz::Tz::UTC,
            locator: None,
            book: None,
            occurred,
        }),
        update(5.0),
        update(6.0),
        SessionCommand::End(EndSession {
            position: None,
            reason: domain::event::EndReason::Finished,
            occurred,
        }),
    ];
    let mut session = ReadingSession::default();
    let mut events = Vec::new();
    for command in commands {
        for event in session.decide(command, Rules::default()).unwrap() {
            session.apply(&event);
            let sequence = i64::try_from(events.len()).unwrap() + 1;
            events.push(Recorded {
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
async fn a_fill_that_read_before_an_update_does_not_come_after_it() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);

    // Redis misses the session, the query reads it up to its second event, and
    // before the fill the projection is at the third.
    assert_eq!(steps.find(reader).await, Known::Unknown);
    let missed = steps.miss().await;
    steps.apply(&story[2]).await.unwrap();
    assert_eq!(steps.fill(missed, &story[..2]).await, Filled::Taken(0));
    assert_eq!(steps.find(reader).await, Known::Unknown);

    // The next miss reads the third event, and that may be filled.
    let missed = steps.miss().await;
    assert_eq!(steps.fill(missed, &story[..3]).await, Filled::Taken(1));
    steps.finds(reader, &story[..3]).await;
}

#[tokio::test]
async fn a_fill_that_read_before_the_end_does_not_bring_the_session_back() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    let missed = steps.miss().await;
    for event in &story {
        steps.apply(event).await.unwrap();
    }
    assert_eq!(steps.fill(missed, &story[..3]).await, Filled::Taken(0));
    assert_eq!(steps.find(reader).await, Known::Inactive);
}

/// A query that was frozen for longer than a tombstone stays, or a Redis that was
/// paused with the fill in its socket: nothing there tells of the end any more.
#[tokio::test]
async fn a_fill_that_comes_when_its_tombstone_is_over_is_refused() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    let Missed(now) = steps.miss().await;
    let missed = Missed(now - 6_000_000);
    steps.apply(&story[3]).await.unwrap();
    let mut redis = steps.redis().await;
    let entry = format!("reading_session:active:{reader}");
    let _: () = redis.del(&entry).await.unwrap();
    // As if the cache had been begun long before.
    let begun = ("reading_session:projection", "begun_at", 1);
    let _: () = redis.hset(begun.0, begun.1, begun.2).await.unwrap();
    assert_eq!(steps.fill(missed, &story[..3]).await, Filled::Late);
    assert_eq!(steps.find(reader).await, Known::Unknown);
}

/// Redis was full, and evicted what told of the end.
#[tokio::test]
async fn a_fill_whose_tombstone_was_evicted_is_refused() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    let missed = steps.miss().await;
    steps.apply(&story[3]).await.unwrap();
    let mut redis = steps.redis().await;
    let entry = format!("reading_session:active:{reader}");
    let _: () = redis.del(&entry).await.unwrap();
    assert_eq!(steps.fill(missed, &story[..3]).await, Filled::Taken(0));
    assert_eq!(steps.find(reader).await, Known::Unknown);
    // What was read as far as the projection has come is right, with or without.
    let head = story[3].global_position;
    let filled = steps.fill_with_log_at(head, missed, &story[..4]).await;
    assert_eq!(filled, Filled::Taken(1));
    assert_eq!(steps.find(reader).await, Known::Inactive);
}

#[tokio::test]
async fn a_fill_that_read_as_far_as_the_projection_changes_nothing() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    for event in &story[..3] {
        steps.apply(event).await.unwrap();
    }
    let missed = steps.miss().await;
    assert_eq!(steps.fill(missed, &story[..2]).await, Filled::Taken(0));
    let _ = steps.fill(missed, &story[..3]).await;
    steps.finds(reader, &story[..3]).await;
}

#[tokio::test]
async fn that_there_is_no_active_session_is_known_until_one_starts() {
    let mut steps = Steps::begin().await;
    let (reader, other) = (reader(), Uuid::new_v4().into());
    let story = story(reader);
    // The log's end was the end of another reader's session.
    let before = story_of(other, 50).pop().unwrap();
    let missed = steps.miss().await;
    let cache = steps.cache.clone();
    let none = async |version| {
        let fill =
            async || active_sessions::fill(&cache, missed, reader, None, version, version).await;
        in_time(fill).await
    };
    assert_eq!(none(before.global_position).await, Filled::Taken(1));
    assert_eq!(steps.find(reader).await, Known::Inactive);
    steps.apply(&story[0]).await.unwrap();
    steps.finds(reader, &story[..1]).await;
    // One that read the log before the start comes after it.
    assert_eq!(none(before.global_position).await, Filled::Taken(0));
    steps.finds(reader, &story[..1]).await;
}

#[tokio::test]
async fn an_entry_whose_version_is_missing_or_wrong_is_not_served_and_replaced() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    let mut redis = steps.redis().await;
    let key = format!("reading_session:active:{reader}");
    steps.apply(&story[0]).await.unwrap();
    let _: () = redis.hdel(&key, "version").await.unwrap();
    assert_eq!(steps.find(reader).await, Known::Unknown);
    let missed = steps.miss().await;
    assert_eq!(steps.fill(missed, &story[..1]).await, Filled::Taken(1));
    steps.finds(reader, &story[..1]).await;
    let _: () = redis.hset(&key, "version", "none").await.unwrap();
    steps.apply(&story[1]).await.unwrap();
    steps.finds(reader, &story[..2]).await;
}

#[tokio::test]
async fn an_emptied_redis_is_begun_anew_and_not_gone_on_with() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    steps.apply(&story[0]).await.unwrap();
    let missed = steps.miss().await;
    let mut redis = steps.redis().await;
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    let _: () = redis.del(keys).await.unwrap();

    // The worker need not have anything to do to notice.
    let reached = Checkpoint::at(steps.reached);
    assert!(!steps.projection.is_at(reached).await.unwrap());
    let refused = steps.apply(&story[1]).await.unwrap_err();
    assert!(matches!(refused, CommitError::Moved), "{refused}");
    // Nothing is taken before it is begun, nor what was read before that.
    assert_eq!(steps.fill(missed, &story[..1]).await, Filled::Late);
    // The log of this test is empty.
    let begun = steps.projection.checkpoint().await.unwrap();
    assert_eq!(begun, Checkpoint::at(0));
    assert_eq!(steps.fill(missed, &story[..1]).await, Filled::Late);
    assert_eq!(steps.find(reader).await, Known::Unknown);
}

#[tokio::test]
async fn a_checkpoint_ahead_of_the_log_is_another_logs_and_begun_anew() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    steps.apply(&story[0]).await.unwrap();
    steps.finds(reader, &story[..1]).await;
    let begun = steps.projection.checkpoint().await.unwrap();
    assert_eq!(begun, Checkpoint::at(0));
    assert_eq!(steps.find(reader).await, Known::Unknown);
}

#[tokio::test]
async fn a_query_that_needs_a_position_is_answered_when_the_cache_has_come_there() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    steps.apply(&story[0]).await.unwrap();
    let reached = story[0].global_position;
    let known = async |position| {
        let get = async || active_sessions::get(&steps.cache, reader, Some(position)).await;
        in_time(get).await
    };
    assert_eq!(known(reached).await, active(&story[..1]));
    assert_eq!(known(reached + 1).await, Known::Unknown);
}
