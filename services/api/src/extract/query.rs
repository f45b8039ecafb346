//! Query parameters.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::problem::{FieldError, Problem};

/// The query string. Unlike axum's extractor, this one names the invalid
/// parameter in its rejection.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
            .map(Self)
            .map_err(|error| {
                FieldError::from_parser(error.path(), &error.inner().to_string()).into()
            })
    }
}

/// The parameters of a query that has no others.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MinPositionParams {
    /// Wait until the response includes this `X-Global-Position`.
    #[param(minimum = 0)]
    pub min_position: Option<i64>,
}
