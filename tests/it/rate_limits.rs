//! Rate limits: reported in headers of every response, shared by all processes, and
//! never the cause of an error while Redis is unavailable.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use futures::future::join_all;
use server::config::{Role, ServeArgs};
use tests::reader::id;
use tests::{ApiResponse, App, Stack, scaled};
use uuid::Uuid;

fn at_most(calls: u32) -> NonZeroU32 {
    NonZeroU32::new(calls).unwrap()
}

fn low_limits(settings: &mut ServeArgs) {
    settings.rate_limit.normal = at_most(3);
    settings.rate_limit.high_frequency = at_most(2);
    settings.rate_limit.auth = at_most(2);
}

fn number(response: &ApiResponse, header: &str) -> u64 {
    let value = response.header(header);
    value
        .parse()
        .unwrap_or_else(|_| panic!("{header}: {value}"))
}

#[tokio::test]
async fn calls_above_the_limit_return_429_with_retry_after() {
    let app = App::with_settings(low_limits).await;
    let reader = app.reader();
    for left in [2, 1, 0] {
        let response = reader.history("").await;
        assert_eq!(response.status, 200);
        assert_eq!(number(&response, "x-ratelimit-limit"), 3);
        assert_eq!(number(&response, "x-ratelimit-remaining"), left);
        assert!((1..=61).contains(&number(&response, "x-ratelimit-reset")));
        assert!(!response.headers.contains_key("retry-after"));
    }
    let response = reader.history("").await;
    let wait = number(&response, "retry-after");
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(number(&response, "x-ratelimit-remaining"), 0);
    assert_eq!(
        response.problem(429),
        format!("Rate limit exceeded. Try again in {wait} seconds.")
    );
    // Each reader has a separate limit.
    assert_eq!(app.reader().history("").await.status, 200);
}

#[tokio::test]
async fn updates_and_other_calls_have_separate_limits() {
    let app = App::with_settings(low_limits).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for position in [1.0, 2.0] {
        let _ = reader.update(session, position).await.ok();
    }
    let response = reader.update(session, 3.0).await;
    assert_eq!(number(&response, "x-ratelimit-limit"), 2);
    let _ = response.problem(429);
    let batch = serde_json::json!([{ "session_id": session, "current_position": 4 }]);
    let _ = reader.batch(batch).await.problem(429);
    // The rejected calls changed nothing.
    assert_eq!(reader.session(session).await.ok()["end_position"], 2);
}

#[tokio::test]
async fn call_after_retry_after_succeeds() {
    let app = App::with_settings(|settings| {
        settings.rate_limit.normal = at_most(2);
        settings.rate_limit.window = Duration::from_secs(1);
    })
    .await;
    let reader = app.reader();
    let mut rejected = 0;
    for _ in 0..20 {
        let response = reader.history("").await;
        if response.status == 429 {
            rejected += 1;
            tokio::time::sleep(Duration::from_secs(number(&response, "retry-after"))).await;
            assert_eq!(reader.history("").await.status, 200);
        }
        if rejected == 3 {
            return;
        }
    }
    panic!("no call was rejected");
}

#[tokio::test]
async fn no_window_contains_more_calls_than_the_limit() {
    const LIMIT: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(1);
    let app = App::with_settings(|settings| {
        settings.rate_limit.normal = at_most(LIMIT);
        settings.rate_limit.window = WINDOW;
    })
    .await;
    let reader = app.reader();
    // The earliest and the latest time at which each accepted call was counted.
    let mut counted = Vec::new();
    while counted.len() < 4 * LIMIT as usize {
        let sent = Instant::now();
        if reader.history("").await.status == 200 {
            counted.push((sent, Instant::now()));
        }
    }
    for calls in counted.windows(LIMIT as usize + 1) {
        let (earliest, _) = calls[0];
        let (_, latest) = calls[LIMIT as usize];
        // Redis counts in whole milliseconds.
        let span = latest - earliest + Duration::from_millis(1);
        assert!(span >= WINDOW, "{span:?}");
    }
}

