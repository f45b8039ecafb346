//! Tokens that were found good. A client sends the same one each time; until it
//! expires it is not verified again.

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use quick_cache::sync::Cache;

use super::claims::{Caller, Claims};
use eventlog::clock;

/// Tokens that are remembered, about 100 bytes each. More readers than call one
/// process within minutes; of the rest, those that call least are forgotten.
const REMEMBERED: usize = 100_000;

/// A token's hash, so that a dump of memory or a collision of short hashes gives
/// nobody away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; SHA256_OUTPUT_LEN]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

/// Those that one key or one set of keys has verified, and that are forgotten
/// with it.
pub(super) struct Remembered(Cache<Fingerprint, Bearer>);

#[derive(Clone, Copy)]
struct Bearer {
    caller: Caller,
    expires_at: i64,
}

impl Default for Remembered {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl Remembered {
    /// Who calls with a token that was found good and has not expired.
    pub(super) fn caller(&self, token: &Fingerprint) -> Option<Caller> {
        let bearer = self.0.get(token)?;
        (clock::now().timestamp() < bearer.expires_at).then_some(bearer.caller)
    }

    /// Remembers a token whose signature and claims are good.
    pub(super) fn remember(&self, token: Fingerprint, caller: Caller, claims: &Claims) {
        let expires_at = claims.expires_at();
        self.0.insert(token, Bearer { caller, expires_at });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_remembered_until_it_expires() {
        let remembered = Remembered::default();
        let now = clock::now().timestamp();
        for (token, expires_at, is_known) in [("a", now + 60, true), ("b", now, false)] {
            let claims = json!({ "sub": "jo", "exp": expires_at });
            let claims: Claims = serde_json::from_value(claims).unwrap();
            let caller = claims.caller().unwrap();
            let hash = Fingerprint::of(token);
            assert_eq!(remembered.caller(&hash), None);
            remembered.remember(hash, caller, &claims);
            assert_eq!(remembered.caller(&hash), is_known.then_some(caller));
        }
        assert_eq!(remembered.caller(&Fingerprint::of("c")), None);
    }
}
