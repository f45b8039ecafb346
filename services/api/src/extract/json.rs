//! JSON bodies.

use std::error::Error;
use std::marker::PhantomData;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use crate::problem::{FieldError, Problem, ProblemCode};
use crate::serve::BodyTimeout;

/// A JSON object as the body. Unlike axum's extractor, this one names the
/// invalid field in its rejection.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                ProblemCode::UnsupportedMediaType,
                "The body must be application/json",
            ));
        }
        if is_encoded(request.headers()) {
            return Err(Problem::new(
                ProblemCode::UnsupportedContentEncoding,
                "The body must not be compressed",
            ));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| body_problem(&rejection))?;
        parse(&body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The problem for a body that was not received in full.
#[must_use]
pub fn body_problem(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(
            ProblemCode::BodyTooLarge,
            "The body is larger than 64 KB, or 1 MB for a sync",
        )
    } else if is_timeout(rejection) {
        Problem::new(
            ProblemCode::RequestTimeout,
            "The body took too long to arrive",
        )
    } else {
        Problem::new(
            ProblemCode::IncompleteBody,
            "The body could not be read to its end",
        )
    }
}

fn is_timeout(rejection: &BytesRejection) -> bool {
    std::iter::successors(rejection.source(), |&error| error.source())
        .any(<dyn Error>::is::<BodyTimeout>)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Most bodies are valid: only an invalid one is parsed again to find the
    // path of its error, because tracking the path slows parsing down.
    if let Ok(JsonObject(value)) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let JsonObject(value) =
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            match error.inner().classify() {
                Category::Data => {
                    FieldError::from_parser(error.path(), &error.inner().to_string()).into()
                }
                Category::Eof if body.is_empty() => malformed("The body is empty"),
                Category::Syntax | Category::Eof | Category::Io => {
                    malformed(format!("The body is not JSON: {}", error.inner()))
                }
            }
        })?;
    json.end()
        .map_err(|error| malformed(format!("The body is not JSON: {error}")))?;
    Ok(value)
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::MalformedJson, detail)
}

/// Accepts objects only. Without it, serde also accepts a list for a struct and
/// takes the items as the fields in their order.
#[derive(Debug)]
pub struct JsonObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonObjectVisitor(PhantomData))
    }
}

struct JsonObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for JsonObjectVisitor<T> {
    type Value = JsonObject<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JsonObject<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(JsonObject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_is_a_body() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Body {
            first: Option<u8>,
        }
        assert_eq!(parse::<Body>(b"{}").unwrap(), Body { first: None });
        for rejected in ["[null]", "[1]", "null", "1", "\"first\""] {
            assert!(parse::<Body>(rejected.as_bytes()).is_err(), "{rejected}");
        }
    }
}
