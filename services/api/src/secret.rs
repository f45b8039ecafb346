//! Secret values, such as passwords, tokens and keys.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// Replaces a secret in output.
const HIDDEN: &str = "(hidden)";

/// A value that `Debug` hides, so that logs and panics cannot contain it. There is
/// no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Formats a URL without its password, query and fragment, all of which may be
    /// secret. If the value is not a URL, all of it is hidden.
    #[must_use]
    pub fn redacted_url(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return HIDDEN.to_owned();
        };
        if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
            return HIDDEN.to_owned();
        }
        url.set_query(None);
        url.set_fragment(None);
        url.into()
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

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_value() {
        for text in ["correct horse", "a://b:c@d", ""] {
            assert_eq!(format!("{:?}", Secret(text.to_owned())), "(hidden)");
        }
    }

    #[test]
    fn redacted_url_hides_password_and_query() {
        let shown = |text: &str| Secret(text.to_owned()).redacted_url();
        assert_eq!(
            shown("postgres://app:s3cr3t@db:5432/reading"),
            "postgres://app:(hidden)@db:5432/reading"
        );
        assert_eq!(
            shown("postgres://db/reading?password=s3cr3t"),
            "postgres://db/reading"
        );
        assert_eq!(shown("redis://cache:6379"), "redis://cache:6379");
        // The `?` in the password should have been percent-encoded.
        assert!(!shown("postgres://app:pa?ss@db/x").contains("pa"));
        assert_eq!(shown("not an address"), "(hidden)");
    }
}
