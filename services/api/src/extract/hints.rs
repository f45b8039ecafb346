//! Hints: values that describe a command's fact, such as the title of the book.
//! An invalid hint never refuses the fact: it is changed or ignored, and a
//! [`Warning`](crate::warnings::Warning) reports that.

use std::collections::BTreeMap;

use domain::ZoneName;
use domain::event::Book;
use projections::zones::Zones;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::problem::echo;
use crate::warnings::{WarningCode, Warnings};

/// The limit of a locator, in bytes of UTF-8.
pub const MAX_LOCATOR: usize = 8_192;
/// The limit of a device id, in characters.
pub const MAX_DEVICE_ID: usize = 255;
/// The limit of a title and of an author, in characters.
pub const MAX_TITLE: usize = 500;
pub const MAX_PAGES: u32 = 100_000;

/// A hint as the client sent it: any JSON value.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Hint(Box<RawValue>);

/// The app's data about the book. The service stores it with the session and
/// returns it.
#[derive(ToSchema)]
#[schema(as = Book)]
#[expect(dead_code, reason = "describes the JSON of a book; never constructed")]
pub struct BookDocument {
    #[schema(max_length = 500)]
    title: Option<String>,
    #[schema(max_length = 500)]
    author: Option<String>,
    /// The number of pages. The service needs it to compute `pages_read`.
    #[schema(maximum = 100_000)]
    total_pages: Option<u32>,
}

/// The exact place in the book. A locator that is too long is dropped and not cut,
/// because the rest of it may be another place.
pub fn locator(hint: Option<Hint>, warnings: &mut Warnings) -> Option<String> {
    const FIELD: &str = "locator";
    let ParsedText { text, complete } = parsed_text(FIELD, hint, warnings)?;
    let message = if !complete {
        "contains characters that cannot be stored; not recorded".to_owned()
    } else if text.len() > MAX_LOCATOR {
        format!("longer than {MAX_LOCATOR} bytes; not recorded")
    } else {
        return Some(text);
    };
    warnings.add(WarningCode::LocatorDropped, FIELD, message);
    None
}

pub fn device_id(hint: Option<Hint>, warnings: &mut Warnings) -> Option<String> {
    bounded_text("device_id", hint, MAX_DEVICE_ID, warnings)
}

/// `None` if there is no zone, or none that the service knows.
pub fn time_zone(hint: Option<Hint>, zones: &Zones, warnings: &mut Warnings) -> Option<ZoneName> {
    const FIELD: &str = "time_zone";
    let ParsedText { text, .. } = parsed_text(FIELD, hint, warnings)?;
    let zone = zones.parse(&text);
    if zone.is_none() {
        warnings.add(
            WarningCode::UnknownTimeZone,
            FIELD,
            "not a time zone that the service knows; ignored",
        );
    }
    zone
}

pub fn book(hint: Option<Hint>, warnings: &mut Warnings) -> Option<Book> {
    let hint = hint?;
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, Option<Hint>>>(hint.0.get()) else {
        let message = "not an object; ignored";
        warnings.add(WarningCode::InvalidValue, "book", message);
        return None;
    };
    let mut book = Book::default();
    for (name, hint) in fields {
        match name.as_str() {
            "title" => book.title = bounded_text("book.title", hint, MAX_TITLE, warnings),
            "author" => book.author = bounded_text("book.author", hint, MAX_TITLE, warnings),
            "total_pages" => book.total_pages = total_pages(hint, warnings),
            _ => warn_unknown_field("book.", &name, warnings),
        }
    }
    Some(book)
}

/// Warns about the fields of a JSON object that are not `known`.
pub fn warn_unknown_fields(object: &RawValue, known: &[&str], warnings: &mut Warnings) {
    let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(object.get());
    for name in fields.unwrap_or_default().keys() {
        if !known.contains(&name.as_str()) {
            warn_unknown_field("", name, warnings);
        }
    }
}

fn warn_unknown_field(path: &str, name: &str, warnings: &mut Warnings) {
    let field = format!("{path}{}", echo(name));
    warnings.add(WarningCode::UnknownField, field, "unknown field; ignored");
}

