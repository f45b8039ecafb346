//! Counts finished sessions and their minutes, by book, from the stream
//! `READING`.
//!
//! A durable consumer remembers how far this program has come, and a journal
//! what it has counted, a line an event. An event is acknowledged once its line
//! is on disk, and passed over when its id is in the journal. Killed at any
//! moment, it goes on where it was.

mod event;
mod journal;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::{ConnectOptions, ServerAddr};
use clap::Parser;
use futures::StreamExt;

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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut journal = Journal::open(&arguments.state).context("the state cannot be read")?;
    let mut consumer = consumer(&arguments).await?;
    loop {
        let mut fetched = consumer
            .fetch()
            .max_messages(BATCH)
            .expires(PATIENCE)
            .messages()
            .await?;
        let mut messages = Vec::with_capacity(BATCH);
        while let Some(message) = fetched.next().await {
            messages.push(message.map_err(anyhow::Error::from_boxed)?);
        }
        if messages.is_empty() {
            let state = consumer.info().await?;
            if arguments.until_end && state.num_pending == 0 && state.num_ack_pending == 0 {
                return show(journal.books());
            }
            continue;
        }
        let events = messages.iter().map(|message| Ended::read(&message.payload));
        let changed = journal.count(events.collect::<Result<_, _>>()?)?;
        for message in &messages {
            message.ack().await.map_err(anyhow::Error::from_boxed)?;
        }
        if !arguments.until_end {
            show(journal.books().filter(|(book, _)| changed.contains(book)))?;
        }
    }
}

async fn consumer(arguments: &Arguments) -> anyhow::Result<PullConsumer> {
    let address = &arguments.nats_url;
    // The client does not take credentials from the address by itself.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    let client = options
        // Where a user of its own may listen; see nats/server.conf.
        .custom_inbox_prefix("_INBOX_analytics")
        .connect(address.clone())
        .await?;
    let stream = jetstream::new(client).get_stream(STREAM).await?;
    let config = Config {
        durable_name: Some(arguments.durable.clone()),
        filter_subject: SUBJECTS.to_owned(),
        ack_wait: ACK_WAIT,
        ..Config::default()
    };
    Ok(stream
        .get_or_create_consumer(&arguments.durable, config)
        .await?)
}

/// Prints a line of JSON for each book.
fn show<'a>(
    books: impl Iterator<Item = (&'a uuid::Uuid, &'a journal::Count)>,
) -> anyhow::Result<()> {
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
