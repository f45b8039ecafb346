//! What is old leaves the read tables for good, with its counts, and a replay
//! does not bring it back.

use chrono::{DateTime, Days, TimeDelta, Utc};
use domain::SessionId;
use serde_json::{Value, json};
use eventlog::clock;
use tests::process::command;
use tests::{App, backdate};
use uuid::Uuid;

use super::run;

/// Whether a command went well.
async fn says(app: &App, arguments: &[&str]) -> String {
    let output = command(&app.env).args(arguments).output().await.unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let (out, err) = (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    out
}

/// At noon some days ago: a minute that is read then is on one day and in one hour.
fn noon(now: DateTime<Utc>, days: u64) -> DateTime<Utc> {
    let day = now.date_naive() - Days::new(days);
    day.and_hms_opt(12, 0, 0).unwrap().and_utc()
}

async fn history(app: &App, reader: Uuid) -> Value {
    app.reader_with_id(reader).history("").await.ok()
}

/// Reads it again after replays, and compares it with the log.
async fn stays(app: &App, what: impl AsyncFn()) {
    what().await;
    for projection in ["history", "daily_stats"] {
        let _ = says(app, &["replay", projection]).await;
    }
    what().await;
    let _ = says(app, &["verify"]).await;
}

#[tokio::test]
async fn months_that_are_over_leave_the_history_and_stay_in_the_statistics() {
    let app = App::start().await;
    app.warmed_up().await;
    let now = clock::now();
    let (reader, other) = (Uuid::new_v4(), Uuid::new_v4());
    let ago = |days| noon(now, days);
    for days in [400, 200] {
        backdate::create_month_partitions(&app.pool, ago(days)).await;
        backdate::write_session(&app.pool, reader, SessionId::at(ago(days)), ago(days)).await;
    }
    backdate::write_session(&app.pool, other, SessionId::at(ago(200)), ago(200)).await;
    // An old id does not make a session old.
    backdate::create_month_partitions(&app.pool, ago(170)).await;
    backdate::write_session(&app.pool, reader, SessionId::at(ago(170)), ago(5)).await;
    backdate::write_session(&app.pool, reader, SessionId::at(ago(1)), ago(1)).await;
    app.settled().await;
    assert_eq!(history(&app, reader).await["total"], 4);

    let done = run(&app, "retention").await;
    assert!(done.starts_with("3 sessions left the history: "), "{done}");
    assert_eq!(run(&app, "retention").await, "no month is old enough");
    stays(&app, async || {
        let kept = history(&app, reader).await;
        assert_eq!(kept["total"], 2);
        let started: Vec<&Value> = kept["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|session| &session["started_at"])
            .collect();
        assert_eq!(started.len(), 2, "{kept}");
        assert_eq!(history(&app, other).await["total"], 0);
        let days: i64 = sqlx::query_scalar("select count(*) from reader_days")
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(days, 5);
    })
    .await;
    // One by its id is as it stands in the log, which keeps it.
    let totals: i64 = sqlx::query_scalar("select count(*) from history_totals where sessions = 0")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(totals, 0);
    let reading = app.reader();
    let _ = reading.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    assert_eq!(history(&app, reading.id).await["total"], 1);
}

#[tokio::test]
async fn a_month_with_an_open_session_stays_whole() {
    let app = App::start().await;
    app.warmed_up().await;
    let then = clock::now() - Days::new(200);
    let reader = Uuid::new_v4();
    backdate::create_month_partitions(&app.pool, then).await;
    backdate::write_session(&app.pool, reader, SessionId::at(then), then).await;
    let open = json!({
        "type": "SessionStarted", "reader_id": Uuid::new_v4(), "book_id": Uuid::new_v4(),
        "started_at": then, "position": 0,
    });
    let session = SessionId::at(then + TimeDelta::seconds(1)).uuid();
    tests::future_events::write(&app.pool, session, "SessionStarted", "1", &open).await;
    app.settled().await;
    assert_eq!(run(&app, "retention").await, "no month is old enough");
    assert_eq!(history(&app, reader).await["total"], 1);
}

#[tokio::test]
async fn old_days_leave_the_statistics_where_that_is_wanted() {
    let app = App::start().await;
    let now = clock::now();
    let reader = Uuid::new_v4();
    for (n, days) in [500, 400, 300, 1].into_iter().enumerate() {
        let at = noon(now, days);
        // Whatever its id says, a day is when it was read.
        let id = SessionId::at(now - TimeDelta::seconds(i64::try_from(n).unwrap()));
        backdate::write_session(&app.pool, reader, id, at).await;
    }
    app.settled().await;
    assert_eq!(
        run(&app, "statistics_window").await,
        "statistics are kept for ever"
    );
    let window = [
        "upkeep",
        "run",
        "statistics_window",
        "--statistics-days",
        "366",
    ];
    let done = says(&app, &window).await;
    // Of two: the reader's day and hour, and the day of all.
    assert!(done.starts_with("statistics_window: 6 rows"), "{done}");
    stays(&app, async || {
        for table in ["reader_days", "days"] {
            let left: i64 = sqlx::query_scalar(&format!("select count(*) from {table}"))
                .fetch_one(&app.pool)
                .await
                .unwrap();
            assert_eq!(left, 2, "{table}");
        }
    })
    .await;
}
