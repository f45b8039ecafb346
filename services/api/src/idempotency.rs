//! Commands with an `Idempotency-Key`: a repeat gets the first answer, also
//! when that was a refusal. The answer is kept by the log, with the command's
//! events; here a repeat is recognized before anything of it is looked at,
//! since a command that was good then may be too old to be good now.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::ReaderId;
use eventlog::idempotency::{self, Decided, Kept, Key};
use eventlog::{Pool, read};

use super::API;
use super::response::CommandResponse;
use super::auth::Caller;
use super::extract::unreadable;
use super::middleware::{InnerService, Middleware, Next};
use super::problem::Problem;

/// The client's name for a command.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is the first one's.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key, in characters.
const MAX_KEY: usize = 255;

/// Looks up answers, and knows the commands in flight; cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    pool: Pool,
    in_flight: InFlight,
}

impl Idempotency {
    /// Looks answers up by `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            in_flight: InFlight::default(),
        }
    }

    /// The first answer, when there is one.
    async fn replay(&self, caller: Caller, key: &Key) -> Result<Option<Response>, Problem> {
        match idempotency::find(&self.pool, caller.reader_id, key.name()).await? {
            None => Ok(None),
            Some(kept) if kept.fingerprint != key.fingerprint() => Err(Problem::invalid(
                KEY.as_str(),
                "used for another command before",
            )),
            Some(kept) => self.first_answer(&kept).await.map(Some),
        }
    }

    async fn first_answer(&self, kept: &Kept) -> Result<Response, Problem> {
        let decided = kept.decided().map_err(|error| Problem::broken(&error))?;
        let mut response = match decided {
            Decided::Taken(answer) => self.taken(answer).await?,
            Decided::Refused(refusal) => Problem::from(refusal).into_response(),
        };
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }

    async fn taken(&self, answer: CommandResponse) -> Result<Response, Problem> {
        let global_position = match answer.last_event() {
            Some((session_id, sequence)) => {
                Some(read::position(&self.pool, session_id, sequence).await?)
            }
            None => None,
        };
        Ok(answer.response(global_position))
    }
}

/// Around commands.
impl Middleware for Idempotency {
    async fn answer<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        // Without a caller there is no command.
        let caller = request.extensions().get::<Caller>().copied();
        match (caller, name(request.headers())) {
            (None, _) | (_, Ok(None)) => next.run(request).await,
            (Some(caller), Ok(Some(name))) => once(&self, caller, name, request, next)
                .await
                .unwrap_or_else(Problem::into_response),
            (_, Err(problem)) => problem.into_response(),
        }
    }
}

async fn once<S: InnerService>(
    idempotency: &Idempotency,
    caller: Caller,
    name: String,
    request: Request,
    next: Next<S>,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &())
        .await
        .map_err(|rejection| unreadable(&rejection))?;
    let key = Key::new(name, fingerprint(&parts.method, parts.uri.path(), &body));

    // Before the look-up: what is not in flight any more can be found.
    let _place = idempotency.in_flight.enter(caller.reader_id, key.name())?;
    if let Some(response) = idempotency.replay(caller, &key).await? {
        return Ok(response);
    }
    parts.extensions.insert(key.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    // It may have been done in the meantime, elsewhere or for a client that
    // hung up.
    if response.status() == StatusCode::CONFLICT
        && let Some(response) = idempotency.replay(caller, &key).await?
    {
        return Ok(response);
    }
    Ok(response)
}

/// The key, as it is or in the quotes of a structured field (the IETF's draft
/// of the header has them).
fn name(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let bad = || {
        Problem::invalid(
            KEY.as_str(),
            format!("one header of 1 to {MAX_KEY} visible ASCII characters"),
        )
    };
    let text = value.to_str().map_err(|_| bad())?;
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .filter(|text| !text.is_empty())
        .unwrap_or(text);
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if more.is_some() || text.is_empty() || text.len() > MAX_KEY || !is_visible {
        return Err(bad());
    }
    Ok(Some(text.to_owned()))
}

/// Tells a command from others: a hash of its method, its path below that of the
/// API, and its body. It is kept, and compared by other builds.
fn fingerprint(method: &Method, path: &str, body: &[u8]) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [method.as_str(), path.strip_prefix(API).unwrap_or(path)] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    hash.update(body);
    hash.finish().as_ref().to_vec()
}

/// The keyed commands that this process is at. A repeat that comes meanwhile
/// is told so; one that comes to another process loses to the first in the
/// log, and gets its answer.
#[derive(Clone, Default)]
struct InFlight(Arc<Mutex<HashSet<(ReaderId, String)>>>);

impl InFlight {
    fn enter(&self, reader_id: ReaderId, name: &str) -> Result<Place, Problem> {
        let command = (reader_id, name.to_owned());
        let mut commands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !commands.insert(command.clone()) {
            return Err(Problem::in_flight());
        }
        Ok(Place {
            commands: self.clone(),
            command,
        })
    }
}

/// Given back when the answer is there, or the client has gone.
struct Place {
    commands: InFlight,
    command: (ReaderId, String),
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut commands = self
            .commands
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        commands.remove(&self.command);
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
    fn a_key_is_short_and_visible(#[case] value: &str, #[case] expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        assert_eq!(name(&headers).ok().flatten().as_deref(), expected);
    }

    #[test]
    fn a_command_is_known_again_by_every_build() {
        let body = br#"{"book_id":"0193e5a0-0000-7000-8000-000000000042"}"#;
        let start = fingerprint(&Method::POST, "/api/v1/reading-sessions/start", body);
        let known = [b"POST\0/start\0".as_slice(), body].concat();
        assert_eq!(start, digest::digest(&digest::SHA256, &known).as_ref());
    }

    #[test]
    fn a_key_has_a_longest_length_and_comes_once() {
        let mut headers = HeaderMap::new();
        assert!(name(&headers).unwrap().is_none());
        headers.insert(KEY, "k".repeat(MAX_KEY).parse().unwrap());
        assert!(name(&headers).is_ok());
        headers.insert(KEY, "k".repeat(MAX_KEY + 1).parse().unwrap());
        assert!(name(&headers).is_err());
        headers.insert(KEY, HeaderValue::from_static("a"));
        headers.append(KEY, HeaderValue::from_static("b"));
        assert!(name(&headers).is_err());
    }
}
