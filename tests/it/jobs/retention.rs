//! Retention removes old sessions and days from the read tables permanently. A replay
//! does not restore them.

use chrono::{DateTime, Days, TimeDelta, Utc};
use domain::SessionId;
use eventlog::clock;
use serde_json::{Value, json};
use tests::process::command;
use tests::{App, backdate};
use uuid::Uuid;

use super::run;

/// Runs a command and returns its output. Fails if the command fails.
async fn stdout_of(app: &App, arguments: &[&str]) -> String {
    let output = command(&app.env).args(arguments).output().await.unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let (out, err) = (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    out
}

/// Noon, `days` ago. A minute that starts at noon is within one day and one hour.
fn noon(now: DateTime<Utc>, days: u64) -> DateTime<Utc> {
    let day = now.date_naive() - Days::new(days);
    day.and_hms_opt(12, 0, 0).unwrap().and_utc()
}

async fn history(app: &App, reader: Uuid) -> Value {
    app.reader_with_id(reader).history("").await.ok()
}

/// Runs `check`, replays the projections, runs `check` again and verifies the read
/// tables.
async fn holds_after_replay(app: &App, check: impl AsyncFn()) {
    check().await;
    for projection in ["history", "daily_stats"] {
        let _ = stdout_of(app, &["replay", projection]).await;
    }
    check().await;
    let _ = stdout_of(app, &["verify"]).await;
}

#[tokio::test]
async fn expired_months_leave_the_history_but_not_the_statistics() {
    let app = App::start().await;
    app.warmed_up().await;
    let now = clock::now();
    let (reader, other) = (Uuid::new_v4(), Uuid::new_v4());
    let ago = |days| noon(now, days);
    for days in [400, 200] {
        backdate::create_month_partitions(&app.pool, ago(days)).await;
        backdate::write_session(&app.pool, reader, SessionId::new(ago(days)), ago(days)).await;
    }
    backdate::write_session(&app.pool, other, SessionId::new(ago(200)), ago(200)).await;
    // A recent session with an old id is not removed.
    backdate::create_month_partitions(&app.pool, ago(170)).await;
    backdate::write_session(&app.pool, reader, SessionId::new(ago(170)), ago(5)).await;
    backdate::write_session(&app.pool, reader, SessionId::new(ago(1)), ago(1)).await;
    app.settled().await;
    assert_eq!(history(&app, reader).await["total"], 4);

    let done = run(&app, "retention").await;
    assert!(
        done.starts_with("3 sessions removed from the history with "),
        "{done}"
    );
    assert_eq!(run(&app, "retention").await, "no month is old enough");
    holds_after_replay(&app, async || {
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
        let days: i64 = sqlx::query_scalar("select count(*) from session_days")
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(days, 5);
    })
    .await;
    // Totals of readers and books without sessions are deleted.
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
async fn month_with_an_active_session_is_kept() {
    let app = App::start().await;
    app.warmed_up().await;
    let then = clock::now() - Days::new(200);
    let reader = Uuid::new_v4();
    backdate::create_month_partitions(&app.pool, then).await;
    backdate::write_session(&app.pool, reader, SessionId::new(then), then).await;
    let open = json!({
        "type": "SessionStarted", "reader_id": Uuid::new_v4(), "book_id": Uuid::new_v4(),
        "started_at": then, "position": 0,
    });
    let session = SessionId::new(then + TimeDelta::seconds(1)).uuid();
    tests::future_events::write(&app.pool, session, "SessionStarted", "1", &open).await;
    app.settled().await;
    assert_eq!(run(&app, "retention").await, "no month is old enough");
    assert_eq!(history(&app, reader).await["total"], 1);
}

#[tokio::test]
async fn statistics_days_removes_older_days() {
    let app = App::start().await;
    let now = clock::now();
    let reader = Uuid::new_v4();
    for (n, days) in [500, 400, 300, 1].into_iter().enumerate() {
        let at = noon(now, days);
        // The time of reading determines the day, not the time in the id.
        let id = SessionId::new(now - TimeDelta::seconds(i64::try_from(n).unwrap()));
        backdate::write_session(&app.pool, reader, id, at).await;
    }
    app.settled().await;
    assert_eq!(
        run(&app, "statistics_window").await,
        "statistics are kept permanently"
    );
    let window = [
        "jobs",
        "run",
        "statistics_window",
        "--statistics-days",
        "366",
    ];
    let done = stdout_of(&app, &window).await;
    // Two rows for each of two days: the session's day, and the day of all readers.
    assert!(done.starts_with("statistics_window: 4 rows"), "{done}");
    holds_after_replay(&app, async || {
        for table in ["session_days", "days"] {
            let left: i64 = sqlx::query_scalar(&format!("select count(*) from {table}"))
                .fetch_one(&app.pool)
                .await
                .unwrap();
            assert_eq!(left, 2, "{table}");
        }
    })
    .await;
}
