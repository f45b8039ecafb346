//! Searches every row of every table and every cache entry in Redis for a reader's
//! texts.

use eventlog::StoredEvent;
use serde_json::Value;
use tests::{App, Reader};

/// Texts that only this reader sent: those with the tag, and the books' ids.
pub fn texts(tag: &str, log: &[StoredEvent], reader: &Reader) -> Vec<String> {
    let mut texts = vec![tag.to_owned()];
    for event in log {
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        if payload["reader_id"] == reader.id.to_string() {
            let own = ["book_id", "locator", "device_id"].map(|field| &payload[field]);
            let book = ["title", "author"].map(|field| &payload["book"][field]);
            let own = own.into_iter().chain(book).filter_map(Value::as_str);
            texts.extend(own.map(str::to_owned));
        }
    }
    texts.sort();
    texts.dedup();
    texts
}

/// The tables and Redis entries that contain one of the texts, each with the text.
pub async fn found(app: &App, texts: &[String]) -> Vec<String> {
    let mut rows = everything(app).await;
    rows.extend(in_redis(app).await);
    rows.sort();
    rows.into_iter()
        .filter_map(|(place, row)| {
            let text = texts.iter().find(|text| row.contains(*text))?;
            Some(format!("{place}: {text}"))
        })
        .collect()
}

/// All rows of all tables of the service, as text.
async fn everything(app: &App) -> Vec<(String, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
        where schemaname in ('public', 'read') order by 1",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let mut all = Vec::new();
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(&format!("select t::text from {table} as t"))
            .fetch_all(&app.pool)
            .await
            .unwrap();
        let name = table.split_once('.').unwrap().1.to_owned();
        all.extend(rows.into_iter().map(|row| (name.clone(), row)));
    }
    all
}

async fn in_redis(app: &App) -> Vec<(String, String)> {
    let redis = redis::Client::open(app.env.redis_url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::AsyncCommands::keys(&mut redis, "reading_session:active:*")
        .await
        .unwrap();
    let mut all = Vec::new();
    for key in keys {
        let entry: String = redis::AsyncCommands::get(&mut redis, &key).await.unwrap();
        all.push(("Redis".to_owned(), entry));
    }
    all
}
