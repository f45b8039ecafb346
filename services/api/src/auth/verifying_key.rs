//! A key with the one algorithm that it verifies.
//!
//! The algorithm in a token's header must equal the algorithm of the key; it never
//! selects one. Keys and URLs of keys in the header are ignored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Deserializer};

use super::claims::{Caller, Claims};

/// A key that verifies tokens of one algorithm.
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

impl VerifyingKey {
    pub(super) fn new(algorithm: Algorithm, key: DecodingKey, rules: &Validation) -> Self {
        let mut validation = rules.clone();
        validation.algorithms = vec![algorithm];
        Self {
            algorithm,
            key,
            validation,
        }
    }

    /// Returns the caller and the claims if the signature and the claims are valid.
    pub(super) fn verify(&self, header: &TokenHeader, token: &str) -> Option<(Caller, Claims)> {
        if header.algorithm != self.algorithm {
            return None;
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?;
        Some((data.claims.caller()?, data.claims))
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
