//! A sampled request is one trace, from its receipt to the rows of the projections. Spans are
//! exported by OTLP and contain no data of readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::secret::Secret;
use eventlog::trace::TraceParent;
use messaging::Subjects;
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use server::config::{OtlpProtocol, Role, TraceArgs, TracesSampler};
use tests::app::SETTLE;
use tests::collector::{Collector, ReceivedSpan};
use tests::reader::id;
use tests::{ApiResponse, App, Reader, Stack, app, eventually_ok, invariants, until};
use uuid::Uuid;

mod nginx;
mod outages;

const PREFIX: &str = "/api/v1/reading-sessions";

/// The collector, and the settings that export all traces to it.
async fn collector(protocol: OtlpProtocol) -> (Collector, TraceArgs) {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let settings = TraceArgs {
        otlp_endpoint: Some(Secret::from(endpoint)),
        otlp_protocol: protocol,
        traces_sampler: TracesSampler::ParentBasedAlwaysOn,
        ..TraceArgs::default()
    };
    (collector, settings)
}

async fn traced(traces: &TraceArgs) -> App {
    App::with_settings(|settings| settings.traces = traces.clone()).await
}

/// The trace context of a client: the trace, its span and the header.
struct Client {
    trace: String,
    span: String,
    traceparent: String,
}

impl Client {
    fn new(flags: &str) -> Self {
        let trace = Uuid::new_v4().simple().to_string();
        let span = "b7ad6b7169203331".to_owned();
        Self {
            traceparent: format!("00-{trace}-{span}-{flags}"),
            trace,
            span,
        }
    }

    async fn call(&self, reader: &Reader, method: Method, path: &str, body: Value) -> ApiResponse {
        let headers = [("traceparent", self.traceparent.as_str())];
        reader.call_with(method, path, &headers, Some(body)).await
    }

    async fn start(&self, reader: &Reader) -> Uuid {
        let body = json!({ "book_id": Uuid::new_v4(), "book": { "title": "Secret title" } });
        id(&self.call(reader, Method::POST, "/start", body).await.ok())
    }
}

/// A trace: the spans by their names.
struct Tree(BTreeMap<String, ReceivedSpan>);

impl Tree {
    /// Waits for the spans of a trace with one event.
    async fn received(collector: &Collector, trace: &str) -> Self {
        let spans = eventually_ok("nine spans", 2 * SETTLE, async || {
            let spans = collector.trace(trace);
            let names: Vec<_> = spans.iter().map(|span| span.span.name.clone()).collect();
            (names.len() == 9)
                .then_some(spans)
                .ok_or(format!("{names:?}"))
        })
        .await;
        let by_name = spans.into_iter().map(|span| (span.span.name.clone(), span));
        Self(by_name.collect())
    }

    fn get(&self, name: &str) -> &ReceivedSpan {
        let names = self.0.keys();
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no span {name}: {names:?}"))
    }

    /// Asserts the parent and the kind of a span. A span begins after its parent does, and has
    /// not failed.
    fn check(&self, name: &str, parent: &str, kind: SpanKind) -> &ReceivedSpan {
        let (span, parent) = (self.get(name), self.get(parent));
        assert_eq!(span.parent(), parent.id(), "{name}");
        assert_eq!(span.kind(), kind, "{name}");
        let begins = |span: &ReceivedSpan| span.span.start_time_unix_nano;
        assert!(begins(span) >= begins(parent), "{name}");
        assert!(begins(span) <= span.span.end_time_unix_nano, "{name}");
        let status = span.span.status.as_ref().map(Status::code);
        assert_eq!(status, Some(StatusCode::Unset), "{name}");
        span
    }

    /// Asserts the whole tree of a command with one event.
    fn check_all(&self, route: &str, client: &Client, stream: &str) {
        let request = self.get(route);
        assert_eq!(request.parent(), client.span);
        assert_eq!(request.kind(), SpanKind::Server);
        let append = self.check("append events", route, SpanKind::Client);
        assert!(append.span.end_time_unix_nano <= request.span.end_time_unix_nano);
        let publish = format!("publish {stream}");
        let publish = self.check(&publish, "append events", SpanKind::Producer);
        let position = publish.attribute("reading_sessions.global_position");
        for (projection, store) in [
            ("history", "postgresql"),
            ("daily_stats", "postgresql"),
            ("active_sessions", "redis"),
        ] {
            let project = format!("project {projection}");
            let consumed = self.check(&project, "append events", SpanKind::Consumer);
            let found = consumed.attribute("reading_sessions.global_position");
            assert_eq!(found, position, "{projection}");
            let write = format!("write {projection}");
            let written = self.check(&write, &project, SpanKind::Client);
            assert_eq!(written.attribute("db.system.name"), store);
            let ends = |span: &ReceivedSpan| span.span.end_time_unix_nano;
            assert!(ends(written) <= ends(consumed), "{projection}");
        }
    }
}

