//! Schemas of what the domain knows and the description cannot see.

use serde_json::json;
use utoipa::openapi::schema::{AnyOfBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};

/// A position.
#[must_use]
pub fn percent() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("Percent of the book"))
        .minimum(Some(0))
        .maximum(Some(100))
        .build()
}

/// A position as it is sent: a number, or one in a string.
#[must_use]
pub fn percent_sent() -> Schema {
    any_of_percent().into()
}

/// As [`percent_sent`], or null.
#[must_use]
pub fn percent_sent_or_null() -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    any_of_percent().item(null).into()
}

fn any_of_percent() -> AnyOfBuilder {
    AnyOfBuilder::new()
        .description(Some(
            "Percent of the book, rounded to four decimals; old clients may send it as a string",
        ))
        .item(percent())
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(r"^([0-9]{1,2}(\.[0-9]+)?|100(\.0+)?)$")),
        )
}

/// A way from one position to another.
#[must_use]
pub fn progress() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("Percent of the book; negative for reading back"))
        .build()
}

/// The kind of device.
#[must_use]
pub fn device_type() -> Object {
    one_of(&["mobile", "tablet", "desktop"])
}

/// Why a session ended.
#[must_use]
pub fn end_reason() -> Object {
    one_of(&["finished", "superseded", "idle"])
}

/// An IANA time zone.
#[must_use]
pub fn time_zone() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("An IANA name; decides what is a day. UTC by default"))
        .examples([json!("Europe/Berlin")])
        .build()
}

fn one_of(values: &[&str]) -> Object {
    let values = values.iter().map(|value| json!(value));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(values.chain([json!(null)])))
        .build()
}
