//! Fixed offsets from UTC as time zones.

use jiff::tz::Offset;

/// The largest offset in minutes: 18 hours, as in `java.time`. The largest one in use is 14
/// hours.
const MAX_MINUTES: i32 = 18 * 60;

/// Parses an offset in hours or in hours and minutes, alone or after `UTC` or `GMT`:
/// `+2`, `+02`, `+0200`, `+2:00`, `+02:00`, `UTC+2`, `Z`.
pub(super) fn parse(text: &str) -> Option<Offset> {
    if text.eq_ignore_ascii_case("Z") {
        return Some(Offset::UTC);
    }
    let text = match text.get(..3) {
        Some(prefix)
            if ["UTC", "GMT"]
                .iter()
                .any(|p| p.eq_ignore_ascii_case(prefix)) =>
        {
            text[3..].trim_start()
        }
        _ => text,
    };
    let (sign, digits) = match (text.strip_prefix('+'), text.strip_prefix(['-', '−'])) {
        (Some(digits), _) => (1, digits),
        (_, Some(digits)) => (-1, digits),
        _ => return None,
    };
    if !digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b':')
    {
        return None;
    }
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some(parts), _) => parts,
        (None, 4) => digits.split_at(2),
        (None, _) => (digits, "00"),
    };
    if !(1..=2).contains(&hours.len()) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    if minutes > 59 || total > MAX_MINUTES {
        return None;
    }
    Offset::from_seconds(sign * total * 60).ok()
}

/// The canonical name of an offset of whole minutes: `+02:00`, and `UTC` for no offset.
pub(super) fn name(offset: Offset) -> String {
    let minutes = offset.seconds() / 60;
    if minutes == 0 {
        return "UTC".to_owned();
    }
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.abs();
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}
