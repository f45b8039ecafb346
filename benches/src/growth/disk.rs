//! Disk space of the log, of the tables that projections write, and of the stream.

use sqlx::PgConnection;

use crate::report::Row;
use crate::service::RunningService;

/// The sizes in bytes, with their indexes.
pub struct Disk {
    events: i64,
    log: i64,
    read: i64,
    stream: u64,
}

impl Disk {
    pub async fn measure(
        database: &mut PgConnection,
        service: &RunningService<'_>,
    ) -> anyhow::Result<Self> {
        let (events, log, read) = sqlx::query_as(
            "select (select count(*) from events),
                (select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('events')),
                (select sum(pg_total_relation_size(oid))::bigint from pg_class
                    where relnamespace = 'read'::regnamespace and relkind = 'r')",
        )
        .fetch_one(database)
        .await?;
        Ok(Self {
            events,
            log,
            read,
            stream: service.stream().await?.1,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn rows(&self) -> [Row; 3] {
        [
            ("the log and its indexes", self.log as f64),
            ("the read tables and their indexes", self.read as f64),
            ("the stream", self.stream as f64),
        ]
        .map(|(what, bytes)| {
            // Bytes per event are megabytes per million events.
            let megabytes = bytes / self.events as f64;
            Row::new(
                format!("… disk per million events: {what}"),
                format!("{megabytes:.0} MB"),
            )
            .limit("stored data")
        })
    }
}
