//! The pages in `docs` are complete.

use std::fs;
use std::path::{Path, PathBuf};

const PLACEHOLDERS: [&str; 4] = ["MEASURE", "TODO", "TBD", "FIXME"];

fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_page_contains_a_placeholder() {
    let mut found = Vec::new();
    for page in pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")) {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            if words.any(|word| PLACEHOLDERS.contains(&word)) {
                found.push(format!("{}:{number}: {line}", page.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
