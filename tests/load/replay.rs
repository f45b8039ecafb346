//! A replay of the history from a log of its own size, and then a warm-up of the
//! cache with all of its sessions, as operators run them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use services::dev::Servers;
use sqlx::{Connection, Executor, PgConnection};
use tests::process;
use tests::stack::Corner;

use crate::usage;

/// Sessions that are read at the same time, and the events of each: their
/// events alternate in the log.
const SESSIONS: u64 = 20_000;
const EVENTS_EACH: u64 = 50;

/// How often the memory of the replay is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A replay.
pub struct Replay {
    /// Events replayed.
    pub events: u64,
    /// How long it took, from the start of the process to its end.
    pub took: Duration,
    /// The most memory that it had resident, in bytes.
    pub resident: u64,
    /// Sessions put into the cache then.
    pub sessions: u64,
    /// How long that took, from the start of the process to its end.
    pub warm_up: Duration,
}

impl Replay {
    /// Events a second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 events")]
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

/// Fills a log with about so many events, and replays the history from it.
pub async fn measure(servers: &Servers, events: u64) -> anyhow::Result<Replay> {
    let executable = crate::executable()?;
    let corner = corner(servers).await?;
    let migrated = process::command_of(&executable, &corner)
        .arg("migrate")
        .status()
        .await?;
    ensure!(migrated.success(), "the database was not migrated");
    let waves = events.div_ceil(SESSIONS * EVENTS_EACH);
    fill(&corner.database_url, waves).await?;

    let started = Instant::now();
    let mut child = process::command_of(&executable, &corner)
        .args(["replay", "history"])
        .spawn()?;
    let pid = child.id().context("the replay does not run")?;
    let mut resident = 0;
    let status = loop {
        resident = usage::peak_resident(pid).unwrap_or(0).max(resident);
        if let Ok(status) = tokio::time::timeout(LOOK, child.wait()).await {
            break status?;
        }
    };
    let took = started.elapsed();
    ensure!(status.success(), "the replay failed");
    let events = waves * SESSIONS * EVENTS_EACH;
    let mut connection = PgConnection::connect(&corner.database_url).await?;
    let replayed: i64 = sqlx::query_scalar("select sum(version)::bigint from read.history")
        .fetch_one(&mut connection)
        .await?;
    ensure!(
        replayed.unsigned_abs() == events,
        "the history has {replayed} of {events} events"
    );
    let (sessions, warm_up) = warm_up(&executable, &corner, &mut connection).await?;
    connection.close().await?;
    Ok(Replay {
        events,
        took,
        resident,
        sessions,
        warm_up,
    })
}

/// Has all sessions be active, and fills an empty cache with them.
async fn warm_up(
    executable: &Path,
    corner: &Corner,
    connection: &mut PgConnection,
) -> anyhow::Result<(u64, Duration)> {
    let claimed = sqlx::query(
        "insert into claims (reader_id, session_id)
        select (payload ->> 'reader_id')::uuid, aggregate_id from events where sequence = 1",
    )
    .execute(connection)
    .await?;
    let started = Instant::now();
    let status = process::command_of(executable, corner)
        .arg("warmup")
        .status()
        .await?;
    let took = started.elapsed();
    ensure!(status.success(), "the warm-up failed");
    let sessions = claimed.rows_affected();
    let redis = redis::Client::open(corner.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let entries: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
    // And the checkpoint.
    ensure!(entries == sessions + 1, "{entries} entries of {sessions}");
    Ok((sessions, took))
}

async fn corner(servers: &Servers) -> anyhow::Result<Corner> {
    let mut connection = PgConnection::connect(servers.database_url()).await?;
    connection.execute("create database replay").await?;
    connection.close().await?;
    let (server, _) = servers
        .database_url()
        .rsplit_once('/')
        .context("an address names its database")?;
    Ok(Corner {
        database_url: format!("{server}/replay"),
        nats_url: servers.nats_url().to_owned(),
        nats_prefix: "replay".to_owned(),
        // One of its own: the first one is the service's.
        redis_url: format!("{}/1", servers.redis_url().trim_end_matches("/0")),
    })
}

/// Writes waves of sessions, each event as the service writes it.
async fn fill(url: &str, waves: u64) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute("set synchronous_commit = off").await?;
    for wave in 0..waves {
        sqlx::query(
            r#"insert into events (
                aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
            )
            select
                format('%s-%s-7%s-8%s-%s', left(time, 8), right(time, 4), left(hash, 3),
                    substr(hash, 4, 3), substr(hash, 7, 12)),
                n, 'reading_session',
                case n when 1 then 'SessionStarted' else 'PositionUpdated' end, '1',
                case n
                    when 1 then format(
                        '{"type":"SessionStarted","reader_id":"%s","book_id":"%s","started_at":"%s","position":0,"device_type":"tablet","time_zone":"Europe/Berlin","locator":"epubcfi(/6/14!/4/2/14:%s)"}',
                        hash::uuid, md5(s::text)::uuid, at[1], n)
                    else format(
                        '{"type":"PositionUpdated","reader_id":"%s","occurred_at":"%s","position":%s,"locator":"epubcfi(/6/14!/4/2/14:%s)","applied":true,"previous_at":"%s","previous_position":%s,"credited_ms":30000,"active_ms":%s,"furthest_position":%s,"time_zone":"Europe/Berlin"}',
                        hash::uuid, at[n], n - 1, n, at[n - 1], n - 2, 30000 * (n - 1), n - 1)
                end::json,
                '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
            from generate_series(1, $2) as n
            cross join (
                select s, md5($1 || '.' || s) as hash from generate_series(1, $3) as s
            ) as sessions
            cross join (
                select lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') as time,
                    array(
                        select to_char(now() at time zone 'UTC' + i * interval '30 s', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
                        from generate_series(1, $2) as i
                    ) as at
            ) as times
            order by n, s"#,
        )
        .bind(i64::try_from(wave)?)
        .bind(i32::try_from(EVENTS_EACH)?)
        .bind(i32::try_from(SESSIONS)?)
        .execute(&mut connection)
        .await?;
    }
    connection.execute("vacuum analyze events").await?;
    connection.close().await?;
    Ok(())
}
