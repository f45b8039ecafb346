//! Whether a page deep in a long history costs more than the first one. Each
//! reader has read for a month, more than ten thousand times; deep pages are
//! asked for by cursor, as clients do.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use sqlx::Connection;
use sqlx::PgConnection;
use tests::app::token;
use uuid::Uuid;

use crate::generator::crowd::Member;
use crate::generator::{Answer, Script, closed, percentile, scripts};
use crate::report::{Findings, Row};
use crate::service::Running;
use crate::{Bench, Part, fill};

/// The bar: the deep page over the first.
const BAR: f64 = 1.2;

/// Sessions of each reader, and the pages they come to.
const SESSIONS: i32 = 10_100;
const SIZE: usize = 20;
const DEEP: usize = 500;

/// Reads of each page in a row, and how often the pages take turns. A reader may
/// make 30 calls a minute.
const READS: usize = 6;
const TURNS: usize = 2;

/// How long the projections may take with all these sessions.
const CATCH_UP: Duration = Duration::from_mins(2);

/// Measures both pages.
pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = Running::new(bench.servers, Part::History).await?;
    let readers = bench.plan.history_readers;
    bench.say(&format!(
        "{readers} readers get a history of {SESSIONS} sessions each"
    ));
    let mut connection = PgConnection::connect(&service.env.database_url).await?;
    let readers: Vec<Uuid> = (0..readers).map(|_| Uuid::new_v4()).collect();
    for reader in &readers {
        fill::history(&mut connection, *reader, SESSIONS).await?;
    }
    connection.close().await?;
    service.caught_up(CATCH_UP).await?;
    service.everywhere().await?;

    bench.say(&format!("their pages 1 and {DEEP} are read"));
    let (mut first, mut deep) = (Vec::new(), Vec::new());
    for reader in readers {
        let cursor = cursor(&service, reader).await?;
        let member = Member::of(reader, Uuid::nil());
        for _ in 0..TURNS {
            let page = format!("history?page_size={SIZE}");
            first.extend(read(&service, &member, &page)?);
            let page = format!("history?page_size={SIZE}&cursor={cursor}");
            deep.extend(read(&service, &member, &page)?);
        }
    }
    service.stop().await?;
    first.sort_unstable();
    deep.sort_unstable();
    let [first50, first99] = [50, 99].map(|percent| percentile(&first, percent));
    let [deep50, deep99] = [50, 99].map(|percent| percentile(&deep, percent));
    let ratio = deep50 / first50;
    Ok(Findings {
        rows: vec![
            Row::new(
                format!("history of {SESSIONS} sessions, page {DEEP}, median latency"),
                format!("{deep50:.2} ms"),
            )
            .beside(format!("page 1 {first50:.2} ms"), ratio)
            .at_most(ratio, BAR, ""),
        ],
        conditions: vec![format!(
            "The history: {} readers with {SESSIONS} sessions each, written into the log and \
             projected by the service; pages of {SIZE}, page {DEEP} by the cursor that page {} gives; \
             one connection, one request at a time, in turns; {} reads of each page. p99: page 1 \
             {first99:.2} ms, page {DEEP} {deep99:.2} ms.",
            bench.plan.history_readers,
            DEEP - 1,
            first.len(),
        )],
        ..Findings::default()
    })
}

/// The cursor of the deep page. The page before it is found by its number: a
/// client would have read all the pages before, which takes longer than a minute
/// under the rate limit.
async fn cursor(service: &Running<'_>, reader: Uuid) -> anyhow::Result<String> {
    let url = format!(
        "http://{}/api/v1/reading-sessions/history?page={}&page_size={SIZE}",
        service.http,
        DEEP - 1
    );
    let call = tests::reader::client().get(url).bearer_auth(token(reader));
    let answer = call.send().await?.error_for_status()?;
    let page: Value = answer.json().await?;
    ensure!(
        page["total"] == SESSIONS && page["sessions"].as_array().is_some_and(|s| s.len() == SIZE),
        "the history is not whole"
    );
    let cursor = page["next_cursor"].as_str();
    Ok(cursor.context("the history is too short")?.to_owned())
}

/// Reads a page a few times; returns the latencies in microseconds.
fn read(service: &Running<'_>, member: &Member, page: &str) -> anyhow::Result<Vec<u32>> {
    let mut request = Vec::new();
    scripts::get(&mut request, member, page);
    let mut scripts = [Few {
        request,
        left: READS,
    }];
    let load = closed::run(service.http, &mut scripts, 1, Duration::from_mins(1))?;
    ensure!(
        load.good == READS,
        "{} of {READS} pages were answered",
        load.good
    );
    Ok(load.latencies)
}

/// The same page, a few times.
struct Few {
    request: Vec<u8>,
    left: usize,
}

impl Script for Few {
    fn next(&mut self, _lane: usize) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(&self.request)
    }

    fn is_good(&self, answer: &Answer<'_>) -> bool {
        answer.body.starts_with(b"{\"sessions\":[{")
    }
}
