//! Sums of reading time that agree in all views.

use super::*;

use serde_json::json;

/// Seconds and minutes in every view: by day, by week, by weekday and by hour.
async fn totals(reader: &Reader) -> [(i64, i64); 4] {
    let daily = get(reader, "/stats/daily?days=7").await;
    let weekly = get(reader, "/stats/weekly").await;
    let patterns = get(reader, "/stats/patterns?days=7").await;
    let both = |body: &Value, list: &str, prefix: &str| {
        (
            total(body, list, &format!("{prefix}seconds")),
            total(body, list, &format!("{prefix}minutes")),
        )
    };
    [
        both(&daily, "days", "active_"),
        both(&weekly, "days", ""),
        both(&patterns, "weekdays", "active_"),
        both(&patterns, "hours", "active_"),
    ]
}

/// A finished session of some seconds, with an observation every minute.
fn seconds_long(begin: Time, seconds: i64) -> PlannedSession {
    let observations = (1..=seconds / 60)
        .map(|minute| observation(begin + minutes(minute), minute))
        .collect();
    PlannedSession {
        observations,
        ..ended(session(begin, 0, []), begin + TimeDelta::seconds(seconds))
    }
}

#[tokio::test]
async fn short_sessions_have_the_same_total_in_every_view() {
    let app = App::start().await;
    // Twelve sessions of 59 seconds in twelve hours of one day.
    let begin = days_ago(1, "08:00:00");
    let hour = |count: i64| begin + TimeDelta::hours(count);
    let plan = Plan {
        sessions: (0..12).map(|count| seconds_long(hour(count), 59)).collect(),
    };
    let own: Vec<Call> = (0..12)
        .flat_map(|number| [Call::Start(number), Call::End(number)])
        .collect();
    in_any_order(&app, &plan, &own, async |told| {
        assert_eq!(totals(&told.reader).await, [(708, 11); 4]);
        let patterns = get(&told.reader, "/stats/patterns?days=7").await;
        assert_eq!(total(&patterns, "hours", "sessions"), 12);
        let streak = get(&told.reader, "/stats/streak").await;
        assert_eq!(streak["total_reading_days"], 1);
    })
    .await;
}

