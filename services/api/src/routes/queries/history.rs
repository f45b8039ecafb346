//! `GET /reading-sessions/history`

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::{BookId, ReaderId, SessionId, Timestamp};
use projections::history::{self, HistoryPage, PageCursor, PageQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ReadTable;
use super::metrics::QueryName;
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::{Problem, ProblemCode};
use crate::session::SessionResponse;

const DEFAULT_PAGE_SIZE: i64 = 20;
const MAX_PAGE_SIZE: i64 = 100;

/// The limit of page numbers: the cost of a numbered page grows with the rows
/// before it.
const MAX_PAGE: i64 = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// The number of sessions per page. `limit` is an alias.
    #[serde(alias = "limit")]
    #[param(minimum = 1, maximum = 100, default = 20)]
    page_size: Option<i64>,
    /// The number of the page, for old clients. Ignored if there is a `cursor`.
    #[param(minimum = 1, maximum = 1000)]
    page: Option<i64>,
    /// Return the sessions of this book only.
    #[param(format = Uuid)]
    book_id: Option<String>,
    /// Wait until the response includes this `X-Global-Position`.
    #[param(minimum = 0)]
    min_position: Option<i64>,
}

/// A page of the history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
pub struct HistoryResponse {
    /// Newest first.
    sessions: Vec<SessionResponse>,
    /// The number of sessions on all pages.
    total: i64,
    /// The `page` of the request. Null if there was none, or a `cursor`.
    #[schema(required)]
    page: Option<i64>,
    page_size: i64,
    has_next: bool,
    /// The `cursor` of the next page. Null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List the reading history
///
/// Returns the reader's sessions, newest first, including the active one. Follow
/// `next_cursor`, or the header `Link`, to read all pages. Pages by cursor never
/// repeat a session, even if the reader starts new ones in between.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/history",
    operation_id = "history",
    tag = "queries",
    params(Params),
    responses((status = 200, description = "A page of the history", body = HistoryResponse))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let request = PageRequest::new(&params, caller.reader_id)?;
    let PageRequest {
        page,
        size,
        book_id,
        ..
    } = request;
    let HistoryPage { entries, total } = table
        .read(
            QueryName::History,
            caller.reader_id,
            params.min_position,
            |mut database| async move {
                history::page(
                    &mut *database,
                    caller.reader_id,
                    book_id,
                    request.to_query(),
                )
                .await
            },
        )
        .await?;
    let shown = usize::try_from(size).expect("at most 100");
    let has_next = entries.len() > shown;
    let next_cursor = entries[..entries.len().min(shown)]
        .last()
        .filter(|_| has_next)
        .map(|last| {
            let bound = PageCursor {
                started_at: last.session.start.started_at,
                session_id: last.session_id,
            };
            encode(bound, caller.reader_id, book_id)
        });
    let body = HistoryResponse {
        sessions: entries
            .iter()
            .take(shown)
            .map(|entry| SessionResponse::new(entry.session_id, entry.version, &entry.session))
            .collect(),
        total,
        page,
        page_size: size,
        has_next,
        next_cursor,
    };
    let link = request.next_link(uri.path(), &body);
    let mut response = Json(body).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The validated parameters.
#[derive(Clone, Copy)]
struct PageRequest {
    after: Option<PageCursor>,
    page: Option<i64>,
    size: i64,
    book_id: Option<BookId>,
}

impl PageRequest {
    fn new(params: &Params, reader_id: ReaderId) -> Result<Self, Problem> {
        let book_id = params.book_id.as_deref().map(book_id).transpose()?;
        let after = params
            .cursor
            .as_deref()
            .map(|cursor| decode(cursor, reader_id, book_id))
            .transpose()?;
        let size = params.page_size.unwrap_or(DEFAULT_PAGE_SIZE);
        let page = params.page.filter(|_| after.is_none());
        if !(1..=MAX_PAGE_SIZE).contains(&size) {
            return Err(Problem::out_of_range("page_size", 1, MAX_PAGE_SIZE));
        }
        if params
            .page
            .is_some_and(|page| !(1..=MAX_PAGE).contains(&page))
        {
            let message = format!("must be from 1 to {MAX_PAGE}; use a cursor for later pages");
            return Err(Problem::invalid("page", message));
        }
        Ok(Self {
            after,
            page,
            size,
            book_id,
        })
    }

