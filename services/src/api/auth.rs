//! Who calls: a bearer token, verified before anything else is read.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::ReaderId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problem::Problem;
use crate::config::{AuthArgs, Secret};

/// How far the clocks of issuer and service may differ, in seconds.
const LEEWAY: u64 = 10;

/// The key that tokens are verified with. The algorithm belongs to the key;
/// what a token says of itself is never believed.
#[derive(Clone)]
pub struct Keys(Arc<Verifier>);

struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
    exp: i64,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_admin: bool,
}

impl Keys {
    /// The keys of these settings.
    ///
    /// # Errors
    /// When there is no secret, or it is too short.
    pub fn new(args: &AuthArgs) -> anyhow::Result<Self> {
        let secret = args.secret()?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        if let Some(issuer) = &args.jwt_issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        match &args.jwt_audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        Ok(Self(Arc::new(Verifier {
            key: DecodingKey::from_secret(secret.expose().as_bytes()),
            validation,
        })))
    }

    /// Who a token says is calling.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.0.key, &self.0.validation)
            .map_err(|_| Refusal::Invalid)?
            .claims;
        if claims.kind.is_some_and(|kind| kind != "access") {
            return Err(Refusal::Invalid);
        }
        Ok(Caller {
            reader_id: reader_id(claims.iss.as_deref(), &claims.sub),
            admin: claims.is_admin,
        })
    }
}

/// A UUID is the reader's id; any other subject is mapped to one, the same
/// every time, and different for each issuer.
fn reader_id(issuer: Option<&str>, subject: &str) -> ReaderId {
    Uuid::try_parse(subject)
        .unwrap_or_else(|_| {
            let name = format!("{}\n{subject}", issuer.unwrap_or_default());
            Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
        })
        .into()
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The reader.
    pub reader_id: ReaderId,
    /// Whether operator calls are allowed.
    pub admin: bool,
}

/// Why a token is not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not valid.
    Invalid,
    /// The keys are not known yet.
    KeysUnavailable,
}

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

/// A token for development and tests, valid until `expires_at`, a Unix time in
/// seconds.
///
/// # Errors
/// When signing fails.
pub fn token(
    secret: &Secret,
    subject: &str,
    admin: bool,
    args: &AuthArgs,
    expires_at: i64,
) -> anyhow::Result<String> {
    let claims = Claims {
        sub: subject.to_owned(),
        iss: args.jwt_issuer.clone(),
        aud: args.jwt_audience.clone().map(serde_json::Value::from),
        exp: expires_at,
        kind: Some("access".to_owned()),
        is_admin: admin,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_is_no_uuid_maps_to_one_of_its_issuer() {
        let uuid = "018f4c2e-7c1a-7000-8000-000000000001";
        assert_eq!(reader_id(None, uuid).to_string(), uuid);
        assert_eq!(reader_id(Some("a"), "jo"), reader_id(Some("a"), "jo"));
        assert_ne!(reader_id(Some("a"), "jo"), reader_id(Some("b"), "jo"));
    }
}
