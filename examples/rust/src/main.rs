//! Counts ended sessions and their minutes, by book, from the stream `READING`.
//!
//! The events of a session contain its state in absolute values, and any of them can
//! change it: observations arrive late, an ended session can continue, and a reader can
//! correct an end. Therefore the program keeps one record for each session. An event with
//! a higher sequence overwrites the record, and the totals are sums of records.
//!
//! A durable consumer stores the read position, and a journal the records. The program
//! acknowledges an event once its record is on disk. After a crash at any moment, the
//! program resumes. While NATS is unavailable, it retries. If NATS loses its disk, the
//! program creates its consumer again, receives all events once more, and skips the
//! sequences that it knows.

mod event;
mod journal;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::{self, Message};
use async_nats::{Client, ConnectError, ConnectOptions, ServerAddr};
use clap::Parser;
use futures::StreamExt;
use uuid::Uuid;

use event::Event;
use journal::Journal;

const STREAM: &str = "READING";
const SUBJECTS: &str = "reading.sessions.>";

/// Events that are fetched, recorded and acknowledged together.
const BATCH_SIZE: usize = 200;

/// The time until NATS redelivers an event that was not acknowledged.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// How long a fetch waits for its first event.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);

/// The delay between an error and the next attempt.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Counts ended sessions and their minutes, by book.
#[derive(Parser)]
struct Arguments {
    /// Address of NATS, for example `nats://analytics:password@127.0.0.1:4222`.
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: ServerAddr,
    /// Journal file with a record for each session.
    #[arg(long, default_value = "sessions.journal")]
    state: PathBuf,
    /// Name of the durable consumer.
    #[arg(long, default_value = "sessions-rust")]
    durable: String,
    /// Exit at the end of the stream.
    #[arg(long)]
    until_end: bool,
}

/// Why counting stops.
enum Stop {
    /// NATS is unavailable, or it lost the stream, which the service restores; retry.
    Nats(async_nats::Error),
    /// An event could not be decoded or written; exit.
    Record(anyhow::Error),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Nats(error.into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut journal = Journal::open(&arguments.state).context("reading the journal failed")?;
    let jetstream = jetstream::new(connect(&arguments.nats_url).await?);
    loop {
        match follow(&jetstream, &arguments, &mut journal).await {
            Ok(()) => return print(journal.books()),
            Err(Stop::Record(error)) => return Err(error),
            Err(Stop::Nats(error)) => eprintln!("NATS request failed: {error}; retrying"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Records events until NATS fails or, with `--until-end`, to the end of the stream.
async fn follow(
    jetstream: &jetstream::Context,
    arguments: &Arguments,
    journal: &mut Journal,
) -> Result<(), Stop> {
    let mut consumer = consumer(jetstream, &arguments.durable)
        .await
        .map_err(Stop::Nats)?;
    loop {
        let mut fetched = consumer
            .fetch()
            .max_messages(BATCH_SIZE)
            .expires(FETCH_TIMEOUT)
            .messages()
            .await?;
        let mut messages = Vec::with_capacity(BATCH_SIZE);
        while let Some(message) = fetched.next().await {
            messages.push(message.map_err(Stop::Nats)?);
        }
        if messages.is_empty() {
            let state = consumer.info().await?;
            if arguments.until_end && state.num_pending == 0 && state.num_ack_pending == 0 {
                return Ok(());
            }
            continue;
        }
        let changed = record(journal, &messages).map_err(Stop::Record)?;
        for message in &messages {
            message.ack().await.map_err(Stop::Nats)?;
        }
        if !arguments.until_end {
            let books = journal.books().filter(|(book, _)| changed.contains(book));
            print(books).map_err(Stop::Record)?;
        }
    }
}

fn record(journal: &mut Journal, messages: &[Message]) -> anyhow::Result<BTreeSet<Uuid>> {
    let events = messages
        .iter()
        .map(|message| Event::decode(&message.payload));
    journal.record(events.collect::<Result<_, _>>()?)
}

/// Returns the durable consumer and creates it if it does not exist.
async fn consumer(
    jetstream: &jetstream::Context,
    name: &str,
) -> Result<PullConsumer, async_nats::Error> {
    let config = Config {
        durable_name: Some(name.to_owned()),
        filter_subject: SUBJECTS.to_owned(),
        ack_wait: ACK_WAIT,
        ..Config::default()
    };
    let stream = jetstream.get_stream(STREAM).await?;
    Ok(stream.get_or_create_consumer(name, config).await?)
}

async fn connect(address: &ServerAddr) -> Result<Client, ConnectError> {
    // The client does not read credentials from the address itself.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    options
        // The inbox prefix of the user `analytics`; see nats/server.conf.
        .custom_inbox_prefix("_INBOX_analytics")
        .retry_on_initial_connect()
        .connect(address.clone())
        .await
}

/// Prints one line of JSON for each book.
fn print<'a>(books: impl Iterator<Item = (&'a Uuid, &'a journal::Totals)>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (book_id, totals) in books {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 milliseconds")]
        let minutes = totals.ms as f64 / 60_000.0;
        let line = serde_json::json!({
            "book_id": book_id, "sessions": totals.sessions, "minutes": minutes,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}
