//! The source of the keys that verify tokens: exactly one setting.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use api::auth::{AuthSettings, ExpectedClaims, KeySource, SubjectMapping};
use api::secret::Secret;
use clap::{Args, ValueEnum};

use super::{read_secret, variable};

/// HS256 secrets shorter than the hash can be guessed (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Settings that verify tokens, either with a shared secret or with an issuer's
/// public keys.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Tokens")]
pub struct AuthArgs {
    /// HS256 secret from the environment variable `JWT_SECRET`. It has no flag,
    /// because arguments are visible to every user of the machine.
    #[arg(skip = secret_from_environment())]
    pub jwt_secret: Option<Secret>,
    /// File with the HS256 secret of tokens, at least 32 bytes; or set
    /// `JWT_SECRET`.
    #[arg(long, env = "JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// File with the issuer's public keys, a JSON Web Key Set (RS256, ES256,
    /// Ed25519).
    ///
    /// The service checks the file for changes every 10 seconds.
    #[arg(long, env = "JWKS_FILE", value_name = "FILE")]
    pub jwks_file: Option<PathBuf>,
    /// Address of the issuer's public keys, for example
    /// `https://issuer.example/.well-known/jwks.json`.
    #[arg(long, env = "JWKS_URL", value_name = "URL", hide_env_values = true)]
    pub jwks_url: Option<Secret>,
    /// Value that the claim `iss` of a token must have. Required with `JWKS_FILE` and
    /// `JWKS_URL`; `*` accepts any [default: not checked].
    #[arg(long, env = "JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,
    /// Value that the claim `aud` of a token must contain. Required with `JWKS_FILE`
    /// and `JWKS_URL`; `*` accepts any [default: not checked].
    #[arg(long, env = "JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// Subjects that are used as the reader's id. All others are mapped to an id.
    ///
    /// Earlier releases used every UUID. If the issuer writes subjects in another form
    /// than lower case with hyphens, `any-uuid` keeps the ids of existing readers. It is
    /// only safe if users cannot choose their subjects.
    #[arg(
        long,
        env = "JWT_SUBJECTS",
        value_name = "FORM",
        value_enum,
        default_value_t
    )]
    pub jwt_subjects: SubjectForm,
}

/// Subjects that are used as the reader's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SubjectForm {
    /// UUIDs in lower case with hyphens that are not of version 5.
    #[default]
    CanonicalUuid,
    /// Every UUID.
    AnyUuid,
}

impl SubjectForm {
    /// The value of the setting.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CanonicalUuid => "canonical-uuid",
            Self::AnyUuid => "any-uuid",
        }
    }
}

/// A value of `JWT_ISSUER` and `JWT_AUDIENCE` that accepts any claim.
const ANY: &str = "*";

impl AuthArgs {
    /// Returns true if at least one source of keys is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.sources_set().is_empty()
    }

    /// # Errors
    /// Like [`AuthArgs::source`].
    pub fn settings(&self) -> anyhow::Result<AuthSettings> {
        let keys = self.source()?;
        if !matches!(keys, KeySource::Secret(_)) {
            for (name, value) in [
                ("JWT_ISSUER", &self.jwt_issuer),
                ("JWT_AUDIENCE", &self.jwt_audience),
            ] {
                ensure!(
                    value.as_ref().is_some_and(|value| !value.is_empty()),
                    "{name} must be set with {}: otherwise tokens that the issuer signed for \
                     other services are accepted; set it to {ANY} to accept any",
                    self.sources_set().join("")
                );
            }
        }
        Ok(AuthSettings {
            keys,
            claims: self.claims(),
        })
    }

    /// # Errors
    /// When no source of keys is set or several are, its file cannot be read, or
    /// the secret is too short.
    pub fn source(&self) -> anyhow::Result<KeySource> {
        let (file, url) = (&self.jwks_file, &self.jwks_url);
        match (self.sources_set().len(), file, url) {
            (0, ..) => {
                bail!("set one of JWT_SECRET, JWT_SECRET_FILE, JWKS_FILE and JWKS_URL")
            }
            (1, Some(file), _) => Ok(KeySource::File(file.clone())),
            (1, _, Some(url)) => Ok(KeySource::Url(url.clone())),
            (1, None, None) => {
                let (secret, file) = (&self.jwt_secret, &self.jwt_secret_file);
                let secret = read_secret("JWT_SECRET", secret.as_ref(), file.as_ref())?;
                check_length(&secret)?;
                Ok(KeySource::Secret(secret))
            }
            // An order of precedence would let a forgotten setting decide.
            _ => bail!(
                "{} are set, but only one of them may be; unset the others",
                self.sources_set().join(" and ")
            ),
        }
    }

    #[must_use]
    pub fn claims(&self) -> ExpectedClaims {
        let expected = |value: &Option<String>| {
            let value = value.clone();
            value.filter(|value| !value.is_empty() && value != ANY)
        };
        ExpectedClaims {
            issuer: expected(&self.jwt_issuer),
            audience: expected(&self.jwt_audience),
            subjects: match self.jwt_subjects {
                SubjectForm::CanonicalUuid => SubjectMapping::Canonical,
                SubjectForm::AnyUuid => SubjectMapping::AnyUuid,
            },
        }
    }

    /// The HS256 secret, to sign tokens.
    ///
    /// # Errors
    /// Like [`AuthArgs::source`], and when tokens are verified with public keys:
    /// then only the issuer can sign.
    pub fn secret(&self) -> anyhow::Result<Secret> {
        match self.source()? {
            KeySource::Secret(secret) => Ok(secret),
            KeySource::File(_) | KeySource::Url(_) => bail!(
                "cannot sign a token: with {} only the issuer can; \
                 set JWT_SECRET or JWT_SECRET_FILE instead to sign with HS256",
                self.sources_set().join("")
            ),
        }
    }

    /// The names of the sources of keys that are set.
    fn sources_set(&self) -> Vec<&'static str> {
        [
            ("JWT_SECRET", self.jwt_secret.is_some()),
            ("JWT_SECRET_FILE", self.jwt_secret_file.is_some()),
            ("JWKS_FILE", self.jwks_file.is_some()),
            ("JWKS_URL", self.jwks_url.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
        .collect()
    }
}

