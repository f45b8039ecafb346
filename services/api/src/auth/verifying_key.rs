//! One key and the one algorithm that it is for. What a token says of its own
//! algorithm is compared, never followed; keys and addresses of keys in a
//! token's header are never looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Deserializer};

use super::claims::{Caller, Claims};

/// A key that verifies tokens, pinned to its algorithm.
pub(super) struct Key {
    algorithm: Algorithm,
    material: DecodingKey,
    validation: Validation,
}

impl Key {
    pub(super) fn new(algorithm: Algorithm, material: DecodingKey, rules: &Validation) -> Self {
        let mut validation = rules.clone();
        validation.algorithms = vec![algorithm];
        Self {
            algorithm,
            material,
            validation,
        }
    }

    /// Who calls with a token and what it says, when this key has signed it and
    /// its claims hold.
    pub(super) fn open(&self, header: &TokenHeader, token: &str) -> Option<(Caller, Claims)> {
        if header.algorithm != self.algorithm {
            return None;
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.material, &self.validation).ok()?;
        Some((data.claims.caller()?, data.claims))
    }
}

/// All that is read of a token's header.
#[derive(Deserialize)]
pub(super) struct TokenHeader {
    /// `none` is no algorithm, and fails to be read as one.
    #[serde(rename = "alg")]
    pub(super) algorithm: Algorithm,
    /// The name of its key.
    pub(super) kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11). There are
    /// none that are.
    #[serde(default, rename = "crit", deserialize_with = "present")]
    critical: bool,
}

impl TokenHeader {
    /// The header of a token; `None` when it cannot be trusted to mean what it
    /// says.
    pub(super) fn of(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Self = serde_json::from_slice(&json).ok()?;
        (!header.critical).then_some(header)
    }
}

/// Whether there is a value, `null` too.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Option<TokenHeader> {
        TokenHeader::of(&format!("{}.e30.x", URL_SAFE_NO_PAD.encode(json)))
    }

    #[test]
    fn a_header_is_read_no_further_than_needed() {
        let read = header(r#"{"alg":"ES256","kid":"a","jku":"http://evil","jwk":{},"x5u":7}"#);
        let read = read.unwrap();
        assert_eq!(read.algorithm, Algorithm::ES256);
        assert_eq!(read.kid.as_deref(), Some("a"));
        assert!(header(r#"{"alg":"HS256"}"#).is_some_and(|header| header.kid.is_none()));
    }

    #[test]
    fn a_header_that_cannot_be_relied_on_is_refused() {
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
            assert!(TokenHeader::of(token).is_none(), "{token}");
        }
    }
}
