//! The query cache in `.sqlx` matches the sources and the migrations. The compiler
//! uses it instead of a database, so an outdated entry hides a wrong query.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::{Column, Either, Executor, PgPool};
use tests::{Stack, app};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cached() -> Vec<Value> {
    let files = fs::read_dir(root().join(".sqlx")).unwrap();
    let read = |path: PathBuf| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    files.map(|file| read(file.unwrap().path())).collect()
}

/// The texts of all files below a folder that may contain a query.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path
            .extension()
            .is_some_and(|kind| kind == "rs" || kind == "sql")
        {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// What Postgres reports of a query, in the form of the cache.
async fn described(pool: &PgPool, query: &str) -> Value {
    let description = pool.acquire().await.unwrap().describe(query).await.unwrap();
    let name = |type_info: &sqlx::postgres::PgTypeInfo| {
        let debug = format!("{type_info:?}");
        let name = debug
            .trim_start_matches("PgTypeInfo(")
            .trim_end_matches(')');
        // sqlx has no type of its own for it.
        let is_custom = name.starts_with("Custom") || name.starts_with("Declare");
        if is_custom { "custom" } else { name }.to_owned()
    };
    let columns = description.columns.iter().map(|column| {
        json!({
            "ordinal": column.ordinal(),
            "name": column.name(),
            "type_info": name(column.type_info()),
        })
    });
    let columns: Vec<Value> = columns.collect();
    let parameters = match &description.parameters {
        Some(Either::Left(types)) => types.iter().map(name).collect(),
        _ => Vec::new(),
    };
    json!({
        "columns": columns,
        "parameters": { "Left": parameters },
        "nullable": description.nullable,
    })
}

/// The cached description, in which types that sqlx does not know have no details.
fn without_details(mut describe: Value) -> Value {
    let parameters = describe["parameters"]["Left"].as_array_mut().unwrap();
    let custom = parameters
        .iter_mut()
        .filter(|type_info| type_info.is_object());
    custom.for_each(|type_info| *type_info = json!("custom"));
    describe
}

#[tokio::test]
async fn each_cached_query_has_the_types_that_postgres_reports() {
    let pool = app::pool(&Stack::shared().await.new_env().await).await;
    for entry in cached() {
        let query = entry["query"].as_str().unwrap();
        let described = described(&pool, query).await;
        let cached = without_details(entry["describe"].clone());
        assert_eq!(described, cached, "run `make sqlx`: {query}");
    }
}

#[test]
fn each_cached_query_is_in_the_sources() {
    let mut texts = Vec::new();
    for folder in [
        "eventlog",
        "commands",
        "messaging",
        "projections",
        "services",
    ] {
        sources(&root().join(folder), &mut texts);
    }
    let stale: BTreeSet<String> = cached()
        .iter()
        .map(|entry| entry["query"].as_str().unwrap().to_owned())
        .filter(|query| !texts.iter().any(|text| text.contains(query.as_str())))
        .collect();
    assert!(stale.is_empty(), "run `make sqlx`; no source has {stale:?}");
}
