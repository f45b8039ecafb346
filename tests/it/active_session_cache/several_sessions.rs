//! A reader with several sessions: events of sessions that are not active never disturb
//! the entry of the active one, and no session reappears after its end.

use domain::{SessionId, Standing};
use projections::active_sessions::{self, CacheLookup, FillResult, MissedAt};
use redis::AsyncCommands;
use tests::random_history::Random;
use tests::reader_log::ReaderLog;

use super::{Harness, retried};

/// A query that missed, and has read the log after this number of events.
struct Miss {
    missed_at: MissedAt,
    events: usize,
}

impl Harness {
    /// Applies the next events of a log in one batch.
    async fn apply_from(&mut self, log: &ReaderLog, from: usize, to: usize) {
        self.apply_all(&log.events[from..to]).await.unwrap();
    }

    /// Applies a whole log, one event after the other.
    async fn apply_each(&mut self, log: &ReaderLog) {
        for index in 0..log.events.len() {
            self.apply_from(log, index, index + 1).await;
        }
    }

    async fn fill_from(&self, log: &ReaderLog, miss: &Miss) -> FillResult {
        let head = log.head_after(miss.events);
        let active = log.active_after(miss.events);
        let version = active.map_or(head, |(_, version)| version);
        let active = active.map(|(cached, _)| cached);
        let (cache, missed_at, reader) = (&self.cache, miss.missed_at, log.reader_id);
        let fill =
            async || active_sessions::fill(cache, missed_at, reader, active, version, head).await;
        retried(fill).await
    }

    async fn read(&self, events: usize) -> Miss {
        let missed_at = self.miss().await;
        Miss { missed_at, events }
    }
}

/// An active session, and a session that another one superseded.
fn two_sessions() -> (ReaderLog, SessionId, SessionId) {
    let mut log = ReaderLog::default();
    let superseded = log.start(Standing::Active);
    let active = log.start(Standing::Active);
    log.observe(active, Standing::Active);
    (log, superseded, active)
}

#[tokio::test]
async fn events_of_sessions_that_are_not_active_keep_the_entry() {
    let mut harness = Harness::new().await;
    let (mut log, superseded, _) = two_sessions();
    harness.apply_each(&log).await;
    let mut applied = log.events.len();
    let expected = log.after(applied);
    assert!(matches!(expected, CacheLookup::Active(_)));

    log.observe_late(superseded);
    log.observe(superseded, Standing::Superseded);
    log.end(superseded);
    log.correct(superseded);
    log.erase(superseded);
    let past = log.start(Standing::Superseded);
    log.observe_late(past);
    log.end(past);
    while applied < log.events.len() {
        harness.apply_from(&log, applied, applied + 1).await;
        applied += 1;
        assert_eq!(harness.find(log.reader_id).await, expected);
        assert_eq!(log.after(applied), expected);
    }
}

#[tokio::test]
async fn end_of_the_active_session_leaves_no_session() {
    let mut harness = Harness::new().await;
    let (mut log, superseded, active) = two_sessions();
    log.end(active);
    log.end(superseded);
    harness.apply_each(&log).await;
    assert_eq!(harness.find(log.reader_id).await, CacheLookup::Inactive);
}

/// The batch never contains the start of the session that it ends, and Redis still has
/// the entry of the session before.
#[tokio::test]
async fn session_that_becomes_active_and_ends_in_one_batch_leaves_no_session() {
    let mut harness = Harness::new().await;
    let (mut log, superseded, _) = two_sessions();
    harness.apply_each(&log).await;
    let before = log.events.len();
    log.observe(superseded, Standing::Active);
    log.end(superseded);
    harness.apply_from(&log, before, log.events.len()).await;
    assert_eq!(harness.find(log.reader_id).await, CacheLookup::Inactive);
}

#[tokio::test]
async fn late_observation_moves_the_start_of_the_entry() {
    let mut harness = Harness::new().await;
    let mut log = ReaderLog::default();
    let id = log.start(Standing::Active);
    log.observe_late(id);
    log.observe(id, Standing::Active);
    harness.apply_each(&log).await;
    let expected = log.after(log.events.len());
    let CacheLookup::Active(cached) = &expected else {
        panic!("{expected:?}")
    };
    assert!(cached.session.first().at < cached.session.start.started_at);
    assert_eq!(harness.find(log.reader_id).await, expected);
    // A fill writes the same entry as the projection.
    let miss = harness.read(log.events.len()).await;
    assert_eq!(harness.fill_from(&log, &miss).await, FillResult::Stored(1));
    assert_eq!(harness.find(log.reader_id).await, expected);
}

#[tokio::test]
async fn fill_read_before_the_end_of_an_uncached_session_is_rejected() {
    let mut harness = Harness::new().await;
    let (mut log, _, active) = two_sessions();
    let read = log.events.len();
    harness.apply_each(&log).await;
    let mut redis = harness.redis().await;
    let key = format!("reading_session:active:{}", log.reader_id);
    let _: () = redis.del(&key).await.unwrap();
    let miss = harness.read(read).await;
    log.end(active);
    harness.apply_from(&log, read, read + 1).await;
    // A warm-up does not compare with the checkpoint, so the tombstone has to reject it.
    let tombstone: String = redis.get(&key).await.unwrap();
    assert_eq!(tombstone, format!("{:019}", log.head_after(read + 1)));
    assert_eq!(harness.fill_from(&log, &miss).await, FillResult::Stored(0));
    assert_eq!(harness.find(log.reader_id).await, CacheLookup::Miss);
}

