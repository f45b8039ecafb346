//! Random reading histories, as apps could send them.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::App;
use crate::reader::{ApiResponse, Reader, id};

/// A xorshift generator. The same seed repeats a failed run.
pub struct Random(pub u64);

impl Random {
    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Like [`Random::below`], for a 32-bit bound.
    pub fn below_u32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap()
    }
}

/// Zones with and without daylight saving time, and with unusual offsets.
pub const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

/// Writes one history for each seed, all at the same time.
pub async fn write_random_histories(app: &App, seeds: Range<u64>) {
    let histories = seeds.map(|seed| write_random_history(app.reader(), seed));
    let _: Vec<()> = futures::future::join_all(histories).await;
}

/// Writes two days of a reader: sessions that are updated, abandoned, superseded, ended
/// and corrected. Some observations arrive late, twice or without a time, by a wrong
/// clock, for earlier sessions, or are rejected.
pub async fn write_random_history(reader: Reader, seed: u64) {
    let mut random = Random(seed | 1);
    let mut at = eventlog::clock::now() - TimeDelta::hours(40);
    let mut sessions: Vec<Uuid> = Vec::new();
    // The ends by the reader.
    let mut ends: BTreeMap<Uuid, DateTime<Utc>> = BTreeMap::new();
    for _ in 0..30 {
        at += TimeDelta::seconds(i64::from(random.below_u32(4_000)));
        let when = at - TimeDelta::seconds(i64::from(random.below_u32(3) * random.below_u32(600)));
        let position = f64::from(random.below_u32(1_000_000)) / 10_000.0;
        // Mostly the session that was started last.
        let index = match random.below(4) {
            0 => random.below(sessions.len().max(1) as u64),
            _ => sessions.len().saturating_sub(1) as u64,
        };
        let session = sessions.get(usize::try_from(index).unwrap()).copied();
        match (random.below(12), session) {
            (0, _) | (_, None) => {
                let answer = reader
                    .start_with(json!({
                        "book_id": Uuid::from_u128(u128::from(random.below(3))),
                        "start_position": position,
                        "time_zone": ZONES[random.below_u32(6) as usize],
                        "locator": format!("epubcfi(/6/{})", random.below(40)),
                        "occurred_at": when,
                    }))
                    .await;
                sessions.push(id(&answer.ok()));
            }
            (1, Some(id)) => {
                let mut end = json!({ "occurred_at": when });
                if random.below(2) == 0 {
                    end["end_position"] = json!(position);
                }
                let ended = reader.end(id, end).await;
                if accepted_or_refused(&ended) {
                    ends.insert(id, when);
                }
            }
            (2, Some(id)) => {
                let update = |n: f64| {
                    json!({
                        "session_id": id, "current_position": (position + n) % 100.0,
                        "occurred_at": when + TimeDelta::seconds(10),
                    })
                };
                let _ = reader
                    .batch(json!([update(0.0), update(1.0), update(0.0)]))
                    .await
                    .ok();
            }
            (3, Some(id)) => {
                let _ = accepted_or_refused(&reader.update(id, position).await);
            }
            (4, Some(id)) => {
                // Only to earlier times: observations that count again after a correction to
                // a later end do not change which session is active.
                let earlier = ends.get(&id).map_or(when, |end| when.min(*end));
                let correction = match random.below(3) {
                    0 => json!({ "ended_at": earlier }),
                    1 => json!({ "end_position": position }),
                    _ => json!({ "active_seconds": random.below(200) }),
                };
                let corrected = reader.correct(id, correction).await;
                if accepted_or_refused(&corrected) {
                    let ended_at = corrected.body["ended_at"].as_str().unwrap();
                    ends.insert(id, ended_at.parse().unwrap());
                }
            }
            (5, Some(id)) => {
                // A device that was offline for hours, with a clock in the future.
                let ahead = TimeDelta::days(1_000);
                let when = when - TimeDelta::seconds(i64::from(random.below_u32(20_000)));
                let update = json!({
                    "current_position": position, "occurred_at": when + ahead,
                    "sent_at": eventlog::clock::now() + ahead,
                });
                let _ = accepted_or_refused(&reader.update_with(id, update).await);
            }
            (_, Some(id)) => {
                let mut update = json!({ "current_position": position, "occurred_at": when });
                if random.below(2) == 0 {
                    update["locator"] = json!(format!("epubcfi(/6/{})", random.below(40)));
                }
                let _ = accepted_or_refused(&reader.update_with(id, update).await);
            }
        }
    }
}

/// Whether the command was accepted. The session may have ended, be active, or not fit a
/// correction.
fn accepted_or_refused(answer: &ApiResponse) -> bool {
    let status = answer.status.as_u16();
    assert!(matches!(status, 200 | 400 | 422), "{}", answer.body);
    status == 200
}
