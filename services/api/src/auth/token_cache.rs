//! Caches verified tokens. A client sends the same token with every request, so its
//! signature is verified only once.

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use eventlog::clock;
use quick_cache::sync::Cache;

use super::claims::{Caller, Claims};

/// The capacity of a cache. A token takes about 100 bytes. The capacity exceeds the
/// number of readers that call one process within a few minutes; beyond it, rarely
/// used tokens are evicted.
const MAX_CACHED_TOKENS: usize = 100_000;

/// The SHA-256 hash of a token. The cache does not store tokens, so a memory dump
/// reveals none. The hash is too long for collisions, which would confuse callers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; SHA256_OUTPUT_LEN]);

impl TokenHash {
    pub(super) fn new(token: &str) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

/// The tokens that one key or key set has verified. A new key set starts with an
/// empty cache, so the tokens of removed keys are not accepted any more.
pub(super) struct TokenCache(Cache<TokenHash, CachedToken>);

#[derive(Clone, Copy)]
struct CachedToken {
    caller: Caller,
    expires_at: i64,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self(Cache::new(MAX_CACHED_TOKENS))
    }
}

impl TokenCache {
    /// The caller of a cached token that has not expired. Expiry here has no leeway:
    /// during the leeway, the token is verified each time.
    pub(super) fn get(&self, token: &TokenHash) -> Option<Caller> {
        let cached = self.0.get(token)?;
        (clock::now().timestamp() < cached.expires_at).then_some(cached.caller)
    }

    /// Adds a token whose signature and claims are valid.
    pub(super) fn insert(&self, token: TokenHash, caller: Caller, claims: &Claims) {
        let expires_at = claims.expires_at();
        self.0.insert(token, CachedToken { caller, expires_at });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::settings::SubjectMapping;

    #[test]
    fn token_is_cached_until_it_expires() {
        let cache = TokenCache::default();
        let now = clock::now().timestamp();
        for (token, expires_at, is_cached) in [("a", now + 60, true), ("b", now, false)] {
            let claims = json!({ "sub": "jo", "exp": expires_at });
            let claims: Claims = serde_json::from_value(claims).unwrap();
            let caller = claims.caller(SubjectMapping::default()).unwrap();
            let hash = TokenHash::new(token);
            assert_eq!(cache.get(&hash), None);
            cache.insert(hash, caller, &claims);
            assert_eq!(cache.get(&hash), is_cached.then_some(caller));
        }
        assert_eq!(cache.get(&TokenHash::new("c")), None);
    }
}
