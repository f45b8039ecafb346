//! Metrics of a process: its resources, its appends and queries, how long events wait for
//! the relay, and heap profiles.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use tests::app::{SETTLE, token};
use tests::process::Process;
use tests::reader::client;
use tests::{App, Stack, eventually, until};
use uuid::Uuid;

const REFERENCE: &str = include_str!("../../docs/reference/metrics.md");

/// A service that has handled a command and every kind of query.
async fn used() -> App {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let _ = reader.active().await.ok();
    let _ = reader.history("").await.ok();
    for query in ["daily", "weekly", "streak", "patterns"] {
        let path = format!("/stats/{query}");
        let _ = reader.call(Method::GET, &path, None).await.ok();
    }
    app.settled().await;
    app
}

#[tokio::test]
async fn every_exported_metric_is_documented() {
    let app = used().await;
    let documented: BTreeSet<&str> = REFERENCE
        .split('`')
        .filter(|name| name.starts_with("reading_sessions_") || name.starts_with("process_"))
        .collect();
    let metrics = app.metrics().await;
    let exported: BTreeSet<String> = metrics.families();
    assert!(exported.len() >= 35, "{exported:?}");
    let missing: Vec<&String> = exported
        .iter()
        .filter(|name| !documented.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in metrics.md: {missing:?}");
    app.stop().await;
}

#[tokio::test]
async fn appends_and_queries_are_measured() {
    let app = used().await;
    let metrics = app.metrics().await;
    for query in ["history", "daily", "weekly", "streak", "patterns"] {
        let name = format!(r#"reading_sessions_query_duration_seconds_count{{query="{query}"}}"#);
        assert_eq!(metrics.count(&name), 1, "{name}: {metrics:?}");
    }
    let batches = metrics.count("reading_sessions_append_duration_seconds_count");
    assert!(batches >= 1, "{metrics:?}");
    assert_eq!(
        metrics.count("reading_sessions_append_batch_events_count"),
        batches
    );
    app.stop().await;
}

#[tokio::test]
async fn process_reports_its_resources_and_roles() {
    let env = Stack::shared().await.new_env().await;
    let process = Process::start_roles(&env, &["api", "jobs"], &[]).await;
    let metrics = process.metrics().await;
    for role in ["api", "jobs"] {
        let name = format!(r#"reading_sessions_role{{role="{role}"}}"#);
        assert_eq!(metrics.count(&name), 1, "{metrics:?}");
    }
    assert!(!metrics.has(r#"reading_sessions_role{role="relay"}"#));
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        r#"reading_sessions_allocator_bytes{state="allocated"}"#,
        r#"reading_sessions_allocator_bytes{state="resident"}"#,
    ] {
        let value = metrics.number(name);
        assert!(
            value.is_some_and(|value| value > 0.0),
            "{name}: {metrics:?}"
        );
    }
    assert!(metrics.number("process_threads") > Some(1.0), "{metrics:?}");
}

#[tokio::test]
async fn age_of_unpublished_events_grows_while_nats_is_down() {
    const AGE: &str = "reading_sessions_relay_unpublished_age_seconds";
    let app = App::on(Stack::dedicated().await).await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let age = async || app.metrics().await.number(AGE);
    until("everything is published", SETTLE, async || {
        age().await == Some(0.0)
    })
    .await;

    app.stack.servers.lock().await.nats.kill().unwrap();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let first = eventually("an event waits", SETTLE, async || {
        age().await.filter(|age| *age > 0.0)
    })
    .await;
    until("it waits longer", SETTLE, async || {
        age().await.is_some_and(|age| age > first)
    })
    .await;

    app.stack.servers.lock().await.nats.start().await.unwrap();
    until("it is published", 2 * SETTLE, async || {
        age().await == Some(0.0)
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn heap_profile_needs_a_process_with_the_profiler() {
    let env = Stack::shared().await.new_env().await;
    let off = Process::start_roles(&env, &["api"], &[]).await;
    let refused = off
        .operator()
        .call(Method::GET, "/heap-profile", None)
        .await;
    assert_eq!(refused.problem_code(409), "heap_profiler_off");
    assert_eq!(off.terminate().await.code(), Some(0));

    let settings = [("_RJEM_MALLOC_CONF", "prof:true,lg_prof_sample:12")];
    let on = Process::start_roles(&env, &["api"], &settings).await;
    let url = format!("http://{}/api/v1/admin/heap-profile", on.admin);
    let request = client().get(&url).bearer_auth(&on.operator().token);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let profile = response.bytes().await.unwrap();
    // A gzipped message of pprof.
    assert!(profile.starts_with(&[0x1f, 0x8b]), "{profile:?}");
    let reader = client().get(&url).bearer_auth(token(Uuid::new_v4()));
    let refused = reader.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
}
