//! A JSON Web Key Set (RFC 7517), and the cache of the tokens that it has verified.
//!
//! A `kid` only selects a key of this set. This module never fetches anything.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::claims::{Caller, TokenRules};
use super::jwk;
use super::token_cache::{TokenCache, TokenHash};
use super::verifying_key::{Rejection, TokenHeader, VerifyingKey};

/// The keys that an issuer published at one time.
pub(super) struct KeySet {
    by_kid: HashMap<String, VerifyingKey>,
    /// Keys without a `kid`. Such a key is only used if it is the only key.
    unnamed: Vec<VerifyingKey>,
    /// The ids of the keys that the previous set had and this one does not. Their tokens
    /// are invalid; a newer set does not change that.
    removed: HashSet<String>,
    /// Part of the set, so that a new set drops the tokens of removed keys.
    cache: TokenCache,
}

/// The result of verifying a token with a key set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verification {
    Valid(Caller),
    /// The set has no key with the token's `kid`; a newer set may have one.
    UnknownKey,
    Rejected(Rejection),
}

#[derive(Debug, Error)]
pub(super) enum KeySetError {
    #[error("not a JSON Web Key Set: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The issuer has made a mistake. Without this error, an empty set would lock
    /// out all callers.
    #[error("the key set contains no usable key")]
    NoUsableKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Parses a set, which replaces the previous one. Unusable keys are logged and
    /// skipped.
    pub(super) fn parse(
        json: &[u8],
        rules: &TokenRules,
        previous: Option<&Self>,
    ) -> Result<Self, KeySetError> {
        let document: Document = serde_json::from_slice(json)?;
        let mut by_kid = HashMap::new();
        let mut unnamed = Vec::new();
        for value in document.keys {
            let kid = value["kid"].as_str().map(str::to_owned);
            match jwk::parse(value, rules) {
                Ok((None, key)) => unnamed.push(key),
                Ok((Some(kid), key)) => match by_kid.entry(kid) {
                    Entry::Vacant(entry) => drop(entry.insert(key)),
                    Entry::Occupied(entry) => {
                        let kid = entry.key();
                        tracing::warn!(?kid, "signing key skipped: duplicate kid {kid:?}");
                    }
                },
                Err(error) => {
                    tracing::warn!(?kid, %error, "signing key skipped: {error}");
                }
            }
        }
        if by_kid.is_empty() && unnamed.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        let previous = previous.into_iter().flat_map(|set| set.by_kid.keys());
        let removed = previous.filter(|kid| !by_kid.contains_key(*kid));
        Ok(Self {
            removed: removed.cloned().collect(),
            by_kid,
            unnamed,
            cache: TokenCache::default(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_kid.len() + self.unnamed.len()
    }

    /// The caller of a token that this set has already verified.
    pub(super) fn cached(&self, hash: &TokenHash) -> Option<Caller> {
        self.cache.get(hash)
    }

    /// Verifies a token, and caches it if it is valid.
    pub(super) fn verify(
        &self,
        header: &TokenHeader,
        token: &str,
        hash: TokenHash,
    ) -> Verification {
        let key = match &header.kid {
            Some(kid) => match self.by_kid.get(kid) {
                Some(key) => key,
                None if self.removed.contains(kid) => {
                    return Verification::Rejected(Rejection::Invalid);
                }
                None => return Verification::UnknownKey,
            },
            None => match self.only_key() {
                Some(key) => key,
                None => return Verification::Rejected(Rejection::Invalid),
            },
        };
        match key.verify(header, token) {
            Ok((caller, claims)) => {
                self.cache.insert(hash, caller, &claims);
                Verification::Valid(caller)
            }
            Err(rejection) => Verification::Rejected(rejection),
        }
    }

    /// The key of a set with exactly one key. Tokens need no `kid` for it.
    fn only_key(&self) -> Option<&VerifyingKey> {
        let mut keys = self.by_kid.values().chain(&self.unnamed);
        keys.next().filter(|_| keys.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::auth::jwk::examples;
    use crate::auth::settings::ExpectedClaims;

    fn parse(set: &Value) -> Result<KeySet, KeySetError> {
        parse_after(None, set)
    }

    fn parse_after(previous: Option<&KeySet>, set: &Value) -> Result<KeySet, KeySetError> {
        let rules = TokenRules::new(&ExpectedClaims::default());
        KeySet::parse(set.to_string().as_bytes(), &rules, previous)
    }

    #[test]
    fn set_without_a_usable_key_is_rejected() {
        for set in [
            json!({ "keys": [] }),
            json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }),
            json!({ "keys": [7, "x", null, {}] }),
            json!({ "keys": {} }),
            json!([]),
            json!({}),
        ] {
            assert!(parse(&set).is_err(), "{set}");
        }
    }

    fn named(mut jwk: Value, kid: &str) -> Value {
        jwk["kid"] = json!(kid);
        jwk
    }

    #[test]
    fn token_of_a_removed_key_is_invalid_and_of_a_new_one_unknown() {
        let set = |kid: &str| json!({ "keys": [named(examples::ec(), kid)] });
        let verify = |keys: &KeySet, kid: &str| {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "ES256", "kid": kid }).to_string());
            let token = format!("{header}.e30.x");
            let header = TokenHeader::parse(&token).unwrap();
            keys.verify(&header, &token, TokenHash::new(&token))
        };
        let first = parse(&set("a")).unwrap();
        let second = parse_after(Some(&first), &set("b")).unwrap();
        let invalid = Verification::Rejected(Rejection::Invalid);
        assert_eq!(verify(&second, "a"), invalid);
        assert_eq!(verify(&second, "c"), Verification::UnknownKey);
        // A key can return.
        let third = parse_after(Some(&second), &set("a")).unwrap();
        assert!(third.removed.contains("b") && !third.removed.contains("a"));
    }

    #[test]
    fn only_a_single_key_needs_no_kid() {
        let (ec, ed) = (examples::ec(), examples::ed());
        let one = parse(&json!({ "keys": [ec, { "kty": "oct", "k": "AAAA" }] })).unwrap();
        assert!(one.len() == 1 && one.only_key().is_some());
        let one = parse(&json!({ "keys": [named(ec.clone(), "a")] })).unwrap();
        assert!(one.only_key().is_some() && one.by_kid.contains_key("a"));
        let two = parse(&json!({ "keys": [named(ec.clone(), "a"), ed] })).unwrap();
        assert!(two.len() == 2 && two.only_key().is_none());
        let same = parse(&json!({ "keys": [named(ec, "a"), named(ed, "a")] })).unwrap();
        assert_eq!(same.len(), 1, "the first key with a kid is used");
    }
}
