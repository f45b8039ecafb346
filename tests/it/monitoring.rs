//! Metrics, and the alerts and dashboards of `deploy` that use them.

mod definitions;
mod files;

mod exporters;
mod faults;
mod live;
mod prometheus;
mod site;
mod traffic;

use std::collections::BTreeSet;

use api::secret::Secret;
use tests::app::{Metrics, SETTLE};
use tests::{App, eventually_ok};
use uuid::Uuid;

/// Polls the metrics until `check` accepts them.
async fn until_metrics(app: &App, what: &str, check: impl Fn(&Metrics) -> bool) {
    eventually_ok(what, 2 * SETTLE, async || {
        let metrics = app.metrics().await;
        if check(&metrics) {
            return Ok(());
        }
        Err(format!("{metrics:?}"))
    })
    .await;
}

/// The name of a metric with the label of a projection.
fn of(projection: &str, name: &str) -> String {
    format!(r#"reading_sessions_{name}{{projection="{projection}"}}"#)
}

#[tokio::test]
async fn every_metric_in_alerts_is_exported() {
    let app = App::with_settings(|settings| {
        // No server listens there, so the primary serves and counts the reads.
        let url = "postgres://reads@127.0.0.1:1/reading".to_owned();
        settings.replica.database_read_url = Some(Secret::from(url));
    })
    .await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.active().await.ok();
    let _ = reader.history("").await.ok();
    app.settled().await;
    let alerts = files::alerts();
    let expressions = alerts.iter().map(|alert| alert.expression.as_str());
    let named: BTreeSet<&str> = expressions.flat_map(files::own_metrics).collect();
    assert!(named.len() >= 15, "{named:?}");
    until_metrics(&app, "every metric is exported", |metrics| {
        named.iter().all(|name| metrics.has(name))
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn metrics_report_relay_and_projection_lag() {
    let app = App::start().await;
    let operator = app.operator();
    let pause = "/projections/history/pause";
    let _ = operator.call(reqwest::Method::POST, pause, None).await.ok();
    until_metrics(&app, "the worker stops", |metrics| {
        metrics.count(&of("history", "projection_paused")) == 1
            && metrics.count(&of("history", "projection_works")) == 0
    })
    .await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let head = eventlog::read::head(&app.pool).await.unwrap();
    let head = u64::try_from(head).unwrap();
    until_metrics(&app, "the lag of history", |metrics| {
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
