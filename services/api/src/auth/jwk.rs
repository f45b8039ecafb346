//! Parses one JSON Web Key (RFC 7517) and determines its algorithm.
//!
//! Symmetric keys are rejected: a key set is public, so everyone could sign with
//! them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::claims::TokenRules;
use super::verifying_key::VerifyingKey;

/// The smallest modulus of an RSA key, in bits (RFC 7518, section 3.3).
const MIN_RSA_BITS: usize = 2_048;

/// The largest modulus that the cryptographic library supports, in bits.
const MAX_RSA_BITS: usize = 8_192;

/// The size of a coordinate of P-256 and of an Ed25519 key, in bytes.
const COORDINATE_BYTES: usize = 32;

/// The reason why a key is unusable.
#[derive(Debug, Error)]
pub(super) enum JwkError {
    #[error("malformed key: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("not for signatures: use is {0:?}")]
    NotForSignatures(String),
    #[error("not for verifying: key_ops does not contain \"verify\"")]
    NotForVerifying,
    #[error("symmetric key in a public key set")]
    Symmetric,
    #[error("unsupported key type; RSA, P-256 and Ed25519 are supported")]
    UnsupportedType,
    #[error("unsupported algorithm {found:?}; this key is used with {expected}")]
    WrongAlgorithm {
        found: String,
        expected: &'static str,
    },
    #[error("missing member {0:?}")]
    Missing(&'static str),
    #[error("empty member {0:?}")]
    Empty(&'static str),
    #[error("member {member:?} is not base64url: {source}")]
    NotBase64Url {
        member: &'static str,
        source: base64::DecodeError,
    },
    #[error("RSA key of {0} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are supported")]
    RsaBits(usize),
    #[error("member {0:?} is not {COORDINATE_BYTES} bytes long")]
    CoordinateLength(&'static str),
    #[error("unusable coordinates: {0}")]
    Coordinates(#[from] jsonwebtoken::errors::Error),
}

/// The members of a key (RFC 7518, section 6; RFC 8037) that this module reads.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Parses a key, and returns its `kid` and the key with the algorithm of its type
/// and curve.
pub(super) fn parse(
    value: Value,
    rules: &TokenRules,
) -> Result<(Option<String>, VerifyingKey), JwkError> {
    let jwk: Jwk = serde_json::from_value(value)?;
    if let Some(usage) = &jwk.usage
        && usage != "sig"
    {
        return Err(JwkError::NotForSignatures(usage.clone()));
    }
    if let Some(operations) = &jwk.key_ops
        && !operations.iter().any(|operation| operation == "verify")
    {
        return Err(JwkError::NotForVerifying);
    }
    let (algorithm, name, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, "RS256", rsa_key(&jwk)?),
        ("EC", Some("P-256")) => {
            coordinate("x", jwk.x.as_deref())?;
            coordinate("y", jwk.y.as_deref())?;
            let (x, y) = (jwk.x.unwrap_or_default(), jwk.y.unwrap_or_default());
            let key = DecodingKey::from_ec_components(&x, &y)?;
            (Algorithm::ES256, "ES256", key)
        }
        ("OKP", Some("Ed25519")) => {
            let key = DecodingKey::from_ed_der(&coordinate("x", jwk.x.as_deref())?);
            (Algorithm::EdDSA, "EdDSA", key)
        }
        ("oct", _) => return Err(JwkError::Symmetric),
        _ => return Err(JwkError::UnsupportedType),
    };
    if let Some(alg) = jwk.alg
        && alg != name
    {
        return Err(JwkError::WrongAlgorithm {
            found: alg,
            expected: name,
        });
    }
    Ok((jwk.kid, VerifyingKey::new(algorithm, key, rules)))
}

fn rsa_key(jwk: &Jwk) -> Result<DecodingKey, JwkError> {
    let modulus = decode("n", jwk.n.as_deref())?;
    let exponent = decode("e", jwk.e.as_deref())?;
    let leading_zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus[leading_zeros..];
    let unused_bits = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = modulus.len() * 8 - unused_bits as usize;
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(JwkError::RsaBits(bits));
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn coordinate(member: &'static str, text: Option<&str>) -> Result<Vec<u8>, JwkError> {
    let bytes = decode(member, text)?;
    if bytes.len() == COORDINATE_BYTES {
        Ok(bytes)
    } else {
        Err(JwkError::CoordinateLength(member))
    }
}

fn decode(member: &'static str, text: Option<&str>) -> Result<Vec<u8>, JwkError> {
    let text = text.ok_or(JwkError::Missing(member))?;
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|source| JwkError::NotBase64Url { member, source })?;
    if bytes.is_empty() {
        Err(JwkError::Empty(member))
    } else {
        Ok(bytes)
    }
}

/// The example keys of the RFCs.
#[cfg(test)]
pub(super) mod examples {
    use serde_json::{Value, json};

    /// RFC 7515, appendix A.2.
    pub(crate) fn rsa() -> Value {
        json!({
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddx\
                  HmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs\
                  D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSH\
                  SXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV\
                  MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8\
                  NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        })
    }

    /// RFC 7515, appendix A.3.
    pub(crate) fn ec() -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    /// RFC 8037, appendix A.2.
    pub(crate) fn ed() -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::settings::ExpectedClaims;

    fn reason(base: &Value, extra: &Value) -> Option<String> {
        let mut jwk = base.clone();
        let extra = extra.as_object().unwrap().clone();
        jwk.as_object_mut().unwrap().extend(extra);
        let rules = TokenRules::new(&ExpectedClaims::default());
        parse(jwk, &rules).err().map(|error| error.to_string())
    }

    #[test]
    fn rsa_p256_and_ed25519_keys_are_accepted() {
        let all = [
            (examples::rsa(), "RS256"),
            (examples::ec(), "ES256"),
            (examples::ed(), "EdDSA"),
        ];
        for (jwk, name) in all {
            for extra in [
                json!({}),
                json!({ "use": "sig", "alg": name, "kid": "a" }),
                json!({ "key_ops": ["verify"], "x5u": "http://evil", "x5c": [] }),
            ] {
                assert_eq!(reason(&jwk, &extra), None, "{jwk} {extra}");
            }
        }
    }

    #[test]
    fn unusable_key_returns_the_reason() {
        let (rsa, ec, ed) = (examples::rsa(), examples::ec(), examples::ed());
        let short = URL_SAFE_NO_PAD.encode([255; 128]);
        // 2,048 bits, of which the first is 0.
        let mut modulus = [255; 256];
        modulus[0] = 127;
        let almost = URL_SAFE_NO_PAD.encode(modulus);
        let long = URL_SAFE_NO_PAD.encode([255; 1_025]);
        let cases = [
            (&rsa, json!({ "use": "enc" }), "not for signatures"),
            (&rsa, json!({ "use": "" }), "not for signatures"),
            (&rsa, json!({ "key_ops": ["encrypt"] }), "not for verifying"),
            (&rsa, json!({ "alg": "HS256" }), "used with RS256"),
            (&rsa, json!({ "alg": "PS256" }), "used with RS256"),
            (&ec, json!({ "alg": "RS256" }), "used with ES256"),
            (&ed, json!({ "alg": "ES256" }), "used with EdDSA"),
            (&rsa, json!({ "n": short }), "1024 bits"),
            (&rsa, json!({ "n": almost }), "2047 bits"),
            (&rsa, json!({ "n": long }), "8200 bits"),
            (&rsa, json!({ "n": "" }), "empty"),
            (&rsa, json!({ "n": "a+b=" }), "base64url"),
            (&rsa, json!({ "e": null }), "missing"),
            (&ec, json!({ "crv": "P-384" }), "key type"),
            (&ec, json!({ "crv": "Ed25519" }), "key type"),
            (&ec, json!({ "y": "AAAA" }), "32 bytes"),
            (&ec, json!({ "y": null }), "missing"),
            (&ed, json!({ "crv": "X25519" }), "key type"),
            (&ed, json!({ "x": "AAAA" }), "32 bytes"),
            (&ed, json!({ "kty": "oct", "k": "AAAA" }), "symmetric"),
            (&ed, json!({ "kty": "AKP" }), "key type"),
            (&ed, json!({ "kty": 7 }), "malformed"),
            (&ed, json!({ "kid": 7 }), "malformed"),
        ];
        for (base, extra, expected) in cases {
            let reason = reason(base, &extra).unwrap_or_default();
            assert!(reason.contains(expected), "{extra}: {reason}");
        }
    }
}