/// The metadata of the events of a session.
async fn metadata(app: &App, session: Uuid) -> Vec<String> {
    let log = invariants::read_log(&app.pool).await.into_iter();
    log.filter(|event| event.session_id == session.to_string())
        .map(|event| event.metadata)
        .collect()
}

#[rstest]
#[case::grpc_with_one_process(OtlpProtocol::Grpc, vec![&Role::ALL[..]])]
#[case::http_with_a_process_per_role(
    OtlpProtocol::HttpProtobuf,
    vec![&[Role::Api][..], &[Role::Relay], &[Role::Projections]]
)]
#[tokio::test]
async fn sampled_command_is_one_trace_from_the_request_to_the_rows(
    #[case] protocol: OtlpProtocol,
    #[case] processes: Vec<&'static [Role]>,
) {
    let (collector, traces) = collector(protocol).await;
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let mut apps = Vec::new();
    for roles in &processes {
        let mut settings = app::settings(&env, roles);
        settings.traces = traces.clone();
        apps.push(App::run(Arc::clone(&stack), env.clone(), &settings).await);
    }
    let app = &apps[0];
    let reader = app.reader();
    let clients = [(); 3].map(|()| Client::new("01"));
    let [started, updated, ended] = &clients;
    let session = started.start(&reader).await;
    let path = format!("/{session}/update");
    let body = json!({ "current_position": 40.0 });
    let _ = updated.call(&reader, Method::PUT, &path, body).await.ok();
    let path = format!("/{session}/end");
    let _ = ended
        .call(&reader, Method::PUT, &path, json!({}))
        .await
        .ok();
    app.settled().await;

    let subjects = Subjects::new(&env.nats_prefix);
    let events = metadata(app, session).await;
    assert_eq!(events.len(), 3);
    for ((client, route), metadata) in clients
        .iter()
        .zip(["POST /start", "PUT /{id}/update", "PUT /{id}/end"])
        .zip(events)
    {
        let (method, path) = route.split_once(' ').unwrap();
        let route = format!("{method} {PREFIX}{path}");
        let tree = Tree::received(&collector, &client.trace).await;
        tree.check_all(&route, client, subjects.stream());
        let request = tree.get(&route);
        assert_eq!(request.attribute("http.route"), format!("{PREFIX}{path}"));
        assert_eq!(request.attribute("http.request.method"), method);
        let status = request.attribute("http.response.status_code");
        assert!(status == "200" || status == "201", "{status}");
        // The event names the span of its append.
        let append = tree.get("append events");
        let traceparent = format!("00-{}-{}-01", client.trace, append.id());
        let traceparent = TraceParent::parse(&traceparent);
        assert_eq!(TraceParent::from_metadata(&metadata), traceparent);
        assert!(traceparent.is_some());
    }
    check_resources(&collector, processes.len());
    check_privacy(&collector, &reader, session);
    for app in apps {
        app.stop().await;
    }
}

/// Every process names itself.
fn check_resources(collector: &Collector, processes: usize) {
    let mut instances: Vec<String> = Vec::new();
    for span in collector.spans() {
        let resource = |key: &str| span.resource[key].clone();
        assert_eq!(resource("service.name"), "reading-sessions");
        assert_eq!(resource("service.version"), env!("CARGO_PKG_VERSION"));
        assert!(!resource("reading_sessions.roles").is_empty());
        instances.push(resource("service.instance.id"));
    }
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), processes, "{instances:?}");
}

fn check_privacy(collector: &Collector, reader: &Reader, session: Uuid) {
    let all = format!("{:?}", collector.spans());
    for secret in [
        &reader.id.to_string(),
        &session.to_string(),
        &reader.token,
        "Secret title",
    ] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}

