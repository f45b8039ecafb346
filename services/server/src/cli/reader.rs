//! `reading-sessions reader`: exports or erases all data of a reader.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use api::export::{ExportFormat, Exporter};
use bytes::Bytes;
use clap::{Args, Subcommand};
use domain::ReaderId;
use eventlog::audit::Action;
use eventlog::erase::{self, Extent};
use eventlog::error::error_chain;
use eventlog::{LogError, clock};
use futures::{Stream, TryStreamExt};
use jobs::{JobError, erasure};
use projections::cache::Cache;
use projections::operations::OperationProgress;
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::audit::{CliAction, recorded};
use super::connect_database;
use super::format::counted;
use super::names::{one_of, uuid};
use super::output::{ignore_broken_pipe, print};
use super::progress_bar;
use super::wait::{Interrupted, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use crate::connect;

#[derive(Clone, Debug, Subcommand)]
pub enum ReaderCommand {
    /// Export all data of a reader.
    #[command(
        after_help = "JSON contains the events as stored. CSV contains one row per event.

Exit codes: 0 done, 1 failed or no such reader, 2 wrong arguments, 130 stopped by Ctrl-C or
SIGTERM.

Examples:
  reading-sessions reader export 0193e5a0-0000-7000-8000-000000000001
  reading-sessions reader export 0193e5a0-0000-7000-8000-000000000001 -o csv --out reader.csv"
    )]
    Export(ExportArgs),
    /// Erase all data of a reader permanently.
    #[command(
        after_help = "No session can be read from the moment the erasure is committed, except by `GET /active` while \
Redis does not respond. History \
and statistics follow within moments. Once Redis has confirmed that the sessions are removed, the \
events in the log are overwritten. If the command is interrupted there, the job `erasures` finishes the work, or you can run the command again. \
Copies on NATS, in backups and at analytics consumers are not affected: see \
docs/operations/reader-data.md.

Exit codes: 0 erased, also earlier, 1 failed or no such reader, 2 wrong arguments, 130 stopped
before all events were overwritten.

Examples:
  reading-sessions reader erase 0193e5a0-0000-7000-8000-000000000001
  reading-sessions reader erase 0193e5a0-0000-7000-8000-000000000001 --yes"
    )]
    Erase(EraseArgs),
}

#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Id of the reader.
    #[arg(value_name = "UUID", value_parser = uuid::<Uuid>)]
    reader: Uuid,
    /// Format of the export.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_parser = one_of(ExportFormat::ALL, ExportFormat::as_str),
        default_value = "json"
    )]
    output: ExportFormat,
    /// File to create [default: standard output].
    ///
    /// The command fails if the file exists. Only its owner may read the file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Clone, Debug)]
pub struct EraseArgs {
    /// Id of the reader.
    #[arg(value_name = "UUID", value_parser = uuid::<Uuid>)]
    reader: Uuid,
    /// Erase without asking; required without a terminal.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

pub async fn run(command: &ReaderCommand) -> anyhow::Result<()> {
    match command {
        ReaderCommand::Export(args) => export(args).await,
        ReaderCommand::Erase(args) => erase(args).await,
    }
}

async fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let id = args.reader.to_string();
    let action = CliAction::new(Action::ExportReader, Some(&id))
        .with_details(json!({ "format": args.output.as_str() }));
    recorded(&pool, action, async || write_export(args, &pool).await).await
}

async fn write_export(args: &ExportArgs, pool: &PgPool) -> anyhow::Result<()> {
    let reader_id = ReaderId::from(args.reader);
    if erase::extent(pool, reader_id).await?.sessions == 0 {
        return Err(no_sessions(pool, reader_id).await);
    }
    let written = until_stopped(async |stop| {
        let chunks = Exporter::new(pool.clone()).stream(reader_id, args.output);
        let write = async {
            let Some(path) = &args.out else {
                return write(chunks, io::stdout()).await;
            };
            let file = create_file(path)?;
            write(chunks, &file).await?;
            Ok(file.sync_all()?)
        };
        tokio::select! {
            written = write => written,
            () = stop.cancelled() => {
                Err(Interrupted("export stopped; the output is incomplete".to_owned()).into())
            }
        }
    });
    ignore_broken_pipe(written.await)
}

async fn write(
    chunks: impl Stream<Item = Result<Bytes, LogError>>,
    mut out: impl Write,
) -> anyhow::Result<()> {
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.try_next().await? {
        out.write_all(&chunk)?;
    }
    Ok(out.flush()?)
}

/// Fails if the file exists. Only its owner may read it.
fn create_file(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
            "{} exists already; choose another file or remove it",
            path.display()
        ),
        file => file.with_context(|| format!("creating {} failed", path.display())),
    }
}

