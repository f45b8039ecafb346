//! One JSON Web Key (RFC 7517): whether it verifies tokens, and with which
//! algorithm. Secrets are refused: a set is public, and whoever knows such a
//! key could sign with it.

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::verifying_key::Key;

/// The modulus of an RSA key, in bits (RFC 7518, section 3.3), and the most
/// that the cryptographic library takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// The coordinates of P-256 and the keys of Ed25519, in bytes.
const COORDINATE: usize = 32;

/// The members of a key (RFC 7518, section 6; RFC 8037) that matter.
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

/// A key's name, and the key with the one algorithm that its type and curve are
/// for.
///
/// # Errors
/// When it cannot be used, with the reason.
pub(super) fn read(value: Value, rules: &Validation) -> anyhow::Result<(Option<String>, Key)> {
    let jwk: Jwk = serde_json::from_value(value).context("it is malformed")?;
    if let Some(usage) = &jwk.usage {
        ensure!(usage == "sig", "it is not for signatures");
    }
    if let Some(operations) = &jwk.key_ops {
        let verifies = operations.iter().any(|operation| operation == "verify");
        ensure!(verifies, "it is not for verifying");
    }
    let (algorithm, name, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, "RS256", rsa(&jwk)?),
        ("EC", Some("P-256")) => {
            coordinate(jwk.x.as_deref())?;
            coordinate(jwk.y.as_deref())?;
            let (x, y) = (jwk.x.unwrap_or_default(), jwk.y.unwrap_or_default());
            let key = DecodingKey::from_ec_components(&x, &y)?;
            (Algorithm::ES256, "ES256", key)
        }
        ("OKP", Some("Ed25519")) => {
            let key = DecodingKey::from_ed_der(&coordinate(jwk.x.as_deref())?);
            (Algorithm::EdDSA, "EdDSA", key)
        }
        ("oct", _) => bail!("it is a secret, and a set is public"),
        _ => bail!("its type is not RSA, P-256 or Ed25519"),
    };
    if let Some(alg) = &jwk.alg {
        ensure!(alg == name, "its algorithm is not {name}");
    }
    Ok((jwk.kid, Key::new(algorithm, key, rules)))
}

fn rsa(jwk: &Jwk) -> anyhow::Result<DecodingKey> {
    let modulus = bytes(jwk.n.as_deref())?;
    let exponent = bytes(jwk.e.as_deref())?;
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus[leading..];
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = modulus.len() * 8 - usize::try_from(unused)?;
    ensure!(
        RSA_BITS.contains(&bits),
        "it has {bits} bits, not {} to {}",
        RSA_BITS.start(),
        RSA_BITS.end()
    );
    Ok(DecodingKey::from_rsa_raw_components(modulus, &exponent))
}

fn coordinate(text: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let bytes = bytes(text)?;
    ensure!(
        bytes.len() == COORDINATE,
        "it is not {COORDINATE} bytes long"
    );
    Ok(bytes)
}

fn bytes(text: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let text = text.context("a part of it is missing")?;
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .context("it is not base64url")?;
    ensure!(!bytes.is_empty(), "a part of it is empty");
    Ok(bytes)
}

/// Keys of the standards' own examples.
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
    use crate::auth::claims::validation;
    use crate::auth::settings::ExpectedClaims;

    fn reason(base: &Value, extra: &Value) -> Option<String> {
        let mut jwk = base.clone();
        let extra = extra.as_object().unwrap().clone();
        jwk.as_object_mut().unwrap().extend(extra);
        let rules = validation(&ExpectedClaims::default());
        read(jwk, &rules).err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn keys_of_three_kinds_are_used() {
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
    fn other_keys_are_skipped_and_the_reason_is_said() {
        let (rsa, ec, ed) = (examples::rsa(), examples::ec(), examples::ed());
        let short = URL_SAFE_NO_PAD.encode([255; 128]);
        // 2,048 bits long, of which the first is not set.
        let mut modulus = [255; 256];
        modulus[0] = 127;
        let almost = URL_SAFE_NO_PAD.encode(modulus);
        let long = URL_SAFE_NO_PAD.encode([255; 1_025]);
        let cases = [
            (&rsa, json!({ "use": "enc" }), "not for signatures"),
            (&rsa, json!({ "use": "" }), "not for signatures"),
            (&rsa, json!({ "key_ops": ["encrypt"] }), "not for verifying"),
            (&rsa, json!({ "alg": "HS256" }), "not RS256"),
            (&rsa, json!({ "alg": "PS256" }), "not RS256"),
            (&ec, json!({ "alg": "RS256" }), "not ES256"),
            (&ed, json!({ "alg": "ES256" }), "not EdDSA"),
            (&rsa, json!({ "n": short }), "1024 bits"),
            (&rsa, json!({ "n": almost }), "2047 bits"),
            (&rsa, json!({ "n": long }), "8200 bits"),
            (&rsa, json!({ "n": "" }), "empty"),
            (&rsa, json!({ "n": "a+b=" }), "base64url"),
            (&rsa, json!({ "e": null }), "missing"),
            (&ec, json!({ "crv": "P-384" }), "its type"),
            (&ec, json!({ "crv": "Ed25519" }), "its type"),
            (&ec, json!({ "y": "AAAA" }), "32 bytes"),
            (&ec, json!({ "y": null }), "missing"),
            (&ed, json!({ "crv": "X25519" }), "its type"),
            (&ed, json!({ "x": "AAAA" }), "32 bytes"),
            (&ed, json!({ "kty": "oct", "k": "AAAA" }), "a secret"),
            (&ed, json!({ "kty": "AKP" }), "its type"),
            (&ed, json!({ "kty": 7 }), "malformed"),
            (&ed, json!({ "kid": 7 }), "malformed"),
        ];
        for (base, extra, expected) in cases {
            let reason = reason(base, &extra).unwrap_or_default();
            assert!(reason.contains(expected), "{extra}: {reason}");
        }
    }
}
