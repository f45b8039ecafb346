//! Sizes of response bodies with and without compression.

use anyhow::{Context, ensure};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use sqlx::{Connection, PgConnection};
use tests::app::token;
use uuid::Uuid;

use crate::report::{Findings, Row, thousands};
use crate::service::RunningService;
use crate::{Bench, Part, fill};

/// Sessions of the reader: three and a half days of five minutes each.
const SESSIONS: i32 = 1_000;

const RESPONSES: [(&str, &str); 7] = [
    (
        "history, 20 sessions",
        "/api/v1/reading-sessions/history?page_size=20",
    ),
    (
        "history, 100 sessions",
        "/api/v1/reading-sessions/history?page_size=100",
    ),
    ("weekly statistics", "/api/v1/reading-sessions/stats/weekly"),
    ("daily statistics", "/api/v1/reading-sessions/stats/daily"),
    (
        "reading patterns",
        "/api/v1/reading-sessions/stats/patterns",
    ),
    ("active session", "/api/v1/reading-sessions/active"),
    ("OpenAPI description", "/openapi.json"),
];

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let service = RunningService::new(bench.servers, Part::Responses).await?;
    bench.print("sizes of responses");
    let reader = Uuid::new_v4();
    let mut database = PgConnection::connect(&service.env.admin_url).await?;
    fill::history(&mut database, reader, SESSIONS).await?;
    database.close().await?;
    service
        .wait_for_projections(std::time::Duration::from_mins(1))
        .await?;
    let started = service.reader(reader).start(Uuid::new_v4()).await;
    ensure!(
        started.status.is_success(),
        "the start failed: {}",
        started.body
    );

    let meter = service.meter()?;
    let mut rows = Vec::new();
    for (what, path) in RESPONSES {
        let url = format!("http://{}{path}", service.http);
        let plain = request(&url, reader, "identity").await?;
        let gzip = request(&url, reader, "gzip").await?;
        let brotli = request(&url, reader, "br").await?;
        rows.push(row(what, &plain, &gzip, &brotli));
    }
    let span = meter.stop();
    service.stop().await?;
    Ok(Findings {
        rows,
        spans: vec![("responses".to_owned(), span)],
        conditions: vec![format!(
            "Response sizes: bytes of the body, without headers, for a reader with {SESSIONS} ended \
             sessions. The request has `Accept-Encoding: br`, `gzip` or `identity`."
        )],
        ..Findings::default()
    })
}

/// The body of a response.
struct Body {
    bytes: u32,
    /// The header `Content-Encoding`.
    encoding: Option<String>,
}

async fn request(url: &str, reader: Uuid, encoding: &str) -> anyhow::Result<Body> {
    let request = tests::reader::client()
        .get(url)
        .bearer_auth(token(reader))
        .header(ACCEPT_ENCODING, encoding);
    let response = request.send().await?.error_for_status()?;
    let encoding = response.headers().get(CONTENT_ENCODING);
    let encoding = encoding.map(|encoding| encoding.to_str().map(str::to_owned));
    Ok(Body {
        encoding: encoding.transpose()?,
        bytes: u32::try_from(response.bytes().await?.len()).context("the body is too large")?,
    })
}

/// The service leaves small responses uncompressed.
fn row(what: &str, plain: &Body, gzip: &Body, brotli: &Body) -> Row {
    let title = format!("{}, {what}", Part::Responses.title());
    let bytes = |body: &Body| format!("{} bytes", thousands(body.bytes));
    let row = match (&gzip.encoding, &brotli.encoding) {
        (Some(_), Some(_)) => {
            Row::new(title, format!("br {}, gzip {}", bytes(brotli), bytes(gzip))).reference(
                format!("uncompressed {}", bytes(plain)),
                f64::from(brotli.bytes) / f64::from(plain.bytes.max(1)),
            )
        }
        _ => Row::new(title, format!("{}, never compressed", bytes(plain))),
    };
    row.limit("content of the response")
}
