//! Daily statistics are sums over all readers.

use super::*;

pub async fn daily_stats(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let none = get(&operator, "/stats/daily").await;
    contract.check("dailyStatsOfAll", 200, &none);
    assert_eq!(none.body, json!({ "days": [] }));
    // One reader reads for fifteen minutes, another for none. Starting at noon keeps
    // everything on one day.
    let noon = eventlog::clock::now().date_naive() - chrono::Days::new(2);
    let noon = noon.and_hms_opt(12, 0, 0).unwrap().and_utc();
    let minute = |n: i64| json!(noon + chrono::TimeDelta::minutes(n));
    for (minutes, ended) in [(15, true), (0, false)] {
        let reader = app.reader();
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": minute(0) });
        let session = id(&reader.start_with(start).await.ok());
        for n in 1..=minutes {
            let update = json!({ "current_position": n, "occurred_at": minute(n) });
            let _ = reader.update_with(session, update).await.ok();
        }
        if ended {
            let _ = reader
                .end(session, json!({ "occurred_at": minute(15) }))
                .await
                .ok();
        }
    }
    app.settled().await;
    let response = get(&operator, "/stats/daily").await;
    contract.check("dailyStatsOfAll", 200, &response);
    let expected = json!([{
        "date": noon.date_naive(),
        "total_sessions": 2,
        "active_users": 2,
        "avg_duration_minutes": 7.5,
        "avg_duration_seconds": 450.0,
        "total_reading_minutes": 15,
        "total_reading_seconds": 900,
        "avg_progress_percent": 7.5,
        "sessions_over_10min": 1,
        "completed_sessions": 1,
    }]);
    assert_eq!(response.body["days"], expected);
    let two_days = get(&operator, "/stats/daily?days=2").await.ok();
    assert_eq!(two_days, json!({ "days": [] }));
    let three_days = get(&operator, "/stats/daily?days=3").await.ok();
    assert_eq!(three_days["days"], expected);
}
