//! A cache that was emptied, damaged, or written by an earlier release is initialised again,
//! and never returns a wrong session.

use projections::active_sessions::{CacheLookup, FillResult};
use projections::{Checkpoint, CommitError, Projection};
use redis::AsyncCommands;
use uuid::Uuid;

use super::{Harness, reader, session_events};

#[tokio::test]
async fn entry_without_valid_version_is_ignored_and_replaced() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    let mut redis = harness.redis().await;
    let key = format!("reading_session:active:{reader}");
    harness.apply(&events[0]).await.unwrap();
    let entry: String = redis.get(&key).await.unwrap();
    let _: () = redis.set(&key, &entry[19..]).await.unwrap();
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
    let missed = harness.miss().await;
    assert_eq!(
        harness.fill(missed, &events[..1]).await,
        FillResult::Stored(1)
    );
    harness.assert_active(reader, &events[..1]).await;
    let invalid = format!("{:>19}{}", "none", &entry[19..]);
    let _: () = redis.set(&key, invalid).await.unwrap();
    harness.apply(&events[1]).await.unwrap();
    harness.assert_active(reader, &events[..2]).await;
}

#[tokio::test]
async fn flushed_redis_is_initialised_again_before_use() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    harness.apply(&events[0]).await.unwrap();
    let missed = harness.miss().await;
    let mut redis = harness.redis().await;
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    let _: () = redis.del(keys).await.unwrap();

    // The worker detects the loss even without new events.
    let reached = Checkpoint::at(harness.reached);
    assert!(!harness.projection.is_at(reached).await.unwrap());
    let refused = harness.apply(&events[1]).await.unwrap_err();
    assert!(matches!(refused, CommitError::CheckpointMoved), "{refused}");
    // Fills are rejected before the cache is initialised, and if they missed before it.
    assert_eq!(
        harness.fill(missed, &events[..1]).await,
        FillResult::TooLate
    );
    // The log of this test is empty.
    let initial = harness.projection.checkpoint().await.unwrap();
    assert_eq!(initial, Checkpoint::at(0));
    assert_eq!(
        harness.fill(missed, &events[..1]).await,
        FillResult::TooLate
    );
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
}

/// An earlier release stored entries and the checkpoint as hashes. Its processes may still
/// write during an upgrade.
#[tokio::test]
async fn cache_of_an_earlier_release_is_initialised_again() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    let mut redis = harness.redis().await;
    let projection = "reading_session:projection";
    let entry = format!("reading_session:active:{reader}");
    let stale = format!("reading_session:active:{}", Uuid::new_v4());
    let _: () = redis.del(projection).await.unwrap();
    let hash = [("checkpoint", 0), ("begun_at", 1)];
    let _: () = redis.hset_multiple(projection, &hash).await.unwrap();
    for key in [&entry, &stale] {
        let _: () = redis.hset(key, "version", 1).await.unwrap();
    }

    // The worker does not continue from that checkpoint, and reads and fills do not use
    // the entries.
    let reached = Checkpoint::at(0);
    assert!(!harness.projection.is_at(reached).await.unwrap());
    let refused = harness.apply(&events[0]).await.unwrap_err();
    assert!(matches!(refused, CommitError::CheckpointMoved), "{refused}");
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
    let missed = harness.miss().await;
    assert_eq!(
        harness.fill(missed, &events[..1]).await,
        FillResult::TooLate
    );

    let initial = harness.projection.checkpoint().await.unwrap();
    assert_eq!(initial, Checkpoint::at(0));
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    assert_eq!(keys, [projection]);
    // A process of the earlier release cannot read the checkpoint any more.
    let refused: redis::RedisResult<()> = redis.hget(projection, "checkpoint").await;
    assert_eq!(refused.unwrap_err().code(), Some("WRONGTYPE"));

    // An entry that such a process wrote during the initialisation is replaced.
    let _: () = redis.hset(&entry, "version", i64::MAX).await.unwrap();
    harness.apply(&events[0]).await.unwrap();
    harness.assert_active(reader, &events[..1]).await;
    let _: () = redis.del(&entry).await.unwrap();
    let _: () = redis.hset(&entry, "version", i64::MAX).await.unwrap();
    let missed = harness.miss().await;
    assert_eq!(
        harness.fill(missed, &events[..1]).await,
        FillResult::Stored(1)
    );
    harness.assert_active(reader, &events[..1]).await;
}

#[tokio::test]
async fn damaged_entry_is_a_miss_and_leaves_a_tombstone() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    harness.apply(&events[0]).await.unwrap();
    let mut redis = harness.redis().await;
    let key = format!("reading_session:active:{reader}");
    let entry: String = redis.get(&key).await.unwrap();
    let lines: Vec<&str> = entry.split('\n').collect();
    assert_eq!(lines.len(), 4);
    let _: () = redis.set(&key, lines[0]).await.unwrap();
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
    harness.apply(&events[1]).await.unwrap();
    let tombstone: String = redis.get(&key).await.unwrap();
    assert_eq!(tombstone, format!("{:019}", events[1].global_position));
}

#[tokio::test]
async fn checkpoint_ahead_of_the_log_resets_the_cache() {
    let mut harness = Harness::new().await;
    let reader = reader();
    let events = session_events(reader);
    harness.apply(&events[0]).await.unwrap();
    harness.assert_active(reader, &events[..1]).await;
    let initial = harness.projection.checkpoint().await.unwrap();
    assert_eq!(initial, Checkpoint::at(0));
    assert_eq!(harness.find(reader).await, CacheLookup::Miss);
}
