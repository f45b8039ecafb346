//! The name of a time zone. The rules behind the name are not part of this crate:
//! they change several times a year, so processes load them when they start.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a time zone: an IANA name, or a fixed offset such as `+02:00`. Cheap
/// to clone.
///
/// A name from a client is looked up before this type is created. A name from an event
/// may be unknown to this machine.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneName(
    /// `None` is UTC, so that the most common default needs no memory.
    Option<Arc<str>>,
);

const UTC: &str = "UTC";

impl ZoneName {
    pub const UTC: Self = Self(None);

    #[must_use]
    pub fn new(name: &str) -> Self {
        Self((name != UTC).then(|| Arc::from(name)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(UTC)
    }

    #[must_use]
    pub fn is_utc(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for ZoneName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl Serialize for ZoneName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ZoneName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&Cow::<str>::deserialize(deserializer)?))
    }
}

impl JsonSchema for ZoneName {
    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}
