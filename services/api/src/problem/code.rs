//! The codes of problems, and their statuses.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cause of an error. Codes are stable, unlike `detail`: match on them. The
/// description of the API lists their meanings. New codes may be added; treat
/// an unknown one by its `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    MalformedJson,
    IncompleteBody,
    InvalidBookId,
    InvalidCursor,
    UnknownParameter,
    UnexpectedBody,
    SessionInactive,
    SessionAlreadyEnded,
    SessionActive,
    MissingToken,
    InvalidToken,
    TokenExpired,
    Forbidden,
    NotFound,
    SessionNotFound,
    ProjectionNotFound,
    JobNotFound,
    DeadLetterNotFound,
    ReaderNotFound,
    AuditEntryNotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    SessionIdInUse,
    IdempotencyKeyInUse,
    ReplayRunning,
    DeadLetterDiscarded,
    DeadLetterWaiting,
    HeapProfilerOff,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedContentEncoding,
    Validation,
    IdempotencyKeyReused,
    RateLimited,
    Quota,
    Internal,
    Overloaded,
    Unavailable,
    KeysUnavailable,
    DeadlineExceeded,
    ShuttingDown,
    ReadModelBehind,
}

impl ProblemCode {
    /// The status of every response with this code.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedJson
            | Self::IncompleteBody
            | Self::InvalidBookId
            | Self::InvalidCursor
            | Self::UnknownParameter
            | Self::UnexpectedBody
            | Self::SessionInactive
            | Self::SessionAlreadyEnded
            | Self::SessionActive => StatusCode::BAD_REQUEST,
            Self::MissingToken | Self::InvalidToken | Self::TokenExpired => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::SessionNotFound
            | Self::ProjectionNotFound
            | Self::JobNotFound
            | Self::DeadLetterNotFound
            | Self::ReaderNotFound
            | Self::AuditEntryNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict
            | Self::SessionIdInUse
            | Self::IdempotencyKeyInUse
            | Self::ReplayRunning
            | Self::DeadLetterDiscarded
            | Self::DeadLetterWaiting
            | Self::HeapProfilerOff => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::UnsupportedContentEncoding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Validation | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited | Self::Quota => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded
            | Self::Unavailable
            | Self::KeysUnavailable
            | Self::DeadlineExceeded
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::ReadModelBehind => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
