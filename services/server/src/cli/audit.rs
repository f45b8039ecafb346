//! `reading-sessions audit`: what operators did; and the entries of the commands of this
//! program.

use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, resume_unwind};

use anyhow::Context;
use api::routes::admin::audit::{AuditEntryResponse, AuditPage};
use clap::Args;
use eventlog::audit::{self, Action, NewEntry, Origin, Outcome};
use eventlog::error::error_chain;
use futures::FutureExt;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use super::connect_database;
use super::output::{OutputArgs, report};
use super::table::{Column, table};
use crate::config::DatabaseArgs;

#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// Maximum number of entries, from 1 to 10,000.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// List only entries with a smaller id.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let page = AuditPage::load(&pool, args.before, args.limit).await?;
    args.output.print(&page.entries, || text(&page))
}

fn text(page: &AuditPage) -> String {
    if page.entries.is_empty() {
        return "No actions.".to_owned();
    }
    let columns = [
        Column::Right("ID"),
        Column::Left("AT"),
        Column::Left("ACTOR"),
        Column::Left("ORIGIN"),
        Column::Left("ACTION"),
        Column::Left("TARGET"),
        Column::Left("OUTCOME"),
    ];
    let rows: Vec<_> = page.entries.iter().map(row).collect();
    let mut text = table(&columns, &rows);
    if let Some(next) = &page.next {
        let _ = write!(text, "\n\nThere are earlier actions; pass --before {next}");
    }
    text
}

fn row(entry: &AuditEntryResponse) -> [String; 7] {
    let origin = match entry.origin {
        Origin::Http => "http",
        Origin::Cli => "cli",
    };
    let outcome = match (entry.outcome, &entry.error) {
        (Outcome::Failed, Some(error)) => format!("failed: {error}"),
        (Outcome::Failed, None) => "failed".to_owned(),
        (Outcome::Succeeded, _) => "succeeded".to_owned(),
        (Outcome::Started, _) => "started".to_owned(),
    };
    [
        entry.id.clone(),
        entry.at.format("%F %TZ").to_string(),
        entry.actor.clone(),
        origin.to_owned(),
        entry.action.clone(),
        entry.target.clone().unwrap_or_else(|| "-".to_owned()),
        outcome,
    ]
}

/// An action of this program.
pub struct CliAction<'a> {
    pub action: Action,
    /// See [`NewEntry::target`].
    pub target: Option<&'a str>,
    /// A JSON object with the options of the command.
    pub details: Value,
}

impl<'a> CliAction<'a> {
    /// An action without options.
    pub fn new(action: Action, target: Option<&'a str>) -> Self {
        Self {
            action,
            target,
            details: json!({}),
        }
    }

    pub fn with_details(self, details: Value) -> Self {
        Self { details, ..self }
    }
}

/// Performs an action between the two writes of its audit entry.
pub async fn recorded<T>(
    pool: &PgPool,
    action: CliAction<'_>,
    work: impl AsyncFnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    recorded_with(pool, action, work, |_| Map::new()).await
}

/// Like [`recorded`]. `details` returns the results that the entry contains.
pub async fn recorded_with<T>(
    pool: &PgPool,
    action: CliAction<'_>,
    work: impl AsyncFnOnce() -> anyhow::Result<T>,
    details: impl FnOnce(&T) -> Map<String, Value>,
) -> anyhow::Result<T> {
    let entry = NewEntry {
        actor: &actor(),
        origin: Origin::Cli,
        action: action.action.as_str(),
        target: action.target,
        details: action.details,
    };
    let begun = audit::begin(pool, &entry).await;
    let id = begun.context("recording the action in the audit failed; nothing was done")?;
    let result = AssertUnwindSafe(work()).catch_unwind().await;
    let ended = match &result {
        Ok(Ok(value)) => audit::end(pool, id, Ok(()), &details(value).into()).await,
        Ok(Err(error)) => {
            let error = error_chain(error.as_ref());
            audit::end(pool, id, Err(&error), &Map::new().into()).await
        }
        Err(_) => audit::end(pool, id, Err("the command panicked"), &Map::new().into()).await,
    };
    if let Err(error) = ended {
        report(&format!(
            "Warning: storing the outcome of action {id} failed: {}; its audit entry stays `started`",
            error_chain(&error)
        ));
    }
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// The user of this process and the machine, for example `anna@db1`.
fn actor() -> String {
    let uid = rustix::process::getuid().as_raw();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = user_name(&users, uid).map_or_else(|| format!("uid-{uid}"), str::to_owned);
    let machine = rustix::system::uname();
    format!("{user}@{}", machine.nodename().to_string_lossy())
}

/// The name of a user in the text of `/etc/passwd`.
fn user_name(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?;
        (id.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_user_is_found_by_its_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nanna:x:1000:1000::/home/anna:/bin/sh";
        assert_eq!(user_name(users, 1000), Some("anna"));
        assert_eq!(user_name(users, 0), Some("root"));
        assert_eq!(user_name(users, 1), None);
    }

    #[test]
    fn actor_has_a_user_and_a_machine() {
        let actor = actor();
        let (user, machine) = actor.split_once('@').unwrap();
        assert!(!user.is_empty() && !machine.is_empty(), "{actor}");
    }
}
