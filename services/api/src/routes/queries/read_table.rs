//! Routes queries of read tables to the replica or the primary, after the
//! projection has reached `min_position` there.

use std::time::Instant;

use domain::ReaderId;
use eventlog::Pool;
use projections::checkpoint::CheckpointWaiter;
use projections::zones::Zones;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

use super::metrics::{QueryMetrics, QueryName};
use super::replica::Replica;
use crate::problem::Problem;
use crate::read_your_writes;

/// The tables of one projection. Queries use the replica if there is one and it
/// works, otherwise the primary.
#[derive(Clone, Debug)]
pub struct ReadTable {
    pub primary: Pool,
    /// Waits for the projection on the primary.
    pub checkpoint: CheckpointWaiter,
    pub replica: Option<Replica>,
    /// Determines reading days and hours.
    pub zones: Zones,
    pub metrics: QueryMetrics,
}

impl ReadTable {
    /// Runs a query of a reader's rows after they contain the log up to `min_position`.
    /// `query` may run twice: on the replica, and then on the primary.
    pub(super) async fn read<T, Rows>(
        &self,
        name: QueryName,
        reader_id: ReaderId,
        min_position: Option<i64>,
        query: impl Fn(PoolConnection<Postgres>) -> Rows,
    ) -> Result<T, Problem>
    where
        Rows: Future<Output = sqlx::Result<T>>,
    {
        let min_position = read_your_writes::min_position(min_position)?;
        if let Some(replica) = &self.replica {
            let read = async |mut connection: PoolConnection<Postgres>| {
                if let Some(min_position) = min_position
                    && self.checkpoint.read(&mut *connection).await? < min_position
                {
                    return Ok(None);
                }
                query(connection).await.map(Some)
            };
            let started_at = Instant::now();
            if let Some(rows) = replica.read(read).await {
                self.metrics.record(name, started_at.elapsed());
                return Ok(rows);
            }
        }
        read_your_writes::wait_for_rows(&self.checkpoint, reader_id, min_position).await?;
        let started_at = Instant::now();
        let rows = query(self.primary.acquire().await?).await?;
        self.metrics.record(name, started_at.elapsed());
        Ok(rows)
    }
}
