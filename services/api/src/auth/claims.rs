//! The claims of a token: they identify the caller and whether it may use the admin
//! API. This module never checks signatures.

use std::collections::HashSet;

use domain::{ReaderId, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::settings::{ExpectedClaims, SubjectMapping};
use crate::secret::Secret;

/// The accepted difference between the clocks of the issuer and the service, in
/// seconds.
const LEEWAY_SECONDS: u32 = 10;

/// The longest subject, in bytes (the limit of `OpenID` Connect).
const MAX_SUBJECT_BYTES: usize = 255;

/// The scope that allows every call of the admin API.
pub const ADMIN_SCOPE: &str = "reading:admin";

/// The scope that allows the calls of the admin API that change nothing.
pub const ADMIN_READ_SCOPE: &str = "reading:admin:read";

/// The authenticated caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub reader_id: ReaderId,
    pub admin: AdminAccess,
}

/// The access of a caller to the admin API. A greater value includes the smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminAccess {
    #[default]
    None,
    /// Calls that change nothing.
    Read,
    /// Also calls that change something.
    Act,
}

impl AdminAccess {
    /// The scope that grants this access; `None` if it needs none.
    #[must_use]
    pub const fn scope(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Read => Some(ADMIN_READ_SCOPE),
            Self::Act => Some(ADMIN_SCOPE),
        }
    }
}

/// The claims that the service reads. [`TokenRules`] check `nbf`, issuer and audience.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    /// A Unix time in seconds; it may have a fraction.
    exp: f64,
    iss: Option<String>,
    #[serde(rename = "type")]
    token_type: Option<String>,
    is_admin: Option<bool>,
    scope: Option<Scopes>,
    scp: Option<Scopes>,
    /// Only ID tokens of `OpenID` Connect have these two (Core, sections 2 and 3.1.3.6).
    nonce: Option<IgnoredAny>,
    at_hash: Option<IgnoredAny>,
}

/// Issuers write scopes as one string separated by spaces (RFC 8693), or as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scopes {
    Text(String),
    List(Vec<String>),
}

impl Scopes {
    fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::Text(text) => text.split(' ').any(|scope| scope == wanted),
            Self::List(list) => list.iter().any(|scope| scope == wanted),
        }
    }
}

impl Claims {
    /// The caller; `None` if the subject is empty or too long, or the token is not
    /// an access token.
    pub(super) fn caller(&self, subjects: SubjectMapping) -> Option<Caller> {
        let subject = &self.sub;
        if subject.is_empty()
            || subject.len() > MAX_SUBJECT_BYTES
            || self.nonce.is_some()
            || self.at_hash.is_some()
            || self
                .token_type
                .as_deref()
                .is_some_and(|token_type| token_type != "access")
        {
            return None;
        }
        Some(Caller {
            reader_id: reader_id(self.iss.as_deref(), subject, subjects),
            admin: self.admin_access(),
        })
    }

    fn admin_access(&self) -> AdminAccess {
        let has = |scope| {
            let mut claims = [&self.scope, &self.scp].into_iter().flatten();
            claims.any(|scopes| scopes.contains(scope))
        };
        if self.is_admin == Some(true) || has(ADMIN_SCOPE) {
            AdminAccess::Act
        } else if has(ADMIN_READ_SCOPE) {
            AdminAccess::Read
        } else {
            AdminAccess::None
        }
    }

    pub(super) fn subject(&self) -> &str {
        &self.sub
    }

    /// Whether the token has expired at `now`, by more than the leeway.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at() < now.timestamp() - i64::from(LEEWAY_SECONDS)
    }

    /// When the token expires, as a Unix time in seconds without leeway.
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    pub(super) fn expires_at(&self) -> i64 {
        self.exp as i64
    }
}

fn reader_id(issuer: Option<&str>, subject: &str, subjects: SubjectMapping) -> ReaderId {
    let is_id = |id: &Uuid| match subjects {
        SubjectMapping::Canonical => {
            let mut canonical = Uuid::encode_buffer();
            id.get_version_num() != 5 && id.hyphenated().encode_lower(&mut canonical) == subject
        }
        SubjectMapping::AnyUuid => true,
    };
    let id = Uuid::try_parse(subject).ok().filter(is_id);
    id.unwrap_or_else(|| {
        let name = format!("{}\n{subject}", issuer.unwrap_or_default());
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
    })
    .into()
}

/// The rules for all tokens.
#[derive(Clone, Debug)]
pub(super) struct TokenRules {
    /// Without an algorithm: [`VerifyingKey`](super::verifying_key::VerifyingKey) adds its
    /// own.
    pub(super) validation: Validation,
    pub(super) subjects: SubjectMapping,
}

impl TokenRules {
    pub(super) fn new(expected: &ExpectedClaims) -> Self {
        Self {
            validation: validation(expected),
            subjects: expected.subjects,
        }
    }
}

