//! Bounds text of a request that a response repeats.

/// The maximum length of repeated text, in bytes: longer than any id or path of a field.
const MAX_ECHO: usize = 100;

/// Returns text that contains a part of the request, short enough for a response and for
/// the log, which stores some responses. Control characters are removed, because JSON
/// writes each as six bytes. Longer text ends with an ellipsis.
#[must_use]
pub fn echo(text: &str) -> String {
    let mut echoed = String::with_capacity(text.len().min(MAX_ECHO));
    for char in text.chars().filter(|char| !char.is_control()) {
        if echoed.len() + char.len_utf8() > MAX_ECHO {
            echoed.push('…');
            break;
        }
        echoed.push(char);
    }
    echoed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_unchanged() {
        let longest = "é".repeat(MAX_ECHO / 2);
        for text in ["", "seven", &longest] {
            assert_eq!(echo(text), text);
        }
    }

    #[test]
    fn long_text_and_control_characters_are_cut() {
        let cut = echo(&"\u{1f4d6}".repeat(1_000));
        assert_eq!(cut, format!("{}…", "\u{1f4d6}".repeat(MAX_ECHO / 4)));
        assert_eq!(echo("a\0b\nc"), "abc");
        assert_eq!(echo(&"\0".repeat(1_000)), "");
    }
}
