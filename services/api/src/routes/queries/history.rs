//! `GET /reading-sessions/history`

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::{BookId, ReaderId, SessionId, Timestamp};
use projections::history::{self, Bound, Listed, Page};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ReadTable;
use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;
use crate::session::Session;

const DEFAULT_SIZE: i64 = 20;
const MAX_SIZE: i64 = 100;

/// The last numbered page: finding one costs what all before it would.
const MAX_PAGE: i64 = 1_000;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Sessions a page; `limit` is another name for it.
    #[serde(alias = "limit")]
    #[param(minimum = 1, maximum = 100, default = 20)]
    page_size: Option<i64>,
    /// A page by its number, for old clients; a cursor goes before it.
    #[param(minimum = 1, maximum = 1000)]
    page: Option<i64>,
    /// Only the sessions of one book.
    #[param(format = Uuid)]
    book_id: Option<String>,
    /// An `X-Global-Position` that the answer must include.
    #[param(minimum = 0)]
    min_position: Option<i64>,
}

/// A page of the history.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    sessions: Vec<Session>,
    /// On all pages together.
    total: i64,
    /// As asked for; null when it was not.
    #[schema(required)]
    page: Option<i64>,
    page_size: i64,
    has_next: bool,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Reading history
///
/// The reader's sessions, newest first, the active one among them. A cursor
/// finds the next page at the same cost at any depth, and no session twice
/// when new ones come.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/history",
    operation_id = "history",
    tag = "queries",
    params(Params),
    responses((status = 200, description = "A page", body = History))
)]
pub async fn handle(
    State(table): State<ReadTable>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let asked = Asked::new(&params, caller.reader_id)?;
    let Asked {
        page,
        size,
        book_id,
        ..
    } = asked;
    let Listed { entries, total } = table
        .read(params.min_position, |mut database| async move {
            history::page(&mut *database, caller.reader_id, book_id, asked.part()).await
        })
        .await?;
    let shown = usize::try_from(size).expect("at most 100");
    let has_next = entries.len() > shown;
    let next_cursor = entries[..entries.len().min(shown)]
        .last()
        .filter(|_| has_next)
        .map(|last| {
            let bound = Bound {
                started_at: last.session.start.started_at,
                session_id: last.session_id,
            };
            encode(bound, caller.reader_id, book_id)
        });
    let body = History {
        sessions: entries
            .iter()
            .take(shown)
            .map(|entry| Session::new(entry.session_id, entry.version, &entry.session))
            .collect(),
        total,
        page,
        page_size: size,
        has_next,
        next_cursor,
    };
    let link = asked.link(uri.path(), &body);
    let mut response = Json(body).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// What was asked for, checked.
#[derive(Clone, Copy)]
struct Asked {
    after: Option<Bound>,
    page: Option<i64>,
    size: i64,
    book_id: Option<BookId>,
}

impl Asked {
    fn new(params: &Params, reader_id: ReaderId) -> Result<Self, Problem> {
        let book_id = params.book_id.as_deref().map(book_id).transpose()?;
        let after = params
            .cursor
            .as_deref()
            .map(|cursor| decode(cursor, reader_id, book_id))
            .transpose()?;
        let size = params.page_size.unwrap_or(DEFAULT_SIZE);
        let page = params.page.filter(|_| after.is_none());
        if !(1..=MAX_SIZE).contains(&size) {
            let message = format!("from 1 to {MAX_SIZE}");
            return Err(Problem::invalid("page_size", message));
        }
        if params
            .page
            .is_some_and(|page| !(1..=MAX_PAGE).contains(&page))
        {
            let message = format!("from 1 to {MAX_PAGE}; a cursor goes further");
            return Err(Problem::invalid("page", message));
        }
        Ok(Self {
            after,
            page,
            size,
            book_id,
        })
    }

    /// One session more than asked for tells whether there is a next page.
    fn part(&self) -> Page {
        Page {
            after: self.after,
            skip: self.page.map_or(0, |page| (page - 1) * self.size),
            limit: self.size + 1,
        }
    }

    /// Where the next page is (RFC 8288), in the way in which this one was
    /// asked for.
    fn link(&self, path: &str, body: &History) -> Option<HeaderValue> {
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
        .map_err(|_| Problem::bad_request(format!("Invalid book_id format: {text}")))
}

/// A cursor: a version, the bound, and a checksum that ties both to the reader
/// and the filter, so that one that is mangled or from another list is refused
/// instead of showing the wrong page. It is not a secret.
fn encode(bound: Bound, reader_id: ReaderId, book_id: Option<BookId>) -> String {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.extend(bound.started_at.timestamp_millis().to_be_bytes());
    bytes.extend(bound.session_id.uuid().as_bytes());
    bytes.extend(checksum(&bytes, reader_id, book_id));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

const CURSOR_VERSION: u8 = 1;

fn decode(cursor: &str, reader_id: ReaderId, book_id: Option<BookId>) -> Result<Bound, Problem> {
    let bound = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (content, sum) = bytes.split_last_chunk::<8>()?;
        let (started_at, session_id) = content
            .strip_prefix(&[CURSOR_VERSION])?
            .split_first_chunk()?;
        if *sum != checksum(content, reader_id, book_id) {
            return None;
        }
        Some(Bound {
            started_at: Timestamp::from_timestamp_millis(i64::from_be_bytes(*started_at))?,
            session_id: SessionId::from_uuid(Uuid::from_slice(session_id).ok()?),
        })
    };
    bound().ok_or_else(|| {
        Problem::bad_request(
            "Invalid cursor: it is good for the reader and the filter that it was given for",
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
    fn a_cursor_is_good_for_its_own_list_alone() {
        let reader = ReaderId::from(Uuid::from_u128(1));
        let book = Some(BookId::from(Uuid::from_u128(2)));
        let bound = Bound {
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
