//! The deployed alerts and dashboards on the metrics of real servers and exporters, with
//! traffic and faults.

use std::collections::BTreeSet;

use super::faults;
use super::files::{alerts, panel_expressions};
use super::site::Site;
use super::traffic::Traffic;

/// Alerts whose fault a test cannot make, each with the reason. `deploy/prometheus/tests`
/// covers them with series of its own.
const WITHOUT_FAULT: [(&str, &str); 4] = [
    (
        "HostCpuBusy",
        "other tests of the same run use the processors too",
    ),
    (
        "HostMemoryNearlyFull",
        "the kernel would kill processes of other programs",
    ),
    ("HostDiskNearlyFull", "other programs need the disk"),
    ("HostDiskFull", "other programs need the disk"),
];

/// Fires from the start, because a small stream of the test is soon full.
const FULL_STREAM: &str = "StreamNearlyFull";

#[tokio::test]
async fn every_panel_has_data_and_every_alert_fires_and_resolves() {
    let alerts = alerts();
    let excepted: BTreeSet<&str> = WITHOUT_FAULT.iter().map(|(name, _)| *name).collect();
    let with_fault: Vec<&str> = alerts
        .iter()
        .map(|alert| alert.name.as_str())
        .filter(|name| !excepted.contains(name))
        .collect();
    assert_eq!(with_fault.len() + excepted.len(), alerts.len());

    let mut site = Site::start().await;
    let traffic = Traffic::start(&site.urls());
    let quiet: Vec<&str> = with_fault
        .iter()
        .copied()
        .filter(|name| *name != FULL_STREAM)
        .collect();
    site.until_scraped().await;
    site.until_resolved(&quiet).await;

    let slow = faults::SlowFaults::begin(&site).await;
    faults::requests_wait(&mut site).await;
    faults::processes_end(&mut site).await;
    faults::servers_are_overloaded(&mut site).await;
    faults::redis_is_unavailable(&mut site).await;
    slow.end(&mut site).await;
    faults::postgres_is_unavailable(&mut site).await;
    site.until_firing(&[FULL_STREAM]).await;
    traffic.stop().await;
    faults::stream_is_emptied(&site).await;
    site.until_resolved(&with_fault).await;
    faults::log_loses_events(&mut site).await;

    let expected: BTreeSet<String> = with_fault.iter().map(|&name| name.to_owned()).collect();
    let missing: Vec<_> = expected.difference(&site.fired).collect();
    assert!(missing.is_empty(), "without a fault: {missing:?}");
    every_expression_has_returned_data(&site).await;
}

async fn every_expression_has_returned_data(site: &Site) {
    let mut empty = Vec::new();
    let panels = panel_expressions();
    assert!(panels.len() > 100);
    for panel in &panels {
        // A constant would hide a metric that does not exist.
        let expression = panel.expression.replace(" or vector(0)", "");
        let expression = expression.replace("$__rate_interval", "5s");
        if !site.prometheus.has_returned_data(&expression).await {
            empty.push(format!("{}: {expression}", panel.place));
        }
    }
    assert!(
        empty.is_empty(),
        "panels without data:\n{}",
        empty.join("\n")
    );
}
