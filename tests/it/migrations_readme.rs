//! The table in `migrations/README.md` names the migration that holds the current
//! body of each SQL function, and released migrations never change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

fn migrations() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// The last migration that creates or replaces each function.
fn defined() -> BTreeMap<String, String> {
    let mut files: Vec<PathBuf> = fs::read_dir(migrations())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    let mut defined = BTreeMap::new();
    for path in files {
        let file = path.file_name().unwrap().to_str().unwrap();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let definition = line
                .strip_prefix("create function ")
                .or_else(|| line.strip_prefix("create or replace function "));
            if let Some((name, _)) = definition.and_then(|rest| rest.split_once('(')) {
                defined.insert(name.to_owned(), file.to_owned());
            } else if let Some(rest) = line.strip_prefix("drop function ") {
                let rest = rest.strip_prefix("if exists ").unwrap_or(rest);
                let name = rest.split(['(', ';', ' ']).next().unwrap();
                defined.remove(name);
            }
        }
    }
    defined
}

/// The rows of the table: `` | `function` | purpose | [file](file) | ``.
fn documented() -> BTreeMap<String, String> {
    let readme = fs::read_to_string(migrations().join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", function, _, link, ""] = cells[..] else {
            return None;
        };
        let function = function.strip_prefix('`')?.strip_suffix('`')?;
        let (file, target) = link
            .strip_prefix('[')?
            .strip_suffix(')')?
            .split_once("](")?;
        assert_eq!(file, target, "the link of {function}");
        Some((function.to_owned(), file.to_owned()))
    });
    rows.collect()
}

#[test]
fn readme_names_the_current_body_of_each_function() {
    let defined = defined();
    assert!(defined.contains_key("append_events"), "{defined:?}");
    assert_eq!(documented(), defined);
}

#[test]
fn released_migrations_are_unchanged() {
    let list = fs::read_to_string(migrations().join("released.sha384")).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.len() >= 14, "{lines:?}");
    for line in lines {
        let (released, file) = line.split_once("  ").unwrap();
        let text = fs::read(migrations().join(file)).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, &text);
        let current: String = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        assert_eq!(
            current, released,
            "{file} is released: add a migration instead"
        );
    }
}
