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
    ] {
        contract.check(operation, 404, &post(&operator, call).await);
    }
    for (operation, method, call) in CALLS {
        if method == Method::POST {
            let call = format!("{call}?unknown=1");
            contract.check(operation, 400, &post(&operator, &call).await);
        }
    }
    let response = get(&operator, "/dead-letters/history.1").await;
    contract.check("deadLetter", 404, &response);
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
        settings.rate_limit.auth = NonZeroU32::MIN;
    })
    .await;
    for (operation, method, call) in CALLS {
        let operator = app.operator();
        let first = operator.call(method.clone(), call, None).await;
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
