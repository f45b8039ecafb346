//! The command `dead-letters`: events that a projection cannot apply.

use tests::app::{SETTLE, settled};
use tests::reader::id;
use tests::{App, future_events, until};
use uuid::Uuid;

use super::{projection_status, run};

#[tokio::test]
async fn retry_applies_a_dead_letter_once_its_event_is_known() {
    let app = App::start().await;
    let env = &app.env;
    let none = run(env, &["dead-letters"]).await;
    assert_eq!(none.expect_code(0), "No dead letters.\n");
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 50.0).await.ok();
    let parked = future_events::append_unreadable(&app.pool, session).await;
    let waiting = future_events::append_readable(&app.pool, session).await;
    until(
        "a dead letter per event and projection",
        2 * SETTLE,
        async || {
            let all = run(env, &["dead-letters", "-o", "json"]).await.json(0);
            all.as_array().unwrap().len() == 6
        },
    )
    .await;

    let (parked, waiting) = (format!("history.{parked}"), format!("history.{waiting}"));
    let filtered = [
        "dead-letters",
        "--projection",
        "history",
        "--state",
        "waiting",
    ];
    let finished = run(env, &filtered).await;
    assert!(finished.expect_code(0).contains(&waiting) && !finished.out.contains(&parked));
    let finished = run(env, &["dead-letters", "--limit", "1"]).await;
    assert!(
        finished
            .expect_code(0)
            .contains("More than 1 dead letters match."),
        "{}",
        finished.out
    );

    let finished = run(env, &["dead-letters", "show", &parked]).await;
    for line in ["state    parked", "version  99", "payload  {"] {
        assert!(finished.expect_code(0).contains(line), "{}", finished.out);
    }
    let shown = run(env, &["dead-letters", "show", &waiting, "-o", "json"]).await;
    let shown = shown.json(0);
    assert_eq!(shown["state"], "waiting");
    assert_eq!(shown["event"]["type"], "PositionUpdated");

    let finished = run(env, &["dead-letters", "retry", &parked]).await;
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.err.contains("the dead letter remains"),
        "{}",
        finished.err
    );
    let finished = run(env, &["dead-letters", "discard", &waiting]).await;
    assert_eq!(finished.code, Some(1));
    let instead = format!("discard {parked} instead");
    assert!(finished.err.contains(&instead), "{}", finished.err);
    for command in ["show", "retry", "discard"] {
        let finished = run(env, &["dead-letters", command, "history.7777"]).await;
        assert_eq!(finished.code, Some(1), "{command}");
        assert!(
            finished
                .err
                .contains("There is no dead letter history.7777"),
            "{}",
            finished.err
        );
        let finished = run(env, &["dead-letters", command, "cooks.3"]).await;
        assert_eq!(finished.code, Some(1), "{command}");
        let no_such = "There is no projection cooks; the projections are history, ";
        assert!(finished.err.contains(no_such), "{}", finished.err);
        let finished = run(env, &["dead-letters", command, "nonsense"]).await;
        assert_eq!(finished.code, Some(2), "{command}");
    }

    let (_, global_position) = parked.rsplit_once('.').unwrap();
    future_events::make_readable(&app.pool, global_position.parse().unwrap()).await;
    let finished = run(env, &["dead-letters", "retry", &parked]).await;
    assert_eq!(finished.expect_code(0), format!("Applied {parked}.\n"));
}

#[tokio::test]
async fn discarded_dead_letter_is_skipped_permanently() {
    let app = App::start().await;
    let env = &app.env;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let global_position = future_events::append_unreadable(&app.pool, session).await;
    settled(&app.pool, env).await;
    let dead_letter = format!("history.{global_position}");
    let finished = run(env, &["verify", "history"]).await;
    assert!(
        finished
            .expect_code(0)
            .contains("Dead letters: 1, and 0 discarded."),
        "{}",
        finished.out
    );
    let finished = run(env, &["dead-letters", "discard", &dead_letter]).await;
    assert!(
        finished.expect_code(0).contains("Discarded history."),
        "{}",
        finished.out
    );
    let finished = run(env, &["dead-letters", "retry", &dead_letter]).await;
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.err.contains("was discarded permanently"),
        "{}",
        finished.err
    );
    let _ = run(env, &["replay", "history"]).await.expect_code(0);
    let discarded = ["dead-letters", "list", "--state", "discarded", "-o", "json"];
    let discarded = run(env, &discarded).await.json(0);
    assert_eq!(discarded[0]["id"], dead_letter);
    assert_eq!(projection_status(env, "history").await["dead_letters"], 0);
    let finished = run(env, &["verify", "history"]).await;
    let expected = "Dead letters: 0, and 1 discarded.";
    assert!(
        finished.expect_code(0).contains(expected),
        "{}",
        finished.out
    );
}
