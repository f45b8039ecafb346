//! What a token says once its signature is known to be good: who calls, and
//! what they may do. This never looks at signatures or keys.

use std::collections::HashSet;

use anyhow::Context;
use domain::ReaderId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::settings::ExpectedClaims;
use crate::secret::Secret;

/// How far the clocks of issuer and service may differ, in seconds.
const LEEWAY: u64 = 10;

/// The longest subject, in bytes, as `OpenID` Connect bounds it.
const MAX_SUBJECT: usize = 255;

/// The scope of operators.
const ADMIN_SCOPE: &str = "reading:admin";

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The reader.
    pub reader_id: ReaderId,
    /// Whether operator calls are allowed too.
    pub admin: bool,
}

/// What a token says of its bearer. Times and audience are checked by
/// [`validation`].
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    /// Unix time, in seconds; may have a fraction.
    exp: f64,
    iss: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    is_admin: Option<bool>,
    scope: Option<Scopes>,
    scp: Option<Scopes>,
}

/// Issuers write scopes as one text with spaces (RFC 8693) or as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    Text(String),
    List(Vec<String>),
}

impl Scopes {
    fn contain(&self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text.split(' ').any(|scope| scope == wanted),
            Self::List(list) => list.iter().any(|scope| scope == wanted),
        }
    }
}

impl Claims {
    /// The bearer; `None` when the token is not one for calling, as a refresh
    /// token, or names nobody.
    pub(super) fn caller(&self) -> Option<Caller> {
        let subject = &self.sub;
        if subject.is_empty()
            || subject.len() > MAX_SUBJECT
            || self.kind.as_deref().is_some_and(|kind| kind != "access")
        {
            return None;
        }
        let scoped = [&self.scope, &self.scp]
            .into_iter()
            .flatten()
            .any(|scopes| scopes.contain(ADMIN_SCOPE));
        Some(Caller {
            reader_id: reader_id(self.iss.as_deref(), subject),
            admin: scoped || self.is_admin == Some(true),
        })
    }

    /// When the token expires, a Unix time in seconds, without any leeway.
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    pub(super) fn expires_at(&self) -> i64 {
        self.exp as i64
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

/// What every token must fulfil, but for its algorithm, which is its key's.
pub(super) fn validation(expected: &ExpectedClaims) -> Validation {
    let mut validation = Validation::default();
    validation.algorithms.clear();
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    let mut required: HashSet<String> = ["exp", "sub"].map(str::to_owned).into();
    if let Some(issuer) = &expected.issuer {
        validation.set_issuer(&[issuer]);
        required.insert("iss".to_owned());
    }
    match &expected.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.insert("aud".to_owned());
        }
        None => validation.validate_aud = false,
    }
    validation.required_spec_claims = required;
    validation
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    exp: i64,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_admin: bool,
}

/// A token for development and tests (HS256), valid until `expires_at`, a Unix
/// time in seconds.
///
/// # Errors
/// When signing fails.
pub fn token(
    secret: &Secret,
    subject: &str,
    admin: bool,
    expected: &ExpectedClaims,
    expires_at: i64,
) -> anyhow::Result<String> {
    let claims = NewClaims {
        sub: subject,
        iss: expected.issuer.as_deref(),
        aud: expected.audience.as_deref(),
        exp: expires_at,
        kind: "access",
        is_admin: admin,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .context("the token was not signed")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn caller(claims: Value) -> Option<Caller> {
        serde_json::from_value::<Claims>(claims).ok()?.caller()
    }

    #[test]
    fn a_subject_that_is_no_uuid_maps_to_one_of_its_issuer() {
        let uuid = "018f4c2e-7c1a-7000-8000-000000000001";
        assert_eq!(reader_id(None, uuid).to_string(), uuid);
        assert_eq!(reader_id(Some("a"), "jo"), reader_id(Some("a"), "jo"));
        assert_ne!(reader_id(Some("a"), "jo"), reader_id(Some("b"), "jo"));
    }

    #[test]
    fn operators_are_named_by_a_flag_or_a_scope() {
        let admin = |extra: Value| {
            let mut claims = json!({ "sub": "jo", "exp": 1 });
            let extra = extra.as_object().unwrap().clone();
            claims.as_object_mut().unwrap().extend(extra);
            caller(claims).map(|caller| caller.admin)
        };
        for granted in [
            json!({ "is_admin": true }),
            json!({ "scope": "reading:admin" }),
            json!({ "scope": "openid reading:admin email" }),
            json!({ "scope": ["openid", "reading:admin"] }),
            json!({ "scp": "reading:admin" }),
            json!({ "scp": ["reading:admin"] }),
            json!({ "is_admin": false, "scope": "reading:admin" }),
        ] {
            assert_eq!(admin(granted.clone()), Some(true), "{granted}");
        }
        for ordinary in [
            json!({}),
            json!({ "is_admin": false }),
            json!({ "is_admin": null }),
            json!({ "scope": "reading:administrator xreading:admin" }),
            json!({ "scope": "READING:ADMIN" }),
            json!({ "scope": ["reading:admin x"] }),
            json!({ "roles": ["reading:admin"] }),
        ] {
            assert_eq!(admin(ordinary.clone()), Some(false), "{ordinary}");
        }
        for refused in [json!({ "is_admin": "true" }), json!({ "scope": 7 })] {
            assert_eq!(admin(refused.clone()), None, "{refused}");
        }
    }

    #[test]
    fn a_token_that_is_not_for_calling_names_nobody() {
        let longest = "x".repeat(MAX_SUBJECT);
        assert!(caller(json!({ "sub": longest, "exp": 1.5 })).is_some());
        assert!(caller(json!({ "sub": "jo", "exp": 1, "type": "access" })).is_some());
        for refused in [
            json!({ "sub": "", "exp": 1 }),
            json!({ "sub": format!("{longest}x"), "exp": 1 }),
            json!({ "sub": 7, "exp": 1 }),
            json!({ "exp": 1 }),
            json!({ "sub": "jo" }),
            json!({ "sub": "jo", "exp": 1, "type": "refresh" }),
            json!({ "sub": "jo", "exp": 1, "type": "" }),
            json!({ "sub": "jo", "exp": 1, "iss": ["a", "b"] }),
        ] {
            assert!(caller(refused.clone()).is_none(), "{refused}");
        }
    }
}