#[tokio::test]
async fn tombstone_of_one_session_does_not_reject_fills_of_another() {
    let mut harness = Harness::new().await;
    let (mut log, superseded, _) = two_sessions();
    log.end(superseded);
    // The reader has no entry, so the end leaves a tombstone. Its version is higher than
    // that of the active session.
    let (from, to) = (log.events.len() - 1, log.events.len());
    harness.apply_from(&log, from, to).await;
    assert_eq!(harness.find(log.reader_id).await, CacheLookup::Miss);
    let miss = harness.read(to).await;
    assert_eq!(harness.fill_from(&log, &miss).await, FillResult::Stored(1));
    assert_eq!(harness.find(log.reader_id).await, log.after(to));
}

/// The erasure removes the session from Redis before the projection has reached the
/// start of the session that is active.
#[tokio::test]
async fn erasure_of_one_session_keeps_another_readable() {
    let mut harness = Harness::new().await;
    let mut log = ReaderLog::default();
    let erased = log.start(Standing::Active);
    let projected = log.events.len();
    harness.apply_each(&log).await;
    log.start(Standing::Active);
    log.erase(erased);
    let all = log.events.len();
    assert_eq!(harness.find(log.reader_id).await, log.after(projected));
    active_sessions::erase(&harness.cache, log.reader_id, log.head_after(all))
        .await
        .unwrap();
    assert_eq!(harness.find(log.reader_id).await, CacheLookup::Miss);
    harness.apply_from(&log, projected, all).await;
    assert_eq!(harness.find(log.reader_id).await, CacheLookup::Miss);
    let miss = harness.read(all).await;
    assert_eq!(harness.fill_from(&log, &miss).await, FillResult::Stored(1));
    assert!(matches!(log.after(all), CacheLookup::Active(_)));
    assert_eq!(harness.find(log.reader_id).await, log.after(all));
}

/// Two devices that read at the same time. Each update supersedes the session of the
/// other device, so the next read misses. It fills the entry, and further reads hit.
#[tokio::test]
async fn each_change_between_two_devices_costs_one_miss() {
    let mut harness = Harness::new().await;
    let (mut log, phone, tablet) = two_sessions();
    harness.apply_each(&log).await;
    for id in [phone, tablet, phone, tablet] {
        let before = log.events.len();
        log.observe(id, Standing::Active);
        let after = log.events.len();
        // The end of the other session and the update.
        assert_eq!(after, before + 2);
        harness.apply_from(&log, before, after).await;
        assert_eq!(harness.find(log.reader_id).await, CacheLookup::Miss);
        let miss = harness.read(after).await;
        assert_eq!(harness.fill_from(&log, &miss).await, FillResult::Stored(1));
        assert_eq!(harness.find(log.reader_id).await, log.after(after));
        // A further update of the same session keeps the entry.
        log.observe(id, Standing::Active);
        harness.apply_from(&log, after, after + 1).await;
        assert_eq!(harness.find(log.reader_id).await, log.after(after + 1));
    }
}

/// Appends, batches of the projection, reads, fills and evictions of random logs, in
/// random order: an entry is the state of the log at or after the checkpoint.
#[tokio::test]
async fn entry_equals_the_log_in_any_order_of_reads_and_batches() {
    let mut harness = Harness::new().await;
    let seed = eventlog::clock::now().timestamp_millis().unsigned_abs();
    let (mut hits, mut misses) = (0, 0);
    for run in 0..40 {
        println!("seed {}", seed + run);
        let mut random = Random((seed + run) | 1);
        let log = ReaderLog::random(&mut random, 40);
        let key = format!("reading_session:active:{}", log.reader_id);
        let mut redis = harness.redis().await;
        harness.reset().await;
        let (mut appended, mut applied) = (0, 0);
        let mut reads: Vec<Miss> = Vec::new();
        while applied < log.events.len() {
            let visible = log.appends[appended];
            match random.below(8) {
                0..=1 => appended = (appended + 1).min(log.appends.len() - 1),
                2..=3 if applied < visible => {
                    let most = u64::try_from(visible - applied).unwrap();
                    let to = applied + 1 + usize::try_from(random.below(most)).unwrap();
                    harness.apply_from(&log, applied, to).await;
                    applied = to;
                }
                4..=5 => reads.push(harness.read(visible).await),
                6 if !reads.is_empty() => {
                    let index = random.below(reads.len() as u64);
                    let miss = reads.swap_remove(usize::try_from(index).unwrap());
                    let _ = harness.fill_from(&log, &miss).await;
                }
                7 if random.below(4) == 0 => {
                    let _: () = redis.del(&key).await.unwrap();
                }
                _ => continue,
            }
            let found = harness.find(log.reader_id).await;
            if found == CacheLookup::Miss {
                misses += 1;
                continue;
            }
            hits += 1;
            let visible = log.appends[appended];
            let mut current = (applied..=visible).map(|events| log.after(events));
            assert!(
                current.any(|expected| expected == found),
                "after {applied} of {visible} events: {found:#?}"
            );
        }
        for miss in reads {
            let _ = harness.fill_from(&log, &miss).await;
        }
        let all = log.events.len();
        let expected = log.after(all);
        let found = harness.find(log.reader_id).await;
        assert!(
            found == expected || found == CacheLookup::Miss,
            "{found:#?}"
        );
        let miss = harness.read(all).await;
        assert_eq!(harness.fill_from(&log, &miss).await, FillResult::Stored(1));
        assert_eq!(harness.find(log.reader_id).await, expected);
    }
    println!("{hits} hits, {misses} misses");
    assert!(4 * hits > misses, "{hits} hits, {misses} misses");
}
