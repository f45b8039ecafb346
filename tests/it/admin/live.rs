//! The stream of live snapshots is bounded in number, in time and in its load on Postgres.

use std::collections::BTreeSet;
use std::time::Duration;

use api::auth::AdminAccess;
use eventlog::roles::DatabaseRole;
use futures::future::join_all;
use reqwest::Response;

use super::*;

/// Streams of one process at the same time.
const MAX_STREAMS: usize = 8;

async fn open(app: &App, operator: &Reader) -> Response {
    let request = app
        .client
        .get(format!("{}/api/v1/admin/live", app.admin_url));
    request.bearer_auth(&operator.token).send().await.unwrap()
}

/// The snapshots in the text of a stream.
fn snapshots(text: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    let snapshots = events.map(|event| {
        let data = event.strip_prefix("event: snapshot\ndata: ");
        serde_json::from_str(data.unwrap_or_else(|| panic!("{event}"))).unwrap()
    });
    snapshots.collect()
}

/// The next `count` snapshots of an open stream, or more.
async fn read(stream: &mut Response, count: usize) -> Vec<Value> {
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let chunk = stream.chunk().await.unwrap().expect("the stream is open");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let (events, _) = text.rsplit_once("\n\n").unwrap();
    snapshots(events)
}

pub async fn live(contract: &Contract) {
    let app = App::start().await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let expires_at = eventlog::clock::now() + chrono::TimeDelta::seconds(5);
    let viewer = app.operator_until(AdminAccess::Read, expires_at);
    let name = get(&viewer, "/access").await.ok()["process"]["name"].clone();
    let stream = open(&app, &viewer).await;
    let (status, headers) = (stream.status(), stream.headers().clone());
    // The stream ends with the token.
    let text = tokio::time::timeout(scaled(SETTLE), stream.text()).await;
    let snapshots = snapshots(&text.unwrap().unwrap());
    assert!(snapshots.len() >= 2, "{snapshots:?}");
    for body in snapshots {
        assert_eq!(body["log"]["head"], 1);
        assert_eq!(body["log"]["projections"].as_array().unwrap().len(), 3);
        assert_eq!(body["process"]["requests"], 1);
        assert_eq!(body["process"]["name"], name);
        assert_eq!(body["process"]["relay"]["leads"], true);
        let response = ApiResponse {
            status,
            headers: headers.clone(),
            body,
        };
        contract.check("live", 200, &response);
    }
}

#[tokio::test]
async fn streams_are_bounded_and_end_at_a_shutdown() {
    let app = App::start().await;
    let viewer = app.viewer();
    let mut streams = join_all((0..MAX_STREAMS).map(|_| open(&app, &viewer))).await;
    for stream in &mut streams {
        assert_eq!(stream.status(), 200);
        assert!(stream.chunk().await.unwrap().is_some());
    }
    let refused = ApiResponse::read(open(&app, &viewer).await).await.unwrap();
    assert_eq!(refused.problem_code(503), "overloaded");
    // A stream that its client closes releases its permit.
    drop(streams.pop());
    until("another stream opens", 2 * SETTLE, async || {
        let stream = open(&app, &viewer).await;
        let opens = stream.status() == 200;
        if opens {
            streams.push(stream);
        }
        opens
    })
    .await;
    let stopped = tokio::time::timeout(scaled(Duration::from_secs(8)), app.stop()).await;
    stopped.expect("the shutdown does not wait for the streams");
    for stream in streams {
        let _ = stream.text().await.unwrap();
    }
}

#[tokio::test]
async fn all_streams_share_one_poller_that_stops_with_the_last_of_them() {
    const SNAPSHOTS: usize = 4;
    let app = App::start().await;
    let viewer = app.viewer();
    let mut streams = join_all((0..MAX_STREAMS).map(|_| open(&app, &viewer))).await;
    let read = join_all(streams.iter_mut().map(|stream| read(stream, SNAPSHOTS)));
    let read = tokio::time::timeout(scaled(2 * SETTLE), read)
        .await
        .unwrap();
    // A poller for each stream would take all snapshots at different times.
    let times: BTreeSet<&str> = read
        .iter()
        .flatten()
        .map(|snapshot| snapshot["at"].as_str().unwrap())
        .collect();
    assert!(times.len() <= 2 * SNAPSHOTS, "{times:?}");

    drop(streams);
    until("no statement for three seconds", 2 * SETTLE, async || {
        let seconds: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from clock_timestamp() - max(query_start))::float8
            from pg_stat_activity
            where datname = current_database() and application_name = 'reading-sessions-live'",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        seconds.is_none_or(|seconds| seconds > 3.0)
    })
    .await;
}

#[tokio::test]
async fn stream_without_the_right_to_read_the_audit_causes_no_error_in_postgres() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await.as_role(DatabaseRole::Api);
    let settings = tests::app::settings(&env, &[Role::Api]);
    let app = App::run(stack, env, &settings).await;
    let mut stream = open(&app, &app.viewer()).await;
    let read = tokio::time::timeout(scaled(SETTLE), read(&mut stream, 1)).await;
    let log = &read.unwrap()[0]["log"];
    assert_eq!(
        log["jobs"].as_array().unwrap().len(),
        ::jobs::Job::ALL.len()
    );
    assert_eq!(log["actions"], Value::Null);
    drop(stream);
    let log = app.stop_with_postgres_log().await;
    let refused = log.lines().find(|line| line.contains("permission denied"));
    assert_eq!(refused, None);
}
