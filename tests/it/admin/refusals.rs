//! Requests that the admin API rejects: wrong callers, bad input and rate limits.

use std::num::NonZeroU32;

use reqwest::Method;
use tests::contract::Contract;
use tests::{ApiResponse, App};
use uuid::Uuid;

use super::{CALLS, get, post};

pub async fn refusals(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let path = |path: &str| format!("{}/api/v1/admin{path}", app.admin_url);
    let reader = app.reader_with_token(Uuid::new_v4(), app.reader().token);
    for (operation, method, call) in CALLS {
        let without = app.client.request(method.clone(), path(call));
        let response = ApiResponse::read(without.send().await.unwrap())
            .await
            .unwrap();
        contract.check(operation, 401, &response);
        assert_eq!(response.problem(401), "Not authenticated");
        let as_reader = reader.at(&path(""));
        let response = as_reader.call(method, call, None).await;
        contract.check(operation, 403, &response);
        assert_eq!(response.problem_code(403), "forbidden");
    }
    for (operation, call) in [
        ("pause", "/projections/unknown/pause"),
        ("resume", "/projections/unknown/resume"),
        ("replay", "/projections/unknown/replay"),
        ("retry", "/dead-letters/history.1/retry"),
        ("discard", "/dead-letters/history.1/discard"),
        ("runJob", "/jobs/unknown/run"),
        ("verify", "/projections/unknown/verify"),
        (
            "exportReader",
            "/readers/0193e5a0-0000-7000-8000-000000000001/export",
        ),
    ] {
        contract.check(operation, 404, &post(&operator, call).await);
    }
    for (operation, method, call) in CALLS {
        if !method.is_safe() {
            let call = format!("{call}?unknown=1");
            let response = operator.call(method, &call, None).await;
            contract.check(operation, 400, &response);
        }
    }
    for (operation, call) in [
        ("deadLetter", "/dead-letters/history.1"),
        ("timeline", "/sessions/0193e5a0-0000-7000-8000-000000000001"),
        ("reader", "/readers/0193e5a0-0000-7000-8000-000000000001"),
        ("auditEntry", "/audit/9000000000000000000"),
    ] {
        contract.check(operation, 404, &get(&operator, call).await);
    }
    let id = Uuid::new_v4();
    let erase = format!("/readers/{id}?confirm={id}");
    let response = operator.call(Method::DELETE, &erase, None).await;
    contract.check("eraseReader", 404, &response);
    assert_eq!(response.problem_code(404), "reader_not_found");
    for (operation, method, call) in [
        ("dailyStatsOfAll", Method::GET, "/stats/daily?days=0"),
        ("dailyStatsOfAll", Method::GET, "/stats/daily?days=367"),
        ("dailyStatsOfAll", Method::GET, "/stats/daily?days=many"),
        ("deadLetters", Method::GET, "/dead-letters?limit=0"),
        (
            "cleanupStats",
            Method::GET,
            "/reading-sessions/cleanup-stats?hours=169",
        ),
        ("deadLetters", Method::GET, "/dead-letters?limit=101"),
        ("deadLetters", Method::GET, "/dead-letters?state=lost"),
        (
            "deadLetters",
            Method::GET,
            "/dead-letters?projection=unknown",
        ),
        ("deadLetters", Method::GET, "/dead-letters?after=nonsense"),
        ("deadLetter", Method::GET, "/dead-letters/nonsense"),
        ("retry", Method::POST, "/dead-letters/nonsense/retry"),
        ("discard", Method::POST, "/dead-letters/nonsense/discard"),
        (
            "replay",
            Method::POST,
            "/projections/history/replay?restart=maybe",
        ),
        ("timeline", Method::GET, "/sessions/nonsense"),
        (
            "timeline",
            Method::GET,
            "/sessions/0193e5a0-0000-7000-8000-000000000001?limit=201",
        ),
        (
            "timeline",
            Method::GET,
            "/sessions/0193e5a0-0000-7000-8000-000000000001?after=-1",
        ),
        ("reader", Method::GET, "/readers/nonsense"),
        ("exportReader", Method::POST, "/readers/nonsense/export"),
        (
            "exportReader",
            Method::POST,
            "/readers/0193e5a0-0000-7000-8000-000000000001/export?format=xml",
        ),
        (
            "eraseReader",
            Method::DELETE,
            "/readers/0193e5a0-0000-7000-8000-000000000001",
        ),
        (
            "eraseReader",
            Method::DELETE,
            "/readers/0193e5a0-0000-7000-8000-000000000001?confirm=0193e5a0-0000-7000-8000-000000000002",
        ),
        ("audit", Method::GET, "/audit?limit=101"),
        ("audit", Method::GET, "/audit?cursor=nonsense"),
        ("auditEntry", Method::GET, "/audit/nonsense"),
    ] {
        let response = operator.call(method, call, None).await;
        contract.check(operation, 422, &response);
    }
    contract.check("heapProfile", 409, &get(&operator, "/heap-profile").await);
    let nothing = get(&operator, "/nothing").await;
    assert_eq!(nothing.problem_code(404), "not_found");
    let put = operator.call(Method::PUT, "/projections", None).await;
    assert_eq!(put.header("allow"), "GET,HEAD");
    let _ = put.problem(405);
}

pub async fn rate_limits(contract: &Contract) {
    let app = App::with_settings(|settings| {
        settings.rate_limit.low_frequency = NonZeroU32::MIN;
        settings.rate_limit.normal = NonZeroU32::MIN;
        settings.rate_limit.auth = NonZeroU32::MIN;
    })
    .await;
    for (operation, method, call) in CALLS {
        let operator = app.operator();
        // The body of a stream would not end.
        let once = if operation == "live" {
            Method::HEAD
        } else {
            method.clone()
        };
        let first = operator.call(once, call, None).await;
        assert_eq!(first.header("x-ratelimit-limit"), "1");
        let response = operator.call(method, call, None).await;
        contract.check(operation, 429, &response);
    }
    // The admin listener, too, counts bad tokens by client address.
    let stranger = app.reader_with_token(Uuid::new_v4(), "nonsense".to_owned());
    let stranger = stranger.at(&format!("{}/api/v1/admin", app.admin_url));
    let _ = get(&stranger, "/projections").await.problem(401);
    let _ = get(&stranger, "/projections").await.problem(429);
}
