//! A run that cannot start gives exit code 2 and writes nothing. So does one whose report is
//! lost, which has no result either.

use std::fs::OpenOptions;

use tests::App;
use tests::process::free_address;
use uuid::Uuid;

use super::{address, events, finish, load, run};

#[tokio::test]
async fn run_that_cannot_start_gives_exit_code_2_with_the_reason() {
    let app = App::start().await;
    let good = address(&app).to_owned();
    let nowhere = format!("http://{}", free_address());
    let missing = std::env::temp_dir().join(format!("tokens-{}", Uuid::new_v4()));
    let missing = missing.to_str().unwrap();
    for (address, arguments, reason) in [
        (&nowhere, vec![], nowhere.as_str()),
        (&nowhere, vec![], "is unreachable"),
        (&good, vec!["--tokens", missing], missing),
        (
            &good,
            vec!["--tokens", missing, "--erase"],
            "cannot be used with",
        ),
        (&good, vec!["--users", "10001"], "10001"),
        (&good, vec!["--max-p99=-1"], "at least 0"),
        (&format!("{good}/elsewhere"), vec![], "is not the API"),
        (
            &"ftp://reading.example".to_owned(),
            vec![],
            "expected for example",
        ),
    ] {
        let finished = run(address, &arguments).await;
        let error = &finished.expect_code(2).err;
        assert!(error.contains(reason), "{reason}: {error}");
    }

    let mut other = load(&good, &[]);
    other.env("JWT_SECRET", "another secret of the tests, 32 bytes");
    let finished = finish(other.spawn().unwrap()).await;
    let error = &finished.expect_code(2).err;
    assert!(error.contains("refuses the token with 401"), "{error}");

    let mut filtered = load(&good, &[]);
    filtered.env("RUST_LOG", "info=loud");
    let finished = finish(filtered.spawn().unwrap()).await;
    let error = &finished.expect_code(2).err;
    assert!(error.contains("RUST_LOG is not a log filter"), "{error}");

    let mut none = load(&good, &[]);
    none.env_remove("JWT_SECRET");
    let finished = finish(none.spawn().unwrap()).await;
    let error = &finished.expect_code(2).err;
    assert!(
        error.contains("--tokens") && error.contains("JWT_SECRET_FILE"),
        "{error}"
    );
    assert_eq!(events(&app.pool, "SessionStarted", None).await, 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn run_that_cannot_print_its_report_gives_exit_code_2() {
    let app = App::start().await;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = load(address(&app), &["--users", "1", "--seconds", "1"]);
    let finished = finish(command.stdout(full).spawn().unwrap()).await;
    let error = &finished.expect_code(2).err;
    assert!(error.contains("Error: "), "{error}");
}
