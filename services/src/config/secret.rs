//! Values that are never shown, and where they come from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self(value.to_owned()))
    }
}

/// Shows only that there is one; of an address, all but its password.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters may be secrets too.
        let shown = self.0.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = shown.split_once("://") else {
            return f.write_str("(hidden)");
        };
        match rest.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or(user, |(user, _)| user);
                write!(f, "{scheme}://{user}:(hidden)@{host}")
            }
            None => f.write_str(shown),
        }
    }
}

/// A secret as it is given, or what its file holds.
pub(super) fn required(
    name: &str,
    value: Option<&Secret>,
    file: Option<&PathBuf>,
) -> anyhow::Result<Secret> {
    match (value, file) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{name}_FILE: cannot read {}", file.display()))?;
            Ok(Secret(text.trim().to_owned()))
        }
        (None, None) => bail!("{name} is not set, nor is {name}_FILE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let shown = |text: &str| format!("{:?}", Secret(text.to_owned()));
        assert_eq!(shown("correct horse battery staple"), "(hidden)");
        assert_eq!(
            shown("postgres://app:s3cr3t@db:5432/reading"),
            "postgres://app:(hidden)@db:5432/reading"
        );
        assert_eq!(shown("redis://cache:6379"), "redis://cache:6379");
        assert_eq!(
            shown("postgres://db/reading?password=s3cr3t"),
            "postgres://db/reading"
        );
    }
}
