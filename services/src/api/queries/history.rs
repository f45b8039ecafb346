//! `GET /reading-sessions/history`

use std::fmt::Write as _;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::{BookId, ReaderId, SessionId, Timestamp};
use projections::history::{self, Bound};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::Query;
use crate::api::problem::Problem;
use crate::api::session::{Session, answer};

const DEFAULT_PAGE: i64 = 20;
const MAX_PAGE: i64 = 100;

/// Which page.
#[derive(Debug, Deserialize)]
pub struct Params {
    cursor: Option<String>,
    #[serde(alias = "limit")]
    page_size: Option<i64>,
    book_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    sessions: Vec<Session>,
    total: i64,
    /// Always null: pages are not numbered.
    page: Option<i64>,
    page_size: i64,
    has_next: bool,
    next_cursor: Option<String>,
}

/// A page of the reader's sessions, newest first, the active one among them.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    OriginalUri(uri): OriginalUri,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let page_size = params.page_size.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&page_size) {
        return Err(Problem::invalid(
            "page_size",
            format!("from 1 to {MAX_PAGE}"),
        ));
    }
    let book_id = params.book_id.as_deref().map(book_id).transpose()?;
    let after = params
        .cursor
        .as_deref()
        .map(|cursor| decode(cursor, reader_id, book_id))
        .transpose()?;

    // One more than asked for tells whether there is a next page.
    let (entries, total) = tokio::try_join!(
        history::page(&state.pool, reader_id, book_id, after, page_size + 1),
        history::total(&state.pool, reader_id, book_id),
    )?;
    let shown = usize::try_from(page_size).expect("at most 100");
    let has_next = entries.len() > shown;
    let next_cursor = entries[..entries.len().min(shown)]
        .last()
        .filter(|_| has_next)
        .map(|last| {
            let bound = Bound {
                started_at: last.session.start.started_at,
                session_id: last.session_id,
            };
            encode(bound, reader_id, book_id)
        });
    let body = Answer {
        sessions: entries
            .iter()
            .take(shown)
            .map(|entry| Session::new(entry.session_id, entry.version, &entry.session))
            .collect(),
        total,
        page: None,
        page_size,
        has_next,
        next_cursor,
    };
    let mut response = answer(StatusCode::OK, &body, None, None);
    if let Some(cursor) = &body.next_cursor {
        let mut link = format!("<{}?cursor={cursor}&page_size={page_size}", uri.path());
        if let Some(book_id) = book_id {
            let _ = write!(link, "&book_id={book_id}");
        }
        link.push_str(">; rel=\"next\"");
        let link = HeaderValue::try_from(link).expect("a path, digits and base64");
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
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
    bound().ok_or_else(|| Problem::bad_request("Invalid cursor"))
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