/// The number may have a fraction of zero, such as `300.0`: some clients write
/// every number as a float.
fn total_pages(hint: Option<Hint>, warnings: &mut Warnings) -> Option<u32> {
    let hint = hint?;
    let pages = serde_json::from_str::<serde_json::Number>(hint.0.get())
        .ok()
        .and_then(|number| {
            let written = number.to_string();
            let digits = written.strip_suffix(".0").unwrap_or(&written);
            digits.parse().ok()
        })
        .filter(|pages| *pages <= MAX_PAGES);
    if pages.is_none() {
        let message = format!("not a whole number from 0 to {MAX_PAGES}; ignored");
        warnings.add(WarningCode::InvalidValue, "book.total_pages", message);
    }
    pages
}

/// Cuts the text at `max` characters.
fn bounded_text(
    field: &str,
    hint: Option<Hint>,
    max: usize,
    warnings: &mut Warnings,
) -> Option<String> {
    let ParsedText { mut text, complete } = parsed_text(field, hint, warnings)?;
    if !complete {
        let message = "contained characters that cannot be stored; they are removed";
        warnings.add(WarningCode::CharactersRemoved, field, message);
    }
    if let Some((end, _)) = text.char_indices().nth(max) {
        text.truncate(end);
        let message = format!("longer than {max} characters; cut");
        warnings.add(WarningCode::TextCut, field, message);
    }
    Some(text)
}

fn parsed_text(field: &str, hint: Option<Hint>, warnings: &mut Warnings) -> Option<ParsedText> {
    let text = serde_json::from_str(hint?.0.get()).ok();
    if text.is_none() {
        let message = "not a string; ignored";
        warnings.add(WarningCode::InvalidValue, field, message);
    }
    text
}

/// A text without the characters that cannot be stored: NUL, because of Postgres,
/// and unpaired surrogates, which are not Unicode. Some clients send half of an
/// emoji, because they cut texts by UTF-16 code units.
struct ParsedText {
    text: String,
    /// Whether nothing was removed.
    complete: bool,
}

impl<'de> Deserialize<'de> for ParsedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde_json accepts unpaired surrogates in strings that are parsed as bytes.
        deserializer.deserialize_bytes(ParsedTextVisitor)
    }
}

struct ParsedTextVisitor;