fn check_length(secret: &Secret) -> anyhow::Result<()> {
    if secret.expose().len() < MIN_SECRET_BYTES {
        bail!(
            "JWT_SECRET is shorter than {MIN_SECRET_BYTES} bytes; \
             create one with `openssl rand -hex 32`"
        );
    }
    Ok(())
}

fn secret_from_environment() -> Option<Secret> {
    variable("JWT_SECRET").map(Secret::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_source_of_keys_is_accepted() {
        let secret = || Some(Secret::from("0123456789abcdef0123456789abcdef".to_owned()));
        let url = || Some(Secret::from("https://issuer.example/jwks".to_owned()));
        let error = |args: &AuthArgs| args.source().unwrap_err().to_string();

        let mut args = AuthArgs::default();
        assert!(error(&args).starts_with("set one of JWT_SECRET"));
        args.jwt_secret = secret();
        assert!(matches!(args.source(), Ok(KeySource::Secret(_))));
        args.jwks_url = url();
        assert!(error(&args).starts_with("JWT_SECRET and JWKS_URL are set"));
        args.jwt_secret = None;
        assert!(matches!(args.source(), Ok(KeySource::Url(_))));
        let cannot_sign = args.secret().unwrap_err().to_string();
        assert!(cannot_sign.contains("only the issuer can"), "{cannot_sign}");
        args.jwks_file = Some("keys.json".into());
        assert!(error(&args).starts_with("JWKS_FILE and JWKS_URL are set"));
        args.jwks_url = None;
        assert!(matches!(args.source(), Ok(KeySource::File(_))));
        args.jwt_secret_file = Some("secret".into());
        assert!(error(&args).starts_with("JWT_SECRET_FILE and JWKS_FILE are set"));
    }

    #[test]
    fn public_keys_need_an_issuer_and_an_audience() {
        let text = |text: &str| Some(text.to_owned());
        let mut args = AuthArgs {
            jwks_file: Some("keys.json".into()),
            ..AuthArgs::default()
        };
        let error = |args: &AuthArgs| args.settings().unwrap_err().to_string();
        assert!(error(&args).starts_with("JWT_ISSUER must be set with JWKS_FILE"));
        args.jwt_issuer = text("https://issuer.example");
        assert!(error(&args).starts_with("JWT_AUDIENCE must be set with JWKS_FILE"));
        args.jwt_audience = text("");
        assert!(error(&args).starts_with("JWT_AUDIENCE must be set"));
        args.jwt_audience = text("*");
        let claims = args.settings().unwrap().claims;
        assert_eq!(claims.issuer, text("https://issuer.example"));
        assert_eq!(claims.audience, None);
        // A secret is shared with this service only.
        args = AuthArgs {
            jwt_secret: Some(Secret::from("0123456789abcdef0123456789abcdef".to_owned())),
            ..AuthArgs::default()
        };
        assert!(args.settings().is_ok());
    }
}
