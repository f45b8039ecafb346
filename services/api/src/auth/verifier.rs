//! Verifies tokens with a shared secret or the public keys of an issuer.
//!
//! Each key has one algorithm, so a token cannot choose how it is verified. Tokens
//! are never logged.

use std::sync::Arc;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, DecodingKey};
use thiserror::Error;
use tokio::time::Instant;

use super::claims::{Caller, Claims, TokenRules};
use super::jwks_fetcher::{JwksFetcher, Refreshed};
use super::jwks_source::{JwksSource, JwksUrlError};
use super::key_set::Verification;
use super::settings::{AuthSettings, ExpectedClaims, KeySource};
use super::token_cache::{TokenCache, TokenHash};
use super::verifying_key::{Rejection, TokenHeader, VerifyingKey};

/// The longest token, in bytes. All headers of a request together may not be
/// longer.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Verifies tokens; clones are cheap.
#[derive(Clone)]
pub struct TokenVerifier(Arc<Keys>);

enum Keys {
    Secret(Box<VerifyingKey>, TokenCache),
    Public(JwksFetcher),
}

/// The reason why a token has no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    #[error("the token is invalid")]
    InvalidToken,
    /// The token is genuine, and nothing but its time is wrong.
    #[error("the token has expired")]
    ExpiredToken,
    /// The key set has no key with the token's id. [`TokenVerifier::verify_after_refresh`]
    /// fetches a newer one.
    #[error("the token names an unknown key")]
    UnknownKey,
    /// The token cannot be verified, because no key set has been fetched yet.
    #[error("the issuer's keys are not available yet")]
    KeysUnavailable,
}

impl TokenVerifier {
    /// With public keys, this starts a task that fetches them. The task ends with
    /// the last clone. Until the first fetch has succeeded, `verify` returns
    /// [`VerifyError::KeysUnavailable`].
    ///
    /// # Errors
    /// Fails if the URL of the key set is unusable.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime if the keys are public.
    pub fn new(settings: &AuthSettings) -> Result<Self, JwksUrlError> {
        let rules = TokenRules::new(&settings.claims);
        let source = match &settings.keys {
            KeySource::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose().as_bytes());
                let key = VerifyingKey::new(Algorithm::HS256, key, &rules);
                let keys = Keys::Secret(Box::new(key), TokenCache::default());
                return Ok(Self(Arc::new(keys)));
            }
            KeySource::File(path) => JwksSource::from_file(path.clone()),
            KeySource::Url(url) => JwksSource::from_url(url)?,
        };
        let ExpectedClaims {
            issuer, audience, ..
        } = &settings.claims;
        for (claim, expected) in [("iss", issuer), ("aud", audience)] {
            if expected.is_none() {
                tracing::warn!(
                    claim,
                    "tokens with any `{claim}` are accepted, also those for other services"
                );
            }
        }
        let fetcher = JwksFetcher::start(source, rules);
        Ok(Self(Arc::new(Keys::Public(fetcher))))
    }

    /// Returns the caller of a token. Waits for nothing.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify(&self, token: &str) -> Result<Caller, VerifyError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VerifyError::InvalidToken);
        }
        let hash = TokenHash::new(token);
        if let Some(caller) = self.cached(&hash) {
            return Ok(caller);
        }
        let header = TokenHeader::parse(token).ok_or(VerifyError::InvalidToken)?;
        match &*self.0 {
            Keys::Secret(key, cache) => {
                let (caller, claims) = key.verify(&header, token)?;
                cache.insert(hash, caller, &claims);
                Ok(caller)
            }
            Keys::Public(fetcher) => verify_public(fetcher, &header, token, hash),
        }
    }

    /// Like [`Self::verify`], for a token with an unknown key: waits up to a few seconds
    /// for a fetch of the key set. Anyone can write such a token, so the caller limits them.
    ///
    /// # Errors
    /// [`VerifyError::KeysUnavailable`] if the key is still unknown and the set may be
    /// outdated. The client then sends the token again.
    pub async fn verify_after_refresh(&self, token: &str) -> Result<Caller, VerifyError> {
        let Keys::Public(fetcher) = &*self.0 else {
            return self.verify(token);
        };
        // Before the set is read: a fetch that ends later has the keys that it lacks.
        let read_at = Instant::now();
        match self.verify(token) {
            Err(VerifyError::UnknownKey) => {}
            result => return result,
        }
        let refreshed = fetcher.refresh(read_at).await;
        self.verify(token)
            .map_err(|error| match (error, refreshed) {
                (VerifyError::UnknownKey, Refreshed::Yes) => VerifyError::InvalidToken,
                (VerifyError::UnknownKey, Refreshed::No) => VerifyError::KeysUnavailable,
                (error, _) => error,
            })
    }

    fn cached(&self, token: &TokenHash) -> Option<Caller> {
        match &*self.0 {
            Keys::Secret(_, cache) => cache.get(token),
            Keys::Public(fetcher) => fetcher.key_set()?.cached(token),
        }
    }
}

impl From<Rejection> for VerifyError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Invalid => Self::InvalidToken,
            Rejection::Expired => Self::ExpiredToken,
        }
    }
}

fn verify_public(
    fetcher: &JwksFetcher,
    header: &TokenHeader,
    token: &str,
    hash: TokenHash,
) -> Result<Caller, VerifyError> {
    // This rejects HMAC algorithms above all: everyone knows a public key, and could
    // sign with it as the secret. Rejecting them here also keeps such tokens from
    // causing a fetch.
    if !matches!(
        header.algorithm,
        Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA
    ) {
        return Err(VerifyError::InvalidToken);
    }
    // Before the first set, every key is unknown.
    let verification = fetcher.key_set().map_or(Verification::UnknownKey, |keys| {
        keys.verify(header, token, hash)
    });
    match verification {
        Verification::Valid(caller) => Ok(caller),
        // A device that returns after a rotation must learn that it has to refresh its
        // token. A newer key set would not make the token valid.
        Verification::UnknownKey if claims_to_have_expired(token) => Err(VerifyError::InvalidToken),
        Verification::UnknownKey => Err(VerifyError::UnknownKey),
        Verification::Rejected(rejection) => Err(rejection.into()),
    }
}

/// Whether a token has expired according to its claims. Their signature is not checked, so
/// they may refuse a token only.
fn claims_to_have_expired(token: &str) -> bool {
    insecure_decode_claims::<Claims>(token)
        .is_ok_and(|claims| claims.has_expired(eventlog::clock::now()))
}
