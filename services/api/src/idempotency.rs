//! Commands with an `Idempotency-Key`: a repeat returns the response of the first
//! call, also if the command was refused.
//!
//! The event log stores the response together with the command's events. This
//! middleware recognizes a repeat by its key and its raw body, before any
//! validation: a command that was valid at first may be too old by now.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::ReaderId;
use eventlog::idempotency::{self, IdempotencyKey, Outcome, StoredResponse};
use eventlog::{Pool, read};

use crate::API;
use crate::auth::Caller;
use crate::extract::body_problem;
use crate::middleware::{InnerService, Middleware, Next};
use crate::problem::Problem;
use crate::response::CommandResponse;

pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks the response to a repeat.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key, in characters.
const MAX_KEY_LENGTH: usize = 255;

/// The middleware for commands; clones are cheap and share the commands in flight.
#[derive(Clone)]
pub struct Idempotency {
    pool: Pool,
    in_flight: KeysInFlight,
}

impl Idempotency {
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            in_flight: KeysInFlight::default(),
        }
    }

    /// The stored response; `None` if the command has not been decided yet.
    async fn stored_response_for(
        &self,
        caller: Caller,
        key: &IdempotencyKey,
    ) -> Result<Option<Response>, Problem> {
        match idempotency::find(&self.pool, caller.reader_id, key.name()).await? {
            None => Ok(None),
            Some(stored) if stored.fingerprint != key.fingerprint() => {
                Err(Problem::key_reused(KEY.as_str()))
            }
            Some(stored) => self.stored_response(&stored).await.map(Some),
        }
    }

    async fn stored_response(&self, stored: &StoredResponse) -> Result<Response, Problem> {
        let decision = stored.decision().map_err(|error| Problem::broken(&error))?;
        let mut response = match decision {
            Outcome::Accepted(response) => self.accepted(response).await?,
            Outcome::Refused(refusal) => Problem::from(refusal).into_response(),
        };
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }

    async fn accepted(&self, response: CommandResponse) -> Result<Response, Problem> {
        let global_position = match response.last_event() {
            Some((session_id, sequence)) => {
                Some(read::global_position_of(&self.pool, session_id, sequence).await?)
            }
            None => None,
        };
        Ok(response.into_response_at(global_position))
    }
}

impl Middleware for Idempotency {
    async fn handle<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        // A request without a caller is not a command: it is an OPTIONS request.
        let caller = request.extensions().get::<Caller>().copied();
        match (caller, key_name(request.headers())) {
            (None, _) | (_, Ok(None)) => next.run(request).await,
            (Some(caller), Ok(Some(name))) => run_once(&self, caller, name, request, next)
                .await
                .unwrap_or_else(Problem::into_response),
            (_, Err(problem)) => problem.into_response(),
        }
    }
}

async fn run_once<S: InnerService>(
    idempotency: &Idempotency,
    caller: Caller,
    name: String,
    request: Request,
    next: Next<S>,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &())
        .await
        .map_err(|rejection| body_problem(&rejection))?;
    let fingerprint = fingerprint(&parts.method, parts.uri.path(), &body);
    let key = IdempotencyKey::new(name, fingerprint);

    // The key is marked before the look-up. If no other request holds it, the response
    // of an earlier one is stored, unless its client disconnected. The append then
    // detects the repeat.
    let _guard = idempotency.in_flight.enter(caller.reader_id, key.name())?;
    if let Some(response) = idempotency.stored_response_for(caller, &key).await? {
        return Ok(response);
    }
    parts.extensions.insert(key.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    // Another process, or the command of a client that disconnected, may have
    // used the key since the look-up.
    if response.status() == StatusCode::CONFLICT
        && let Some(response) = idempotency.stored_response_for(caller, &key).await?
    {
        return Ok(response);
    }
    Ok(response)
}

/// The key in the request, if any. Clients may send it plain, or quoted as the
/// IETF draft of the header requires.
fn key_name(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let (value, second) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let invalid = || {
        Problem::invalid(
            KEY.as_str(),
            format!("must be one header with 1 to {MAX_KEY_LENGTH} visible ASCII characters"),
        )
    };
    let text = value.to_str().map_err(|_| invalid())?;
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .filter(|text| !text.is_empty())
        .unwrap_or(text);
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if second.is_some() || text.is_empty() || text.len() > MAX_KEY_LENGTH || !is_visible {
        return Err(invalid());
    }
    Ok(Some(text.to_owned()))
}

/// Identifies a command: a hash of its method, its path below the prefix of the
/// API, and its body. Fingerprints are stored and compared by other builds, so
/// their computation must not change.
fn fingerprint(method: &Method, path: &str, body: &[u8]) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [method.as_str(), path.strip_prefix(API).unwrap_or(path)] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    hash.update(body);
    hash.finish().as_ref().to_vec()
}

/// The keys of the commands that this process is running. A repeat that arrives in
/// the meantime gets 409. If it arrives at another process, the log accepts only
/// one of the two commands, and the other one gets the stored response.
#[derive(Clone, Default)]
struct KeysInFlight(Arc<Mutex<HashSet<(ReaderId, String)>>>);

impl KeysInFlight {
    fn enter(&self, reader_id: ReaderId, name: &str) -> Result<KeyGuard, Problem> {
        let key = (reader_id, name.to_owned());
        if !self.lock().insert(key.clone()) {
            return Err(Problem::key_in_use());
        }
        Ok(KeyGuard {
            in_flight: self.clone(),
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(ReaderId, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the key on drop: when the response is ready, or the client has
/// disconnected.
struct KeyGuard {
    in_flight: KeysInFlight,
    key: (ReaderId, String),
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("a-key", Some("a-key"))]
    #[case::quoted("\"a-key\"", Some("a-key"))]
    #[case::empty("", None)]
    #[case::only_quotes("\"\"", Some("\"\""))]
    #[case::not_ascii("ключ", None)]
    #[case::with_a_space("a key", None)]
    fn key_consists_of_visible_ascii(#[case] value: &str, #[case] expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        assert_eq!(key_name(&headers).ok().flatten().as_deref(), expected);
    }

    #[test]
    fn fingerprint_does_not_change_between_builds() {
        let body = br#"{"book_id":"0193e5a0-0000-7000-8000-000000000042"}"#;
        let start = fingerprint(&Method::POST, "/api/v1/reading-sessions/start", body);
        let expected = [b"POST\0/start\0".as_slice(), body].concat();
        assert_eq!(start, digest::digest(&digest::SHA256, &expected).as_ref());
    }

    #[test]
    fn key_is_bounded_and_unique() {
        let mut headers = HeaderMap::new();
        assert!(key_name(&headers).unwrap().is_none());
        headers.insert(KEY, "k".repeat(MAX_KEY_LENGTH).parse().unwrap());
        assert!(key_name(&headers).is_ok());
        headers.insert(KEY, "k".repeat(MAX_KEY_LENGTH + 1).parse().unwrap());
        assert!(key_name(&headers).is_err());
        headers.insert(KEY, HeaderValue::from_static("a"));
        headers.append(KEY, HeaderValue::from_static("b"));
        assert!(key_name(&headers).is_err());
    }
}
