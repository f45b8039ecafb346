//! The outermost middleware: common headers, request ids, CORS, conditional
//! requests, overload and panics.

use std::sync::Arc;
use std::time::Duration;

use api::http_metrics::HttpMetrics;
use api::middleware::MiddlewareLayer;
use api::request_log::RequestLog;
use api::{in_flight, serve};
use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::routing::get;
use eventlog::trace::Traces;
use prometheus_client::registry::Registry;
use reqwest::{Method, Response};
use serde_json::json;
use server::config::Role;
use tests::reader::id;
use tests::{ApiResponse, App, Reader, Stack, app, scaled};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Serves a router behind the outermost middleware only.
async fn behind_the_middleware(router: Router, limit: in_flight::InFlightLimit) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let work = move |request: Request, next: Next| {
        let limit = limit.clone();
        async move { limit.run(next.run(request)).await }
    };
    let router = router.layer(middleware::from_fn(work));
    let edge = RequestLog {
        metrics: HttpMetrics::for_clients(&mut Registry::default()),
        traces: Traces::default(),
    };
    let router = router.layer(MiddlewareLayer(edge));
    let stop = CancellationToken::new();
    tokio::spawn(serve::run(
        listener,
        router,
        serve::Options {
            timeouts: serve::ClientTimeouts::default(),
            connections: serve::ConnectionLimits::new(100, &[]),
            drain: Duration::ZERO,
        },
        stop,
    ));
    format!("http://{address}")
}

async fn response(url: &str) -> ApiResponse {
    ApiResponse::read(reqwest::get(url).await.unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn panic_returns_500_without_details_and_service_continues() {
    let router = Router::new()
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a secret") }),
        )
        .route("/fine", get(async || "fine"));
    let url = behind_the_middleware(router, in_flight::InFlightLimit::default()).await;
    for _ in 0..3 {
        let response = response(&format!("{url}/panic")).await;
        assert_eq!(response.body["detail"], "Internal server error");
        assert_eq!(response.problem_code(500), "internal");
    }
    assert_eq!(response(&format!("{url}/fine")).await.status, 200);
}

#[tokio::test]
async fn backlog_accepts_many_simultaneous_connections() {
    let listener = serve::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    // The limit of the kernel on Linux, and the traditional limit elsewhere.
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let limit: usize = limit.map_or(128, |limit| limit.trim().parse().unwrap());
    // Nothing accepts, so a connect beyond the backlog would wait.
    let connects = (0..limit.min(300)).map(|_| TcpStream::connect(address));
    let connected = futures::future::try_join_all(connects);
    let connected = tokio::time::timeout(scaled(Duration::from_secs(5)), connected).await;
    let _ = connected
        .expect("the backlog holds all connections")
        .unwrap();
}

#[tokio::test]
async fn requests_beyond_the_limit_return_503_at_once() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
        async move || {
            entered.notify_one();
            leave.notified().await;
            "done"
        }
    };
    let router = Router::new().route("/", get(handler));
    let url = behind_the_middleware(router, in_flight::InFlightLimit::new(1)).await;
    let first = tokio::spawn({
        let url = url.clone();
        async move { response(&url).await }
    });
    entered.notified().await;
    let refused = response(&url).await;
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.problem_code(503), "overloaded");
    leave.notify_one();
    assert_eq!(first.await.unwrap().status, 200);
    leave.notify_one();
    assert_eq!(response(&url).await.status, 200);
}

#[tokio::test]
async fn hanging_postgres_returns_503_with_rate_limit_headers() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let app = App::run(stack, env.clone(), &app::settings(&env, &Role::ALL)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.stack.servers.lock().await.postgres.pause().unwrap();
    let (history, update, start) = tokio::join!(
        reader.history(""),
        reader.update(session, 1.0),
        reader.start(Uuid::new_v4()),
    );
    for response in [history, update, start] {
        assert_eq!(response.header("retry-after"), "1");
        assert!(!response.header("x-ratelimit-remaining").is_empty());
        let _ = response.problem(503);
    }
    app.stack.servers.lock().await.postgres.resume().unwrap();
}

#[tokio::test]
async fn request_id_is_in_the_header_and_in_the_problem() {
    let app = App::start().await;
    let reader = app.reader();
    let call = async |id: &str| {
        let headers = [("x-request-id", id)];
        reader
            .call_with(Method::GET, "/nowhere", &headers, None)
            .await
    };
    let response = call("an-id-of-the-app").await;
    assert_eq!(response.header("x-request-id"), "an-id-of-the-app");
    assert_eq!(response.body["request_id"], "an-id-of-the-app");
    let too_long = "x".repeat(200);
    for refused in ["", too_long.as_str()] {
        let response = call(refused).await;
        assert_eq!(response.header("x-request-id").len(), 32, "{refused}");
        let _ = response.problem(422);
    }
}

#[tokio::test]
async fn responses_carry_security_headers_and_are_not_stored() {
    let app = App::start().await;
    let reader = app.reader();
    let written = reader.start(Uuid::new_v4()).await;
    let session = format!("/{}", id(&written.body));
    assert_eq!(written.header("cache-control"), "no-store");
    for path in [
        "/active",
        "/history",
        "/export",
        "/stats/daily",
        "/stats/weekly",
        "/stats/streak",
        "/stats/patterns",
        session.as_str(),
    ] {
        let response = reader.call(Method::GET, path, None).await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("cache-control"), "no-store", "{path}");
    }
    // A client may keep a session itself.
    for path in ["/active", session.as_str()] {
        let read = reader.call(Method::GET, path, None).await;
        let known = [("if-none-match", read.header("etag"))];
        let unchanged = reader.call_with(Method::GET, path, &known, None).await;
        assert_eq!(unchanged.status, 304, "{path}");
        assert_eq!(unchanged.header("cache-control"), "no-store", "{path}");
    }
    for response in [
        reader.active().await,
        written,
        app.reader().session(Uuid::nil()).await,
    ] {
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        assert_eq!(response.header("x-frame-options"), "DENY");
        assert_eq!(response.header("referrer-policy"), "no-referrer");
        let policy = response.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }
}

