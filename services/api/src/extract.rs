//! Requests to values, with a problem that names the field where they do not
//! fit. Everything is parsed here, once.

use std::error::Error;
use std::marker::PhantomData;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use domain::{Position, SessionId};
use commands::CommandContext;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use utoipa::IntoParams;
use uuid::Uuid;

use jobs::Job;
use projections::operations::ProjectionName;

use crate::problem::Problem;
use super::serve::BodyTimeout;

mod field_error;

pub use field_error::Fault;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be application/json",
            ));
        }
        if is_encoded(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must not be compressed",
            ));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unreadable(&rejection))?;
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

/// The problem with a body that did not come whole.
#[must_use]
pub fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is larger than 64 KB",
        )
    } else if is_slow(rejection) {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "The body took too long to arrive",
        )
    } else {
        Problem::bad_request("The body could not be read")
    }
}

/// Whether the client took too long to send the body.
fn is_slow(rejection: &BytesRejection) -> bool {
    std::iter::successors(rejection.source(), |&error| error.source()).any(<dyn Error>::is::<BodyTimeout>)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // What fits is the rule, and where it does not is not worth following there.
    if let Ok(Object(value)) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| match error
        .inner()
        .classify()
    {
        Category::Data => Fault::new(error.path(), &error.inner().to_string()).into(),
        Category::Eof if body.is_empty() => Problem::bad_request("The body is empty"),
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request(format!("The body is not JSON: {}", error.inner()))
        }
    })?;
    json.end()
        .map_err(|error| Problem::bad_request(format!("The body is not JSON: {error}")))?;
    Ok(value)
}

/// An object and nothing else: serde would take a list for a struct, its items
/// for the fields in their order.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A query string.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
            .map(Self)
            .map_err(|error| Fault::new(error.path(), &error.inner().to_string()).into())
    }
}

/// A query that only says what it must see.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Fresh {
    /// An `X-Global-Position` that the answer must include.
    #[param(minimum = 0)]
    pub min_position: Option<i64>,
}

/// The session in the path.
#[derive(Debug)]
pub struct SessionPath(pub SessionId);

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        path.ok()
            .and_then(|path| Uuid::try_parse(&path).ok())
            .map(|uuid| Self(SessionId::from_uuid(uuid)))
            .ok_or_else(|| Problem::invalid("id", "not a UUID"))
    }
}

/// A projection or a job that the path names.
#[derive(Clone, Copy, Debug)]
pub struct PathName<T>(pub T);

/// Something that paths name, out of a fixed list.
pub trait Named: Sized {
    /// The noun for the problem's detail.
    const KIND: &'static str;

    fn from_name(name: &str) -> Option<Self>;

    /// All names, separated by commas.
    fn names() -> String;
}

impl Named for ProjectionName {
    const KIND: &'static str = "projection";

    fn from_name(name: &str) -> Option<Self> {
        Self::named(name)
    }

    fn names() -> String {
        Self::list()
    }
}

impl Named for Job {
    const KIND: &'static str = "job";

    fn from_name(name: &str) -> Option<Self> {
        Self::named(name)
    }

    fn names() -> String {
        Self::list()
    }
}

impl<S: Send + Sync, T: Named> FromRequestParts<S> for PathName<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let name = path.map(|path| path.0).unwrap_or_default();
        T::from_name(&name).map(Self).ok_or_else(|| {
            Problem::not_found(&format!(
                "There is no {} of this name; there are {}",
                T::KIND,
                T::names()
            ))
        })
    }
}

/// What comes with a command besides its body.
#[derive(Debug)]
pub struct RequestContext(pub CommandContext);

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let traceparent = parts
            .headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .filter(|value| is_traceparent(value))
            .map(str::to_owned);
        let key = parts.extensions.get().cloned();
        Ok(Self(CommandContext { traceparent, key }))
    }
}

/// Version 00 of a W3C trace context
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn is_traceparent(value: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = value.split('-').collect();
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
}

/// A position in a body: a number, or a number in a string as clients of the
/// original service send it.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub Position);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PercentVisitor)
    }
}

struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number from 0 to 100")
    }

    fn visit_f64<E: de::Error>(self, percent: f64) -> Result<Percent, E> {
        Position::new(percent).map(Percent).map_err(E::custom)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what is lost is far outside 0 to 100"
    )]
    fn visit_u64<E: de::Error>(self, percent: u64) -> Result<Percent, E> {
        self.visit_f64(percent as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what is lost is far outside 0 to 100"
    )]
    fn visit_i64<E: de::Error>(self, percent: i64) -> Result<Percent, E> {
        self.visit_f64(percent as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Percent, E> {
        let is_decimal = |c: char| c.is_ascii_digit() || c == '.';
        match text.parse() {
            Ok(percent) if text.chars().all(is_decimal) => self.visit_f64(percent),
            _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }
}

/// A whole number that may be written with a fraction of zero, as `300.0`: to
/// JSON it is the same, and some clients know no other way.
///
/// # Errors
/// Those of the deserializer, and for a number that is not whole or does not fit.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    let whole = |number: serde_json::Number| {
        let written = number.to_string();
        let digits = written.strip_suffix(".0").unwrap_or(&written);
        digits
            .parse()
            .map_err(|_| de::Error::custom(format!("{number} is not a whole number from 0 on")))
    };
    number.map(whole).transpose()
}

/// Checks a text that is kept as it is. Postgres has no text with a NUL.
///
/// # Errors
/// 422 when it is longer than `max` characters or holds a NUL.
pub fn text(field: &str, text: Option<String>, max: usize) -> Result<Option<String>, Problem> {
    match &text {
        Some(text) if text.chars().count() > max => Err(Problem::invalid(
            field,
            format!("longer than {max} characters"),
        )),
        Some(text) if text.contains('\0') => Err(Problem::invalid(field, "holds a NUL character")),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(json: &str) -> Option<f64> {
        serde_json::from_str(json)
            .ok()
            .map(|Percent(position)| position.percent())
    }

    #[test]
    fn a_position_is_a_number_or_a_number_in_a_string() {
        assert_eq!(percent("42"), Some(42.0));
        assert_eq!(percent("42.5"), Some(42.5));
        assert_eq!(percent("\"42\""), Some(42.0));
        for refused in [
            "-1",
            "101",
            "1e400",
            "\"NaN\"",
            "\"inf\"",
            "true",
            "null",
            "[]",
            "\"\"",
            "18446744073709551615",
        ] {
            assert_eq!(percent(refused), None, "{refused}");
        }
    }

    #[test]
    fn a_body_is_an_object() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Body {
            first: Option<u8>,
        }
        assert_eq!(parse::<Body>(b"{}").unwrap(), Body { first: None });
        for refused in ["[null]", "[1]", "null", "1", "\"first\""] {
            assert!(parse::<Body>(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_fraction_of_zero() {
        let whole = |json: &str| whole(&mut serde_json::Deserializer::from_str(json)).ok();
        assert_eq!(whole("300"), Some(Some(300)));
        assert_eq!(whole("300.0"), Some(Some(300)));
        assert_eq!(whole("3e2"), Some(Some(300)));
        assert_eq!(whole("null"), Some(None));
        for refused in ["-1", "0.5", "1e12", "\"300\"", "[]"] {
            assert_eq!(whole(refused), None, "{refused}");
        }
    }

    #[test]
    fn only_a_well_formed_traceparent_is_carried_along() {
        assert!(is_traceparent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
        assert!(!is_traceparent(
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"
        ));
        assert!(!is_traceparent("\" , \"x\": \""));
    }
}
