//! JSON responses with the version of a session as their `ETag`, and with the
//! global position of a command.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use commands::{CommandResult, Committed};
use domain::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The global position of the last event that a command appended. A query waits
/// for it with `min_position`.
pub const GLOBAL_POSITION: HeaderName = HeaderName::from_static("x-global-position");

/// About as many headers as a response has after all layers. Reserving them at
/// once avoids reallocations.
const EXPECTED_HEADERS: usize = 16;

/// The response to a command. The event log stores it with the idempotency key,
/// for repeats: its serialized form must stay readable.
#[derive(Debug, Serialize, Deserialize)]
pub struct CommandResponse {
    status: u16,
    /// The version of the session; `None` for a batch.
    version: Option<i64>,
    /// See [`CommandResponse::last_event`].
    last_event: Option<(SessionId, i64)>,
    body: Box<RawValue>,
}

impl CommandResponse {
    /// The response to a command for one session.
    pub fn for_session(status: StatusCode, outcome: &CommandResult, body: &impl Serialize) -> Self {
        let version = outcome.versioned.sequence;
        Self {
            status: status.as_u16(),
            version: Some(version),
            last_event: Some((outcome.session_id, version)),
            body: json(body),
        }
    }

    /// The response to a command for several sessions.
    pub fn for_batch(last_event: Option<(SessionId, i64)>, body: &impl Serialize) -> Self {
        Self {
            status: StatusCode::OK.as_u16(),
            version: None,
            last_event,
            body: json(body),
        }
    }

    /// The response to a committed command.
    #[must_use]
    pub fn from_committed(committed: Committed<Self>) -> Response {
        committed
            .response
            .into_response_at(committed.global_position)
    }

    /// The session and the sequence of the last event that the command appended;
    /// `None` if it appended none.
    #[must_use]
    pub const fn last_event(&self) -> Option<(SessionId, i64)> {
        self.last_event
    }

    /// `global_position` is that of [`CommandResponse::last_event`].
    #[must_use]
    pub fn into_response_at(self, global_position: Option<i64>) -> Response {
        let mut response = Response::new(Body::from(String::from(Box::<str>::from(self.body))));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        headers.reserve(EXPECTED_HEADERS);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(version) = self.version {
            headers.insert(header::ETAG, tag(&version));
        }
        if let Some(global_position) = global_position {
            headers.insert(GLOBAL_POSITION, HeaderValue::from(global_position));
        }
        response
    }
}

fn json(body: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(body).expect("responses are plain JSON")
}

fn tag(version: &impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("a version is plain ASCII")
}

/// The header `If-None-Match`: the versions that the client has cached (RFC 9110,
/// section 13.1.2). Empty if the header is missing.
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
    fn contains(&self, tag: &HeaderValue) -> bool {
        self.0
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|cached| cached.trim().trim_start_matches("W/"))
            .any(|cached| cached == "*" || cached.as_bytes() == tag.as_bytes())
    }
}

/// A response with an `ETag`; 304 without a body if the client has this version.
pub fn versioned(
    cached: &IfNoneMatch,
    version: &impl std::fmt::Display,
    body: &impl Serialize,
) -> Response {
    let tag = tag(version);
    let mut response = if cached.contains(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(body).into_response()
    };
    let headers = response.headers_mut();
    headers.reserve(EXPECTED_HEADERS);
    headers.insert(header::ETAG, tag);
    response
}
