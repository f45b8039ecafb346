//! The metadata of a command: its trace context and its `Idempotency-Key`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use commands::CommandContext;

use crate::request_span;

/// The trace context comes from the header `traceparent`, the span from the outermost
/// middleware, and the key from the idempotency middleware.
#[derive(Debug)]
pub struct RequestContext(pub CommandContext);

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(CommandContext {
            traceparent: request_span::traceparent(&parts.headers),
            span: parts.extensions.get().cloned(),
            key: parts.extensions.get().cloned(),
            meter: parts.extensions.get().cloned(),
        }))
    }
}
