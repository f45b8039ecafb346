//! The crates stand in the order of the data's path, and each forbids
//! something: asserted from what cargo knows, not from intentions.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each crate of the chain may not depend on.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    (
        "domain",
        &[
            "eventlog",
            "projections",
            "services",
            "tests",
            "tokio",
            "sqlx",
            "async-nats",
            "redis",
            "axum",
            "reqwest",
        ],
    ),
    (
        "eventlog",
        &[
            "projections",
            "services",
            "tests",
            "redis",
            "axum",
            "hyper",
            "reqwest",
        ],
    ),
    (
        "projections",
        &["services", "tests", "axum", "hyper", "reqwest"],
    ),
    ("services", &["tests"]),
];

#[test]
fn each_crate_imports_only_leftward() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dependencies: BTreeMap<&str, Vec<&str>> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap())
                .collect();
            (package["name"].as_str().unwrap(), dependencies)
        })
        .collect();
    for (name, forbidden) in FORBIDDEN {
        for dependency in &dependencies[name] {
            assert!(
                !forbidden.contains(dependency),
                "{name} depends on {dependency}"
            );
        }
    }
}

#[test]
fn services_writes_no_sql() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/src");
    let mut folders = vec![std::path::PathBuf::from(sources)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(!source.contains("sqlx::query"), "{}", path.display());
        }
    }
}