#[tokio::test]
async fn sessions_of_several_days_have_the_same_total_in_every_view() {
    let app = App::start().await;
    // 30 to 119 seconds each, across hours and midnights, on five days.
    let sessions: Vec<PlannedSession> = (1..=5)
        .flat_map(|days| {
            (0..9).map(move |count| {
                let begin = days_ago(days, "15:59:20") + minutes(60 * count);
                seconds_long(
                    begin,
                    30 + (count * 37 + i64::try_from(days).unwrap() * 11) % 90,
                )
            })
        })
        .collect();
    let seconds: i64 = sessions
        .iter()
        .map(|session| (session.end.as_ref().unwrap().at - session.start.at).num_seconds())
        .sum();
    let plan = Plan { sessions };
    let told = Told::deliver(
        &app,
        &plan,
        &delivery::calls(&plan, &mut Random(7), Order::Shuffled),
    )
    .await;
    app.settled().await;
    let totals = totals(&told.reader).await;
    assert_eq!(totals[0].0, seconds);
    assert_eq!(totals, [totals[0]; 4]);
    let days = get(&told.reader, "/stats/daily?days=7").await;
    for day in days["days"].as_array().unwrap() {
        let seconds = day["active_seconds"].as_i64().unwrap();
        assert_eq!(day["active_minutes"], seconds / 60, "{day}");
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn overlapping_sessions_count_once_in_every_view() {
    let app = App::start().await;
    // The same hour on two devices, and one of them recorded it twice.
    let begin = days_ago(1, "10:30:00");
    let sessions: Vec<PlannedSession> = [0, 10, 10]
        .into_iter()
        .map(|offset| {
            let begin = begin + minutes(offset);
            ended(session(begin, 0, 1..=60), begin + minutes(60))
        })
        .collect();
    let plan = Plan { sessions };
    let own: Vec<Call> = (0..3)
        .flat_map(|number| {
            [
                Call::Start(number),
                batch(number, 0..30),
                batch(number, 30..60),
                Call::End(number),
            ]
        })
        .collect();
    in_any_order(&app, &plan, &own, async |told| {
        assert_eq!(totals(&told.reader).await, [(4_200, 70); 4]);
        for number in 0..3 {
            told.assert(number, json!({ "active_seconds": 3_600 }))
                .await;
        }
        let days = get(&told.reader, "/stats/daily").await;
        assert_eq!(days["days"][0]["sessions"], 3);
        let patterns = get(&told.reader, "/stats/patterns?days=7").await;
        let hours = patterns["hours"].as_array().unwrap();
        let read: Vec<(i64, i64)> = hours
            .iter()
            .map(|hour| {
                let field = |name: &str| hour[name].as_i64().unwrap();
                (field("hour"), field("active_minutes"))
            })
            .collect();
        assert_eq!(read, [(10, 30), (11, 40)]);
    })
    .await;
}

/// The progress of a day is that of its last observation, whichever arrives last.
#[tokio::test]
async fn progress_of_each_day_does_not_depend_on_the_order_of_arrival() {
    let app = App::start().await;
    let midnight = days_ago(1, "00:00:00");
    let seen = |minute: i64, position: i64| observation(midnight + minutes(minute), position);
    let read = PlannedSession {
        start: seen(-10, 10),
        observations: vec![
            seen(-9, 60),
            seen(-5, 20),
            seen(-1, 30),
            seen(1, 25),
            seen(5, 80),
            seen(9, 42),
        ],
        ..ended(session(midnight, -10, []), midnight + minutes(10))
    };
    let plan = Plan {
        sessions: vec![read],
    };
    let own = [
        Call::Start(0),
        Call::Update(Seen::Counted(0, 5)),
        batch(0, 0..5),
        Call::End(0),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        let days = get(&told.reader, "/stats/daily").await;
        let progress: Vec<&Value> = days["days"]
            .as_array()
            .unwrap()
            .iter()
            .map(|day| &day["progress"])
            .collect();
        assert_eq!(progress, [&json!(12), &json!(20)]);
    })
    .await;
}

/// Ten minutes on one page, once with an update a minute, once without.
#[tokio::test]
async fn slow_page_counts_two_minutes_without_heartbeats() {
    let app = App::start().await;
    let begin = minutes_ago(30);
    let on_page = |minute: i64| observation(begin + minutes(minute), 5);
    for (updates, seconds) in [((1..=10).collect(), 600), (vec![10], 120)] {
        let plan = Plan {
            sessions: vec![PlannedSession {
                start: on_page(0),
                observations: updates.into_iter().map(on_page).collect(),
                ..session(begin, 0, [])
            }],
        };
        let count = plan.sessions[0].observations.len();
        let own = [Call::Start(0), batch(0, 0..count)];
        in_any_order(&app, &plan, &own, async |told| {
            let expected = json!({
                "active_seconds": seconds, "duration_seconds": 600, "progress_delta": 0,
                "end_position": 5,
            });
            told.assert(0, expected).await;
        })
        .await;
    }
}

#[tokio::test]
async fn session_of_eight_days_counts_on_each_day() {
    let app = App::start().await;
    let begin = days_ago(9, "21:00:00");
    // Five minutes each evening.
    let evenings = 0..=8;
    let updates = evenings.flat_map(|day| (0..=5).map(move |minute| (day, minute)));
    let observations: Vec<_> = updates
        .filter(|at| *at != (0, 0))
        .map(|(day, minute)| {
            let at = begin + TimeDelta::days(day) + minutes(minute);
            observation(at, day * 10 + minute)
        })
        .collect();
    let last = observations.last().unwrap().at;
    let plan = Plan {
        sessions: vec![PlannedSession {
            observations,
            ..ended(session(begin, 0, []), last)
        }],
    };
    let own = [
        Call::Start(0),
        batch(0, 0..25),
        batch(0, 25..53),
        Call::End(0),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        // Each pause counts two minutes.
        let expected = json!({
            "active_seconds": 9 * 300 + 8 * 120, "duration_minutes": 8 * 24 * 60 + 5,
            "end_position": 85,
        });
        told.assert(0, expected).await;
        let days = get(&told.reader, "/stats/daily").await;
        let minutes: Vec<i64> = days["days"]
            .as_array()
            .unwrap()
            .iter()
            .map(|day| day["active_minutes"].as_i64().unwrap())
            .collect();
        assert_eq!(minutes, [5, 7, 7, 7, 7, 7, 7, 7, 7]);
        let streak = get(&told.reader, "/stats/streak").await;
        assert_eq!(
            (&streak["current"], &streak["longest"]),
            (&json!(9), &json!(9))
        );
    })
    .await;
}

#[tokio::test]
async fn book_that_is_read_again_has_two_sessions() {
    let app = App::start().await;
    let begin = minutes_ago(60);
    let book = Uuid::new_v4();
    let read = |offset: i64, last: i64| {
        let begin = begin + minutes(offset);
        let seen = |minute: i64, position: i64| observation(begin + minutes(minute), position);
        PlannedSession {
            book,
            start: seen(0, last - 2),
            observations: vec![seen(1, last - 1), seen(2, last)],
            ..ended(session(begin, 0, []), begin + minutes(2))
        }
    };
    let plan = Plan {
        sessions: vec![read(0, 100), read(10, 2), read(20, 4)],
    };
    let own: Vec<Call> = (0..3)
        .flat_map(|number| [Call::Start(number), batch(number, 0..2), Call::End(number)])
        .collect();
    in_any_order(&app, &plan, &own, async |told| {
        let positions = [(98, 100), (0, 2), (2, 4)];
        for (number, (start, end)) in positions.into_iter().enumerate() {
            let expected = json!({
                "start_position": start, "end_position": end, "furthest_position": end,
                "progress_delta": 2,
            });
            told.assert(number, expected).await;
        }
        let history = told.reader.history(&format!("?book_id={book}")).await.ok();
        assert_eq!(history["total"], 3);
        let days = get(&told.reader, "/stats/daily").await;
        assert_eq!(total(&days, "days", "progress"), 6);
    })
    .await;
}
