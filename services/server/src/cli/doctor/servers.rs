//! The servers: whether they are there, new enough, and set up as the promises
//! need it.

use anyhow::Context;
use async_nats::jetstream;
use eventlog::deadline::with_deadline;
use eventlog::postgres_info::{self, PostgresInfo};
use messaging::{Subjects, stream};
use eventlog::migrations;
use sqlx::PgPool;

use super::super::format::count;
use super::super::why;
use super::{DEADLINE, Finding, State};
use crate::config::{NatsArgs, RedisArgs};
use crate::connect;

/// The oldest versions.
const POSTGRES: i32 = 15;
const NATS: (u64, u64) = (2, 11);
const REDIS: u64 = 7;

/// Transactions open for longer, in seconds, keep vacuum from its work.
const LONG: f64 = 300.0;

/// Months that should have a partition before they come.
const MONTHS_AHEAD: i64 = 2;

pub(super) async fn postgres(pool: &PgPool) -> Vec<Finding> {
    let looked = async {
        let server = with_deadline(DEADLINE, postgres_info::query(pool)).await?;
        let months = with_deadline(DEADLINE, migrations::months_ahead(pool)).await?;
        anyhow::Ok((server, months))
    };
    match looked.await {
        Ok((server, months)) => vec![durable(&server), busy(&server), partitions(months)],
        Err(error) => vec![Finding::failure("Postgres", why(&error))],
    }
}

fn durable(server: &PostgresInfo) -> Finding {
    let mut wrong = Vec::new();
    if server.version_num < POSTGRES * 10_000 {
        wrong.push(format!("{} is older than {POSTGRES}", server.version));
    }
    if server.is_replica {
        wrong.push("it is a replica and takes no writes".to_owned());
    }
    for (is_on, name) in [
        (server.fsync, "fsync"),
        (server.full_page_writes, "full_page_writes"),
        (server.synchronous_commit != "off", "synchronous_commit"),
    ] {
        if !is_on {
            wrong.push(format!("{name} is off: what is acknowledged can be lost"));
        }
    }
    let well = format!("{}, durable, of this build's schema", server.version);
    Finding::of("Postgres", State::Failure, &wrong, well)
}

fn busy(server: &PostgresInfo) -> Finding {
    let mut wrong = Vec::new();
    if server.connections * 10 > server.max_connections * 8 {
        wrong.push("max_connections is nearly reached".to_owned());
    }
    if server.longest_transaction > LONG {
        let seconds = server.longest_transaction;
        wrong.push(format!("a transaction has been open for {seconds:.0} s"));
    }
    let (used, most) = (server.connections, server.max_connections);
    let well = format!("{used} of {most} are in use");
    Finding::of("connections", State::Warning, &wrong, well)
}

fn partitions(months: i64) -> Finding {
    match months {
        0 => Finding::failure(
            "partitions",
            "next month has none: commands will fail; `reading-sessions upkeep run partitions`",
        ),
        months if months < MONTHS_AHEAD => {
            Finding::warning("partitions", format!("of {months} month ahead"))
        }
        months => Finding::ok("partitions", format!("of {months} months ahead")),
    }
}

pub(super) async fn redis(args: &RedisArgs) -> Vec<Finding> {
    if !args.is_set() {
        return vec![Finding::warning("Redis", "REDIS_URL is not set")];
    }
    match info(args).await {
        Ok(info) => judged(&info),
        Err(error) => vec![Finding::failure("Redis", why(&error))],
    }
}

async fn info(args: &RedisArgs) -> anyhow::Result<redis::InfoDict> {
    let info = async |mut redis| redis::cmd("INFO").query_async(&mut redis).await;
    Ok(connect::cache(args)?.call(DEADLINE, info).await?)
}

fn judged(info: &redis::InfoDict) -> Vec<Finding> {
    // Valkey says which Redis it is like, and its own version besides.
    let like: String = info.get("redis_version").unwrap_or_default();
    let own: Option<String> = info.get("valkey_version");
    let policy: String = info.get("maxmemory_policy").unwrap_or_default();
    let used: u64 = info.get("used_memory").unwrap_or_default();
    let most: u64 = info.get("maxmemory").unwrap_or_default();
    let evicted: u64 = info.get("evicted_keys").unwrap_or_default();
    let name = own.map_or_else(|| like.clone(), |own| format!("Valkey {own}"));

    let major: Option<u64> = like.split('.').next().and_then(|major| major.parse().ok());
    let mut old = Vec::new();
    if major.is_none_or(|major| major < REDIS) {
        old.push(format!("{name} is older than {REDIS}"));
    }
    let mut wrong = Vec::new();
    if most > 0 && policy == "noeviction" {
        wrong.push("it refuses writes when it is full (maxmemory-policy noeviction)".to_owned());
    }
    if most > 0 && used * 10 > most * 9 {
        wrong.push(format!("{} of {} MB are in use", used >> 20, most >> 20));
    }
    if evicted > 0 {
        wrong.push(format!("it has evicted {} keys", count(evicted)));
    }
    vec![
        Finding::of("Redis", State::Failure, &old, name),
        Finding::of(
            "Redis memory",
            State::Warning,
            &wrong,
            format!("{} MB, {policy}", used >> 20),
        ),
    ]
}

pub(super) async fn nats(args: &NatsArgs) -> Vec<Finding> {
    if args.nats_url.is_none() && args.nats_url_file.is_none() {
        return vec![Finding::warning("NATS", "NATS_URL is not set")];
    }
    let looked = async {
        let jetstream = connect::jetstream(args).await?;
        let reached = tokio::time::timeout(DEADLINE, jetstream.client().flush()).await;
        reached.context("it does not answer")??;
        anyhow::Ok((version(&jetstream), jetstream))
    };
    let (finding, jetstream) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return vec![Finding::failure("NATS", why(&error))],
    };
    let stream = stream(&jetstream, &Subjects::new(&args.nats_prefix)).await;
    vec![finding, stream]
}

fn version(jetstream: &jetstream::Context) -> Finding {
    let version = jetstream.client().server_info().version;
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    let is_new = matches!((parts.next(), parts.next()), (Some(a), Some(b)) if (a, b) >= NATS);
    if is_new {
        Finding::ok("NATS", version)
    } else {
        let (major, minor) = NATS;
        let says = format!("{version} is older than {major}.{minor}: it drops settings silently");
        Finding::failure("NATS", says)
    }
}

async fn stream(jetstream: &jetstream::Context, subjects: &Subjects) -> Finding {
    match stream::find(jetstream, subjects).await {
        Ok(Some(stream)) => {
            let messages = stream.cached_info().state.messages;
            let says = format!("{} holds {} events", subjects.stream(), count(messages));
            Finding::ok("stream", says)
        }
        Ok(None) => {
            let says = format!(
                "there is no {}: a relay makes it and publishes the log",
                subjects.stream()
            );
            Finding::warning("stream", says)
        }
        Err(error) => Finding::failure("stream", why(&error.into())),
    }
}
