//! Requests do not depend on the collector. Spans wait for it in a bounded queue.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tests::process::{self, Process};
use tokio::net::TcpListener;

use super::*;

/// Spans of a batch of 50 updates: the request, its append, and seven for each event.
const BATCH_SPANS: usize = 2 + 50 * 7;

/// Longer than a request may take, and shorter than the exporter waits for a collector.
const SLOW: Duration = Duration::from_secs(5);

/// More spans than the exporter holds.
const MANY_SPANS: usize = 10_000;

#[derive(Clone, Copy, Debug)]
enum Outage {
    /// Nothing listens on the port.
    Refused,
    /// The collector accepts connections and never responds.
    Hanging,
}

#[rstest]
#[case(Outage::Refused, OtlpProtocol::Grpc)]
#[case(Outage::Refused, OtlpProtocol::HttpProtobuf)]
#[case(Outage::Hanging, OtlpProtocol::Grpc)]
#[case(Outage::Hanging, OtlpProtocol::HttpProtobuf)]
#[tokio::test]
async fn requests_are_served_without_a_collector_and_spans_are_dropped(
    #[case] outage: Outage,
    #[case] protocol: OtlpProtocol,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hanging = match outage {
        Outage::Refused => {
            drop(listener);
            None
        }
        Outage::Hanging => Some(tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok(connection) = listener.accept().await {
                connections.push(connection);
            }
        })),
    };
    let app = traced(&TraceArgs {
        otlp_endpoint: Some(Secret::from(format!("http://{address}"))),
        otlp_protocol: protocol,
        traces_sampler: TracesSampler::AlwaysOn,
        ..TraceArgs::default()
    })
    .await;
    let mut slowest = Duration::ZERO;
    let mut requests: FuturesUnordered<_> = (0..=MANY_SPANS / BATCH_SPANS)
        .map(|_| {
            let reader = app.reader();
            async move {
                let session = id(&reader.start(Uuid::new_v4()).await.ok());
                let update = |n: u32| json!({ "session_id": session, "current_position": n });
                let updates: Vec<Value> = (1..=50).map(update).collect();
                let began = Instant::now();
                let response = reader.batch(json!(updates)).await.ok();
                assert_eq!(response["success_count"], 50, "{response}");
                began.elapsed()
            }
        })
        .collect();
    while let Some(took) = requests.next().await {
        slowest = slowest.max(took);
    }
    assert!(slowest < SLOW, "{slowest:?}");
    drop(requests);
    app.settled().await;
    until("spans are dropped", SETTLE, async || {
        let metrics = app.metrics().await;
        metrics.count("reading_sessions_spans_dropped_total") > 0
            && metrics.count("reading_sessions_spans_exported_total") == 0
    })
    .await;
    let began = Instant::now();
    app.stop().await;
    assert!(began.elapsed() < SLOW + SETTLE, "{:?}", began.elapsed());
    if let Some(hanging) = hanging {
        hanging.abort();
    }
}

fn count(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn outage_is_logged_once_and_its_spans_arrive_after_it() {
    let env = Stack::shared().await.new_env().await;
    let log = std::env::temp_dir().join(format!("traces-{}.log", Uuid::new_v4()));
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let endpoint = format!("http://{address}");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_SERVICE_NAME", "readings"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
        ("NATS_STREAM_MAX_BYTES", "0"),
        ("RUST_LOG", "info,async_nats=off"),
    ];
    let process = Process::start_with_defaults(&process::executable(), &env, &log, &settings).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let client = Client::new("01");
    let _ = client.start(&reader).await;
    let read = async || tokio::fs::read_to_string(&log).await.unwrap();
    let unavailable = "collector of traces unavailable";
    until("the outage is logged", SETTLE, async || {
        count(&read().await, unavailable) > 0
    })
    .await;
    let collector = Collector::at(address).await;
    let tree = Tree::received(&collector, &client.trace).await;
    let resource = &tree.get("append events").resource;
    assert_eq!(resource["service.name"], "readings");
    assert_eq!(resource["deployment.environment.name"], "test");
    until("the end of the outage is logged", SETTLE, async || {
        count(&read().await, "collector of traces available again") == 1
    })
    .await;
    assert!(process.terminate().await.success());
    let logged = read().await;
    assert_eq!(count(&logged, unavailable), 1, "{logged}");
    tokio::fs::remove_file(&log).await.unwrap();
}
