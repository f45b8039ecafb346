//! I6: a Redis entry is never newer than the log, never brought back after its
//! end, and never left behind, however queries and the projection interleave.
//! Here the two take their steps one by one, in the orders that go wrong.

use std::collections::BTreeMap;

use domain::command::Occurrence;
use domain::session::Rules;
use domain::{
    EndSession, Position, ReaderId, ReadingSession, SessionCommand, SessionId, StartSession,
    UpdatePosition,
};
use eventlog::Recorded;
use projections::active_sessions::{self, Entry};
use projections::cache::Cache;
use projections::dead_letter::Letters;
use projections::{ActiveSessions, CommitError, Projection, Step};
use redis::AsyncCommands;
use services::connect;
use tests::{Stack, app, stack};
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
        let reached = projection.checkpoint().await.unwrap();
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
        let (from, to) = (self.reached, event.global_position);
        let none = Letters::default();
        self.projection
            .commit(batch, Step { from, to }, &none)
            .await?;
        self.reached = to;
        Ok(())
    }

    /// What a query finds; busy machines get more than one deadline's time.
    async fn find(&self, reader: ReaderId) -> Option<Entry> {
        for _ in 0..100 {
            if let Ok(found) = active_sessions::get(&self.cache, reader).await {
                return found;
            }
        }
        panic!("Redis does not answer");
    }

    /// The query's fill with what the log held up to an event.
    async fn fill(&self, read: &[Recorded]) -> bool {
        let last = read.last().unwrap();
        let session = ReadingSession::fold(read.iter().map(|event| &event.event));
        let entry = Entry {
            session_id: last.session_id,
            sequence: last.sequence,
            session: session.started().unwrap().clone(),
        };
        for _ in 0..100 {
            if let Ok(filled) =
                active_sessions::fill(&self.cache, &entry, last.global_position).await
            {
                return filled;
            }
        }
        panic!("Redis does not answer");
    }

    async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.corner.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

/// A session's start, two updates and end, as the log holds them.
fn story(reader_id: ReaderId) -> Vec<Recorded> {
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
                global_position: 100 + sequence,
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
    assert_eq!(steps.find(reader).await, None);
    steps.apply(&story[2]).await.unwrap();
    assert!(!steps.fill(&story[..2]).await);
    assert_eq!(steps.find(reader).await, None);

    // The next miss reads the third event, and that may be filled.
    assert!(steps.fill(&story[..3]).await);
    let found = steps.find(reader).await.unwrap();
    assert_eq!(found.sequence, 3);
}

#[tokio::test]
async fn a_fill_that_read_before_the_end_does_not_bring_the_session_back() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    for event in &story {
        steps.apply(event).await.unwrap();
    }
    assert!(!steps.fill(&story[..3]).await);
    assert_eq!(steps.find(reader).await, None);
}

#[tokio::test]
async fn a_fill_that_read_as_far_as_the_projection_changes_nothing() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    for event in &story[..3] {
        steps.apply(event).await.unwrap();
    }
    let before = steps.find(reader).await.unwrap();
    assert!(!steps.fill(&story[..2]).await);
    let _ = steps.fill(&story[..3]).await;
    assert_eq!(steps.find(reader).await, Some(before));
}

#[tokio::test]
async fn an_emptied_redis_is_begun_anew_and_not_gone_on_with() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    steps.apply(&story[0]).await.unwrap();
    let mut redis = steps.redis().await;
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    let _: () = redis.del(keys).await.unwrap();

    let refused = steps.apply(&story[1]).await.unwrap_err();
    assert!(matches!(refused, CommitError::Moved), "{refused}");
    // The log of this test is empty.
    assert_eq!(steps.projection.checkpoint().await.unwrap(), 0);
}

#[tokio::test]
async fn a_checkpoint_ahead_of_the_log_is_another_logs_and_begun_anew() {
    let mut steps = Steps::begin().await;
    let reader = reader();
    let story = story(reader);
    steps.apply(&story[0]).await.unwrap();
    assert!(steps.find(reader).await.is_some());
    assert_eq!(steps.projection.checkpoint().await.unwrap(), 0);
    assert_eq!(steps.find(reader).await, None);
}
