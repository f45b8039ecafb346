//! `reading-sessions dead-letters`: events that a projection could not apply.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;
use api::routes::admin::dead_letters::{DeadLetterDetails, DeadLetterPage, DeadLetterResponse};
use clap::{Args, Subcommand};
use eventlog::audit::Action as AuditAction;
use projections::dead_letters::{self, DeadLetterId, RetryStatus, State};
use projections::operations::ProjectionName;
use sqlx::PgPool;

use super::audit::{CliAction, recorded};
use super::connect_database;
use super::format::{count, span};
use super::list::ListOr;
use super::names::one_of;
use super::output::{OutputArgs, print};
use super::table::{Column, table};
use super::wait::{Interrupted, poll, until_stopped};
use crate::config::DatabaseArgs;

/// How long `retry` waits for a worker to process the dead letter.
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

pub type DeadLettersArgs = ListOr<ListArgs, Action>;

#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Show one dead letter and its event.
    #[command(
        after_help = "Exit codes: 0 found, 1 failed or not found, 2 wrong arguments.

Example:
  reading-sessions dead-letters show history.1234"
    )]
    Show(ShowArgs),
    /// Apply the event of a dead letter again, then the events that wait for it.
    #[command(
        after_help = "Exit codes: 0 event applied, 1 not applied or not found, 2 wrong arguments, 130 stopped by
Ctrl-C or SIGTERM.

Example:
  reading-sessions dead-letters retry history.1234"
    )]
    Retry(IdArgs),
    /// Skip the event in its projection permanently.
    #[command(after_help = "Replays skip the event too. The log keeps it.

Exit codes: 0 event discarded, 1 not discarded or not found, 2 wrong arguments.

Example:
  reading-sessions dead-letters discard history.1234")]
    Discard(IdArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// List only dead letters of this projection.
    #[arg(long, value_parser = one_of(ProjectionName::ALL, ProjectionName::as_str))]
    projection: Option<ProjectionName>,
    /// List only dead letters in this state.
    #[arg(long, value_parser = one_of(State::ALL, State::as_str))]
    state: Option<State>,
    /// Maximum number of dead letters, from 1 to 10,000.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    id: IdArgs,
}

#[derive(Args, Clone, Debug)]
pub struct IdArgs {
    /// Id of the dead letter, for example `history.1234`.
    id: DeadLetterId,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: &DeadLettersArgs) -> anyhow::Result<()> {
    let other = async |action: &Action| match action {
        Action::Show(args) => show(args).await,
        Action::Retry(args) => act(args, AuditAction::Retry, retry).await,
        Action::Discard(args) => act(args, AuditAction::Discard, discard).await,
    };
    args.run(list, other).await
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let page = DeadLetterPage::load(&pool, args.projection, args.state, None, args.limit).await?;
    args.output
        .print(&page.dead_letters, || text(&page, args.limit))
}

fn text(page: &DeadLetterPage, limit: i64) -> String {
    if page.dead_letters.is_empty() {
        return "No dead letters.".to_owned();
    }
    let columns = [
        Column::Left("ID"),
        Column::Left("STATE"),
        Column::Left("SINCE"),
        Column::Right("TRIES"),
        Column::Left("SESSION"),
        Column::Right("SEQUENCE"),
        Column::Left("ERROR"),
    ];
    let rows: Vec<_> = page.dead_letters.iter().map(row).collect();
    let mut text = table(&columns, &rows);
    if page.next.is_some() {
        let _ = write!(text, "\n\nMore than {} dead letters match.", count(limit));
    }
    text
}

fn row(dead_letter: &DeadLetterResponse) -> [String; 7] {
    [
        dead_letter.id.clone(),
        dead_letter.state.as_str().to_owned(),
        dead_letter.parked_at.format("%F %TZ").to_string(),
        dead_letter.tries.to_string(),
        dead_letter.session_id.clone(),
        dead_letter.sequence.to_string(),
        dead_letter.error.clone(),
    ]
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.id.database).await?;
    let shown = DeadLetterDetails::try_from(dead_letters::find(&pool, &args.id.id).await?)?;
    args.output.print(&shown, || {
        let DeadLetterDetails { dead_letter, event } = &shown;
        let since = dead_letter.parked_at.format("%F %TZ").to_string();
        let (tries, sequence) = (
            dead_letter.tries.to_string(),
            dead_letter.sequence.to_string(),
        );
        let lines = [
            ("id", dead_letter.id.as_str()),
            ("state", dead_letter.state.as_str()),
            ("error", &dead_letter.error),
            ("since", &since),
            ("tries", &tries),
            ("session", &dead_letter.session_id),
            ("sequence", &sequence),
            ("event", &event.r#type),
            ("version", &event.version),
            ("payload", event.payload.get()),
        ];
        lines
            .map(|(name, value)| format!("{name:<9}{value}"))
            .join("\n")
    })
}

/// Records an action on a dead letter in the audit.
async fn act(
    args: &IdArgs,
    action: AuditAction,
    work: impl AsyncFnOnce(&PgPool, &DeadLetterId) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let id = args.id.to_string();
    let action = CliAction::new(action, Some(&id));
    recorded(&pool, action, async || work(&pool, &args.id).await).await
}

async fn retry(pool: &PgPool, id: &DeadLetterId) -> anyhow::Result<()> {
    dead_letters::retry(pool, id).await?;
    let finished = poll(RETRY_TIMEOUT, async || {
        Ok(match dead_letters::retry_status(pool, id).await? {
            RetryStatus::Pending => None,
            status => Some(status),
        })
    });
    let finished = until_stopped(async |stop| {
        tokio::select! {
            finished = finished => finished,
            () = stop.cancelled() => {
                let text = format!("stopped waiting for the retry of {id}, which stays requested");
                Err(Interrupted(text).into())
            }
        }
    });
    match finished.await? {
        Some(RetryStatus::Applied) => print(&format!("Applied {id}.")),
        Some(RetryStatus::Failed(error)) => {
            bail!("retry of {id} failed: {error}; the dead letter remains")
        }
        Some(RetryStatus::Discarded) => {
            bail!("retry of {id} failed: it was discarded in the meantime")
        }
        Some(RetryStatus::Pending) | None => bail!(
            "retry of {id} is pending: no worker has processed it within {}; \
             check `reading-sessions projections`",
            span(RETRY_TIMEOUT)
        ),
    }
}

async fn discard(pool: &PgPool, id: &DeadLetterId) -> anyhow::Result<()> {
    dead_letters::discard(pool, id).await?;
    print(&format!(
        "Discarded {id}. The projection skips this event and applies the later events of its session."
    ))
}
