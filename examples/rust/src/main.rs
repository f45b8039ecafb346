//! Counts finished sessions and their minutes, by book, from the stream
//! `READING`.
//!
//! A durable consumer remembers how far this program has come, and a journal
//! what it has counted, a line an event. An event is acknowledged once its line
//! is on disk, and passed over when its id is in the journal. Killed at any
//! moment, it goes on where it was, and it waits for a NATS that is away. One
//! that lost its disk has lost the consumer too: it is made again, and all
//! events come once more.

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

use event::Ended;
use journal::Journal;

const STREAM: &str = "READING";
const SUBJECTS: &str = "reading.sessions.ended.*";

/// Events taken, counted and acknowledged together.
const BATCH: usize = 50;

/// How long after its delivery an event that was not acknowledged comes again.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// How long a request for events waits for the first.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long NATS is left alone after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts finished sessions and their minutes, by book.
#[derive(Parser)]
struct Arguments {
    /// NATS, for example `nats://analytics:password@127.0.0.1:4222`.
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: ServerAddr,
    /// Where the counts are kept.
    #[arg(long, default_value = "minutes.journal")]
    state: PathBuf,
    /// The consumer's name.
    #[arg(long, default_value = "minutes-rust")]
    durable: String,
    /// Stop at the stream's end.
    #[arg(long)]
    until_end: bool,
}

/// Why counting stops.
enum Stop {
    /// NATS is away, or it lost the stream, which the service makes again.
    Nats(async_nats::Error),
    /// An event was not understood, or not written.
    Count(anyhow::Error),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Nats(error.into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut journal = Journal::open(&arguments.state).context("the state cannot be read")?;
    let jetstream = jetstream::new(connect(&arguments.nats_url).await?);
    loop {
        match follow(&jetstream, &arguments, &mut journal).await {
            Ok(()) => return show(journal.books()),
            Err(Stop::Count(error)) => return Err(error),
            Err(Stop::Nats(error)) => eprintln!("NATS: {error}; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Counts until NATS fails, or to the stream's end if that is wanted.
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
            .max_messages(BATCH)
            .expires(PATIENCE)
            .messages()
            .await?;
        let mut messages = Vec::with_capacity(BATCH);
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
        let changed = count(journal, &messages).map_err(Stop::Count)?;
        for message in &messages {
            message.ack().await.map_err(Stop::Nats)?;
        }
        if !arguments.until_end {
            let books = journal.books().filter(|(book, _)| changed.contains(book));
            show(books).map_err(Stop::Count)?;
        }
    }
}

fn count(journal: &mut Journal, messages: &[Message]) -> anyhow::Result<BTreeSet<Uuid>> {
    let events = messages.iter().map(|message| Ended::read(&message.payload));
    journal.count(events.collect::<Result<_, _>>()?)
}

/// The durable consumer; made unless there is one.
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
    // The client does not take credentials from the address by itself.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    options
        // Where a user of its own may listen; see nats/server.conf.
        .custom_inbox_prefix("_INBOX_analytics")
        .retry_on_initial_connect()
        .connect(address.clone())
        .await
}

/// Prints a line of JSON for each book.
fn show<'a>(books: impl Iterator<Item = (&'a Uuid, &'a journal::Count)>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (book_id, count) in books {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 milliseconds")]
        let minutes = count.ms as f64 / 60_000.0;
        let line = serde_json::json!({
            "book_id": book_id, "sessions": count.sessions, "minutes": minutes,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}
