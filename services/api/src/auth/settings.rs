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
    pub subjects: SubjectMapping,
}

/// Which subjects (`sub`) are used as the reader's id. All others are mapped to a UUID of
/// version 5, which depends on the issuer and the subject only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubjectMapping {
    /// UUIDs in their canonical form that are not of version 5. So no subject is the id
    /// of a reader with another subject.
    #[default]
    Canonical,
    /// Every UUID in any form, as in earlier releases. A subject can then be the mapped id
    /// of another one. Only safe with an issuer whose users cannot choose their subjects.
    AnyUuid,
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
