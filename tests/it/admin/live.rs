//! The stream of live snapshots is bounded in number and time.

use std::time::Duration;

use api::auth::AdminAccess;
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

pub async fn live(contract: &Contract) {
    let app = App::start().await;
    let _ = app.reader().start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let expires_at = eventlog::clock::now() + chrono::TimeDelta::seconds(5);
    let viewer = app.operator_until(AdminAccess::Read, expires_at);
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
    // A client that leaves frees its place.
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
