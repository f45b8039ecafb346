//! The timeline of a session, and the data of a reader.

use super::*;

pub async fn readers(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for position in [10.0, 20.0] {
        let _ = reader.update(session, position).await.ok();
    }
    let ended = reader.end(session, json!({})).await.ok();
    timeline(contract, &operator, session, &ended).await;

    let path = format!("/readers/{}", reader.id);
    let found = get(&operator, &path).await;
    contract.check("reader", 200, &found);
    assert_eq!(
        (&found.body["sessions"], &found.body["events"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(found.body["erasure"], Value::Null);

    let export = post(&operator, &format!("{path}/export")).await;
    contract.check("exportReader", 200, &export);
    let mut own = reader.call(Method::GET, "/export", None).await.ok();
    own["exported_at"] = export.body["exported_at"].clone();
    assert_eq!(export.body, own);
    let csv = post(&operator, &format!("{path}/export?format=csv")).await;
    assert!(csv.header("content-type").starts_with("text/csv"));

    let erase = format!("{path}?confirm={}", reader.id);
    let erased = operator.call(Method::DELETE, &erase, None).await;
    contract.check("eraseReader", 202, &erased);
    assert_eq!(erased.body["sessions"], 1);
    let _ = reader.session(session).await.problem(404);
    assert_eq!(reader.active().await.ok(), Value::Null);
    until("the events are overwritten", 2 * SETTLE, async || {
        let erasure = &get(&operator, &path).await.ok()["erasure"];
        erasure["overwritten_events"] == 4 && !erasure["done_at"].is_null()
    })
    .await;
    let overwritten = get(&operator, &format!("/sessions/{session}")).await.ok();
    for event in overwritten["events"].as_array().unwrap() {
        assert_eq!(event["type"], "SessionErased");
        assert_eq!(event["state"], Value::Null);
    }
    // A repeat is harmless.
    let erased = operator.call(Method::DELETE, &erase, None).await.ok();
    assert_eq!(erased["sessions"], 0);
    invariants::check(&app).await;
}

async fn timeline(contract: &Contract, operator: &Reader, session: Uuid, ended: &Value) {
    let path = format!("/sessions/{session}");
    let whole = get(operator, &path).await;
    contract.check("timeline", 200, &whole);
    let events = whole.body["events"].as_array().unwrap();
    let states: Vec<_> = events
        .iter()
        .map(|event| {
            let state = &event["state"];
            let position = state["end_position"].as_f64().unwrap();
            (
                event["sequence"].as_i64().unwrap(),
                position,
                state["is_active"] == true,
            )
        })
        .collect();
    assert_eq!(
        states,
        [
            (1, 0.0, true),
            (2, 10.0, true),
            (3, 20.0, true),
            (4, 20.0, false)
        ]
    );
    assert_eq!(events[3]["state"], *ended);
    assert_eq!(whole.body["next"], Value::Null);

    // Pages have the same states: each begins with the state before it.
    let mut paged = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = get(operator, &format!("{path}?limit=1&after={after}")).await;
        let page = page.ok();
        paged.extend(page["events"].as_array().unwrap().clone());
        after = page["next"].clone();
    }
    assert_eq!(&paged, events);
}

#[tokio::test]
async fn timeline_shows_an_event_that_this_build_cannot_decode() {
    let app = App::start().await;
    let session = id(&app.reader().start(Uuid::new_v4()).await.ok());
    let _ = future_events::append_unreadable(&app.pool, session).await;
    let path = format!("/sessions/{session}");
    let timeline = get(&app.operator(), &path).await.ok();
    let [started, unreadable] = &timeline["events"].as_array().unwrap()[..] else {
        panic!("{timeline}");
    };
    assert_eq!(started["error"], Value::Null);
    assert_eq!(unreadable["state"], Value::Null);
    assert_eq!(unreadable["version"], "99");
    assert!(unreadable["error"].is_string(), "{unreadable}");
}
