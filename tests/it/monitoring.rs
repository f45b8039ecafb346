//! What operators are told of without asking: metrics, and the alerts on them.

use std::collections::BTreeSet;
use std::time::Instant;

use services::config::Secret;
use tests::App;
use tests::app::{Metrics, SETTLE};
use uuid::Uuid;

const ALERTS: &str = include_str!("../../deploy/alerts.yaml");

/// Asks for metrics until they are so; bounded.
async fn until(app: &App, what: &str, so: impl Fn(&Metrics) -> bool) {
    let started = Instant::now();
    loop {
        let metrics = app.metrics().await;
        if so(&metrics) {
            return;
        }
        assert!(started.elapsed() < 2 * SETTLE, "{what}: {metrics:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn of(projection: &str, what: &str) -> String {
    format!(r#"reading_sessions_{what}{{projection="{projection}"}}"#)
}

#[tokio::test]
async fn every_metric_of_an_alert_is_one_that_the_service_shows() {
    let app = App::with(|settings| {
        // Nobody is there: reads of it are counted as the primary's.
        let url = "postgres://reads@127.0.0.1:1/reading".to_owned();
        settings.replica.database_read_url = Some(Secret::from(url));
    })
    .await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.active().await.ok();
    let _ = reader.history("").await.ok();
    app.settled().await;
    let named: BTreeSet<&str> = ALERTS
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("reading_sessions_"))
        .collect();
    assert!(named.len() >= 15, "{named:?}");
    until(&app, "a metric is not shown", |metrics| {
        named.iter().all(|name| metrics.shows(name))
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn how_far_relay_and_projections_are_is_shown() {
    let app = App::start().await;
    let operator = app.operator();
    let pause = "/projections/history/pause";
    let _ = operator.call(reqwest::Method::POST, pause, None).await.ok();
    until(&app, "the worker stops", |metrics| {
        metrics.count(&of("history", "projection_paused")) == 1
            && metrics.count(&of("history", "projection_works")) == 0
    })
    .await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let head = eventlog::read::head(&app.pool).await.unwrap();
    let head = u64::try_from(head).unwrap();
    until(&app, "the backlog", |metrics| {
        metrics.count("reading_sessions_relay_leads") == 1
            && metrics.count("reading_sessions_relay_position") == head
            && metrics.count("reading_sessions_log_position") == head
            && metrics.count(&of("history", "projection_paused")) == 1
            && metrics.count(&of("history", "projection_works")) == 0
            && metrics.count(&of("history", "projection_lag_events")) > 0
            && metrics.count(&of("daily_stats", "projection_position")) == head
            && metrics.count(&of("daily_stats", "projection_works")) == 1
            && metrics.count(&of("daily_stats", "projection_lag_events")) == 0
    })
    .await;
    app.stop().await;
}
