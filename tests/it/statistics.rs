//! Statistics are a slow count of the log: over random histories in several
//! zones, through changes of daylight saving time, with late observations and
//! sessions over midnight.

use chrono::{NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::session::Rules;
use domain::{
    EndSession, Position, ReaderId, ReadingSession, SessionCommand, SessionId, StartSession,
    Timestamp, UpdatePosition,
};
use eventlog::Appender;
use eventlog::append::{Append, NewEvent};
use eventlog::commits;
use projections::daily_stats;
use tests::traffic::Random;
use tests::{App, check};
use uuid::Uuid;

/// The days around changes of the clocks, of one hour and of half an hour, in
/// both directions.
const CHANGES: [(Tz, i32, u32, u32); 6] = [
    (Tz::Europe__Berlin, 2026, 3, 29),
    (Tz::Europe__Berlin, 2026, 10, 25),
    (Tz::America__New_York, 2026, 3, 8),
    (Tz::America__New_York, 2026, 11, 1),
    (Tz::Australia__Lord_Howe, 2026, 4, 5),
    (Tz::Australia__Lord_Howe, 2026, 10, 4),
];

fn place(random: &mut Random) -> Position {
    Position::from_steps(i32::try_from(random.below(1_000_001)).unwrap()).unwrap()
}

/// A session that begins some time on the day before a change, with
/// observations in and out of order, and an end or none.
fn session(random: &mut Random, reader_id: ReaderId, zone: Tz, begin: Timestamp) -> Vec<NewEvent> {
    let session_id = SessionId::at(services::clock::now());
    let at = |at: Timestamp| Occurrence {
        client: None,
        received: at,
    };
    let mut now =
        begin + TimeDelta::milliseconds(i64::try_from(random.below(172_800_000)).unwrap());
    let mut commands = vec![SessionCommand::Start(StartSession {
        reader_id,
        book_id: Uuid::from_u128(u128::from(random.below(3))).into(),
        position: place(random),
        device_type: None,
        device_id: None,
        time_zone: zone,
        locator: None,
        book: None,
        occurred: at(now),
    })];
    for _ in 0..random.below(60) {
        // Up to three minutes: more than counts as reading without a pause.
        now += TimeDelta::milliseconds(i64::try_from(random.below(180_000)).unwrap());
        let seen = match random.below(10) {
            0 => now - TimeDelta::seconds(600),
            1 => {
                now += TimeDelta::hours(3);
                now
            }
            _ => now,
        };
        commands.push(SessionCommand::UpdatePosition(UpdatePosition {
            position: place(random),
            locator: None,
            occurred: at(seen),
        }));
    }
    let reason = [EndReason::Finished, EndReason::Superseded, EndReason::Idle];
    if let Some(reason) = reason.get(usize::try_from(random.below(4)).unwrap()) {
        now += TimeDelta::seconds(i64::try_from(random.below(10_000)).unwrap());
        commands.push(SessionCommand::End(EndSession {
            position: (random.below(2) == 0).then(|| place(random)),
            reason: *reason,
            occurred: at(now),
        }));
    }
    let mut state = ReadingSession::default();
    let mut events = Vec::new();
    for command in commands {
        for event in state.decide(command, Rules::default()).unwrap() {
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
async fn statistics_equal_a_slow_count_through_changes_of_daylight_saving_time() {
    let seed = services::clock::now().timestamp_millis().unsigned_abs();
    println!("seed {seed}");
    let mut random = Random(seed | 1);
    let app = App::start().await;
    let (appender, task) = Appender::new(app.pool.clone(), commits::channel().0);
    tokio::spawn(task);
    let readers: Vec<ReaderId> = (0..5).map(|_| Uuid::new_v4().into()).collect();
    for (zone, year, month, day) in CHANGES {
        let change = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        let begin = (change - TimeDelta::days(1)).and_hms_opt(0, 0, 0).unwrap();
        let begin = zone.from_local_datetime(&begin).earliest().unwrap();
        for reader_id in &readers {
            for _ in 0..6 {
                let events = session(&mut random, *reader_id, zone, begin.with_timezone(&Utc));
                let append = Append {
                    events,
                    ..Append::default()
                };
                appender.append(append).await.unwrap();
            }
        }
    }
    app.settled().await;
    let log = check::log(&app.pool).await;
    check::statistics_are_the_recomputed(&app.pool, &log).await;

    // All readers together: exactly who read, none twice.
    let from = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let all = daily_stats::days_of_all(&app.pool, from).await.unwrap();
    assert!(all.len() >= 2 * CHANGES.len(), "{all:?}");
    assert!(all.is_sorted_by(|one, next| one.day > next.day));
    assert!(
        all.iter().all(|day| (1..=5).contains(&day.readers)),
        "{all:?}"
    );
    assert!(all.iter().any(|day| day.long_sessions > 0));
    let ended: i64 = all.iter().map(|day| day.ended_sessions).sum();
    let ends = log
        .iter()
        .filter(|event| event.event_type == "SessionEnded");
    assert_eq!(usize::try_from(ended).unwrap(), ends.count());
}
