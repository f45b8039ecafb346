//! The operator of an admin request, for the audit and for streams that end with the
//! token.
//!
//! This reads the claims of a token that [`crate::admission`] has verified, and verifies
//! nothing. Requests of client apps never need it, so [`super::Caller`] stays small.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::Timestamp;
use jsonwebtoken::dangerous::insecure_decode_claims;

use super::claims::Claims;
use super::{AdminAccess, Caller};
use crate::admission::bearer_token;
use crate::problem::Problem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The subject of the token, as the issuer wrote it.
    pub subject: String,
    pub access: AdminAccess,
    /// When the token expires, without leeway.
    pub expires_at: Timestamp,
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // Only admitted requests have a caller.
        let caller = Caller::from_request_parts(parts, state).await?;
        let token = bearer_token(&parts.headers)?;
        let claims = insecure_decode_claims::<Claims>(token);
        let claims = claims.map_err(|error| Problem::broken(&error))?;
        Ok(Self {
            subject: claims.subject().to_owned(),
            access: caller.admin,
            expires_at: Timestamp::from_timestamp(claims.expires_at(), 0)
                .unwrap_or(Timestamp::MAX_UTC),
        })
    }
}
