//! The keys that tokens are verified with, whatever they are: a secret, or the
//! public keys of an issuer. A token never chooses how it is verified, and no
//! token is ever logged.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::claims::{self, Caller};
use super::key_set::Opened;
use super::verifying_key::{Key, TokenHeader};
use super::token_cache::{Fingerprint, Remembered};
use super::jwks_fetcher::{Fresh, Source};
use super::settings::{AuthSettings, KeySource};

/// The longest token, in bytes; no longer than the head of a request may be.
const MAX_TOKEN: usize = 16 * 1024;

/// The keys that tokens are verified with; cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Kind>);

enum Kind {
    Secret(Box<Key>, Remembered),
    Public(Fresh),
}

/// Why there is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is not good.
    Invalid,
    /// It cannot be told: the issuer's keys have not been read yet.
    KeysUnavailable,
}

impl Keys {
    /// The keys of these settings. Public keys are fetched by a task that ends
    /// with the last clone; until it has them, tokens are
    /// [`Refusal::KeysUnavailable`].
    ///
    /// # Errors
    /// When there is no source of keys, more than one, or a wrong one.
    ///
    /// # Panics
    /// Outside of a tokio runtime, with public keys.
    pub fn new(settings: &AuthSettings) -> anyhow::Result<Self> {
        let rules = claims::validation(&settings.claims);
        let source = match &settings.keys {
            KeySource::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose().as_bytes());
                let key = Key::new(Algorithm::HS256, key, &rules);
                return Ok(Self(Arc::new(Kind::Secret(
                    Box::new(key),
                    Remembered::default(),
                ))));
            }
            KeySource::File(path) => Source::file(path.clone()),
            KeySource::Url(address) => Source::url(address.clone())?,
        };
        Ok(Self(Arc::new(Kind::Public(Fresh::start(source, rules)))))
    }

    /// Who calls with a token. With public keys this may wait, some seconds at
    /// most, for the issuer to name a key that is new.
    ///
    /// # Errors
    /// When the token is not good, or that cannot be told yet.
    pub async fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::Invalid);
        }
        let hash = Fingerprint::of(token);
        if let Some(caller) = self.remembered(&hash) {
            return Ok(caller);
        }
        let header = TokenHeader::of(token).ok_or(Refusal::Invalid)?;
        match &*self.0 {
            Kind::Secret(key, remembered) => {
                let (caller, claims) = key.open(&header, token).ok_or(Refusal::Invalid)?;
                remembered.remember(hash, caller, &claims);
                Ok(caller)
            }
            Kind::Public(fresh) => public(fresh, &header, token, hash).await,
        }
    }

    fn remembered(&self, token: &Fingerprint) -> Option<Caller> {
        match &*self.0 {
            Kind::Secret(_, remembered) => remembered.caller(token),
            Kind::Public(fresh) => fresh.set()?.remembered().caller(token),
        }
    }
}

async fn public(
    fresh: &Fresh,
    header: &TokenHeader,
    token: &str,
    hash: Fingerprint,
) -> Result<Caller, Refusal> {
    // Most of all the HMAC family: a public key is no secret to anybody. Such
    // a token cannot make anyone fetch either.
    if !matches!(
        header.algorithm,
        Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA
    ) {
        return Err(Refusal::Invalid);
    }
    let opened = || fresh.set().map(|set| set.open(header, token, hash));
    let first = opened();
    let last = match first {
        None | Some(Opened::UnknownKey) => {
            fresh.ask().await;
            opened()
        }
        settled => settled,
    };
    match last {
        Some(Opened::By(caller)) => Ok(caller),
        Some(Opened::UnknownKey | Opened::Refused) => Err(Refusal::Invalid),
        None => Err(Refusal::KeysUnavailable),
    }
}
