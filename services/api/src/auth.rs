//! Authentication: verifies the bearer token of a request before anything else of
//! it is read.
//!
//! Handlers receive a [`Caller`] and never the token. This module does not decide
//! which sessions a caller may read: every query restricts its rows to the reader.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::problem::{Problem, ProblemCode};

pub mod operator;
pub mod settings;

mod verifier;

mod claims;
mod jwk;
mod jwks_fetcher;
mod jwks_source;
mod key_set;
mod token_cache;
mod verifying_key;

pub use claims::{AdminAccess, Caller, issue_token};
pub use jwks_source::JwksUrlError;
pub use settings::{AuthSettings, ExpectedClaims, KeySource, SubjectMapping};
pub use verifier::{TokenVerifier, VerifyError};

const KEYS_UNAVAILABLE: &str = "The keys to verify tokens are not available yet; retry shortly";

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::InvalidToken => {
                Self::new(ProblemCode::InvalidToken, "Could not validate credentials")
            }
            VerifyError::ExpiredToken => {
                Self::new(ProblemCode::TokenExpired, "The token has expired")
            }
            VerifyError::UnknownKey | VerifyError::KeysUnavailable => {
                Self::new(ProblemCode::KeysUnavailable, KEYS_UNAVAILABLE)
            }
        }
    }
}

/// Extracts the caller that [`crate::admission`] has authenticated.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .copied()
            .ok_or_else(Problem::missing_token)
    }
}
