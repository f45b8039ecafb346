//! Where queries of read tables go: to the replica or to the primary, and not
//! before the projection is as far as they need.

use eventlog::Pool;
use projections::checkpoint::CheckpointWaiter;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

use super::replica::Replica;
use crate::read_your_writes;
use crate::problem::Problem;

/// Where a projection's rows are read: at the replica, when there is one and as
/// long as it does, else at the primary.
#[derive(Clone, Debug)]
pub struct ReadTable {
    /// The primary.
    pub primary: Pool,
    /// How far the projection is there.
    pub checkpoint: CheckpointWaiter,
    /// The replica.
    pub replica: Option<Replica>,
}

impl ReadTable {
    /// What a query finds, once the projection has come to `min_position`.
    pub(super) async fn read<T, Found>(
        &self,
        min_position: Option<i64>,
        query: impl Fn(PoolConnection<Postgres>) -> Found,
    ) -> Result<T, Problem>
    where
        Found: Future<Output = sqlx::Result<T>>,
    {
        let min_position = read_your_writes::position(min_position)?;
        if let Some(replica) = &self.replica {
            let read = async |mut connection: PoolConnection<Postgres>| {
                if let Some(position) = min_position
                    && self.checkpoint.read(&mut *connection).await? < position
                {
                    return Ok(None);
                }
                query(connection).await.map(Some)
            };
            if let Some(found) = replica.read(read).await {
                return Ok(found);
            }
        }
        read_your_writes::reached(&self.checkpoint, min_position).await?;
        Ok(query(self.primary.acquire().await?).await?)
    }
}
