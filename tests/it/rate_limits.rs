//! Rate limits: told on every answer, shared by all processes, and never the
//! reason of an error when Redis is away.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use futures::future::join_all;
use services::config::{Role, ServeArgs};
use tests::reader::id;
use tests::{Answer, App, Stack};
use uuid::Uuid;

fn at_most(calls: u32) -> NonZeroU32 {
    NonZeroU32::new(calls).unwrap()
}

fn few(settings: &mut ServeArgs) {
    settings.rate_limit.normal = at_most(3);
    settings.rate_limit.high_frequency = at_most(2);
    settings.rate_limit.auth = at_most(2);
}

fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header);
    value
        .parse()
        .unwrap_or_else(|_| panic!("{header}: {value}"))
}

#[tokio::test]
async fn who_calls_too_often_is_told_so_and_when_to_come_again() {
    let app = App::with(few).await;
    let reader = app.reader();
    for left in [2, 1, 0] {
        let answer = reader.history("").await;
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "x-ratelimit-limit"), 3);
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
        assert!((1..=61).contains(&number(&answer, "x-ratelimit-reset")));
        assert!(!answer.headers.contains_key("retry-after"));
    }
    let answer = reader.history("").await;
    let wait = number(&answer, "retry-after");
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(number(&answer, "x-ratelimit-remaining"), 0);
    assert_eq!(
        answer.problem(429),
        format!("Rate limit exceeded. Try again in {wait} seconds.")
    );
    // Another reader has calls of their own.
    assert_eq!(app.reader().history("").await.status, 200);
}

#[tokio::test]
async fn updates_and_other_calls_are_counted_apart() {
    let app = App::with(few).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for position in [1.0, 2.0] {
        let _ = reader.update(session, position).await.ok();
    }
    let answer = reader.update(session, 3.0).await;
    assert_eq!(number(&answer, "x-ratelimit-limit"), 2);
    let _ = answer.problem(429);
    let batch = serde_json::json!([{ "session_id": session, "current_position": 4 }]);
    let _ = reader.batch(batch).await.problem(429);
    // What was refused left nothing.
    assert_eq!(reader.session(session).await.ok()["end_position"], 2);
}

#[tokio::test]
async fn who_waits_as_long_as_told_is_let_in() {
    let app = App::with(|settings| {
        settings.rate_limit.normal = at_most(2);
        settings.rate_limit.window = Duration::from_secs(1);
    })
    .await;
    let reader = app.reader();
    let mut refused = 0;
    for _ in 0..20 {
        let answer = reader.history("").await;
        if answer.status == 429 {
            refused += 1;
            tokio::time::sleep(Duration::from_secs(number(&answer, "retry-after"))).await;
            assert_eq!(reader.history("").await.status, 200);
        }
        if refused == 3 {
            return;
        }
    }
    panic!("nobody was refused");
}

#[tokio::test]
async fn there_are_never_more_calls_in_any_window() {
    const LIMIT: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(1);
    let app = App::with(|settings| {
        settings.rate_limit.normal = at_most(LIMIT);
        settings.rate_limit.window = WINDOW;
    })
    .await;
    let reader = app.reader();
    // When each call that was let in was counted, at the earliest and at the
    // latest.
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
        let apart = latest - earliest + Duration::from_millis(1);
        assert!(apart >= WINDOW, "{apart:?}");
    }
}

#[tokio::test]
async fn processes_share_one_count() {
    let app = App::with(|settings| settings.rate_limit.normal = at_most(10)).await;
    let mut settings = tests::app::settings(&app.corner, &[Role::Api]);
    settings.rate_limit.normal = at_most(10);
    let other = App::run(app.stack.clone(), app.corner.clone(), &settings).await;
    let here = app.reader();
    let there = here.at(&other.url);
    let calls = (0..40).map(|i| {
        if i % 2 == 0 {
            here.history("")
        } else {
            there.history("")
        }
    });
    let answers = join_all(calls).await;
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert_eq!((good, refused), (10, 30));
}

#[tokio::test]
async fn without_redis_each_process_counts_by_itself_and_nobody_waits_or_fails() {
    let stack = Stack::own().await;
    let corner = stack.corner().await;
    let mut settings = tests::app::settings(&corner, &Role::ALL);
    settings.rate_limit.normal = at_most(5);
    settings.rate_limit.deadline = Duration::from_millis(10);
    let app = App::run(stack, corner, &settings).await;
    app.stack.servers.lock().await.redis.pause().unwrap();
    let reader = app.reader();
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let asked = Instant::now();
        let answer = reader.history("").await;
        // Two waits of 10 ms, with room for a busy machine.
        assert!(asked.elapsed() < Duration::from_secs(1));
        assert_eq!(number(&answer, "x-ratelimit-limit"), 5);
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    app.stack.servers.lock().await.redis.resume().unwrap();
}

#[tokio::test]
async fn failed_authentication_is_counted_by_address_and_good_tokens_are_not() {
    let app = App::with(|settings| {
        few(settings);
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let knock = async |from: &str| {
        let request = app.client.get(format!("{}/active", app.url));
        let request = request.bearer_auth("nonsense");
        let request = request.header("x-forwarded-for", from);
        Answer::read(request.send().await.unwrap()).await.unwrap()
    };
    for _ in 0..2 {
        let answer = knock("203.0.113.7").await;
        assert_eq!(number(&answer, "x-ratelimit-limit"), 2);
        let _ = answer.problem(401);
    }
    let _ = knock("203.0.113.7").await.problem(429);
    let _ = knock("6.6.6.6, 203.0.113.7").await.problem(429);
    let _ = knock("203.0.113.8").await.problem(401);
    assert_eq!(app.reader().history("").await.status, 200);
}

#[tokio::test]
async fn what_needs_no_token_is_counted_by_address() {
    let app = App::with(few).await;
    let root = app.url.replace("/api/v1/reading-sessions", "");
    let get = async |path: &str| {
        let response = app.client.get(format!("{root}{path}")).send().await;
        Answer::read(response.unwrap()).await.unwrap()
    };
    assert_eq!(
        number(&get("/openapi.json").await, "x-ratelimit-remaining"),
        2
    );
    assert_eq!(number(&get("/nowhere").await, "x-ratelimit-remaining"), 1);
    assert_eq!(number(&get("/docs/").await, "x-ratelimit-remaining"), 0);
    let _ = get("/openapi.json").await.problem(429);
}