fn validation(expected: &ExpectedClaims) -> Validation {
    let mut validation = Validation::default();
    validation.algorithms.clear();
    validation.leeway = LEEWAY_SECONDS.into();
    validation.validate_nbf = true;
    // `Claims::has_expired` distinguishes expired tokens from invalid ones.
    validation.validate_exp = false;
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
    token_type: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_admin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

/// Signs a token with HS256, for development and tests. `expires_at` is a Unix time
/// in seconds.
///
/// # Errors
/// Fails if the token cannot be signed.
pub fn issue_token(
    secret: &Secret,
    subject: &str,
    admin: AdminAccess,
    expected: &ExpectedClaims,
    expires_at: i64,
) -> Result<String, jsonwebtoken::errors::Error> {
    let claims = NewClaims {
        sub: subject,
        iss: expected.issuer.as_deref(),
        aud: expected.audience.as_deref(),
        exp: expires_at,
        token_type: "access",
        is_admin: admin == AdminAccess::Act,
        scope: (admin == AdminAccess::Read).then_some(ADMIN_READ_SCOPE),
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn caller(claims: Value) -> Option<Caller> {
        let claims = serde_json::from_value::<Claims>(claims).ok()?;
        claims.caller(SubjectMapping::default())
    }

    #[test]
    fn other_subjects_map_to_a_uuid_per_issuer() {
        let reader = |issuer, subject| reader_id(issuer, subject, SubjectMapping::Canonical);
        let uuid = "018f4c2e-7c1a-7000-8000-000000000001";
        assert_eq!(reader(None, uuid).to_string(), uuid);
        assert_eq!(reader(Some("a"), "jo"), reader(Some("a"), "jo"));
        assert_ne!(reader(Some("a"), "jo"), reader(Some("b"), "jo"));
    }

    #[test]
    fn no_subject_is_the_id_of_a_reader_with_another_subject() {
        let mapped = reader_id(Some("a"), "jo", SubjectMapping::Canonical).to_string();
        let uuid = "018f4c2e-7c1a-7000-8000-000000000001";
        let id = reader_id(None, uuid, SubjectMapping::Canonical);
        for (subject, other) in [
            (mapped.clone(), mapped),
            (uuid.to_uppercase(), id.to_string()),
            (uuid.replace('-', ""), id.to_string()),
            (format!("{{{uuid}}}"), id.to_string()),
            (format!("urn:uuid:{uuid}"), id.to_string()),
        ] {
            let reader = |subjects| reader_id(None, &subject, subjects).to_string();
            assert_ne!(reader(SubjectMapping::Canonical), other, "{subject}");
            assert_eq!(reader(SubjectMapping::AnyUuid), other, "{subject}");
        }
    }

    #[test]
    fn flag_or_scope_grants_admin() {
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
            json!({ "scope": "reading:admin:read reading:admin" }),
            json!({ "is_admin": true, "scp": ["reading:admin:read"] }),
        ] {
            assert_eq!(admin(granted.clone()), Some(AdminAccess::Act), "{granted}");
        }
        for granted in [
            json!({ "scope": "openid reading:admin:read" }),
            json!({ "scp": ["reading:admin:read"] }),
            json!({ "is_admin": false, "scope": "reading:admin:read" }),
        ] {
            assert_eq!(admin(granted.clone()), Some(AdminAccess::Read), "{granted}");
        }
        for ordinary in [
            json!({}),
            json!({ "is_admin": false }),
            json!({ "is_admin": null }),
            json!({ "scope": "reading:administrator xreading:admin" }),
            json!({ "scope": "READING:ADMIN" }),
            json!({ "scope": ["reading:admin x"] }),
            json!({ "roles": ["reading:admin"] }),
            json!({ "scope": "reading:admin:readers reading:admin:" }),
        ] {
            assert_eq!(
                admin(ordinary.clone()),
                Some(AdminAccess::None),
                "{ordinary}"
            );
        }
        for rejected in [json!({ "is_admin": "true" }), json!({ "scope": 7 })] {
            assert_eq!(admin(rejected.clone()), None, "{rejected}");
        }
    }

    #[test]
    fn only_access_tokens_with_a_subject_have_a_caller() {
        let longest = "x".repeat(MAX_SUBJECT_BYTES);
        assert!(caller(json!({ "sub": longest, "exp": 1.5 })).is_some());
        assert!(caller(json!({ "sub": "jo", "exp": 1, "type": "access" })).is_some());
        for rejected in [
            json!({ "sub": "", "exp": 1 }),
            json!({ "sub": format!("{longest}x"), "exp": 1 }),
            json!({ "sub": 7, "exp": 1 }),
            json!({ "exp": 1 }),
            json!({ "sub": "jo" }),
            json!({ "sub": "jo", "exp": 1, "type": "refresh" }),
            json!({ "sub": "jo", "exp": 1, "type": "" }),
            json!({ "sub": "jo", "exp": 1, "nonce": "n-0S6_WzA2Mj" }),
            json!({ "sub": "jo", "exp": 1, "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng" }),
            json!({ "sub": "jo", "exp": 1, "iss": ["a", "b"] }),
        ] {
            assert!(caller(rejected.clone()).is_none(), "{rejected}");
        }
    }
}
