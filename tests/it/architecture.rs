//! The dependencies between the crates of the workspace, as `cargo metadata`
//! reports them. The crates form a chain in the order of the data's path, and each
//! depends only on crates before it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The dependencies a crate may have. Dev-dependencies do not count: they are never
/// shipped.
struct Rule {
    name: &'static str,
    /// The crates of the workspace that it may depend on.
    allowed: &'static [&'static str],
    /// The external crates that it must not depend on.
    forbidden: &'static [&'static str],
}

const RULES: [Rule; 9] = [
    // Pure: no I/O.
    Rule {
        name: "domain",
        allowed: &[],
        forbidden: &[
            "tokio",
            "sqlx",
            "async-nats",
            "redis",
            "axum",
            "hyper",
            "reqwest",
        ],
    },
    // Postgres only.
    Rule {
        name: "eventlog",
        allowed: &["domain"],
        forbidden: &["async-nats", "redis", "axum", "hyper", "reqwest"],
    },
    Rule {
        name: "commands",
        allowed: &["domain", "eventlog"],
        forbidden: &["async-nats", "redis", "axum", "hyper", "reqwest"],
    },
    // Postgres and NATS.
    Rule {
        name: "messaging",
        allowed: &["domain", "eventlog"],
        forbidden: &["redis", "axum", "hyper", "reqwest"],
    },
    // No HTTP.
    Rule {
        name: "projections",
        allowed: &["domain", "eventlog", "commands", "messaging"],
        forbidden: &["axum", "hyper", "reqwest"],
    },
    Rule {
        name: "jobs",
        allowed: &["domain", "eventlog", "commands", "messaging", "projections"],
        forbidden: &["axum", "hyper", "reqwest"],
    },
    // No NATS: a request reaches the stream only through the log.
    Rule {
        name: "api",
        allowed: &[
            "domain",
            "eventlog",
            "commands",
            "messaging",
            "projections",
            "jobs",
        ],
        forbidden: &["async-nats"],
    },
    // Its clients of Postgres, NATS and Redis only check whether a server is ready.
    Rule {
        name: "dev-servers",
        allowed: &[],
        forbidden: &["axum", "hyper", "reqwest"],
    },
    Rule {
        name: "server",
        allowed: &[
            "domain",
            "eventlog",
            "commands",
            "messaging",
            "projections",
            "jobs",
            "api",
            "dev-servers",
        ],
        forbidden: &[],
    },
];

/// Crates that are never shipped and may depend on any other.
const UNRESTRICTED: [&str; 3] = ["tests", "benches", "example-consumer"];

/// The packages of the workspace.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .args(["--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata failed: {error}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

#[test]
fn crates_depend_only_on_allowed_crates() {
    let packages = packages();
    let workspace: BTreeSet<&str> = packages.iter().map(name).collect();
    let mut violations = Vec::new();
    for rule in &RULES {
        let package = packages.iter().find(|package| name(package) == rule.name);
        let package = package.unwrap_or_else(|| panic!("there is no crate {}", rule.name));
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        for dependency in dependencies.filter(|dependency| dependency["kind"] != "dev") {
            let dependency = name(dependency);
            let allowed = if workspace.contains(dependency) {
                rule.allowed.contains(&dependency)
            } else {
                !rule.forbidden.contains(&dependency)
            };
            if !allowed {
                violations.push(format!("{} depends on {dependency}", rule.name));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_crate_of_the_workspace_has_a_rule() {
    let packages = packages();
    let workspace: BTreeSet<&str> = packages.iter().map(name).collect();
    let ruled: BTreeSet<&str> = RULES
        .iter()
        .map(|rule| rule.name)
        .chain(UNRESTRICTED)
        .collect();
    let unruled: Vec<_> = workspace.difference(&ruled).collect();
    assert!(unruled.is_empty(), "{unruled:?}");
}

/// `cargo metadata` cannot show this: both crates need sqlx for its pools.
#[test]
fn api_and_server_contain_no_sql() {
    for name in ["api", "server"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
        for file in files(&root.join(name).join("src")) {
            assert!(
                file.extension().is_none_or(|kind| kind != "sql"),
                "{file:?}"
            );
            let source = std::fs::read_to_string(&file).unwrap();
            for call in ["sqlx::query", "sqlx::raw_sql", "QueryBuilder"] {
                assert!(!source.contains(call), "{call} in {}", file.display());
            }
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}
