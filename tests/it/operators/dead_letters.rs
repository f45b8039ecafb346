//! Events that a projection cannot apply.

use tests::app::{settled, until};
use tests::reader::id;
use tests::{App, unknown};
use uuid::Uuid;

use super::{run, standing};

#[tokio::test]
async fn a_dead_letter_is_shown_tried_again_and_applied_once_it_is_known() {
    let app = App::start().await;
    let corner = &app.corner;
    let none = run(corner, &["dead-letters"]).await;
    assert_eq!(none.ended(0), "There are no dead letters.\n");
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 50.0).await.ok();
    let parked = unknown::append(&app.pool, session).await;
    let waiting = unknown::follow(&app.pool, session).await;
    until("the events are passed", async || {
        let all = run(corner, &["dead-letters", "-o", "json"]).await.json(0);
        all.as_array().unwrap().len() == 6
    })
    .await;

    let (parked, waiting) = (format!("history.{parked}"), format!("history.{waiting}"));
    let filtered = [
        "dead-letters",
        "--projection",
        "history",
        "--state",
        "waiting",
    ];
    let said = run(corner, &filtered).await;
    assert!(said.ended(0).contains(&waiting) && !said.out.contains(&parked));
    let said = run(corner, &["dead-letters", "--limit", "1"]).await;
    assert!(
        said.ended(0).contains("There are more than 1."),
        "{}",
        said.out
    );

    let said = run(corner, &["dead-letters", "show", &parked]).await;
    for line in ["state    parked", "version  99", "payload  {"] {
        assert!(said.ended(0).contains(line), "{}", said.out);
    }
    let shown = run(corner, &["dead-letters", "show", &waiting, "-o", "json"]).await;
    let shown = shown.json(0);
    assert_eq!(shown["state"], "waiting");
    assert_eq!(shown["event"]["type"], "PositionUpdated");

    let said = run(corner, &["dead-letters", "retry", &parked]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("stays where it is"), "{}", said.err);
    let said = run(corner, &["dead-letters", "discard", &waiting]).await;
    assert_eq!(said.code, Some(1));
    let instead = format!("discard {parked} instead");
    assert!(said.err.contains(&instead), "{}", said.err);
    for command in ["show", "retry", "discard"] {
        let said = run(corner, &["dead-letters", command, "history.7777"]).await;
        assert_eq!(said.code, Some(1), "{command}");
        assert!(
            said.err.contains("There is no dead letter history.7777"),
            "{}",
            said.err
        );
        let said = run(corner, &["dead-letters", command, "cooks.3"]).await;
        assert_eq!(said.code, Some(1), "{command}");
        let no_such = "There is no projection cooks, only history, ";
        assert!(said.err.contains(no_such), "{}", said.err);
        let said = run(corner, &["dead-letters", command, "nonsense"]).await;
        assert_eq!(said.code, Some(2), "{command}");
    }

    let (_, position) = parked.rsplit_once('.').unwrap();
    unknown::learn(&app.pool, position.parse().unwrap()).await;
    let said = run(corner, &["dead-letters", "retry", &parked]).await;
    assert_eq!(said.ended(0), format!("{parked} is applied\n"));
}

#[tokio::test]
async fn a_discarded_letter_is_left_out_for_good() {
    let app = App::start().await;
    let corner = &app.corner;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let position = unknown::append(&app.pool, session).await;
    settled(&app.pool, corner).await;
    let letter = format!("history.{position}");
    let said = run(corner, &["verify", "history"]).await;
    assert!(
        said.ended(0).contains("Dead letters: 1, and 0 discarded."),
        "{}",
        said.out
    );
    let said = run(corner, &["dead-letters", "discard", &letter]).await;
    assert!(said.ended(0).contains("is discarded"), "{}", said.out);
    let said = run(corner, &["dead-letters", "retry", &letter]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("was discarded, and stays so"),
        "{}",
        said.err
    );
    let _ = run(corner, &["replay", "history"]).await.ended(0);
    let discarded = ["dead-letters", "list", "--state", "discarded", "-o", "json"];
    let discarded = run(corner, &discarded).await.json(0);
    assert_eq!(discarded[0]["id"], letter);
    assert_eq!(standing(corner, "history").await["dead_letters"], 0);
    let said = run(corner, &["verify", "history"]).await;
    let told = "Dead letters: 0, and 1 discarded.";
    assert!(said.ended(0).contains(told), "{}", said.out);
}
