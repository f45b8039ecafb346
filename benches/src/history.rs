//! Compares the latency of a page deep in a long history with the first page. Each reader
//! has more than 10,000 sessions within about a month. Deep pages are requested by
//! cursor, as clients do.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tests::app::token;
use uuid::Uuid;

use crate::bars::Bar;
use crate::generator::reader_pool::PooledReader;
use crate::generator::{Response, Script, closed, percentile, scripts};
use crate::report::{Findings, Row};
use crate::service::RunningService;
use crate::{Bench, Part, fill};

/// Sessions of each reader.
const SESSIONS: i32 = 10_100;

const PAGE_SIZE: usize = 20;

/// The number of the deep page.
const DEEP_PAGE: usize = 500;

/// Reads of a page in a row. All reads of a reader stay below 30 calls per minute.
const READS: usize = 6;

/// Alternations between the two pages.
const ALTERNATIONS: usize = 2;

/// Longest time until the projections have processed all sessions.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(2);

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = RunningService::new(bench.servers, Part::History).await?;
    let readers = bench.plan.history_readers;
    bench.print(&format!(
        "filling the history of {readers} readers with {SESSIONS} sessions each"
    ));
    let mut connection = PgConnection::connect(&service.env.admin_url).await?;
    let readers: Vec<Uuid> = (0..readers).map(|_| Uuid::new_v4()).collect();
    for reader in &readers {
        fill::history(&mut connection, *reader, SESSIONS).await?;
    }
    connection.close().await?;
    service.wait_for_projections(CATCH_UP_TIMEOUT).await?;
    service.check_stream_and_history().await?;

    bench.print(&format!("reading pages 1 and {DEEP_PAGE}"));
    let meter = service.meter()?;
    let (mut first, mut deep) = (Vec::new(), Vec::new());
    for id in readers {
        let cursor = cursor(&service, id).await?;
        let reader = PooledReader::new(id, Uuid::nil());
        for _ in 0..ALTERNATIONS {
            let page = format!("history?page_size={PAGE_SIZE}");
            first.extend(read(&service, &reader, &page)?);
            let page = format!("history?page_size={PAGE_SIZE}&cursor={cursor}");
            deep.extend(read(&service, &reader, &page)?);
        }
    }
    let span = meter.stop();
    service.stop().await?;
    first.sort_unstable();
    deep.sort_unstable();
    let [first50, first99] = [50, 99].map(|percent| percentile(&first, percent));
    let [deep50, deep99] = [50, 99].map(|percent| percentile(&deep, percent));
    let ratio = deep50 / first50;
    Ok(Findings {
        rows: vec![
            Row::new(
                format!("history of {SESSIONS} sessions, page {DEEP_PAGE}, median latency"),
                format!("{deep50:.2} ms"),
            )
            .reference(format!("page 1 {first50:.2} ms"), ratio)
            .bar(Bar::History, ratio)
            .limit(span.limit("latency of one connection")),
        ],
        spans: vec![("history: both pages".to_owned(), span)],
        conditions: vec![format!(
            "History: {} readers with {SESSIONS} sessions each, written into the log by SQL and \
             projected by the service. Pages have {PAGE_SIZE} sessions. Page {DEEP_PAGE} is requested \
             with the cursor that page {} returns. One connection sends one request at a time, and the \
             pages alternate, with {} reads of each page. p99: page 1 {first99:.2} ms, page \
             {DEEP_PAGE} {deep99:.2} ms.",
            bench.plan.history_readers,
            DEEP_PAGE - 1,
            first.len(),
        )],
        ..Findings::default()
    })
}

/// The cursor of the deep page, from the numbered page before it. A client would have read
/// all pages in between, but that takes more than a minute under the rate limit.
async fn cursor(service: &RunningService<'_>, reader: Uuid) -> anyhow::Result<String> {
    let url = format!(
        "http://{}/api/v1/reading-sessions/history?page={}&page_size={PAGE_SIZE}",
        service.http,
        DEEP_PAGE - 1
    );
    let request = tests::reader::client().get(url).bearer_auth(token(reader));
    let response = request.send().await?.error_for_status()?;
    let page: Value = response.json().await?;
    ensure!(
        page["total"] == SESSIONS
            && page["sessions"]
                .as_array()
                .is_some_and(|s| s.len() == PAGE_SIZE),
        "the history is incomplete"
    );
    let cursor = page["next_cursor"].as_str();
    Ok(cursor.context("the history is too short")?.to_owned())
}

/// Reads a page [`READS`] times and returns the latencies in microseconds.
fn read(
    service: &RunningService<'_>,
    reader: &PooledReader,
    page: &str,
) -> anyhow::Result<Vec<u32>> {
    let mut request = Vec::new();
    scripts::get(&mut request, reader, page);
    let mut scripts = [Limited {
        request,
        remaining: READS,
    }];
    let load = closed::run(service.http, &mut scripts, 1, Duration::from_mins(1))?;
    ensure!(
        load.successful == READS,
        "{} of {READS} requests succeeded",
        load.successful
    );
    Ok(load.latencies)
}

/// The same request, a limited number of times.
struct Limited {
    request: Vec<u8>,
    remaining: usize,
}

impl Script for Limited {
    fn next(&mut self, _lane: usize) -> Option<&[u8]> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some(&self.request)
    }

    fn is_success(&self, response: &Response<'_>) -> bool {
        response.body.starts_with(b"{\"sessions\":[{")
    }
}
