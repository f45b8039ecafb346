//! OpenAPI schemas of domain types, which do not depend on utoipa, and of fields
//! that several requests share.

use projections::dead_letters::State;
use serde_json::json;
use utoipa::openapi::schema::{
    AnyOfBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};

use crate::extract::hints::MAX_LOCATOR;

#[must_use]
pub fn current_position() -> Schema {
    position(
        "Where the reader is, in percent of the book, rounded to four decimals. Old clients may \
         send a string.",
    )
    .into()
}

#[must_use]
pub fn start_position() -> Schema {
    let position = position(
        "Where the session starts, in percent of the book, rounded to four decimals. Default: 0. \
         Old clients may send a string.",
    );
    or_null(position)
}

#[must_use]
pub fn end_position() -> Schema {
    let position = position(
        "Where the session ends, in percent of the book, rounded to four decimals. Default: the \
         latest position. Old clients may send a string.",
    );
    or_null(position)
}

fn or_null(position: AnyOfBuilder) -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    position.item(null).into()
}

/// A number, or a string that contains a number.
fn position(description: &str) -> AnyOfBuilder {
    AnyOfBuilder::new()
        .description(Some(description))
        .item(
            ObjectBuilder::new()
                .schema_type(Type::Number)
                .minimum(Some(0))
                .maximum(Some(100)),
        )
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(r"^([0-9]{1,2}(\.[0-9]+)?|100(\.0+)?)$")),
        )
}

#[must_use]
pub fn device_type() -> Object {
    one_of(&["mobile", "tablet", "desktop"])
}

#[must_use]
pub fn end_reason() -> Object {
    let mut schema = one_of(&["finished", "superseded", "idle"]);
    let description = "`finished`: the reader ended the session. `superseded`: another \
        session of the reader has a newer observation. `idle`: the session received \
        nothing for a long time. A newer observation undoes the last two. Null while the session is active.";
    schema.description = Some(description.to_owned());
    schema
}

#[must_use]
pub fn required_sent_at() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some(
            "The time at which the device sends the request, by its own clock. The service \
             compares it with the arrival, and corrects all times of the request by the \
             difference. Send it if the clock may be wrong.",
        ))
        .build()
}

#[must_use]
pub fn sent_at() -> Object {
    let mut schema = required_sent_at();
    schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    schema
}

#[must_use]
pub fn occurred_at() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some(
            "The time of the observation, by the device's clock; default: the time at which the \
             request arrives. At most 30 days ago. A time in the future is recorded as an \
             earlier one.",
        ))
        .build()
}

#[must_use]
pub fn locator() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .max_length(Some(MAX_LOCATOR))
        .description(Some(
            "The exact place in the book, in a format that the app chooses, for example an EPUB \
             CFI. The service stores it and returns it unchanged. A locator of more than 8,192 \
             bytes of UTF-8 is not recorded, and the response contains a warning.",
        ))
        .build()
}

#[must_use]
pub fn time_zone() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some(
            "An IANA time zone or an offset such as `+02:00`. It determines the reading day of each \
             moment of the session. Default, also for an unknown zone: that of the reader's newest \
             session, or UTC.",
        ))
        .examples([json!("Europe/Berlin")])
        .build()
}

#[must_use]
pub fn dead_letter_state() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(State::ALL.map(State::as_str)))
        .description(Some(
            "`parked`: the event cannot be applied. `waiting`: an earlier event of the session is \
             parked. `discarded`: an operator discarded the event permanently.",
        ))
        .build()
}

fn one_of(values: &[&str]) -> Object {
    let values = values.iter().map(|value| json!(value));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(values.chain([json!(null)])))
        .build()
}
