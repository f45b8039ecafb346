//! What tokens are verified with: exactly one thing.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::required;
use api::auth::{AuthSettings, ExpectedClaims, KeySource};
use api::secret::Secret;

/// Who may call: tokens are verified with one secret, or with the public keys
/// of an issuer.
#[derive(Args, Clone, Debug, Default)]
pub struct AuthArgs {
    /// The HS256 secret of the tokens, at least 32 bytes. Only by environment
    /// variable or file: arguments are visible to every user of the machine.
    #[arg(skip = secret_variable())]
    pub jwt_secret: Option<Secret>,
    /// A file with the HS256 secret of the tokens.
    #[arg(long, env = "JWT_SECRET_FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// A file with the public keys of the issuer, a JSON Web Key Set (RS256,
    /// ES256, Ed25519). It is read again when it has changed.
    #[arg(long, env = "JWKS_FILE")]
    pub jwks_file: Option<PathBuf>,
    /// Where the issuer publishes its public keys, for example
    /// `https://issuer.example/.well-known/jwks.json`.
    #[arg(long, env = "JWKS_URL", hide_env_values = true)]
    pub jwks_url: Option<Secret>,
    /// The issuer that tokens must name.
    #[arg(long, env = "JWT_ISSUER")]
    pub jwt_issuer: Option<String>,
    /// The audience that tokens must name.
    #[arg(long, env = "JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
}

/// HS256 secrets shorter than the hash are guessable (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

impl AuthArgs {
    /// Whether there is anything to verify tokens with.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.given().is_empty()
    }

    /// What tokens are verified with.
    ///
    /// # Errors
    /// When it is not set, set more than once, its file cannot be read, or the
    /// secret is too short.
    pub fn source(&self) -> anyhow::Result<KeySource> {
        let (file, url) = (&self.jwks_file, &self.jwks_url);
        let secret = || {
            required(
                "JWT_SECRET",
                self.jwt_secret.as_ref(),
                self.jwt_secret_file.as_ref(),
            )
        };
        match (self.given().len(), file, url) {
            (0, ..) => {
                bail!("one of JWT_SECRET, JWT_SECRET_FILE, JWKS_FILE and JWKS_URL must be set")
            }
            (1, Some(file), _) => Ok(KeySource::File(file.clone())),
            (1, _, Some(url)) => Ok(KeySource::Url(url.clone())),
            (1, None, None) => long_enough(secret()?).map(KeySource::Secret),
            // Which of them would win is nothing to guess about.
            _ => bail!(
                "{} are set, but tokens are verified with one of them only",
                self.given().join(" and ")
            ),
        }
    }

    /// What the API verifies tokens with.
    ///
    /// # Errors
    /// Those of [`AuthArgs::source`].
    pub fn settings(&self) -> anyhow::Result<AuthSettings> {
        Ok(AuthSettings {
            keys: self.source()?,
            claims: self.claims(),
        })
    }

    #[must_use]
    pub fn claims(&self) -> ExpectedClaims {
        ExpectedClaims {
            issuer: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
        }
    }

    /// The HS256 secret.
    ///
    /// # Errors
    /// Those of [`AuthArgs::source`], and when tokens are verified with public
    /// keys: then only the issuer can sign.
    pub fn secret(&self) -> anyhow::Result<Secret> {
        match self.source()? {
            KeySource::Secret(secret) => Ok(secret),
            KeySource::File(_) | KeySource::Url(_) => bail!(
                "tokens are signed here with HS256 only, which needs JWT_SECRET or \
                 JWT_SECRET_FILE; with {} they come from the issuer",
                self.given().join("")
            ),
        }
    }

    /// The names of the settings that are given.
    fn given(&self) -> Vec<&'static str> {
        [
            ("JWT_SECRET", self.jwt_secret.is_some()),
            ("JWT_SECRET_FILE", self.jwt_secret_file.is_some()),
            ("JWKS_FILE", self.jwks_file.is_some()),
            ("JWKS_URL", self.jwks_url.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

fn long_enough(secret: Secret) -> anyhow::Result<Secret> {
    if secret.expose().len() < MIN_SECRET_BYTES {
        bail!(
            "JWT_SECRET is shorter than {MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes one"
        );
    }
    Ok(secret)
}

fn secret_variable() -> Option<Secret> {
    std::env::var("JWT_SECRET").ok().map(Secret::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_verified_with_exactly_one_thing() {
        let secret = || Some(Secret::from("0123456789abcdef0123456789abcdef".to_owned()));
        let url = || Some(Secret::from("https://issuer.example/jwks".to_owned()));
        let error = |args: &AuthArgs| args.source().unwrap_err().to_string();

        let mut args = AuthArgs::default();
        assert!(error(&args).contains("must be set"));
        args.jwt_secret = secret();
        assert!(matches!(args.source(), Ok(KeySource::Secret(_))));
        args.jwks_url = url();
        assert!(error(&args).starts_with("JWT_SECRET and JWKS_URL are set"));
        args.jwt_secret = None;
        assert!(matches!(args.source(), Ok(KeySource::Url(_))));
        let unsigned = args.secret().unwrap_err().to_string();
        assert!(unsigned.contains("HS256 only"), "{unsigned}");
        args.jwks_file = Some("keys.json".into());
        assert!(error(&args).starts_with("JWKS_FILE and JWKS_URL are set"));
        args.jwks_url = None;
        assert!(matches!(args.source(), Ok(KeySource::File(_))));
        args.jwt_secret_file = Some("secret".into());
        assert!(error(&args).starts_with("JWT_SECRET_FILE and JWKS_FILE are set"));
    }
}