async fn erase(args: &EraseArgs) -> anyhow::Result<()> {
    let pool = connect_database(&args.database).await?;
    let reader_id = ReaderId::from(args.reader);
    let extent = erase::extent(&pool, reader_id).await?;
    if extent.sessions > 0 && !args.yes {
        confirm(reader_id, extent)?;
    }
    let id = args.reader.to_string();
    let action = CliAction::new(Action::EraseReader, Some(&id));
    recorded(&pool, action, async || {
        until_stopped(async |stop| erase_confirmed(args, &pool, reader_id, extent, stop).await)
            .await
    })
    .await
}

async fn erase_confirmed(
    args: &EraseArgs,
    pool: &PgPool,
    reader_id: ReaderId,
    extent: Extent,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let earlier = erase::find(pool, reader_id).await?;
    if extent.sessions > 0 {
        let erased = tokio::select! {
            erased = erase::reader(pool, reader_id, clock::now()) => erased?,
            () = stop.cancelled() => {
                let text = "erasure stopped; some sessions may be erased, run the command again";
                return Err(Interrupted(text.to_owned()).into());
            }
        };
        print(&format!(
            "Erased {} of reader {reader_id}. History and statistics follow within \
             moments.",
            counted(erased.sessions, "session", "sessions")
        ))?;
    } else {
        match earlier {
            None => return Err(no_sessions(pool, reader_id).await),
            Some(erasure) if erasure.done_at.is_some() => {
                return print(&no_sessions(pool, reader_id).await.to_string());
            }
            // Only the last steps of an earlier erasure remain to be done.
            Some(_) => {}
        }
    }
    let unconfirmed = match connect::cache(&args.redis) {
        Ok(cache) => match finish(pool, &cache, reader_id, stop).await {
            Err(JobError::Cache(error)) => Some(error_chain(&error)),
            finished => {
                finished?;
                None
            }
        },
        Err(error) => Some(error_chain(error.as_ref())),
    };
    if let Some(error) = unconfirmed {
        return print(&format!(
            "Redis did not confirm that the sessions are removed: {error}. The job `erasures` \
             tries again, and then overwrites the events in the log."
        ));
    }
    let erasure = erase::find(pool, reader_id).await?;
    let erasure = erasure.context("the table `erasures` has no row for this reader")?;
    if stop.is_cancelled() && erasure.done_at.is_none() {
        let text = "erasure stopped; the job `erasures` overwrites the remaining events, or run \
                    the command again";
        return Err(Interrupted(text.to_owned()).into());
    }
    print(&format!(
        "Overwrote {} of {} in the log. Copies on NATS, in backups and at \
         analytics consumers are not affected: see docs/operations/reader-data.md.",
        counted(erasure.events, "event", "events"),
        counted(erasure.sessions, "session", "sessions")
    ))
}

/// The last steps of the erasure, with a progress bar. Tries Redis once: the job `erasures`
/// retries.
async fn finish(
    pool: &PgPool,
    cache: &Cache,
    reader_id: ReaderId,
    stop: &CancellationToken,
) -> Result<(), JobError> {
    let total = erase::remaining_events(pool, reader_id)
        .await?
        .unsigned_abs();
    let progress = watch::Sender::new(OperationProgress {
        total,
        ..OperationProgress::default()
    });
    let shown = progress.subscribe();
    let on_batch = |events: i64| {
        progress.send_modify(|progress| {
            progress.reached += events.unsigned_abs();
            progress.done = progress.reached;
            progress.total = progress.total.max(progress.reached);
        });
    };
    let finish = erasure::finish(pool, cache, reader_id, Duration::ZERO, stop, on_batch);
    progress_bar::show("erase", "events", shown, finish).await
}

/// The error for a reader without sessions, with the time of an earlier erasure.
async fn no_sessions(pool: &PgPool, reader_id: ReaderId) -> anyhow::Error {
    match erase::find(pool, reader_id).await {
        Ok(None) => anyhow!("the log contains no session of reader {reader_id}"),
        Ok(Some(erasure)) => anyhow!(
            "the log contains no session of reader {reader_id}: the reader was erased at {}",
            erasure.erased_at.format("%F %TZ")
        ),
        Err(error) => error.into(),
    }
}

/// Asks for confirmation on a terminal.
fn confirm(reader_id: ReaderId, extent: Extent) -> anyhow::Result<()> {
    let data = format!(
        "{} with {} of reader {reader_id}",
        counted(extent.sessions, "session", "sessions"),
        counted(extent.events, "event", "events")
    );
    ensure!(
        io::stdin().is_terminal(),
        "not confirmed: {data} would be erased permanently; pass --yes"
    );
    let mut stderr = io::stderr();
    write!(
        stderr,
        "{data} will be erased permanently. Type `erase` to continue: "
    )?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    ensure!(
        answer.trim() == "erase",
        "not confirmed: nothing was erased"
    );
    Ok(())
}
