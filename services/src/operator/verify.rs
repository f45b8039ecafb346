//! `reading-sessions verify`: whether what queries read equals the log.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use projections::replay::ReplayError;
use projections::status;
use projections::verify::{Compared, Difference, TOLD};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::figures::count;
use super::meter::{self, say};
use super::table::{Column, table};
use super::{Output, database, print, print_json, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;
use crate::replays::{Name, Source, Verified};

/// What a shell gets: something differs, or could not be checked.
const DIFFERS: u8 = 1;
const UNCHECKED: u8 = 3;

/// What is compared.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The projections; all of them, when none is named.
    #[arg(value_enum)]
    names: Vec<Name>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// What was found of a projection.
type Found = (Name, Verified);

/// Compares; what keeps it from doing so has an exit code of its own.
pub async fn run(args: &VerifyArgs) -> ExitCode {
    match checked(args).await {
        Ok(equal) if equal => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERS),
        Err(error) => {
            let stopped = matches!(error.downcast_ref(), Some(ReplayError::Stopped));
            if stopped {
                say("Stopped; nothing is left behind");
            } else {
                say(&format!("Error: it could not be checked: {error:#}"));
            }
            ExitCode::from(UNCHECKED)
        }
    }
}

/// Whether all of it is equal.
async fn checked(args: &VerifyArgs) -> anyhow::Result<bool> {
    let mut names = args.names.clone();
    if names.is_empty() {
        names = Name::ALL.to_vec();
    }
    let pool = database(&args.database).await?;
    let source = Source::new(&args.database, connect::cache(&args.redis)?);
    let found = until_stopped(async |stop| compared(&source, &names, stop).await).await?;
    let dead = dead_letters(&pool, &names).await?;
    match args.output {
        Output::Json => print_json(&json(&found, dead))?,
        Output::Text => print(&text(&found, dead))?,
    }
    Ok(is_equal(&found))
}

async fn compared(
    source: &Source,
    names: &[Name],
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for &name in names {
        let progress = watch::Sender::default();
        let shown = progress.subscribe();
        let work = source.verify(name, &progress, stop);
        let verified = meter::with(name.as_str(), "events", shown, work).await?;
        say(&format!("{name}: compared"));
        found.push((name, verified));
    }
    Ok(found)
}

/// How many dead letters the projections have.
async fn dead_letters(pool: &PgPool, names: &[Name]) -> anyhow::Result<i64> {
    let all = status::list(pool).await?;
    let counted = all
        .iter()
        .filter(|status| names.iter().any(|name| name.as_str() == status.projection));
    Ok(counted.map(|status| status.dead_letters).sum())
}

fn is_equal(found: &[Found]) -> bool {
    tables(found).all(|(_, _, compared)| compared.differing == 0)
}

fn tables(found: &[Found]) -> impl Iterator<Item = (Name, Option<i64>, &Compared)> {
    found.iter().flat_map(|(name, verified)| {
        let compared = verified.compared.iter();
        compared.map(|compared| (*name, verified.position, compared))
    })
}

fn text(found: &[Found], dead: i64) -> String {
    let columns = [
        Column::Left("PROJECTION"),
        Column::Left("COMPARED"),
        Column::Right("AT"),
        Column::Right("ROWS"),
        Column::Right("DIFFERENT"),
    ];
    let rows: Vec<_> = tables(found)
        .map(|(name, position, compared)| {
            [
                name.to_string(),
                compared.name.clone(),
                position.map_or_else(|| "-".to_owned(), count),
                count(compared.rows),
                count(compared.differing),
            ]
        })
        .collect();
    let mut text = table(&columns, &rows);
    for (_, _, compared) in tables(found) {
        text.push_str(&differences(compared));
    }
    if dead > 0 {
        let _ = write!(
            text,
            "\n\nDead letters: {}. What they say is left out on both sides; see \
             `reading-sessions dead-letters`.",
            count(dead)
        );
    }
    text
}

fn differences(compared: &Compared) -> String {
    let mut text = String::new();
    let side = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or("nothing".to_owned(), Value::to_string)
    };
    for Difference { found, expected } in &compared.first {
        let _ = write!(
            text,
            "\n\n{}\n  found:    {}\n  expected: {}",
            compared.name,
            side(found),
            side(expected)
        );
    }
    let told = compared.first.len();
    if told == TOLD && compared.differing > told as u64 {
        let _ = write!(
            text,
            "\n\n{}: and {} more",
            compared.name,
            count(compared.differing - told as u64)
        );
    }
    text
}

fn json(found: &[Found], dead: i64) -> Value {
    let compared: Vec<Value> = tables(found)
        .map(|(name, position, compared)| {
            let first: Vec<Value> = compared
                .first
                .iter()
                .map(|row| json!({ "found": row.found, "expected": row.expected }))
                .collect();
            json!({
                "projection": name.as_str(),
                "name": compared.name,
                "position": position,
                "rows": compared.rows,
                "differing": compared.differing,
                "first": first,
            })
        })
        .collect();
    json!({ "equal": is_equal(found), "compared": compared, "dead_letters": dead })
}
