//! The command line prints help with examples and clear errors, and never secrets.

use std::process::Output;

use tests::process::{command, executable};
use tests::{App, Stack};
use tokio::process::Command;

async fn run(command: &mut Command, arguments: &[&str]) -> Output {
    command.args(arguments).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn every_command_prints_help_with_an_example() {
    let help = text(
        &run(&mut Command::new(executable()), &["--help"])
            .await
            .stdout,
    );
    for name in [
        "serve",
        "dev",
        "migrate",
        "token",
        "config",
        "doctor",
        "projections",
        "replay",
        "warm-up",
        "verify",
        "dead-letters",
        "jobs",
        "load",
        "audit",
        "events",
        "reader",
        "openapi",
    ] {
        assert!(help.contains(name), "{help}");
        let output = run(&mut Command::new(executable()), &[name, "--help"]).await;
        assert!(output.status.success());
        let help = text(&output.stdout);
        assert!(
            help.contains("Example") && help.contains("reading-sessions "),
            "{name}: {help}"
        );
    }
}

#[tokio::test]
async fn config_prints_settings_without_secrets() {
    let env = Stack::shared().await.new_env().await;
    for format in ["text", "json"] {
        let output = run(&mut command(&env), &["config", "-o", format]).await;
        assert!(output.status.success());
        let shown = text(&output.stdout);
        assert!(shown.contains("(hidden)"), "{shown}");
        assert!(!shown.contains(tests::app::SECRET), "{shown}");
        let (_, password) = env
            .database_url
            .rsplit_once('@')
            .unwrap()
            .0
            .rsplit_once(':')
            .unwrap();
        assert!(!shown.contains(password), "{shown}");
    }
}

#[tokio::test]
async fn config_hides_the_password_of_each_nats_address() {
    for (addresses, shown) in [
        (
            "tls://app:s3cret@a.example:4222,nats://app:s3cret@b.example",
            "NATS_URL=tls://app:(hidden)@a.example:4222,nats://app:(hidden)@b.example\n",
        ),
        // The comma belongs to the password.
        ("nats://app:s3c,ret@a.example", "NATS_URL=(NATS_URL is not"),
        (
            "nats://a.example,app:s3cret@b.example",
            "NATS_URL=(NATS_URL is not",
        ),
    ] {
        let mut command = Command::new(executable());
        command.env("NATS_URL", addresses);
        let output = run(&mut command, &["config"]).await;
        let printed = text(&output.stdout);
        assert!(printed.contains(shown), "{printed}");
        assert!(!printed.contains("s3c"), "{printed}");
    }
}

#[tokio::test]
async fn old_role_name_in_the_environment_is_accepted() {
    let mut command = Command::new(executable());
    command.env("ROLES", "api,maintenance");
    let output = run(&mut command, &["config"]).await;
    assert!(output.status.success());
    let shown = text(&output.stdout);
    assert!(shown.starts_with("ROLES=api,jobs\n"), "{shown}");
}

#[tokio::test]
async fn empty_variable_counts_as_unset() {
    let mut unset = Command::new(executable());
    let mut empty = Command::new(executable());
    let help = text(
        &run(&mut Command::new(executable()), &["serve", "--help"])
            .await
            .stdout,
    );
    let names = help.split("[env: ").skip(1);
    let names = names.map(|rest| rest.split(['=', ']']).next().unwrap());
    for name in names.chain(["JWT_SECRET", "OTEL_EXPORTER_OTLP_HEADERS", "RUST_LOG"]) {
        unset.env_remove(name);
        empty.env(name, "");
    }
    let unset = run(&mut unset, &["config", "-o", "json"]).await;
    let empty = run(&mut empty, &["config", "-o", "json"]).await;
    assert!(empty.status.success(), "{}", text(&empty.stderr));
    assert_eq!(text(&empty.stdout), text(&unset.stdout));
    let settings: serde_json::Value = serde_json::from_slice(&empty.stdout).unwrap();
    assert_eq!(settings["DATABASE_POOL_SIZE"], "20");

    // Only the other source of keys counts.
    let mut command = Command::new(executable());
    command.env("JWT_SECRET", "").env("JWKS_FILE", "keys.json");
    command.env("JWT_SECRET_FILE", "").env("JWKS_URL", "");
    let shown = text(&run(&mut command, &["config"]).await.stdout);
    assert!(
        shown.contains("JWT_SECRET=\nJWKS_FILE=keys.json\nJWKS_URL=\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn empty_password_of_a_role_counts_as_unset() {
    let env = Stack::shared().await.new_env().await;
    let migrate = || {
        let mut migrate = command(&env);
        migrate.env("DATABASE_URL", &env.admin_url);
        migrate.env("RUST_LOG", "info");
        migrate
    };
    let mut unset = migrate();
    unset.env("POSTGRES_API_PASSWORD", "");
    unset.env("POSTGRES_JOBS_PASSWORD_FILE", "");
    let output = run(&mut unset, &["migrate"]).await;
    let log = text(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("passwords set for: none"), "{log}");

    let mut empty_file = migrate();
    empty_file.env("POSTGRES_API_PASSWORD_FILE", "/dev/null");
    let output = run(&mut empty_file, &["migrate"]).await;
    let error = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains("POSTGRES_API_PASSWORD_FILE is empty"),
        "{error}"
    );
}

#[tokio::test]
async fn printed_token_is_accepted() {
    let app = App::start().await;
    let user = uuid::Uuid::new_v4().to_string();
    let output = run(
        &mut command(&app.env),
        &["token", "--user", &user, "--ttl", "5m"],
    )
    .await;
    let token = text(&output.stdout);
    let response = app
        .client
        .get(format!("{}/active", app.url))
        .bearer_auth(token.trim())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn missing_or_invalid_setting_is_named_in_the_error() {
    let mut bare = Command::new(executable());
    bare.env_remove("DATABASE_URL")
        .env("JWT_SECRET", "too short");
    let output = run(&mut bare, &["migrate"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("DATABASE_URL is not set"));

    let mut short = Command::new(executable());
    short.env("JWT_SECRET", "too short");
    let user = uuid::Uuid::new_v4().to_string();
    let output = run(&mut short, &["token", "--user", &user]).await;
    assert!(text(&output.stderr).contains("JWT_SECRET is shorter than 32 bytes"));

    let output = run(
        &mut Command::new(executable()),
        &["serve", "--role", "unknown"],
    )
    .await;
    assert_eq!(output.status.code(), Some(2));
}

/// Every user of a machine can read the arguments of its processes.
#[tokio::test]
async fn password_in_an_argument_is_refused_and_not_repeated() {
    for (command, flag, address) in [
        (
            "serve",
            "--database-url",
            "postgres://reading:s3cr3t@127.0.0.1:1/x",
        ),
        (
            "serve",
            "--database-read-url",
            "postgres://127.0.0.1:1/x?password=s3cr3t",
        ),
        ("doctor", "--nats-url", "nats://s3cr3t@127.0.0.1:1"),
        ("warm-up", "--redis-url", "redis://:s3cr3t@127.0.0.1:1"),
        (
            "dev",
            "--database-url",
            "postgres://reading:s3cr3t@127.0.0.1:1/x",
        ),
    ] {
        let output = run(&mut Command::new(executable()), &[command, flag, address]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command} {flag}: {error}");
        let variable = flag
            .trim_start_matches('-')
            .replace('-', "_")
            .to_uppercase();
        assert!(error.contains(flag) && error.contains(&variable), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
    // The environment and an address without a password are accepted.
    let mut command = Command::new(executable());
    command.env("DATABASE_URL", "postgres://reading:s3cr3t@127.0.0.1:1/x");
    let arguments = ["config", "--redis-url", "redis://127.0.0.1:1"];
    assert!(run(&mut command, &arguments).await.status.success());
}

#[tokio::test]
async fn unmigrated_database_fails_with_advice_to_migrate() {
    let stack = Stack::shared().await;
    let env = stack.new_empty_env().await;
    let output = run(
        &mut command(&env),
        &[
            "serve",
            "--http-addr",
            "127.0.0.1:0",
            "--admin-addr",
            "127.0.0.1:0",
        ],
    )
    .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("run `reading-sessions migrate`"));

    // Running `migrate` twice, even concurrently, is safe.
    let (mut one, mut two) = (command(&env), command(&env));
    for migrate in [&mut one, &mut two] {
        migrate.env("DATABASE_URL", &env.admin_url);
    }
    let (one, two) = tokio::join!(run(&mut one, &["migrate"]), run(&mut two, &["migrate"]));
    assert!(one.status.success(), "{}", text(&one.stderr));
    assert!(two.status.success(), "{}", text(&two.stderr));
}
