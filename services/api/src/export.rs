//! Exports all events of a reader's sessions from the log, as JSON or CSV.
//!
//! An export is a stream that reads one page at a time, when its consumer asks
//! for it. It therefore needs the memory of one page, and holds a connection
//! only while it reads a page.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use domain::clock::normalize;
use domain::{ReaderId, Timestamp};
use eventlog::export::{self, PageLimit};
use eventlog::{LogError, Pool, StoredEvent, clock};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

mod csv;
mod json;

pub use json::ExportDocument;

/// The size of a page. Most events have a few hundred bytes, but one with a long locator
/// has several kilobytes.
const PAGE: PageLimit = PageLimit {
    events: 1_000,
    bytes: 512 * 1024,
};

/// Pages that all exports of a process read at the same time. Exports read as
/// fast as Postgres allows, and must leave connections for other requests.
const MAX_CONCURRENT_PAGES: usize = 2;

/// The format of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = Format)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// One object with every event as the log stores it.
    #[default]
    Json,
    /// One row per event (RFC 4180).
    Csv,
}

/// A format that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("unknown export format {0:?}; the formats are json and csv")]
pub struct UnknownExportFormat(String);

impl FromStr for ExportFormat {
    type Err = UnknownExportFormat;

    fn from_str(name: &str) -> Result<Self, UnknownExportFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| UnknownExportFormat(name.to_owned()))
    }
}

impl ExportFormat {
    pub const ALL: [Self; 2] = [Self::Json, Self::Csv];

    /// The name in the query string and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Json => "reading-sessions.json",
            Self::Csv => "reading-sessions.csv",
        }
    }
}

/// Starts exports. Clones are cheap and share the limit of concurrent pages.
#[derive(Clone)]
pub struct Exporter {
    pool: Pool,
    page_permits: Arc<Semaphore>,
}

impl Exporter {
    #[must_use]
    pub fn new(pool: impl Into<Pool>) -> Self {
        Self {
            pool: pool.into(),
            page_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_PAGES)),
        }
    }

    /// The export of a reader, in chunks. An export that fails midway cannot be
    /// mistaken for a complete one: the end of the JSON is missing.
    #[must_use]
    pub fn stream(
        &self,
        reader_id: ReaderId,
        format: ExportFormat,
    ) -> BoxStream<'static, Result<Bytes, LogError>> {
        let export = RunningExport {
            exporter: self.clone(),
            reader_id,
            writer: ExportWriter::new(format, reader_id, normalize(clock::now())),
            last: None,
        };
        stream::try_unfold(Some(export), async |export| match export {
            Some(export) => export.next().await.map(Some),
            None => Ok(None),
        })
        .boxed()
    }

    async fn page(
        &self,
        reader_id: ReaderId,
        last: Option<&(String, i64)>,
    ) -> Result<Vec<StoredEvent>, LogError> {
        let _permit = self
            .page_permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let last = last.map(|(session_id, sequence)| (session_id.as_str(), *sequence));
        export::after(&self.pool, reader_id, last, PAGE).await
    }
}

struct RunningExport {
    exporter: Exporter,
    reader_id: ReaderId,
    writer: ExportWriter,
    /// The session id and the sequence of the last exported event; `None` before
    /// the first page.
    last: Option<(String, i64)>,
}

impl RunningExport {
    /// Returns the next chunk, and `None` with the last one.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), LogError> {
        let events = self
            .exporter
            .page(self.reader_id, self.last.as_ref())
            .await?;
        let mut chunk = String::new();
        if self.last.is_none() {
            self.writer.begin(&mut chunk);
        }
        for event in &events {
            self.writer.add(&mut chunk, event);
        }
        if let Some(last) = events.into_iter().next_back() {
            self.last = Some((last.session_id, last.sequence));
            Ok((chunk.into(), Some(self)))
        } else {
            self.writer.end(&mut chunk);
            Ok((chunk.into(), None))
        }
    }
}

enum ExportWriter {
    Json(json::JsonWriter),
    Csv,
}

impl ExportWriter {
    fn new(format: ExportFormat, reader_id: ReaderId, exported_at: Timestamp) -> Self {
        match format {
            ExportFormat::Json => Self::Json(json::JsonWriter::new(reader_id, exported_at)),
            ExportFormat::Csv => Self::Csv,
        }
    }

    fn begin(&self, text: &mut String) {
        match self {
            Self::Json(writer) => writer.begin(text),
            Self::Csv => csv::write_header(text),
        }
    }

    fn add(&mut self, text: &mut String, event: &StoredEvent) {
        match self {
            Self::Json(writer) => writer.add(text, event),
            Self::Csv => csv::write_row(text, event),
        }
    }

    fn end(&self, text: &mut String) {
        match self {
            Self::Json(writer) => writer.end(text),
            Self::Csv => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_parses_from_its_name() {
        for format in ExportFormat::ALL {
            assert_eq!(format.as_str().parse::<ExportFormat>().unwrap(), format);
        }
        let error = "xml".parse::<ExportFormat>().unwrap_err().to_string();
        for format in ExportFormat::ALL {
            assert!(error.contains(format.as_str()), "{error}");
        }
    }
}