#[tokio::test]
async fn large_responses_are_compressed_if_accepted() {
    let app = App::start().await;
    let reader = app.reader();
    for _ in 0..5 {
        let _ = reader.start(Uuid::new_v4()).await.ok();
    }
    app.settled().await;
    let encoding = async |accepted: &'static str, path: &str| {
        let headers = [("accept-encoding", accepted)];
        let response = reader.call_with(Method::GET, path, &headers, None).await;
        assert_eq!(response.status, 200);
        response.header("content-encoding").to_owned()
    };
    assert_eq!(encoding("gzip", "/history").await, "gzip");
    assert_eq!(encoding("br", "/history").await, "br");
    assert_eq!(encoding("gzip, br", "/history").await, "br");
    assert_eq!(encoding("identity", "/history").await, "");
    assert_eq!(
        encoding("gzip", "/stats/streak").await,
        "",
        "a small response is not compressed"
    );
}

async fn preflight(app: &App, origin: &str) -> Response {
    app.client
        .request(Method::OPTIONS, format!("{}/start", app.url))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,idempotency-key",
        )
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn cors_allows_any_origin_by_default() {
    let app = App::start().await;
    let allowed = preflight(&app, "https://reader.example").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "*");
    let headers = allowed.headers()["access-control-allow-headers"].to_str();
    assert!(headers.unwrap().contains("idempotency-key"));

    // A request without an origin gets no CORS headers.
    let response = app.client.get(format!("{}/active", app.url)).send().await;
    let headers = response.unwrap().headers().clone();
    assert!(!headers.contains_key("access-control-allow-origin"));

    // A page can read problems, too.
    let refused = app.client.get(format!("{}/active", app.url));
    let refused = refused.header("origin", "https://reader.example");
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], "*");
    let exposed = refused.headers()["access-control-expose-headers"]
        .to_str()
        .unwrap();
    for header in [
        "etag",
        "link",
        "retry-after",
        "x-global-position",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-request-id",
        "idempotent-replayed",
    ] {
        assert!(exposed.contains(header), "{header}");
    }
}

#[tokio::test]
async fn cors_allows_only_configured_origins() {
    let app = App::with_settings(|settings| {
        settings.http.cors_origins = vec![HeaderValue::from_static("https://reader.example")];
    })
    .await;
    let allowed = preflight(&app, "https://reader.example").await;
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "https://reader.example"
    );
    let other = preflight(&app, "https://other.example").await;
    assert!(!other.headers().contains_key("access-control-allow-origin"));
}

async fn options(reader: &Reader, path: &str) -> String {
    let response = reader.call(Method::OPTIONS, path, None).await;
    assert_eq!(response.status, 204, "{path}");
    response.header("allow").to_owned()
}

#[tokio::test]
async fn head_matches_get_and_options_lists_methods() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let path = format!("/{session}");
    let got = reader.session(session).await;
    let head = reader.call(Method::HEAD, &path, None).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("etag"), got.header("etag"));
    assert_eq!(head.header("content-length"), got.header("content-length"));

    assert_eq!(options(&reader, &path).await, "GET,HEAD,PATCH,DELETE");
    assert_eq!(options(&reader, &format!("{path}/update")).await, "PUT");
    assert_eq!(options(&reader, "/start").await, "POST");
    let wrong = reader.call(Method::POST, &path, None).await;
    assert_eq!(wrong.header("allow"), "GET,HEAD,PATCH,DELETE");
    let _ = wrong.problem(405);
}

#[tokio::test]
async fn matching_if_none_match_returns_304() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for path in [format!("/{session}"), "/active".to_owned()] {
        let get = async |tag: &str| {
            let headers = [("if-none-match", tag)];
            reader.call_with(Method::GET, &path, &headers, None).await
        };
        let tag = get("\"none\"").await.header("etag").to_owned();
        assert_eq!(get(&tag).await.status, 304, "{path}");
        assert_eq!(get(&format!("\"x\", W/{tag}")).await.status, 304, "{path}");
        let _ = reader.update(session, 10.0).await.ok();
        let fresh = reader.call(Method::GET, &format!("/{session}"), None).await;
        assert_eq!(fresh.ok()["end_position"], 10);
        app.settled().await;
        assert_eq!(get(&tag).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn new_active_session_of_equal_version_has_a_new_etag() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let first = reader.active().await;
    // The new session has the same version.
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let headers = [("if-none-match", first.header("etag"))];
    let second = reader
        .call_with(Method::GET, "/active", &headers, None)
        .await;
    assert_ne!(id(&second.ok()), id(&first.body));
}

#[tokio::test]
async fn body_larger_than_64_kb_returns_413() {
    let app = App::start().await;
    let body = json!({ "book_id": Uuid::new_v4(), "locator": "x".repeat(70_000) });
    let _ = app.reader().start_with(body).await.problem(413);
}
