//! `reading-sessions events`: the log as it is written, and one session of it.
//! Reads Postgres alone, in order; changes nothing.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use domain::{SessionId, Timestamp};
use eventlog::deadline::with_deadline;
use eventlog::{LogError, Stored, read};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sqlx::PgPool;

use super::token::duration;
use crate::config::DatabaseArgs;
use eventlog::clock;

use crate::{app, connect};

mod filter;
mod line;

use filter::Filter;

/// Events read at once.
const CHUNK: i64 = 1_000;

/// How often the log is asked for new events.
const POLL: Duration = Duration::from_millis(500);

/// How long Postgres may take to answer; somewhat longer than a statement may
/// take there.
const DEADLINE: Duration = Duration::from_secs(35);

/// What to look at.
#[derive(Subcommand, Clone, Debug)]
pub enum EventsCommand {
    /// Print events as they are written.
    #[command(after_help = "Ctrl-C ends it.

Examples:
  reading-sessions events tail
  reading-sessions events tail --since 2h --event started --event ended
  reading-sessions events tail --from-position 1 --until-end -o json > events.jsonl")]
    Tail(TailArgs),
    /// Print the events of one session.
    #[command(after_help = "Examples:
  reading-sessions events show 0193e5a0-0000-7000-8000-000000000001
  reading-sessions events show 0193e5a0-0000-7000-8000-000000000001 -o json")]
    Show(ShowArgs),
}

/// What `tail` takes.
#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    filter: Filter,
    /// Begin with the event at this place in the log. By default at its end.
    #[arg(long, group = "begin", value_parser = clap::value_parser!(i64).range(0..))]
    from_position: Option<i64>,
    /// Begin with what was written since then: a time (RFC 3339), or how long
    /// ago, a number and s, m, h or d, at most 365d.
    #[arg(long, group = "begin", value_parser = since)]
    since: Option<Timestamp>,
    /// Stop at the end that the log has now.
    #[arg(long, requires = "begin")]
    until_end: bool,
    #[command(flatten)]
    printing: Printing,
}

/// What `show` takes.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The session's id.
    #[arg(value_name = "UUID")]
    session: SessionId,
    #[command(flatten)]
    printing: Printing,
}

#[derive(Args, Clone, Debug)]
struct Printing {
    /// How to print: a line for people, or the JSON that is published.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// How an event is printed, on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Prints events until it has come to the end that was asked for, it is told to
/// stop, or nobody reads any more.
///
/// # Errors
/// When the log cannot be read, or the session is not in it.
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
    match printed {
        // A reader that went away, as `head` does, is no error.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        printed => printed,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn tail(args: &TailArgs) -> anyhow::Result<()> {
    let pool = connect::operator_pool(&args.printing.database)?;
    let end = with_deadline(DEADLINE, read::head(&pool)).await?;
    let begin = match (args.from_position, args.since) {
        (Some(position), _) => with_deadline(DEADLINE, read::before(&pool, position)).await?,
        (None, Some(time)) => with_deadline(DEADLINE, read::before_time(&pool, time)).await?,
        (None, None) => end,
    };
    let mut previous = begin;
    loop {
        let events = with_deadline(DEADLINE, read::after(&pool, previous, CHUNK)).await?;
        let came = !events.is_empty();
        let mut lines = String::new();
        for event in &events {
            if args.until_end && event.global_position > end {
                break;
            }
            if args.filter.lets_through(event) {
                lines += &line(args.printing.output, event, previous);
            }
            previous = event.global_position;
        }
        print(&lines)?;
        if args.until_end && previous >= end {
            return Ok(());
        }
        if !came {
            if nobody_reads() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let pool = connect::operator_pool(&args.printing.database)?;
    let events = with_deadline(DEADLINE, read::session(&pool, args.session, 0)).await?;
    if events.is_empty() {
        bail!("the log holds no session {}", args.session);
    }
    for event in &events {
        let previous = previous(&pool, event, args.printing.output).await?;
        print(&line(args.printing.output, event, previous))?;
    }
    Ok(())
}

/// The place of the event before this one, where it is printed.
async fn previous(pool: &PgPool, event: &Stored, format: Format) -> Result<i64, LogError> {
    match format {
        Format::Text => Ok(0),
        Format::Json => with_deadline(DEADLINE, read::before(pool, event.global_position)).await,
    }
}

fn line(format: Format, event: &Stored, previous: i64) -> String {
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

/// Whether the other end of the pipe is closed: a log that is quiet has nothing
/// to write, and would never find out.
fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec::default();
    poll(&mut polled, Some(&at_once)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    match duration(text) {
        Ok(ago) => Ok(clock::now() - ago),
        Err(error) => Err(format!("a time, as 2026-03-01T20:00:00Z, or {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let time = since("2026-03-01T21:00:00+01:00").unwrap();
        assert_eq!(time, since("2026-03-01T20:00:00Z").unwrap());
        let then = since("10m").unwrap();
        let ago = clock::now() - then;
        assert!((600..610).contains(&ago.num_seconds()), "{ago}");
        for refused in ["", "yesterday", "10", "2026-03-01"] {
            assert!(since(refused).is_err(), "{refused}");
        }
    }
}
