//! What tokens are verified with.

use std::path::PathBuf;

use crate::secret::Secret;

/// What tokens are verified with, and the claims that they must carry.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    pub keys: KeySource,
    pub claims: ExpectedClaims,
}

/// The claims that tokens must carry.
#[derive(Clone, Debug, Default)]
pub struct ExpectedClaims {
    /// The issuer that tokens must name; `None` accepts any.
    pub issuer: Option<String>,
    /// The audience that tokens must name; `None` accepts any.
    pub audience: Option<String>,
}

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// One shared secret, for HS256.
    Secret(Secret),
    /// A file that contains a JSON Web Key Set.
    File(PathBuf),
    /// The address of a JSON Web Key Set.
    Url(Secret),
}
