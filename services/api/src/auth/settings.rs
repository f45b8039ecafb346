//! Settings of the verification of tokens.

use std::path::PathBuf;

use crate::secret::Secret;

#[derive(Clone, Debug)]
pub struct AuthSettings {
    pub keys: KeySource,
    pub claims: ExpectedClaims,
}

/// The required values of claims.
#[derive(Clone, Debug, Default)]
pub struct ExpectedClaims {
    /// The required `iss`; `None` accepts any issuer.
    pub issuer: Option<String>,
    /// The required `aud`; `None` accepts any audience.
    pub audience: Option<String>,
}

/// The source of the verification keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A shared secret for HS256.
    Secret(Secret),
    /// A file that contains a JSON Web Key Set.
    File(PathBuf),
    /// The URL of a JSON Web Key Set. It may contain a password.
    Url(Secret),
}
