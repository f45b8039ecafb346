//! Requests of which no part may be ignored: calls that delete or export. A filter
//! that the service does not know would otherwise mean "everything".

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::Query;
use crate::problem::Problem;

/// The query string of a call that refuses unknown parameters. The documented
/// parameters are the known ones.
#[derive(Debug)]
pub struct StrictQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let known = T::into_params(|| None);
        let known: Vec<_> = known.iter().map(|known| known.name.as_str()).collect();
        refuse_unknown(&parts.uri, &known)?;
        let Query(params) = Query::from_request_parts(parts, state).await?;
        Ok(Self(params))
    }
}

fn refuse_unknown(uri: &Uri, known: &[&str]) -> Result<(), Problem> {
    let query = uri.query().unwrap_or_default();
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    match names.find(|name| !known.contains(&name.as_ref())) {
        Some(unknown) => Err(Problem::unknown_parameter(&unknown, known)),
        None => Ok(()),
    }
}

/// The body of a call that takes none. An empty JSON object is accepted, because
/// some HTTP clients always send one.
#[derive(Debug)]
pub struct NoBody;

/// The limit of an ignored body, in bytes.
const MAX_EMPTY_BODY: usize = 16;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let body = to_bytes(request.into_body(), MAX_EMPTY_BODY).await;
        match body.as_ref().map(|body| body.trim_ascii()) {
            Ok(b"" | b"{}") => Ok(Self),
            Ok(_) | Err(_) => Err(Problem::unexpected_body()),
        }
    }
}

/// A request with neither query parameters nor a body.
#[derive(Debug)]
pub struct NoInput;

impl<S: Send + Sync> FromRequest<S> for NoInput {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        refuse_unknown(request.uri(), &[])?;
        NoBody::from_request(request, state)
            .await
            .map(|NoBody| Self)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use rstest::rstest;
    use serde::Deserialize;

    use super::*;
    use crate::problem::ProblemCode;

    #[derive(Debug, Deserialize, IntoParams)]
    #[expect(dead_code, reason = "the tests only look at errors")]
    struct Params {
        confirm: Option<u8>,
        #[serde(rename = "book")]
        book_id: Option<u8>,
    }

    #[rstest]
    #[case("", None)]
    #[case("?", None)]
    #[case("?confirm=1&book=2", None)]
    #[case("?%63onfirm=1", None)]
    #[case("?confirm=1&confirm=1", Some(ProblemCode::Validation))]
    #[case("?confirm=x", Some(ProblemCode::Validation))]
    #[case("?confirm=1&dry_run", Some(ProblemCode::UnknownParameter))]
    #[case("?confirm=x&dry_run", Some(ProblemCode::UnknownParameter))]
    #[case("?book_id=2", Some(ProblemCode::UnknownParameter))]
    #[case("?Confirm=1", Some(ProblemCode::UnknownParameter))]
    #[case("?confirm[]=1", Some(ProblemCode::UnknownParameter))]
    #[case("?=1", Some(ProblemCode::UnknownParameter))]
    #[tokio::test]
    async fn only_documented_parameters_are_accepted(
        #[case] query: &str,
        #[case] expected: Option<ProblemCode>,
    ) {
        let request = Request::get(format!("/{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let params = StrictQuery::<Params>::from_request_parts(&mut parts, &()).await;
        assert_eq!(params.err().map(|problem| problem.code()), expected);
    }

    #[rstest]
    #[case("/", "", None)]
    #[case("/?", " {}\n", None)]
    #[case("/?hours=1", "", Some(ProblemCode::UnknownParameter))]
    #[case("/", "{\"book_id\": 1}", Some(ProblemCode::UnexpectedBody))]
    #[case("/", "null", Some(ProblemCode::UnexpectedBody))]
    #[case("/", "book_id=1", Some(ProblemCode::UnexpectedBody))]
    #[tokio::test]
    async fn call_without_input_accepts_none(
        #[case] uri: &str,
        #[case] body: &'static str,
        #[case] expected: Option<ProblemCode>,
    ) {
        let request = Request::post(uri).body(Body::from(body)).unwrap();
        let result = NoInput::from_request(request, &()).await;
        assert_eq!(result.err().map(|problem| problem.code()), expected);
    }
}
