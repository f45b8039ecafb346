//! Who calls: a bearer token, verified before anything else is read. Nothing
//! behind this door ever sees a token, and nothing here decides whose session
//! it is: that stands in every query.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::problem::Problem;

pub mod settings;

mod verifier;

mod claims;
mod jwk;
mod key_set;
mod verifying_key;
mod token_cache;
mod jwks_fetcher;

pub use claims::{Caller, token};
pub use settings::{AuthSettings, ExpectedClaims, KeySource};
pub use verifier::{Keys, Refusal};

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid => Self::unauthorized("Could not validate credentials"),
            Refusal::KeysUnavailable => {
                Self::unavailable("Tokens cannot be verified: their keys are not available yet")
            }
        }
    }
}

/// The caller that admission has let in.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or_else(|| Problem::unauthorized("Not authenticated"))
    }
}
