//! What every answer has, and what the edge does with those it cannot give.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::routing::get;
use reqwest::{Method, Response};
use serde_json::json;
use services::api::edge::Edge;
use services::api::middleware::Around;
use services::api::traffic::Traffic;
use services::api::{serve, work};
use services::config::Role;
use services::metrics::Metrics;
use tests::reader::id;
use tests::{Answer, App, Reader, Stack, app};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A router behind the edge alone.
async fn behind_the_edge(router: Router, places: work::Places) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let work = move |request: Request, next: Next| {
        let places = places.clone();
        async move { places.work(next.run(request)).await }
    };
    let router = router.layer(middleware::from_fn(work));
    let edge = Edge(Traffic::of_apps(&Metrics::default()));
    let router = router.layer(Around(edge));
    let stop = CancellationToken::new();
    tokio::spawn(serve::run(
        listener,
        router,
        serve::Limits::default(),
        stop,
        Duration::ZERO,
    ));
    format!("http://{address}")
}

async fn answer(url: &str) -> Answer {
    Answer::read(reqwest::get(url).await.unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_panic_is_a_problem_without_details_and_the_service_goes_on() {
    let router = Router::new()
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a secret") }),
        )
        .route("/fine", get(async || "fine"));
    let url = behind_the_edge(router, work::Places::default()).await;
    for _ in 0..3 {
        let detail = answer(&format!("{url}/panic")).await.problem(500);
        assert_eq!(detail, "The service made a mistake");
    }
    assert_eq!(answer(&format!("{url}/fine")).await.status, 200);
}

#[tokio::test]
async fn clients_that_come_back_at_once_find_room() {
    let listener = serve::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    // What the kernel allows; elsewhere than on Linux, no more than was always.
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let most: usize = most.map_or(128, |most| most.trim().parse().unwrap());
    // Nobody accepts; beyond the backlog, connects would wait for that.
    let connects = (0..most.min(300)).map(|_| TcpStream::connect(address));
    let connected = futures::future::try_join_all(connects);
    let connected = tokio::time::timeout(Duration::from_secs(5), connected).await;
    let _ = connected.expect("there is room").unwrap();
}

#[tokio::test]
async fn more_requests_than_there_are_places_for_are_refused_at_once() {
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
    let url = behind_the_edge(router, work::Places::of(1)).await;
    let first = tokio::spawn({
        let url = url.clone();
        async move { answer(&url).await }
    });
    entered.notified().await;
    let refused = answer(&url).await;
    assert_eq!(refused.header("retry-after"), "1");
    let detail = refused.problem(503);
    assert_eq!(detail, "The service is overloaded; try again shortly");
    leave.notify_one();
    assert_eq!(first.await.unwrap().status, 200);
    leave.notify_one();
    assert_eq!(answer(&url).await.status, 200);
}

#[tokio::test]
async fn while_postgres_hangs_who_calls_is_told_so_and_what_is_left() {
    let stack = Stack::own().await;
    let corner = stack.corner().await;
    let app = App::run(stack, corner.clone(), &app::settings(&corner, &Role::ALL)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    app.stack.servers.lock().await.postgres.pause().unwrap();
    let (history, update, start) = tokio::join!(
        reader.history(""),
        reader.update(session, 1.0),
        reader.start(Uuid::new_v4()),
    );
    for answer in [history, update, start] {
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.header("x-ratelimit-remaining").is_empty());
        let _ = answer.problem(503);
    }
    app.stack.servers.lock().await.postgres.resume().unwrap();
}

#[tokio::test]
async fn a_request_has_an_id_in_its_answer_and_in_its_problem() {
    let app = App::start().await;
    let reader = app.reader();
    let call = async |id: &str| {
        let headers = [("x-request-id", id)];
        reader
            .call_with(Method::GET, "/nowhere", &headers, None)
            .await
    };
    let answer = call("an-id-of-the-app").await;
    assert_eq!(answer.header("x-request-id"), "an-id-of-the-app");
    assert_eq!(answer.body["request_id"], "an-id-of-the-app");
    let too_long = "x".repeat(200);
    for refused in ["", too_long.as_str()] {
        let answer = call(refused).await;
        assert_eq!(answer.header("x-request-id").len(), 32, "{refused}");
        let _ = answer.problem(422);
    }
}

#[tokio::test]
async fn answers_say_how_browsers_and_caches_must_treat_them() {
    let app = App::start().await;
    let reader = app.reader();
    let read = reader.active().await;
    let written = reader.start(Uuid::new_v4()).await;
    assert_eq!(
        read.header("cache-control"),
        "private, no-cache, must-revalidate"
    );
    assert_eq!(
        written.header("cache-control"),
        "no-store, no-cache, must-revalidate"
    );
    for answer in [read, written, app.reader().session(Uuid::nil()).await] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_that() {
    let app = App::start().await;
    let reader = app.reader();
    for _ in 0..5 {
        let _ = reader.start(Uuid::new_v4()).await.ok();
    }
    app.settled().await;
    let encoding = async |accepted: &'static str, path: &str| {
        let headers = [("accept-encoding", accepted)];
        let answer = reader.call_with(Method::GET, path, &headers, None).await;
        assert_eq!(answer.status, 200);
        answer.header("content-encoding").to_owned()
    };
    assert_eq!(encoding("gzip", "/history").await, "gzip");
    assert_eq!(encoding("br", "/history").await, "br");
    assert_eq!(encoding("gzip, br", "/history").await, "br");
    assert_eq!(encoding("identity", "/history").await, "");
    assert_eq!(encoding("gzip", "/stats/streak").await, "", "it is small");
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
async fn a_web_page_may_call_and_read_what_it_needs() {
    let app = App::start().await;
    let allowed = preflight(&app, "https://reader.example").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "*");
    let headers = allowed.headers()["access-control-allow-headers"].to_str();
    assert!(headers.unwrap().contains("idempotency-key"));

    // What asks for itself is told nothing of pages.
    let answer = app.client.get(format!("{}/active", app.url)).send().await;
    let headers = answer.unwrap().headers().clone();
    assert!(!headers.contains_key("access-control-allow-origin"));

    // Problems too can be read.
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
async fn only_the_web_pages_named_may_call_when_some_are() {
    let app = App::with(|settings| {
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
    let answer = reader.call(Method::OPTIONS, path, None).await;
    assert_eq!(answer.status, 204, "{path}");
    answer.header("allow").to_owned()
}

#[tokio::test]
async fn head_is_get_without_a_body_and_options_says_what_is_allowed() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let path = format!("/{session}");
    let got = reader.session(session).await;
    let head = reader.call(Method::HEAD, &path, None).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("etag"), got.header("etag"));
    assert_eq!(head.header("content-length"), got.header("content-length"));

    assert_eq!(options(&reader, &path).await, "GET,HEAD");
    assert_eq!(options(&reader, &format!("{path}/update")).await, "PUT");
    assert_eq!(options(&reader, "/start").await, "POST");
    let wrong = reader.call(Method::DELETE, &path, None).await;
    assert_eq!(wrong.header("allow"), "GET,HEAD");
    let _ = wrong.problem(405);
}

#[tokio::test]
async fn who_knows_the_session_as_it_is_gets_304() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for path in [format!("/{session}"), "/active".to_owned()] {
        let ask = async |tag: &str| {
            let headers = [("if-none-match", tag)];
            reader.call_with(Method::GET, &path, &headers, None).await
        };
        let tag = ask("\"none\"").await.header("etag").to_owned();
        assert_eq!(ask(&tag).await.status, 304, "{path}");
        assert_eq!(ask(&format!("\"x\", W/{tag}")).await.status, 304, "{path}");
        let _ = reader.update(session, 10.0).await.ok();
        let fresh = reader.call(Method::GET, &format!("/{session}"), None).await;
        assert_eq!(fresh.ok()["end_position"], 10);
        app.settled().await;
        assert_eq!(ask(&tag).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn another_active_session_of_the_same_version_has_another_tag() {
    let app = App::start().await;
    let reader = app.reader();
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let first = reader.active().await;
    // Another session, of the same version.
    let _ = reader.start(Uuid::new_v4()).await.ok();
    app.settled().await;
    let headers = [("if-none-match", first.header("etag"))];
    let second = reader
        .call_with(Method::GET, "/active", &headers, None)
        .await;
    assert_ne!(id(&second.ok()), id(&first.body));
}

#[tokio::test]
async fn a_body_larger_than_64_kb_is_refused() {
    let app = App::start().await;
    let body = json!({ "book_id": Uuid::new_v4(), "locator": "x".repeat(70_000) });
    let _ = app.reader().start_with(body).await.problem(413);
}
