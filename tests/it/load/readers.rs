//! The readers of a run: those of a token file, or new ones that can be erased.

use tests::App;
use tests::app::{SETTLE, token};
use tests::until;
use uuid::Uuid;

use super::{PATIENT, active_sessions, address, events, finish, load, run};

#[tokio::test]
async fn users_are_the_readers_of_the_token_file() {
    let app = App::start().await;
    let ids: Vec<Uuid> = (0..9).map(|_| Uuid::new_v4()).collect();
    let tokens: Vec<String> = ids.iter().map(|id| token(*id)).collect();
    let file = std::env::temp_dir().join(format!("tokens-{}", Uuid::new_v4()));
    std::fs::write(&file, format!("# readers\n{}\n", tokens.join("\n"))).unwrap();
    let path = file.to_str().unwrap();
    let unsigned = |arguments: &[&str]| {
        let mut command = load(address(&app), arguments);
        command.env_remove("JWT_SECRET");
        command.spawn().unwrap()
    };
    let too_few = finish(unsigned(&["--tokens", path, "--users", "10"])).await;
    assert!(
        too_few.expect_code(2).err.contains("9 tokens for 10 users"),
        "{}",
        too_few.err
    );

    let mut arguments = vec!["--tokens", path, "--users", "4", "--spawn-rate", "100"];
    // Long enough for a second reader of the burst user.
    arguments.extend(["--seconds", "14", "-o", "json"]);
    arguments.extend(PATIENT);
    let finished = finish(unsigned(&arguments)).await;
    std::fs::remove_file(&file).unwrap();
    let report = finished.report(0);
    assert!(report["readers"]["new"].is_null());
    assert!(
        finished.err.contains("14 tokens are enough"),
        "{}",
        finished.err
    );
    assert_eq!(active_sessions(&app.pool).await, 0);
    let readers: Vec<String> =
        sqlx::query_scalar("select distinct payload->>'reader_id' from events")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    // A reading user may have requested only the history.
    assert!(readers.len() >= 3, "{readers:?}");
    for reader in readers {
        assert!(ids.contains(&reader.parse().unwrap()), "{reader}");
    }
}

#[tokio::test]
async fn erase_removes_all_data_of_the_new_readers() {
    let app = App::start().await;
    let mut arguments = vec!["--users", "8", "--spawn-rate", "100", "--seconds", "4"];
    arguments.extend(["--erase", "-o", "json"]);
    arguments.extend(PATIENT);
    let report = run(address(&app), &arguments).await.report(0);
    let new = &report["readers"]["new"];
    assert_eq!(new["count"], 8);
    assert_eq!(new["erased"], 8);
    assert!(new["erase_error"].is_null());
    assert_eq!(active_sessions(&app.pool).await, 0);
    let first: Uuid = new["first"].as_str().unwrap().parse().unwrap();
    let reader = app.reader_with_id(first);
    until("the history is empty", SETTLE, async || {
        reader.history("").await.ok()["total"] == 0
    })
    .await;
    until("all events are overwritten", SETTLE, async || {
        let erased = events(&app.pool, "SessionErased", None).await;
        let all: i64 = sqlx::query_scalar("select count(*) from events")
            .fetch_one(&app.pool)
            .await
            .unwrap();
        erased == all.unsigned_abs() && erased > 0
    })
    .await;
}

#[tokio::test]
async fn readers_that_are_not_erased_give_exit_code_3_even_if_all_criteria_are_met() {
    let app = App::start().await;
    sqlx::query("alter function erase_reader_part rename to gone")
        .execute(&app.pool)
        .await
        .unwrap();
    let mut arguments = vec!["--users", "4", "--spawn-rate", "100", "--seconds", "2"];
    arguments.extend(["--erase", "-o", "json"]);
    arguments.extend(PATIENT);
    let finished = run(address(&app), &arguments).await;
    let report = finished.report(3);
    assert_eq!(report["met"], true);
    let new = &report["readers"]["new"];
    assert_eq!(new["count"], 4);
    assert_eq!(new["erased"], 0);
    let cause = new["erase_error"].as_str().unwrap();
    let message = format!("Error: erasing 4 readers failed: {cause}; ");
    assert!(finished.err.contains(&message), "{}", finished.err);
}
