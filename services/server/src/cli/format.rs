//! Numbers and durations for people.

use std::time::Duration;

/// With commas between groups of three digits.
pub fn count(n: impl TryInto<i128>) -> String {
    let n: i128 = n.try_into().unwrap_or_default();
    let digits = n.unsigned_abs().to_string();
    let mut text = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun, for example `1 session` or `2,000 sessions`.
pub fn counted(n: impl TryInto<i128>, singular: &str, plural: &str) -> String {
    let n = count(n);
    let noun = if n == "1" { singular } else { plural };
    format!("{n} {noun}")
}

/// In the two largest units that apply.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Items per second.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate need not be exact"
)]
pub fn rate(items: u64, duration: Duration) -> u64 {
    (items as f64 / duration.as_secs_f64().max(0.001)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        let counts = [0, 999, 1_000, -1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!(counted(1, "event", "events"), "1 event");
        assert_eq!(counted(2_000, "event", "events"), "2,000 events");
        let spans = [5, 65, 3_725, 90_000].map(|s| span(Duration::from_secs(s)));
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(rate(1_000, Duration::from_millis(500)), 2_000);
        assert_eq!(rate(0, Duration::ZERO), 0);
    }
}
