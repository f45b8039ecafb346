//! Verifies tokens with a shared secret or the public keys of an issuer.
//!
//! Each key has one algorithm, so a token cannot choose how it is verified. Tokens
//! are never logged.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use thiserror::Error;

use super::claims::{self, Caller};
use super::jwks_fetcher::JwksFetcher;
use super::jwks_source::{JwksSource, JwksUrlError};
use super::key_set::Verification;
use super::settings::{AuthSettings, KeySource};
use super::token_cache::{TokenCache, TokenHash};
use super::verifying_key::{TokenHeader, VerifyingKey};

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
        let rules = claims::validation(&settings.claims);
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
        let fetcher = JwksFetcher::start(source, rules);
        Ok(Self(Arc::new(Keys::Public(fetcher))))
    }

    /// Returns the caller of a token. If the token names an unknown public key, this
    /// waits up to a few seconds for a fetch of the key set.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn verify(&self, token: &str) -> Result<Caller, VerifyError> {
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
                let (caller, claims) = key
                    .verify(&header, token)
                    .ok_or(VerifyError::InvalidToken)?;
                cache.insert(hash, caller, &claims);
                Ok(caller)
            }
            Keys::Public(fetcher) => verify_public(fetcher, &header, token, hash).await,
        }
    }

    fn cached(&self, token: &TokenHash) -> Option<Caller> {
        match &*self.0 {
            Keys::Secret(_, cache) => cache.get(token),
            Keys::Public(fetcher) => fetcher.key_set()?.cached(token),
        }
    }
}

async fn verify_public(
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
    let verify = || {
        let keys = fetcher.key_set()?;
        Some(keys.verify(header, token, hash))
    };
    let verification = match verify() {
        None | Some(Verification::UnknownKey) => {
            fetcher.refresh().await;
            verify()
        }
        known_key => known_key,
    };
    match verification {
        Some(Verification::Valid(caller)) => Ok(caller),
        Some(Verification::UnknownKey | Verification::Invalid) => Err(VerifyError::InvalidToken),
        None => Err(VerifyError::KeysUnavailable),
    }
}
