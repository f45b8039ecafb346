//! Answers: JSON with a session's version as its `ETag`, and a command's place
//! in the log.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::SessionId;
use commands::CommandResult;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The position of a command's last event in the log; queries can wait for it.
pub const GLOBAL_POSITION: HeaderName = HeaderName::from_static("x-global-position");

/// The headers that an answer has in the end, so that they are not moved as they
/// become more.
const HEADERS: usize = 16;

/// What a client is told of a command. It can be kept, for repeats.
#[derive(Debug, Serialize, Deserialize)]
pub struct CommandResponse {
    status: u16,
    /// Of the session that the command was for.
    version: Option<i64>,
    /// The last event that the command led to.
    last_event: Option<(SessionId, i64)>,
    body: Box<RawValue>,
}

impl CommandResponse {
    /// Of a command on one session.
    pub fn of_session(status: StatusCode, outcome: &CommandResult, body: &impl Serialize) -> Self {
        let version = outcome.versioned.sequence;
        Self {
            status: status.as_u16(),
            version: Some(version),
            last_event: Some((outcome.session_id, version)),
            body: json(body),
        }
    }

    /// Of a command on many.
    pub fn of_batch(last_event: Option<(SessionId, i64)>, body: &impl Serialize) -> Self {
        Self {
            status: StatusCode::OK.as_u16(),
            version: None,
            last_event,
            body: json(body),
        }
    }

    /// The last event that the command led to: its session and its sequence.
    #[must_use]
    pub const fn last_event(&self) -> Option<(SessionId, i64)> {
        self.last_event
    }

    /// The response.
    #[must_use]
    pub fn response(self, global_position: Option<i64>) -> Response {
        let mut response = Response::new(Body::from(String::from(Box::<str>::from(self.body))));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(version) = self.version {
            headers.insert(header::ETAG, tag(&version));
        }
        if let Some(position) = global_position {
            headers.insert(GLOBAL_POSITION, HeaderValue::from(position));
        }
        response
    }
}

fn json(body: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(body).expect("answers are plain JSON")
}

fn tag(version: &impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("a version is plain ASCII")
}

/// The header `If-None-Match`: the versions that a client has of what it asks for,
/// most often none (RFC 9110, section 13.1.2).
#[derive(Debug)]
pub struct IfNoneMatch(Vec<HeaderValue>);

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let tags = parts.headers.get_all(header::IF_NONE_MATCH);
        Ok(Self(tags.iter().cloned().collect()))
    }
}

impl IfNoneMatch {
    fn names(&self, tag: &HeaderValue) -> bool {
        self.0
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|known| known.trim().trim_start_matches("W/"))
            .any(|known| known == "*" || known.as_bytes() == tag.as_bytes())
    }
}

/// The answer to a query of something that has a version: with it as `ETag`,
/// and 304 for a client that has it already.
pub fn versioned(
    known: &IfNoneMatch,
    version: &impl std::fmt::Display,
    body: &impl Serialize,
) -> Response {
    let tag = tag(version);
    let mut response = if known.names(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(body).into_response()
    };
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::ETAG, tag);
    response
}
