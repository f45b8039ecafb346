//! Statistics equal a slow count of the log, for random sessions in several time
//! zones around changes of daylight saving time, with late observations, early and
//! corrected ends, and sessions across midnight.

use chrono::{NaiveDate, TimeDelta};
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::session::{CompleteSession, Rules};
use domain::{
    CorrectSession, EndSession, Position, ReaderId, SessionCommand, SessionId, Standing,
    StartSession, Timestamp, UpdatePosition, ZoneName,
};
use eventlog::Appender;
use eventlog::append::{Append, NewEvent};
use eventlog::commit_feed;
use projections::daily_stats;
use tests::local_time::instant;
use tests::random_history::Random;
use tests::{App, invariants};
use uuid::Uuid;

/// Days on which clocks change, by one hour or half an hour, in both directions.
const CLOCK_CHANGES: [(&str, i32, u32, u32); 6] = [
    ("Europe/Berlin", 2026, 3, 29),
    ("Europe/Berlin", 2026, 10, 25),
    ("America/New_York", 2026, 3, 8),
    ("America/New_York", 2026, 11, 1),
    ("Australia/Lord_Howe", 2026, 4, 5),
    ("Australia/Lord_Howe", 2026, 10, 4),
];

fn random_position(random: &mut Random) -> Position {
    Position::from_steps(i32::try_from(random.below(1_000_001)).unwrap()).unwrap()
}

/// The events of a session that starts within two days after `begin`, with
/// observations in and out of order. One in three sessions is ended by its reader, with
/// or without a position, at any time; these ends are corrected up to twice.
fn random_session(
    random: &mut Random,
    reader_id: ReaderId,
    zone: &str,
    begin: Timestamp,
) -> Vec<NewEvent> {
    let session_id = SessionId::new(eventlog::clock::now());
    let at = |at: Timestamp| Occurrence::new(Some(at), None, at).unwrap();
    let mut now =
        begin + TimeDelta::milliseconds(i64::try_from(random.below(172_800_000)).unwrap());
    let standings = [Standing::Active, Standing::Superseded];
    let standing = |random: &mut Random| standings[usize::try_from(random.below(2)).unwrap()];
    let mut commands = vec![SessionCommand::Start(StartSession {
        reader_id,
        book_id: Uuid::from_u128(u128::from(random.below(3))).into(),
        position: random_position(random),
        device_type: None,
        device_id: None,
        time_zone: Some(ZoneName::new(zone)),
        locator: None,
        book: None,
        occurred: at(now),
        standing: standing(random),
    })];
    let updates = random.below(60);
    let end = (random.below(3) == 0).then(|| random.below(updates + 1));
    for n in 0..=updates {
        // Up to three minutes, longer than the gap that counts as active time.
        now += TimeDelta::milliseconds(i64::try_from(random.below(180_000)).unwrap());
        let observed = match random.below(10) {
            0 => now - TimeDelta::seconds(600),
            1 => {
                now += TimeDelta::hours(3);
                now
            }
            _ => now,
        };
        commands.push(SessionCommand::UpdatePosition(UpdatePosition {
            position: random_position(random),
            locator: None,
            occurred: at(observed),
            standing: standing(random),
        }));
        if end == Some(n) {
            // It may precede observations that have arrived already.
            let ended = now - TimeDelta::seconds(i64::try_from(random.below(8_000)).unwrap());
            commands.push(SessionCommand::End(EndSession {
                position: (random.below(2) == 0).then(|| random_position(random)),
                locator: None,
                occurred: at(ended),
            }));
            for _ in 0..random.below(3) {
                let by = i64::try_from(random.below(16_000)).unwrap() - 8_000;
                commands.push(SessionCommand::Correct(CorrectSession {
                    ended_at: (random.below(3) > 0).then(|| ended + TimeDelta::seconds(by)),
                    position: (random.below(2) == 0).then(|| random_position(random)),
                    active: (random.below(2) == 0).then(|| TimeDelta::seconds(90)),
                    received: now + TimeDelta::seconds(20_000),
                }));
            }
        }
        if random.below(20) == 0 {
            commands.push(SessionCommand::Deactivate(EndReason::Superseded));
        }
    }
    let mut state = CompleteSession::default();
    let mut events = Vec::new();
    for command in commands {
        // Refused: for example an observation after the end.
        for event in state.decide(command, Rules::default()).unwrap_or_default() {
            state.apply(&event);
            events.push(NewEvent {
                session_id,
                sequence: i64::try_from(events.len()).unwrap() + 1,
                event,
                metadata: "{}".to_owned(),
            });
        }
    }
    events
}

#[tokio::test]
async fn statistics_equal_a_slow_count_across_clock_changes() {
    let seed = eventlog::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let app = App::start().await;
    let (appender, task) = Appender::new(app.pool.clone(), commit_feed::channel().0, |_| {});
    tokio::spawn(task);
    let readers: Vec<ReaderId> = (0..5).map(|_| Uuid::new_v4().into()).collect();
    for (zone, year, month, day) in CLOCK_CHANGES {
        let change = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        let begin = (change - TimeDelta::days(1)).and_hms_opt(0, 0, 0).unwrap();
        let begin = instant(begin, zone);
        for reader_id in &readers {
            for _ in 0..6 {
                let events = random_session(&mut random, *reader_id, zone, begin);
                let append = Append {
                    events,
                    ..Append::default()
                };
                appender.append(append).await.unwrap();
            }
        }
    }
    app.settled().await;
    let log = invariants::read_log(&app.pool).await;
    invariants::statistics_match_the_log(&app.pool, &log).await;

    // The days of all readers together count each reader once.
    let from = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let all = daily_stats::all_readers_days(&app.pool, from)
        .await
        .unwrap();
    assert!(all.len() >= 2 * CLOCK_CHANGES.len(), "{all:?}");
    assert!(all.is_sorted_by(|one, next| one.day > next.day));
    assert!(
        all.iter().all(|day| (1..=5).contains(&day.readers)),
        "{all:?}"
    );
    assert!(all.iter().any(|day| day.long_sessions > 0));
    let ended: i64 = all.iter().map(|day| day.ended_sessions).sum();
    let sessions: i64 = sqlx::query_scalar("select count(distinct session_id) from session_days")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(sessions, 6 * 6 * 5);
    assert!((1..sessions).contains(&ended), "{ended} of {sessions}");
}
