//! `reading-sessions reader`: all that is known of one reader, handed out or
//! erased.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use domain::ReaderId;
use eventlog::LogError;
use eventlog::erase::{self, Extent};
use futures::{Stream, TryStreamExt};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::format::count;
use super::progress_bar::{self, say};
use super::{STOPPED, database, print, until_stopped};
use crate::config::{DatabaseArgs, RedisArgs};
use api::export::{Exports, Format};
use projections::operations::OperationProgress;
use commands::erasure;
use projections::active_sessions;
use eventlog::clock;

use crate::connect;

/// What is done with a reader's data.
#[derive(Clone, Debug, Subcommand)]
pub enum ReaderCommand {
    /// Hand out all data of a reader.
    #[command(
        after_help = "JSON has the events as the log holds them; CSV has a row an event.

Exit codes: 0 done, 1 not done (or there is no such reader), 2 usage, 130 stopped.

Examples:
  reading-sessions reader export 018f4c2e-7c1a-7000-8000-000000000001
  reading-sessions reader export 018f4c2e-7c1a-7000-8000-000000000001 -o csv --out reader.csv"
    )]
    Export(ExportArgs),
    /// Erase all data of a reader, for good.
    #[command(
        after_help = "From the first moment on no session of the reader is found; history and statistics follow. Then the log is written over, and one \
that is stopped or killed there is finished by the role `maintenance`, or by the same command. \
docs/operations.md says where copies remain.

Exit codes: 0 erased (or it was before), 1 not erased (or there is no such reader), 2 usage, \
130 stopped before the log was written over.

Examples:
  reading-sessions reader erase 018f4c2e-7c1a-7000-8000-000000000001
  reading-sessions reader erase 018f4c2e-7c1a-7000-8000-000000000001 --yes"
    )]
    Erase(EraseArgs),
}

/// What `export` takes.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// The reader's id.
    #[arg(value_name = "UUID")]
    reader: Uuid,
    /// How to write it.
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
    /// Where to; to standard output when it is left out. The file is new, or
    /// nothing is done.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// What `erase` takes.
#[derive(Args, Clone, Debug)]
pub struct EraseArgs {
    /// The reader's id.
    #[arg(value_name = "UUID")]
    reader: Uuid,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// Exports or erases.
///
/// # Errors
/// When Postgres does not answer, there is no such reader, or nobody confirms.
pub async fn run(command: &ReaderCommand) -> anyhow::Result<ExitCode> {
    match command {
        ReaderCommand::Export(args) => export(args).await,
        ReaderCommand::Erase(args) => erase(args).await,
    }
}

async fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let pool = database(&args.database).await?;
    let reader_id = ReaderId::from(args.reader);
    if erase::extent(&pool, reader_id).await?.sessions == 0 {
        return Err(unknown(&pool, reader_id).await);
    }
    let written = until_stopped(async |stop| {
        let chunks = Exports::new(pool.clone()).of(reader_id, args.output);
        let writing = async {
            let Some(path) = &args.out else {
                return write(chunks, io::stdout()).await;
            };
            let file = new_file(path);
            let file = file.with_context(|| format!("{} is not written", path.display()))?;
            write(chunks, &file).await?;
            Ok(file.sync_all()?)
        };
        tokio::select! {
            written = writing => written.map(|()| true),
            () = stop.cancelled() => Ok(false),
        }
    });
    match written.await {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => {
            say("stopped; what was written is not whole");
            Ok(ExitCode::from(STOPPED))
        }
        // A reader that went away, as `head` does, is no error.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
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

/// A file that was not there before, for nobody else to read.
fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn erase(args: &EraseArgs) -> anyhow::Result<ExitCode> {
    let pool = database(&args.database).await?;
    let reader_id = ReaderId::from(args.reader);
    let extent = erase::extent(&pool, reader_id).await?;
    let begun = erase::find(&pool, reader_id).await?;
    if extent.sessions > 0 {
        if !args.yes {
            confirm(reader_id, extent)?;
        }
        let erased = erase::reader(&pool, reader_id, clock::now()).await?;
        if args.redis.is_set()
            && let Some(position) = erased.global_position
        {
            active_sessions::erase(&connect::cache(&args.redis)?, reader_id, position).await;
        }
        print(&format!(
            "{} sessions of reader {reader_id} are erased; history and statistics follow within moments.",
            count(erased.sessions)
        ))?;
    } else if begun.is_none_or(|begun| begun.done_at.is_some()) {
        return match begun {
            Some(_) => {
                print(&unknown(&pool, reader_id).await.to_string())?;
                Ok(ExitCode::SUCCESS)
            }
            None => Err(unknown(&pool, reader_id).await),
        };
    }
    let stopped = until_stopped(async |stop| {
        overwrite(&pool, reader_id, stop).await?;
        Ok(stop.is_cancelled())
    });
    let stopped = stopped.await?;
    let erasure = erase::find(&pool, reader_id).await?;
    let erasure = erasure.context("the erasure is not in the table that tells of it")?;
    if stopped && erasure.done_at.is_none() {
        say("stopped; the role maintenance writes over the rest, or the same command");
        return Ok(ExitCode::from(STOPPED));
    }
    print(&format!(
        "{} events in the log are written over, of {} sessions. Copies on NATS, in backups and \
         with analysts are others: docs/operations.md says what to do.",
        count(erasure.events),
        count(erasure.sessions)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes over the log, and shows how far that is.
async fn overwrite(
    pool: &PgPool,
    reader_id: ReaderId,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let of = erase::left(pool, reader_id).await?.unsigned_abs();
    let progress = watch::Sender::new(OperationProgress {
        of,
        ..OperationProgress::default()
    });
    let shown = progress.subscribe();
    let told = |events: i64| {
        progress.send_modify(|progress| {
            progress.at += events.unsigned_abs();
            progress.done = progress.at;
            progress.of = progress.of.max(progress.at);
        });
    };
    let work = erasure::finish(pool, reader_id, stop, told);
    Ok(progress_bar::with("erase", "events", shown, work).await?)
}

/// Why there is nothing to do.
async fn unknown(pool: &PgPool, reader_id: ReaderId) -> anyhow::Error {
    match erase::find(pool, reader_id).await {
        Ok(None) => anyhow::anyhow!("the log holds no session of reader {reader_id}"),
        Ok(Some(erasure)) => anyhow::anyhow!(
            "the log holds no session of reader {reader_id}, who was erased at {}",
            erasure.erased_at.format("%F %TZ")
        ),
        Err(error) => error.into(),
    }
}

/// Asks on a terminal.
fn confirm(reader_id: ReaderId, extent: Extent) -> anyhow::Result<()> {
    let what = format!(
        "{} sessions with {} events of reader {reader_id}",
        count(extent.sessions),
        count(extent.events)
    );
    if !io::stdin().is_terminal() {
        bail!("{what} would be erased for good: say --yes");
    }
    let mut out = io::stderr();
    write!(
        out,
        "{what} will be erased for good. Type `erase` to go on: "
    )?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "erase" {
        bail!("nothing is erased");
    }
    Ok(())
}
