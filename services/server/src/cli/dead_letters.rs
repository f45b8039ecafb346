//! `reading-sessions dead-letters`: events that a projection could not apply,
//! and what becomes of them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};
use projections::dead_letters::{self, LetterId, Outcome};

use super::format::{count, span};
use super::table::{Column, table};
use super::{Output, database, print, print_json};
use api::routes::admin::dead_letter::DeadLetterShown;
use api::routes::admin::dead_letters::{DeadLetter, DeadLetters, LetterState};
use crate::config::DatabaseArgs;
use projections::dead_letters::actions;
use projections::operations::ProjectionName;

/// How long a worker may take to come to a letter.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What is done with dead letters.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// List them (what the command does by itself).
    List(ListArgs),
    /// Show one and its event.
    #[command(
        after_help = "Exit codes: 0 there it is, 1 there is none (or not known), 2 usage.

Example:
  reading-sessions dead-letters show history.1234"
    )]
    Show(ShowArgs),
    /// Try its session again, and wait for what comes of it.
    #[command(
        after_help = "Exit codes: 0 its event is applied, 1 not so (or not known), 2 usage.

Example:
  reading-sessions dead-letters retry history.1234"
    )]
    Retry(OneArgs),
    /// Leave its event out of the projection for good.
    #[command(
        after_help = "Exit codes: 0 it is left out, 1 not so (or not known), 2 usage.

Example:
  reading-sessions dead-letters discard history.1234"
    )]
    Discard(OneArgs),
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// Only those of a projection.
    #[arg(long, value_enum)]
    projection: Option<ProjectionName>,
    /// Only those in a state.
    #[arg(long, value_enum)]
    state: Option<LetterState>,
    /// At most so many, up to 10,000.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Clone, Debug)]
struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Args, Clone, Debug)]
struct OneArgs {
    /// The letter, as `history.1234`.
    id: LetterId,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Lists, shows, retries or discards.
///
/// # Errors
/// When Postgres does not answer, there is no such letter, or it cannot be done.
pub async fn run(args: &DeadLettersArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(&args.list).await,
        Some(Command::List(args)) => list(args).await,
        Some(Command::Show(args)) => show(args).await,
        Some(Command::Retry(args)) => retry(args).await,
        Some(Command::Discard(args)) => discard(args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let pool = database(&args.database).await?;
    let page = DeadLetters::page(&pool, args.projection, args.state, None, args.limit).await?;
    match args.output {
        Output::Json => print_json(&page.dead_letters),
        Output::Text if page.dead_letters.is_empty() => print("There are no dead letters."),
        Output::Text => {
            let rows: Vec<_> = page.dead_letters.iter().map(row).collect();
            let columns = [
                Column::Left("ID"),
                Column::Left("STATE"),
                Column::Left("SINCE"),
                Column::Right("TRIES"),
                Column::Left("SESSION"),
                Column::Right("SEQUENCE"),
                Column::Left("ERROR"),
            ];
            let more = match page.next {
                Some(_) => format!("\n\nThere are more than {}.", count(args.limit)),
                None => String::new(),
            };
            print(&format!("{}{more}", table(&columns, &rows)))
        }
    }
}

fn row(letter: &DeadLetter) -> [String; 7] {
    [
        letter.id.clone(),
        letter.state.clone(),
        letter.parked_at.format("%F %TZ").to_string(),
        letter.tries.to_string(),
        letter.session_id.clone(),
        letter.sequence.to_string(),
        letter.error.clone(),
    ]
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let pool = database(&args.one.database).await?;
    let shown = DeadLetterShown::try_from(actions::find(&pool, &args.one.id).await?)?;
    if args.output == Output::Json {
        return print_json(&shown);
    }
    let DeadLetterShown { letter, event } = shown;
    let lines = [
        ("id", letter.id),
        ("state", letter.state),
        ("error", letter.error),
        ("since", letter.parked_at.format("%F %TZ").to_string()),
        ("tries", letter.tries.to_string()),
        ("session", letter.session_id),
        ("sequence", letter.sequence.to_string()),
        ("event", event.r#type),
        ("version", event.version),
        ("payload", event.payload.get().to_owned()),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<9}{value}"));
    print(&lines.join("\n"))
}

async fn retry(args: &OneArgs) -> anyhow::Result<()> {
    let id = &args.id;
    let pool = database(&args.database).await?;
    actions::retry(&pool, id).await?;
    let since = Instant::now();
    loop {
        match dead_letters::outcome(&pool, id).await? {
            Outcome::Applied => return print(&format!("{id} is applied")),
            Outcome::Discarded => bail!("{id} was discarded meanwhile"),
            Outcome::Parked(error) => bail!("{id} stays where it is: {error}"),
            Outcome::Pending if since.elapsed() >= PATIENCE => bail!(
                "{id} is asked for, but no worker came to it within {}: \
                 see `reading-sessions projections`",
                span(PATIENCE)
            ),
            Outcome::Pending => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn discard(args: &OneArgs) -> anyhow::Result<()> {
    let pool = database(&args.database).await?;
    actions::discard(&pool, &args.id).await?;
    print(&format!(
        "{} is discarded: its projection does without its event, and what waits for it goes on",
        args.id
    ))
}
