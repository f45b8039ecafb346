//! The memory of Redis with more and more active sessions in an otherwise empty cache.

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use sqlx::{Connection, PgConnection};

use crate::report::{Findings, Row, megabytes, thousands};
use crate::usage::Meter;
use crate::{Bench, Part, fill, replay, service};

/// Events of each session.
const EVENTS_PER_SESSION: u32 = 2;

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let env = service::create_env(bench.servers, Part::RedisMemory).await?;
    let mut database = PgConnection::connect(&env.admin_url).await?;
    let redis = redis::Client::open(env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let mut findings = Findings::default();
    let mut filled = 0;
    for sessions in bench.plan.cached.iter().copied() {
        bench.print(&format!("Redis memory, {sessions} active sessions"));
        let name = format!("cached.{sessions}");
        let head: i64 = sqlx::query_scalar("select coalesce(max(global_position), 0) from events")
            .fetch_one(&mut database)
            .await?;
        fill::sessions(&mut database, &name, sessions - filled, EVENTS_PER_SESSION).await?;
        fill::claim_sessions(&mut database, head).await?;
        filled = sessions;
        redis::cmd("FLUSHDB").exec_async(&mut redis).await?;
        let empty = used_memory(&mut redis).await?;
        let meter = Meter::with_children(service::server_pids(bench.servers)?, "service");
        replay::run_warm_up(&env).await?;
        findings.spans.push((
            format!("warm-up of {} sessions", thousands(sessions)),
            meter.stop(),
        ));
        let used = used_memory(&mut redis).await?.saturating_sub(empty);
        let entries: u32 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
        // One entry per session, and the checkpoint.
        ensure!(
            entries == sessions + 1,
            "Redis has {entries} entries for {sessions} sessions"
        );
        findings.rows.push(
            Row::new(
                format!(
                    "{}, {} active sessions",
                    Part::RedisMemory.title(),
                    thousands(sessions)
                ),
                format!(
                    "{:.1} MB, {} bytes per session",
                    megabytes(used),
                    used / u64::from(sessions)
                ),
            )
            .limit("memory"),
        );
    }
    database.close().await?;
    findings.conditions.push(
        "Redis memory: the growth of `used_memory` from an empty database through a warm-up with so \
         many active sessions. Rate limits use more memory while their windows last."
            .to_owned(),
    );
    Ok(findings)
}

/// The memory that Redis has allocated, in bytes.
async fn used_memory(redis: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    let info: String = redis::cmd("INFO").arg("memory").query_async(redis).await?;
    parse(&info)
}

fn parse(info: &str) -> anyhow::Result<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line
        .context("Redis reports no used memory")?
        .trim()
        .parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_memory_is_parsed() {
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\n";
        assert_eq!(parse(info).unwrap(), 1_048_576);
        assert!(parse("# Memory\r\n").is_err());
    }
}
