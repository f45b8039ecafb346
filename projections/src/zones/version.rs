//! The version of a copy of the time zone database on disk.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The files that contain the version. `tzdata.zi` begins with `# version 2026f`; the
/// others contain only the version, on macOS and on some Linux distributions.
const VERSION_FILES: [&str; 3] = ["tzdata.zi", "+VERSION", "version"];

/// The version is in the first bytes of its file.
const MAX_READ: u64 = 64;

/// The version of the copy in a directory; `None` if it states none.
pub(super) fn of_directory(directory: &Path) -> Option<String> {
    VERSION_FILES
        .iter()
        .find_map(|name| of_file(&directory.join(name)))
}

fn of_file(path: &Path) -> Option<String> {
    // Other kinds of files, such as pipes, could block.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_READ)
        .read_to_end(&mut text)
        .ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next()?.trim();
    parse(line.strip_prefix("# version").unwrap_or(line).trim())
}

/// A year and one or two letters. Ignores what follows, for example the number of later
/// changes in a development version.
fn parse(text: &str) -> Option<String> {
    let letters = text.get(4..)?;
    let letters = letters.bytes().take_while(u8::is_ascii_lowercase).count();
    let (version, rest) = text.split_at(4 + letters);
    let is_version = version[..4].bytes().all(|byte| byte.is_ascii_digit())
        && (1..=2).contains(&letters)
        && !rest.starts_with(|next: char| next.is_alphanumeric());
    is_version.then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::parse;

    #[rstest]
    #[case("2026f", Some("2026f"))]
    #[case("2026f-3-g1234567-dirty", Some("2026f"))]
    #[case("2026za", Some("2026za"))]
    #[case("2026", None)]
    #[case("2026F", None)]
    #[case("2026f1", None)]
    #[case("2026abc", None)]
    #[case("unknown", None)]
    #[case("日本標準時", None)]
    #[case("", None)]
    fn version_is_a_year_and_letters(#[case] text: &str, #[case] version: Option<&str>) {
        assert_eq!(parse(text).as_deref(), version);
    }

    #[test]
    fn versions_are_ordered_like_texts() {
        assert!(["2025b", "2026a", "2026f", "2026z", "2026za", "2027a"].is_sorted());
    }
}
