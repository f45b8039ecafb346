//! A JSON Web Key Set (RFC 7517): its keys by name, and the tokens that they
//! have verified. A name is looked up and no more; this never fetches anything.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, ensure};
use jsonwebtoken::Validation;
use serde::Deserialize;
use serde_json::Value;

use super::claims::Caller;
use super::jwk;
use super::verifying_key::{Key, TokenHeader};
use super::token_cache::{Fingerprint, Remembered};

/// The keys of an issuer at one time.
pub(super) struct KeySet {
    by_kid: HashMap<String, Key>,
    /// Keys without a name; good only for being the only one.
    unnamed: Vec<Key>,
    /// Forgotten with the set: a key that the issuer took back opens nothing any
    /// more.
    remembered: Remembered,
}

/// What became of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is good.
    By(Caller),
    /// It names a key that is not in the set; a newer set may have it.
    UnknownKey,
    /// It is not good, whatever the issuer publishes.
    Refused,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// The usable keys of a set; each of the others is named in the log.
    ///
    /// # Errors
    /// When it is no set, or holds no usable key. An issuer that publishes
    /// nothing has made a mistake, which is not to lock everyone out.
    pub(super) fn parse(json: &[u8], rules: &Validation) -> anyhow::Result<Self> {
        let document: Document = serde_json::from_slice(json).context("not a JSON Web Key Set")?;
        let mut by_kid = HashMap::new();
        let mut unnamed = Vec::new();
        for value in document.keys {
            let name = value["kid"].as_str().map(str::to_owned);
            match jwk::read(value, rules) {
                Ok((None, key)) => unnamed.push(key),
                Ok((Some(kid), key)) => match by_kid.entry(kid) {
                    Entry::Vacant(place) => drop(place.insert(key)),
                    Entry::Occupied(place) => {
                        tracing::warn!(kid = ?place.key(), "a second key of this name is skipped");
                    }
                },
                Err(reason) => {
                    tracing::warn!(kid = ?name, reason = format!("{reason:#}"), "a key is skipped");
                }
            }
        }
        ensure!(
            !by_kid.is_empty() || !unnamed.is_empty(),
            "no key in the set can be used"
        );
        Ok(Self {
            by_kid,
            unnamed,
            remembered: Remembered::default(),
        })
    }

    /// How many keys it has.
    pub(super) fn len(&self) -> usize {
        self.by_kid.len() + self.unnamed.len()
    }

    /// Tokens that it has verified.
    pub(super) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Verifies a token.
    pub(super) fn open(&self, header: &TokenHeader, token: &str, hash: Fingerprint) -> Opened {
        let key = match &header.kid {
            Some(kid) => match self.by_kid.get(kid) {
                Some(key) => key,
                None => return Opened::UnknownKey,
            },
            None => match self.lone() {
                Some(key) => key,
                None => return Opened::Refused,
            },
        };
        match key.open(header, token) {
            Some((caller, claims)) => {
                self.remembered.remember(hash, caller, &claims);
                Opened::By(caller)
            }
            None => Opened::Refused,
        }
    }

    /// The key of a set that has just one: a token need not name it.
    fn lone(&self) -> Option<&Key> {
        let mut keys = self.by_kid.values().chain(&self.unnamed);
        keys.next().filter(|_| keys.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::claims::validation;
    use crate::auth::jwk::examples;
    use crate::auth::settings::ExpectedClaims;

    fn parse(set: &Value) -> anyhow::Result<KeySet> {
        let rules = validation(&ExpectedClaims::default());
        KeySet::parse(set.to_string().as_bytes(), &rules)
    }

    #[test]
    fn a_set_without_a_usable_key_is_none() {
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

    #[test]
    fn only_a_key_that_is_alone_needs_no_name() {
        let named = |jwk: Value, kid: &str| {
            let mut jwk = jwk;
            jwk["kid"] = json!(kid);
            jwk
        };
        let (ec, ed) = (examples::ec(), examples::ed());
        let one = parse(&json!({ "keys": [ec, { "kty": "oct", "k": "AAAA" }] })).unwrap();
        assert!(one.len() == 1 && one.lone().is_some());
        let one = parse(&json!({ "keys": [named(ec.clone(), "a")] })).unwrap();
        assert!(one.lone().is_some() && one.by_kid.contains_key("a"));
        let two = parse(&json!({ "keys": [named(ec.clone(), "a"), ed] })).unwrap();
        assert!(two.len() == 2 && two.lone().is_none());
        let same = parse(&json!({ "keys": [named(ec, "a"), named(ed, "a")] })).unwrap();
        assert_eq!(same.len(), 1, "the first of a name is taken");
    }
}