#[tokio::test]
async fn unsampled_request_exports_nothing_and_keeps_its_traceparent() {
    let (collector, mut traces) = collector(OtlpProtocol::Grpc).await;
    traces.traces_sampler = TracesSampler::ParentBasedTraceIdRatio;
    traces.traces_sampler_arg = 0.0;
    let app = traced(&traces).await;
    let reader = app.reader();
    let client = Client::new("00");
    let kept = client.start(&reader).await;
    let body = json!({ "book_id": Uuid::new_v4() });
    let without = id(&reader.start_with(body).await.ok());
    app.settled().await;
    let traceparent = format!(r#"{{"traceparent":"{}"}}"#, client.traceparent);
    // The second session ends the first one without a trace.
    assert_eq!(metadata(&app, kept).await, [traceparent.as_str(), "{}"]);
    assert_eq!(metadata(&app, without).await, ["{}"]);
    // A stop exports what is left.
    app.stop().await;
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}

#[tokio::test]
async fn client_does_not_decide_if_the_sampler_ignores_parents() {
    let (collector, mut traces) = collector(OtlpProtocol::HttpProtobuf).await;
    traces.traces_sampler = TracesSampler::TraceIdRatio;
    traces.traces_sampler_arg = 0.0;
    let app = traced(&traces).await;
    let client = Client::new("01");
    let session = client.start(&app.reader()).await;
    app.settled().await;
    let traceparent = format!(r#"{{"traceparent":"{}"}}"#, client.traceparent);
    assert_eq!(metadata(&app, session).await, [traceparent]);
    app.stop().await;
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}

#[tokio::test]
async fn service_without_endpoint_creates_no_spans() {
    let traces = TraceArgs {
        traces_sampler: TracesSampler::AlwaysOn,
        ..TraceArgs::default()
    };
    let app = traced(&traces).await;
    let client = Client::new("01");
    let session = client.start(&app.reader()).await;
    let traceparent = format!(r#"{{"traceparent":"{}"}}"#, client.traceparent);
    assert_eq!(metadata(&app, session).await, [traceparent]);
    assert!(
        !app.metrics()
            .await
            .has("reading_sessions_spans_exported_total")
    );
}

#[tokio::test]
async fn failed_and_rejected_requests_have_a_status() {
    let (collector, traces) = collector(OtlpProtocol::Grpc).await;
    let app = traced(&traces).await;
    let reader = app.reader();
    let missing = Client::new("01");
    let path = format!("/{}/update", Uuid::new_v4());
    let body = json!({ "current_position": 40.0 });
    let response = missing.call(&reader, Method::PUT, &path, body).await;
    assert_eq!(response.status, 404);
    let behind = Client::new("01");
    let headers = [("traceparent", behind.traceparent.as_str())];
    let path = format!("/history?min_position={}", i64::MAX);
    let response = reader.call_with(Method::GET, &path, &headers, None).await;
    assert_eq!(response.status, 504);
    // Waits for the last spans.
    app.stop().await;
    let [rejected] = &collector.trace(&missing.trace)[..] else {
        panic!("one span: {:?}", collector.spans());
    };
    assert_eq!(rejected.attribute("http.response.status_code"), "404");
    assert_eq!(rejected.attribute("error.type"), "");
    let [failed] = &collector.trace(&behind.trace)[..] else {
        panic!("one span: {:?}", collector.spans());
    };
    assert_eq!(failed.attribute("error.type"), "504");
    let status = failed.span.status.as_ref().map(Status::code);
    assert_eq!(status, Some(StatusCode::Error));
}

#[tokio::test]
async fn replay_creates_no_spans() {
    let (collector, traces) = collector(OtlpProtocol::HttpProtobuf).await;
    let app = traced(&traces).await;
    let client = Client::new("01");
    let _ = client.start(&app.reader()).await;
    Tree::received(&collector, &client.trace).await;
    let operator = app.operator();
    let replay = "/projections/history/replay?restart=true";
    let response = operator.call(Method::POST, replay, None).await;
    assert_eq!(response.status, 202);
    until("the replay ends", 2 * SETTLE, async || {
        let path = "/projections";
        let all = operator.call(Method::GET, path, None).await.ok();
        let all = all["projections"].as_array().unwrap().clone();
        let history = all.iter().find(|one| one["name"] == "history").unwrap();
        history["replay"].is_null()
    })
    .await;
    app.stop().await;
    assert_eq!(collector.trace(&client.trace).len(), 9);
}

#[tokio::test]
async fn headers_are_sent_to_the_collector() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let (collector, mut traces) = collector(protocol).await;
        traces.otlp_headers = Some(Secret::from("authorization=Bearer%20abc".to_owned()));
        let app = traced(&traces).await;
        let _ = app.reader().active().await.ok();
        until("a span", SETTLE, async || !collector.spans().is_empty()).await;
        assert_eq!(collector.headers()["authorization"], "Bearer abc");
        app.stop().await;
    }
}

#[tokio::test]
async fn wrong_endpoint_is_an_error_at_the_start() {
    let env = Stack::shared().await.new_env().await;
    let mut settings = app::settings(&env, &Role::ALL);
    settings.traces.otlp_endpoint = Some(Secret::from("collector:4317".to_owned()));
    let error = server::app::start(&settings).await.err().unwrap();
    let error = error.to_string();
    assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{error}");
}
