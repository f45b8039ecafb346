//! Dead letters are listed page by page, retried and discarded.

use super::*;

pub async fn dead_letters(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 50.0).await.ok();
    let parked = future_events::append_unreadable(&app.pool, session).await;
    let waiting = future_events::append_readable(&app.pool, session).await;
    let count = async |filter: &str| {
        let body = get(&operator, &format!("/dead-letters?{filter}"))
            .await
            .ok();
        body["dead_letters"].as_array().unwrap().len()
    };
    until(
        "every projection skips both events",
        2 * SETTLE,
        async || count("").await == 6,
    )
    .await;
    assert_eq!(count("projection=history&state=waiting").await, 1);

    // The pages list each dead letter once.
    let mut seen: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&operator, &format!("/dead-letters?limit=4{after}")).await;
        contract.check("deadLetters", 200, &page);
        let letters = page.body["dead_letters"].as_array().unwrap();
        seen.extend(
            letters
                .iter()
                .map(|letter| letter["id"].as_str().unwrap().to_owned()),
        );
        assert!(seen.len() <= 6, "{seen:?}");
        match page.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);

    let (first, second) = (format!("history.{parked}"), format!("history.{waiting}"));
    let shown = get(&operator, &format!("/dead-letters/{first}")).await;
    contract.check("deadLetter", 200, &shown);
    assert_eq!(shown.body["event"]["version"], "99");
    assert_eq!(shown.body["session_id"], session.to_string());

    let response = post(&operator, &format!("/dead-letters/{first}/retry")).await;
    contract.check("retry", 202, &response);
    until("the event is retried", 2 * SETTLE, async || {
        let letter = get(&operator, &format!("/dead-letters/{first}")).await.ok();
        letter["tries"] == 2
    })
    .await;

    let response = post(&operator, &format!("/dead-letters/{second}/discard")).await;
    contract.check("discard", 409, &response);
    let detail = response.body["detail"].as_str().unwrap();
    assert!(detail.contains(&first), "{detail}");
    assert_eq!(response.problem_code(409), "dead_letter_waiting");
    let response = post(&operator, &format!("/dead-letters/{first}/discard")).await;
    contract.check("discard", 200, &response);
    assert_eq!(response.body["state"], "discarded");
    let response = post(&operator, &format!("/dead-letters/{first}/retry")).await;
    contract.check("retry", 409, &response);
    until("the waiting event is applied", 2 * SETTLE, async || {
        count("projection=history").await == 1
    })
    .await;
}
