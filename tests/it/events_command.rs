//! `reading-sessions events` prints the log unchanged and in order, as text or JSON,
//! including events that cannot be decoded.

mod written_elsewhere;

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::process::{command, executable};
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{App, Reader, Stack, invariants, scaled, stream};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

/// The timeout of a command; generous, since the machine may be busy.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Prints the whole log, then exits.
const ALL: [&str; 4] = ["tail", "--from-position", "1", "--until-end"];

async fn run(env: &TestEnv, arguments: &[&str]) -> Output {
    let mut command = command(env);
    let output = command.arg("events").args(arguments).output();
    tokio::time::timeout(scaled(COMMAND_TIMEOUT), output)
        .await
        .unwrap()
        .unwrap()
}

/// The lines that a successful run prints.
async fn lines(env: &TestEnv, arguments: &[&str]) -> Vec<String> {
    let output = run(env, arguments).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The ids of the events that a successful run prints.
async fn ids(env: &TestEnv, arguments: &[&str]) -> Vec<String> {
    let lines = lines(env, &[arguments, &["-o", "json"]].concat()).await;
    // Payloads may contain numbers that serde_json cannot parse, so search the text.
    let id = |line: &String| {
        line.split("\"id\":\"")
            .nth(1)?
            .split('"')
            .next()
            .map(str::to_owned)
    };
    lines.iter().map(|line| id(line).unwrap()).collect()
}

/// A session of three events.
async fn write_session(reader: &Reader) -> Uuid {
    let start = json!({ "book_id": Uuid::new_v4(), "book": { "title": "Two\nlines" } });
    let session = id(&reader.start_with(start).await.ok());
    let _ = reader.update(session, 12.5).await.ok();
    let _ = reader.end(session, json!({})).await.ok();
    session
}

#[tokio::test]
async fn json_output_equals_the_published_bytes() {
    let app = App::start().await;
    for _ in 0..3 {
        write_session(&app.reader()).await;
    }
    invariants::check(&app).await;
    let published: Vec<String> = stream::read_all(&app.env)
        .await
        .into_iter()
        .map(|published| published.text)
        .collect();
    assert_eq!(published.len(), 9);
    let all = [&ALL[..], &["-o", "json"]].concat();
    assert_eq!(lines(&app.env, &all).await, published);
    // The same holds when starting in the middle.
    let global_position = invariants::read_log(&app.pool).await[4]
        .global_position
        .to_string();
    let rest = [
        "tail",
        "--from-position",
        &global_position,
        "--until-end",
        "-o",
        "json",
    ];
    assert_eq!(lines(&app.env, &rest).await, published[4..]);
}

#[tokio::test]
async fn filters_print_only_matching_events() {
    let app = App::start().await;
    let (one, two) = (app.reader(), app.reader());
    let sessions = [
        write_session(&one).await,
        write_session(&two).await,
        write_session(&one).await,
    ];
    let log = invariants::read_log(&app.pool).await;
    let expected = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        let events = log.iter().enumerate().filter(|(n, _)| wanted(*n));
        events.map(|(_, event)| event.id()).collect()
    };
    let filtered = async |filters: &[&str]| ids(&app.env, &[&ALL, filters].concat()).await;
    assert_eq!(filtered(&[]).await, expected(&|_| true));
    assert_eq!(
        filtered(&["--event", "ended"]).await,
        expected(&|n| n % 3 == 2)
    );
    let both = ["--event", "started", "--event", "position_updated"];
    assert_eq!(filtered(&both).await, expected(&|n| n % 3 < 2));
    let reader = two.id.to_string();
    assert_eq!(
        filtered(&["--reader", &reader]).await,
        expected(&|n| n / 3 == 1)
    );
    let session = sessions[2].to_string();
    assert_eq!(
        filtered(&["--session", &session]).await,
        expected(&|n| n / 3 == 2)
    );
    let all = [
        "--event",
        "ended",
        "--reader",
        &reader,
        "--session",
        &session,
    ];
    assert!(filtered(&all).await.is_empty());

    let shown = ids(&app.env, &["show", &session]).await;
    assert_eq!(shown, expected(&|n| n / 3 == 2));
    let text = lines(&app.env, &["show", &session]).await;
    for (line, words) in text.iter().zip([
        ["started", r#""Two\nlines", at 0 %"#],
        ["position_updated", "at 12.5 %"],
        ["ended", "at 12.5 %, finished after 0 s"],
    ]) {
        for word in words {
            assert!(line.contains(word), "{line}");
        }
        assert!(
            line.contains(&session) && line.contains(&one.id.to_string()),
            "{line}"
        );
    }
    assert_eq!(text.len(), 3);
}

#[tokio::test]
async fn unknown_session_or_bad_argument_fails() {
    let env = Stack::shared().await.new_env().await;
    let output = run(&env, &["show", &Uuid::now_v7().to_string()]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("the log contains no session"), "{error}");
    for wrong in [
        &["show", "x"][..],
        &["tail", "--until-end"],
        &["tail", "--since", "x"],
    ] {
        assert_eq!(run(&env, wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}

/// Starts a tail that does not exit at the end of the log.
fn follow(env: &TestEnv, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = command(env);
    command
        .args(["events", "tail", "-o", "json"])
        .args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    (child, BufReader::new(out).lines())
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = tokio::time::timeout(scaled(COMMAND_TIMEOUT), lines.next_line()).await;
    serde_json::from_str(&line.unwrap().unwrap().expect("a line")).unwrap()
}

async fn ends_well(mut child: Child) {
    let ended = tokio::time::timeout(scaled(COMMAND_TIMEOUT), child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
}

#[tokio::test]
async fn tail_prints_new_events_until_ctrl_c() {
    let app = App::start().await;
    let reader = app.reader();
    let before = write_session(&reader).await.to_string();
    let (child, mut lines) = follow(&app.env, &[]);
    // The tail starts at some point during these writes.
    let write = async {
        loop {
            write_session(&reader).await;
        }
    };
    let first = tokio::select! {
        first = next(&mut lines) => first,
        () = write => unreachable!(),
    };
    assert_ne!(first["subject"], before);
    let mut previous = first["globalposition"].clone();
    let last = write_session(&reader).await.to_string();
    loop {
        let event = next(&mut lines).await;
        assert_eq!(event["previousposition"], previous, "no event is missing");
        previous = event["globalposition"].clone();
        if event["subject"] == last.as_str() && event["type"] == "reading.session.ended.v3" {
            break;
        }
    }
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.unwrap().success());
    ends_well(child).await;
}

#[tokio::test]
async fn tail_exits_when_its_output_is_closed() {
    let app = App::start().await;
    write_session(&app.reader()).await;
    let (child, mut lines) = follow(&app.env, &["--from-position", "0"]);
    for _ in 0..3 {
        next(&mut lines).await;
    }
    drop(lines);
    ends_well(child).await;
}

#[tokio::test]
async fn each_subcommand_prints_help_with_an_example() {
    for name in ["tail", "show"] {
        let mut help = Command::new(executable());
        let output = help
            .args(["events", name, "--help"])
            .output()
            .await
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let example = format!("reading-sessions events {name}");
        assert!(
            help.contains("Example") && help.contains(&example),
            "{help}"
        );
    }
}