#[tokio::test]
async fn processes_share_one_limit() {
    let app = App::with_settings(|settings| settings.rate_limit.normal = at_most(10)).await;
    let mut settings = tests::app::settings(&app.env, &[Role::Api]);
    settings.rate_limit.normal = at_most(10);
    let other = App::run(app.stack.clone(), app.env.clone(), &settings).await;
    let here = app.reader();
    let there = here.at(&other.url);
    let calls = (0..40).map(|i| {
        if i % 2 == 0 {
            here.history("")
        } else {
            there.history("")
        }
    });
    let responses = join_all(calls).await;
    let count = |status: u16| responses.iter().filter(|one| one.status == status).count();
    assert_eq!((count(200), count(429)), (10, 30));
}

#[tokio::test]
async fn without_redis_each_process_counts_calls_without_delay() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let mut settings = tests::app::settings(&env, &Role::ALL);
    settings.rate_limit.normal = at_most(5);
    settings.rate_limit.deadline = Duration::from_millis(10);
    let app = App::run(stack, env, &settings).await;
    app.stack.servers.lock().await.redis.pause().unwrap();
    let reader = app.reader();
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let sent = Instant::now();
        let response = reader.history("").await;
        // A call waits for Redis twice, for 10 ms each.
        assert!(sent.elapsed() < scaled(Duration::from_secs(1)));
        assert_eq!(number(&response, "x-ratelimit-limit"), 5);
        statuses.push(response.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    app.stack.servers.lock().await.redis.resume().unwrap();
}

#[tokio::test]
async fn failed_authentication_is_limited_by_address() {
    let app = App::with_settings(|settings| {
        low_limits(settings);
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let call_from = async |address: &str| {
        let request = app.client.get(format!("{}/active", app.url));
        let request = request.bearer_auth("nonsense");
        let request = request.header("x-forwarded-for", address);
        ApiResponse::read(request.send().await.unwrap())
            .await
            .unwrap()
    };
    for _ in 0..2 {
        let response = call_from("203.0.113.7").await;
        assert_eq!(number(&response, "x-ratelimit-limit"), 2);
        let _ = response.problem(401);
    }
    let limited = call_from("203.0.113.7").await;
    // The client sees that its token is the reason.
    assert_eq!(
        limited.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
    let _ = limited.problem(429);
    let _ = call_from("6.6.6.6, 203.0.113.7").await.problem(429);
    let _ = call_from("203.0.113.8").await.problem(401);
    assert_eq!(app.reader().history("").await.status, 200);
}

#[tokio::test]
async fn expired_token_counts_as_no_attack_and_always_returns_401() {
    let app = App::with_settings(low_limits).await;
    let user = Uuid::new_v4();
    let an_hour_ago = eventlog::clock::now() - chrono::TimeDelta::hours(1);
    let token = tests::app::token_until(user, an_hour_ago);
    let expired = app.reader_with_token(user, token);
    let is_expired = async || {
        let response = expired.active().await;
        assert_eq!(
            response.header("www-authenticate"),
            "Bearer error=\"invalid_token\""
        );
        assert_eq!(response.problem_code(401), "token_expired");
    };
    for _ in 0..5 {
        is_expired().await;
    }
    let bad = app.reader_with_token(user, "nonsense".to_owned());
    for status in [401, 401, 429] {
        let _ = bad.active().await.problem(status);
    }
    // Other clients of the address still learn that they must refresh their tokens.
    is_expired().await;
}

#[tokio::test]
async fn anonymous_calls_are_limited_by_address() {
    let app = App::with_settings(low_limits).await;
    let root = app.url.replace("/api/v1/reading-sessions", "");
    let get = async |path: &str| {
        let response = app.client.get(format!("{root}{path}")).send().await;
        ApiResponse::read(response.unwrap()).await.unwrap()
    };
    assert_eq!(
        number(&get("/openapi.json").await, "x-ratelimit-remaining"),
        2
    );
    assert_eq!(number(&get("/nowhere").await, "x-ratelimit-remaining"), 1);
    assert_eq!(number(&get("/docs/").await, "x-ratelimit-remaining"), 0);
    let _ = get("/openapi.json").await.problem(429);
}
