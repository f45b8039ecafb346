//! A reader's data, as it is handed out: all events of all sessions, from the
//! log, as JSON or CSV. It is read as fast as it is taken, a page at a time, so
//! it takes the memory of a page, and a connection only while a page is read.

use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;
use domain::{ReaderId, Timestamp};
use eventlog::{LogError, Pool, Stored, export};
use futures::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use eventlog::clock;

mod csv;
mod json;

pub use json::Export as Json;

/// Events in a page: a few hundred kilobytes.
const PAGE: i64 = 1_000;

/// Pages that are read at the same time: exports are as fast as the log is
/// read, and must leave connections to others.
const AT_ONCE: usize = 2;

/// How data is handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One object with all there is, the events as the log holds them.
    #[default]
    Json,
    /// A row an event (RFC 4180).
    Csv,
}

impl Format {
    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// The name of a file with it.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Json => "reading-sessions.json",
            Self::Csv => "reading-sessions.csv",
        }
    }
}

/// Hands out readers' data; cheap to clone.
#[derive(Clone)]
pub struct Exports {
    pool: Pool,
    places: Arc<Semaphore>,
}

impl Exports {
    /// Reads by `pool`.
    #[must_use]
    pub fn new(pool: impl Into<Pool>) -> Self {
        Self {
            pool: pool.into(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// All of a reader, in chunks. What comes to an error is not whole, and
    /// does not read as if it were: the end of the JSON is missing.
    pub fn of(
        &self,
        reader_id: ReaderId,
        format: Format,
    ) -> impl Stream<Item = Result<Bytes, LogError>> + Send + use<> {
        let export = Export {
            exports: self.clone(),
            reader_id,
            text: Text::new(format, reader_id, clock::now()),
            last: None,
        };
        stream::try_unfold(Some(export), async |export| match export {
            Some(export) => export.next().await.map(Some),
            None => Ok(None),
        })
    }

    async fn page(
        &self,
        reader_id: ReaderId,
        last: Option<&(String, i64)>,
    ) -> Result<Vec<Stored>, LogError> {
        let _place = self
            .places
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let last = last.map(|(session_id, sequence)| (session_id.as_str(), *sequence));
        export::after(&self.pool, reader_id, last, PAGE).await
    }
}

/// What is under way.
struct Export {
    exports: Exports,
    reader_id: ReaderId,
    text: Text,
    /// The last event handed out: its session and its sequence.
    last: Option<(String, i64)>,
}

impl Export {
    /// The next chunk, and what comes after it.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), LogError> {
        let events = self
            .exports
            .page(self.reader_id, self.last.as_ref())
            .await?;
        let mut chunk = String::new();
        if self.last.is_none() {
            self.text.begin(&mut chunk);
        }
        for event in &events {
            self.text.add(&mut chunk, event);
        }
        if let Some(last) = events.into_iter().next_back() {
            self.last = Some((last.session_id, last.sequence));
            Ok((chunk.into(), Some(self)))
        } else {
            self.text.end(&mut chunk);
            Ok((chunk.into(), None))
        }
    }
}

/// A text that is being written.
enum Text {
    Json(json::Writer),
    Csv,
}

impl Text {
    fn new(format: Format, reader_id: ReaderId, exported_at: Timestamp) -> Self {
        match format {
            Format::Json => Self::Json(json::Writer::new(reader_id, exported_at)),
            Format::Csv => Self::Csv,
        }
    }

    fn begin(&self, text: &mut String) {
        match self {
            Self::Json(writer) => writer.begin(text),
            Self::Csv => csv::head(text),
        }
    }

    fn add(&mut self, text: &mut String, event: &Stored) {
        match self {
            Self::Json(writer) => writer.add(text, event),
            Self::Csv => csv::row(text, event),
        }
    }

    fn end(&self, text: &mut String) {
        match self {
            Self::Json(writer) => writer.end(text),
            Self::Csv => {}
        }
    }
}
