//! `reading-sessions events`: prints events of the log. Reads only from Postgres
//! and changes nothing.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use domain::{SessionId, Timestamp};
use eventlog::clock;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::{LogError, StoredEvent, read};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sqlx::PgPool;

use super::names::uuid;
use super::output::ignore_broken_pipe;
use super::token::parse_duration;
use crate::config::DatabaseArgs;
use crate::{app, connect};

mod filter;
mod line;

use filter::Filter;

const BATCH_SIZE: i64 = 1_000;

const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Subcommand, Clone, Debug)]
pub enum EventsCommand {
    /// Print events as they are appended, until Ctrl-C.
    #[command(
        after_help = "Columns: global position, time of the observation, event, session. Events are in
the order of the log, and --since filters by the time of appending.

Exit codes: 0 stopped or at the end, 1 failed, 2 wrong arguments.

Examples:
  reading-sessions events tail
  reading-sessions events tail --since 2h --event started --event ended
  reading-sessions events tail --from-position 1 --until-end -o json > events.jsonl"
    )]
    Tail(TailArgs),
    /// Print the events of one session.
    #[command(
        after_help = "Exit codes: 0 done, 1 failed or no such session, 2 wrong arguments.

Examples:
  reading-sessions events show 0193e5a0-6d1c-7c3a-9a51-0e6c5e1f7a10
  reading-sessions events show 0193e5a0-6d1c-7c3a-9a51-0e6c5e1f7a10 -o json"
    )]
    Show(ShowArgs),
}

#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    filter: Filter,
    /// Start with the event at this global position [default: the end of the
    /// log].
    #[arg(long, value_name = "POSITION", group = "start", value_parser = clap::value_parser!(i64).range(0..))]
    from_position: Option<i64>,
    /// Start with events appended since a time (RFC 3339) or for a duration, for
    /// example `10m`.
    ///
    /// A duration is a number and s, m, h or d, at most 365d.
    #[arg(long, value_name = "TIME", group = "start", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Stop at the current end of the log.
    #[arg(long, requires = "start")]
    until_end: bool,
    #[command(flatten)]
    printing: PrintArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// Id of the session.
    #[arg(value_name = "UUID", value_parser = uuid::<SessionId>)]
    session: SessionId,
    #[command(flatten)]
    printing: PrintArgs,
}

#[derive(Args, Clone, Debug)]
struct PrintArgs {
    /// Output format, one event a line.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people.
    Text,
    /// The event as it is published to NATS.
    Json,
}

pub async fn run(command: &EventsCommand) -> anyhow::Result<()> {
    let stopped = app::stop_signal()?;
    let print = async {
        match command {
            EventsCommand::Tail(args) => tail(args).await,
            EventsCommand::Show(args) => show(args).await,
        }
    };
    let printed = tokio::select! {
        () = stopped => Ok(()),
        printed = print => printed,
    };
    ignore_broken_pipe(printed)
}

async fn tail(args: &TailArgs) -> anyhow::Result<()> {
    connect::check_postgres(&args.printing.database).await?;
    let pool = connect::admin_pool(&args.printing.database)?;
    let end = with_deadline(STATEMENT_DEADLINE, read::head(&pool)).await?;
    let mut previous = match (args.from_position, args.since) {
        (Some(global_position), _) => {
            with_deadline(STATEMENT_DEADLINE, read::before(&pool, global_position)).await?
        }
        (None, Some(time)) => {
            with_deadline(STATEMENT_DEADLINE, read::before_time(&pool, time)).await?
        }
        (None, None) => end,
    };
    loop {
        let batch = read::after(&pool, previous, BATCH_SIZE);
        let events = with_deadline(STATEMENT_DEADLINE, batch).await?;
        let mut lines = String::new();
        for event in &events {
            if args.until_end && event.global_position > end {
                break;
            }
            if args.filter.matches(event) {
                lines += &line(args.printing.output, event, previous);
            }
            previous = event.global_position;
        }
        print(&lines)?;
        if args.until_end && previous >= end {
            return Ok(());
        }
        if events.is_empty() {
            if is_stdout_closed() {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    connect::check_postgres(&args.printing.database).await?;
    let pool = connect::admin_pool(&args.printing.database)?;
    let events = read::session(&pool, args.session, 0);
    let events = with_deadline(STATEMENT_DEADLINE, events).await?;
    if events.is_empty() {
        bail!("the log contains no session {}", args.session);
    }
    for event in &events {
        let previous = previous(&pool, event, args.printing.output).await?;
        print(&line(args.printing.output, event, previous))?;
    }
    Ok(())
}

/// The global position of the event before this one. Only JSON contains it.
async fn previous(pool: &PgPool, event: &StoredEvent, format: Format) -> Result<i64, LogError> {
    match format {
        Format::Text => Ok(0),
        Format::Json => {
            let before = read::before(pool, event.global_position);
            with_deadline(STATEMENT_DEADLINE, before).await
        }
    }
}

fn line(format: Format, event: &StoredEvent, previous: i64) -> String {
    let mut line = match format {
        Format::Text => line::text(event),
        Format::Json => line::json(event, previous),
    };
    line.push('\n');
    line
}

fn print(lines: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    out.flush()
}

/// Whether the other end of the pipe is closed. Without new events nothing is
/// written, so no write would fail.
fn is_stdout_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let immediately = Timespec::default();
    poll(&mut polled, Some(&immediately)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    parse_duration(text)
        .map(|ago| clock::now() - ago)
        .map_err(|_| {
            "expected a time, for example 2026-03-01T20:00:00Z, or a duration up to 365d, for \
             example 90m"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_duration() {
        let time = parse_since("2026-03-01T21:00:00+01:00").unwrap();
        assert_eq!(time, parse_since("2026-03-01T20:00:00Z").unwrap());
        let then = parse_since("10m").unwrap();
        let ago = clock::now() - then;
        assert!((600..610).contains(&ago.num_seconds()), "{ago}");
        for invalid in ["", "yesterday", "10", "2026-03-01"] {
            assert!(parse_since(invalid).is_err(), "{invalid}");
        }
    }
}
