//! The metadata of a command: its trace context and its `Idempotency-Key`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use commands::CommandContext;

/// The trace context comes from the header `traceparent`, and the key from the
/// idempotency middleware. An invalid `traceparent` is ignored, as the W3C
/// specification requires.
#[derive(Debug)]
pub struct RequestContext(pub CommandContext);

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let traceparent = parts
            .headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .filter(|value| is_traceparent(value))
            .map(str::to_owned);
        Ok(Self(CommandContext {
            traceparent,
            key: parts.extensions.get().cloned(),
            meter: parts.extensions.get().cloned(),
        }))
    }
}

/// Checks for version 00 of a W3C trace context
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn is_traceparent(value: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = value.split('-').collect();
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_accepted() {
        assert!(is_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
        assert!(!is_traceparent(
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"
        ));
        assert!(!is_traceparent("\" , \"x\": \""));
    }
}
