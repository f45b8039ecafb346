//! Values that are never shown, and where they come from.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// What is shown in its place.
const HIDDEN: &str = "(hidden)";

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// For a value that is an address: all of it but the password and the
    /// parameters, which may be secrets too.
    #[must_use]
    pub fn as_address(&self) -> String {
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
    fn a_secret_is_never_shown() {
        for text in ["correct horse", "a://b:c@d", ""] {
            assert_eq!(format!("{:?}", Secret(text.to_owned())), "(hidden)");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_is_secret_in_it() {
        let shown = |text: &str| Secret(text.to_owned()).as_address();
        assert_eq!(
            shown("postgres://app:s3cr3t@db:5432/reading"),
            "postgres://app:(hidden)@db:5432/reading"
        );
        assert_eq!(
            shown("postgres://db/reading?password=s3cr3t"),
            "postgres://db/reading"
        );
        assert_eq!(shown("redis://cache:6379"), "redis://cache:6379");
        // A password that ought to have been encoded.
        assert!(!shown("postgres://app:pa?ss@db/x").contains("pa"));
        assert_eq!(shown("not an address"), "(hidden)");
    }
}
