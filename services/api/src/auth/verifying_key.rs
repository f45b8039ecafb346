//! A key with the one algorithm that it verifies.
//!
//! The algorithm in a token's header must equal the algorithm of the key; it never
//! selects one. Keys and URLs of keys in the header are ignored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventlog::clock;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Deserializer};

use super::claims::{Caller, Claims, TokenRules};
use super::settings::SubjectMapping;

/// A key that verifies tokens of one algorithm.
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
    subjects: SubjectMapping,
}

/// Why a key does not accept a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    Invalid,
    /// The key has signed it, and nothing but its time is wrong.
    Expired,
}

impl VerifyingKey {
    pub(super) fn new(algorithm: Algorithm, key: DecodingKey, rules: &TokenRules) -> Self {
        let mut validation = rules.validation.clone();
        validation.algorithms = vec![algorithm];
        Self {
            algorithm,
            key,
            validation,
            subjects: rules.subjects,
        }
    }

    /// Returns the caller and the claims if the signature and the claims are valid.
    pub(super) fn verify(
        &self,
        header: &TokenHeader,
        token: &str,
    ) -> Result<(Caller, Claims), Rejection> {
        if header.algorithm != self.algorithm || !header.is_access_token() {
            return Err(Rejection::Invalid);
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|_| Rejection::Invalid)?.claims;
        let caller = claims.caller(self.subjects).ok_or(Rejection::Invalid)?;
        if claims.has_expired(clock::now()) {
            return Err(Rejection::Expired);
        }
        Ok((caller, claims))
    }
}

/// The fields of a token's header that the service reads.
#[derive(Deserialize)]
pub(super) struct TokenHeader {
    /// `Algorithm` has no variant for `none`, so parsing rejects such a header.
    #[serde(rename = "alg")]
    pub(super) algorithm: Algorithm,
    /// The id of the key that signed the token.
    pub(super) kid: Option<String>,
    /// The media type of the token.
    typ: Option<String>,
    /// Whether the header has `crit`, which lists extensions that a verifier must
    /// support (RFC 7515, section 4.1.11). This one supports none.
    #[serde(default, rename = "crit", deserialize_with = "is_present")]
    has_critical_extensions: bool,
}

impl TokenHeader {
    /// Parses the header; `None` if it is malformed or has critical extensions.
    pub(super) fn parse(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Self = serde_json::from_slice(&json).ok()?;
        (!header.has_critical_extensions).then_some(header)
    }

    /// Whether the type is absent, that of a JWT, or that of an access token (RFC 9068,
    /// section 2.1). Others are for another purpose, such as proofs of possession.
    fn is_access_token(&self) -> bool {
        self.typ.as_deref().is_none_or(|typ| {
            let typ = typ.to_ascii_lowercase();
            let typ = typ.strip_prefix("application/").unwrap_or(&typ);
            matches!(typ, "jwt" | "at+jwt")
        })
    }
}

/// Returns `true` for every value, also `null`.
fn is_present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Option<TokenHeader> {
        TokenHeader::parse(&format!("{}.e30.x", URL_SAFE_NO_PAD.encode(json)))
    }

    #[test]
    fn header_keys_and_urls_are_ignored() {
        let parsed = header(r#"{"alg":"ES256","kid":"a","jku":"http://evil","jwk":{},"x5u":7}"#);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.algorithm, Algorithm::ES256);
        assert_eq!(parsed.kid.as_deref(), Some("a"));
        assert!(header(r#"{"alg":"HS256"}"#).is_some_and(|header| header.kid.is_none()));
    }

    #[test]
    fn type_of_the_header_is_that_of_an_access_token() {
        let accepted = |typ: &str| {
            let header = header(&format!("{{\"alg\":\"ES256\",\"typ\":\"{typ}\"}}"));
            header.unwrap().is_access_token()
        };
        for typ in ["JWT", "jwt", "at+jwt", "application/at+JWT"] {
            assert!(accepted(typ), "{typ}");
        }
        for typ in ["dpop+jwt", "logout+jwt", "id_token", ""] {
            assert!(!accepted(typ), "{typ}");
        }
    }

    #[test]
    fn unsupported_header_is_rejected() {
        for json in [
            "",
            "{}",
            "null",
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"HS256","kid":1}"#,
            r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","crit":null}"#,
        ] {
            assert!(header(json).is_none(), "{json}");
        }
        for token in ["", ".", "...", "a.b.c", "eyJhbGciOiJIUzI1NiJ9", "é.é.é"] {
            assert!(TokenHeader::parse(token).is_none(), "{token}");
        }
    }
}