impl Visitor<'_> for ParsedTextVisitor {
    type Value = ParsedText;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ParsedText, E> {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.extend(chunk.valid().split('\0'));
        }
        let complete = text.len() == bytes.len();
        Ok(ParsedText { text, complete })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn hint(json: &str) -> Option<Hint> {
        serde_json::from_str(json).unwrap()
    }

    /// The fields of the warnings with their codes.
    fn codes(warnings: &Warnings) -> Vec<(String, String)> {
        let warnings = serde_json::to_value(warnings).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let warnings = warnings.as_array().unwrap().iter();
        let codes = warnings.map(|warning| (text(&warning["field"]), text(&warning["code"])));
        codes.collect()
    }

    fn owned(codes: &[(&str, &str)]) -> Vec<(String, String)> {
        let codes = codes.iter();
        let codes = codes.map(|(field, code)| ((*field).to_owned(), (*code).to_owned()));
        codes.collect()
    }

    #[rstest]
    #[case::missing("null", None, &[])]
    #[case::valid(r#"{"title": "A", "author": null, "total_pages": 300.0}"#,
        Some((Some("A"), None, Some(300))), &[])]
    #[case::exponent(r#"{"total_pages": 3e2}"#, Some((None, None, Some(300))), &[])]
    #[case::empty("{}", Some((None, None, None)), &[])]
    #[case::unknown_fields(r#"{"isbn": 1, "series": {"a": []}, "author": "B"}"#,
        Some((None, Some("B"), None)),
        &[("book.isbn", "unknown_field"), ("book.series", "unknown_field")])]
    #[case::nul_in_a_name("{\"a\\u0000b\": 1}", Some((None, None, None)),
        &[("book.ab", "unknown_field")])]
    #[case::negative_pages(r#"{"total_pages": -1}"#, Some((None, None, None)),
        &[("book.total_pages", "invalid_value")])]
    #[case::too_many_pages(r#"{"total_pages": 100001}"#, Some((None, None, None)),
        &[("book.total_pages", "invalid_value")])]
    #[case::part_of_a_page(r#"{"total_pages": 0.5}"#, Some((None, None, None)),
        &[("book.total_pages", "invalid_value")])]
    #[case::infinite_pages(r#"{"total_pages": 1e999}"#, Some((None, None, None)),
        &[("book.total_pages", "invalid_value")])]
    #[case::pages_in_a_text(r#"{"total_pages": "300"}"#, Some((None, None, None)),
        &[("book.total_pages", "invalid_value")])]
    #[case::nul(r#"{"title": "a\u0000b"}"#, Some((Some("ab"), None, None)),
        &[("book.title", "characters_removed")])]
    #[case::half_an_emoji(r#"{"title": "a\ud83d"}"#, Some((Some("a"), None, None)),
        &[("book.title", "characters_removed")])]
    #[case::no_text(r#"{"title": 7, "author": [65]}"#, Some((None, None, None)),
        &[("book.author", "invalid_value"), ("book.title", "invalid_value")])]
    #[case::no_object("[]", None, &[("book", "invalid_value")])]
    #[case::a_text("\"A\"", None, &[("book", "invalid_value")])]
    fn book_is_read_as_far_as_possible(
        #[case] json: &str,
        #[case] expected: Option<(Option<&str>, Option<&str>, Option<u32>)>,
        #[case] expected_codes: &[(&str, &str)],
    ) {
        let mut warnings = Warnings::default();
        let expected = expected.map(|(title, author, total_pages)| Book {
            title: title.map(str::to_owned),
            author: author.map(str::to_owned),
            total_pages,
        });
        assert_eq!(book(hint(json), &mut warnings), expected);
        assert_eq!(codes(&warnings), owned(expected_codes));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let mut warnings = Warnings::default();
        let long = json!("\u{1f4d6}".repeat(MAX_DEVICE_ID + 1)).to_string();
        let cut = device_id(hint(&long), &mut warnings);
        assert_eq!(cut.unwrap(), "\u{1f4d6}".repeat(MAX_DEVICE_ID));
        assert_eq!(codes(&warnings), owned(&[("device_id", "text_cut")]));

        let mut warnings = Warnings::default();
        let longest = "\u{1f4d6}".repeat(MAX_DEVICE_ID);
        let kept = device_id(hint(&json!(longest).to_string()), &mut warnings);
        assert_eq!(kept.unwrap(), longest);
        assert!(warnings.is_empty());
    }

    #[test]
    fn locator_is_stored_unchanged_or_not_at_all() {
        let longest = "é".repeat(MAX_LOCATOR / 2);
        let mut warnings = Warnings::default();
        let kept = locator(hint(&json!(longest).to_string()), &mut warnings);
        assert_eq!(kept.unwrap(), longest);
        assert!(warnings.is_empty());
        let too_long = json!(format!("{longest}x")).to_string();
        for (json, code) in [
            (too_long.as_str(), "locator_dropped"),
            (r#""a\u0000b""#, "locator_dropped"),
            (r#""a\udc00b""#, "locator_dropped"),
            ("{}", "invalid_value"),
        ] {
            let mut warnings = Warnings::default();
            assert_eq!(locator(hint(json), &mut warnings), None, "{json}");
            assert_eq!(codes(&warnings), owned(&[("locator", code)]));
        }
    }

    #[test]
    fn unknown_time_zone_is_ignored() {
        let zones = Zones::built_in();
        let mut warnings = Warnings::default();
        let berlin = time_zone(hint("\"europe/berlin\""), &zones, &mut warnings);
        assert_eq!(berlin, Some(ZoneName::new("Europe/Berlin")));
        assert!(warnings.is_empty());
        for (json, code) in [
            ("\"Mars/Olympus_Mons\"", "unknown_time_zone"),
            ("\"\"", "unknown_time_zone"),
            ("7", "invalid_value"),
        ] {
            let mut warnings = Warnings::default();
            assert_eq!(time_zone(hint(json), &zones, &mut warnings), None, "{json}");
            assert_eq!(codes(&warnings), owned(&[("time_zone", code)]));
        }
    }

    #[test]
    fn hint_of_any_type_is_part_of_a_valid_body() {
        #[derive(Deserialize)]
        struct Body {
            hint: Option<Hint>,
        }
        for json in ["1e999", "[1, {}]", r#""\ud83d""#, "{\"a\": null}", "true"] {
            let body = format!("{{\"hint\": {json}}}");
            let body: Body = serde_json::from_str(&body).unwrap();
            assert_eq!(body.hint.unwrap().0.get(), json);
        }
        for json in ["{}", "{\"hint\": null}"] {
            assert!(serde_json::from_str::<Body>(json).unwrap().hint.is_none());
        }
    }
}