    /// Requests one session more than the page has, which shows whether there is
    /// a next page.
    fn to_query(self) -> PageQuery {
        PageQuery {
            after: self.after,
            skip: self.page.map_or(0, |page| (page - 1) * self.size),
            limit: self.size + 1,
        }
    }

    /// The header `Link` (RFC 8288): by page number if the request has one,
    /// otherwise by cursor. `None` on the last page.
    fn next_link(self, path: &str, body: &HistoryResponse) -> Option<HeaderValue> {
        let cursor = body.next_cursor.as_deref()?;
        let mut link = match self.page {
            Some(page) if page < MAX_PAGE => format!("<{path}?page={}", page + 1),
            _ => format!("<{path}?cursor={cursor}"),
        };
        let _ = write!(link, "&page_size={}", self.size);
        if let Some(book_id) = self.book_id {
            let _ = write!(link, "&book_id={book_id}");
        }
        link.push_str(">; rel=\"next\"");
        Some(HeaderValue::try_from(link).expect("a path, digits and base64"))
    }
}

fn book_id(text: &str) -> Result<BookId, Problem> {
    Uuid::try_parse(text)
        .map(BookId::from)
        .map_err(|_| Problem::invalid_book_id(text))
}

/// A cursor contains a version, the bound, and a checksum over both, the reader
/// and the filter. A damaged cursor, or one of another list, is therefore
/// rejected instead of returning the wrong page. It is not a secret.
fn encode(bound: PageCursor, reader_id: ReaderId, book_id: Option<BookId>) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend(bound.started_at.timestamp_millis().to_be_bytes());
    bytes.extend(bound.session_id.uuid().as_bytes());
    bytes.extend(checksum(&bytes, reader_id, book_id));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

const CURSOR_VERSION: u8 = 1;

fn decode(
    cursor: &str,
    reader_id: ReaderId,
    book_id: Option<BookId>,
) -> Result<PageCursor, Problem> {
    let bound = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (content, sum) = bytes.split_last_chunk::<8>()?;
        let (started_at, session_id) = content
            .strip_prefix(&[CURSOR_VERSION])?
            .split_first_chunk()?;
        if *sum != checksum(content, reader_id, book_id) {
            return None;
        }
        Some(PageCursor {
            started_at: Timestamp::from_timestamp_millis(i64::from_be_bytes(*started_at))?,
            session_id: SessionId::from_uuid(Uuid::from_slice(session_id).ok()?),
        })
    };
    bound().ok_or_else(|| {
        Problem::new(
            ProblemCode::InvalidCursor,
            "Invalid cursor: a cursor is valid only for the reader and the filter of its page",
        )
    })
}

/// The first half of a name-based UUID (RFC 9562, version 5).
fn checksum(content: &[u8], reader_id: ReaderId, book_id: Option<BookId>) -> [u8; 8] {
    let mut name = content.to_vec();
    name.extend(book_id.iter().flat_map(|id| *id.uuid().as_bytes()));
    let hash = Uuid::new_v5(&reader_id.uuid(), &name);
    let (half, _) = hash
        .as_bytes()
        .split_first_chunk()
        .expect("a UUID has 16 bytes");
    *half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_of_another_list_or_damaged_cursor_is_rejected() {
        let reader = ReaderId::from(Uuid::from_u128(1));
        let book = Some(BookId::from(Uuid::from_u128(2)));
        let bound = PageCursor {
            started_at: Timestamp::from_timestamp_millis(1_790_000_000_123).unwrap(),
            session_id: SessionId::from_uuid(Uuid::from_u128(3)),
        };
        let cursor = encode(bound, reader, book);
        assert_eq!(decode(&cursor, reader, book).unwrap(), bound);
        assert!(decode(&cursor, reader, None).is_err());
        assert!(decode(&cursor, ReaderId::from(Uuid::from_u128(9)), book).is_err());
        for i in 0..cursor.len() {
            let mut mangled = cursor.clone().into_bytes();
            mangled[i] = if mangled[i] == b'A' { b'B' } else { b'A' };
            let mangled = String::from_utf8(mangled).unwrap();
            assert!(decode(&mangled, reader, book).is_err(), "{mangled}");
        }
        for nonsense in ["", "A", "=", "é", "AQAAAAAA"] {
            assert!(decode(nonsense, reader, book).is_err(), "{nonsense}");
        }
    }
}
