//! Checks of the servers: reachable, recent enough, and configured as the
//! guarantees need it.

use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use eventlog::migrations;
use eventlog::postgres_info::{self, PostgresInfo};
use eventlog::roles::{self, Excess};
use sqlx::PgPool;

use super::super::format::counted;
use super::{Finding, Status, TIMEOUT};
use crate::config::RedisArgs;
use crate::connect;

/// The oldest supported versions.
const MIN_POSTGRES: i32 = 15;
const MIN_REDIS: u64 = 7;

/// In seconds. A longer transaction keeps vacuum from removing old rows.
const MAX_TRANSACTION: f64 = 300.0;

/// Months that must have partitions in advance.
const MIN_MONTHS_AHEAD: i64 = 2;

pub(super) async fn check_postgres(pool: &PgPool) -> Vec<Finding> {
    let read = async {
        let info = with_deadline(TIMEOUT, postgres_info::query(pool)).await?;
        let months = with_deadline(TIMEOUT, migrations::months_ahead(pool)).await?;
        let excess = with_deadline(TIMEOUT, roles::excessive(pool, true)).await?;
        anyhow::Ok((info, months, excess))
    };
    match read.await {
        Ok((info, months, excess)) => vec![
            durability(&info),
            connections(&info),
            partitions(months),
            database_roles(&excess),
        ],
        Err(error) => vec![Finding::failure("Postgres", error_chain(error.as_ref()))],
    }
}

fn durability(info: &PostgresInfo) -> Finding {
    let mut problems = Vec::new();
    if info.version_num < MIN_POSTGRES * 10_000 {
        problems.push(format!("{} is older than {MIN_POSTGRES}", info.version));
    }
    if info.is_replica {
        problems.push("the server is a replica and refuses writes".to_owned());
    } else if info.is_read_only {
        let problem = "the server refuses writes: default_transaction_read_only is on";
        problems.push(problem.to_owned());
    }
    for (is_on, name) in [
        (info.fsync, "fsync"),
        (info.full_page_writes, "full_page_writes"),
        (info.synchronous_commit != "off", "synchronous_commit"),
    ] {
        if !is_on {
            problems.push(format!("{name} is off: acknowledged events can be lost"));
        }
    }
    let ok = format!("{}, durable, at the migration of this build", info.version);
    Finding::from_problems("Postgres", Status::Failure, &problems, ok)
}

fn connections(info: &PostgresInfo) -> Finding {
    let (used, max) = (info.connections, info.max_connections);
    let mut problems = Vec::new();
    if used * 10 > max * 8 {
        problems.push(format!("{used} of {max} (max_connections) are in use"));
    }
    if info.longest_transaction > MAX_TRANSACTION {
        let seconds = info.longest_transaction;
        problems.push(format!("a transaction has been open for {seconds:.0} s"));
    }
    let ok = format!("{used} of {max} are in use");
    Finding::from_problems("connections", Status::Warning, &problems, ok)
}

fn partitions(months: i64) -> Finding {
    match months {
        0 => Finding::failure(
            "partitions",
            "none for next month: commands will fail; run `reading-sessions jobs run partitions` with \
             the role reading_jobs",
        ),
        months if months < MIN_MONTHS_AHEAD => {
            Finding::warning("partitions", format!("{months} month ahead"))
        }
        months => Finding::ok("partitions", format!("{months} months ahead")),
    }
}

fn database_roles(excess: &[Excess]) -> Finding {
    let problem = |excess: &Excess| {
        format!(
            "{} {}: a process with this role can change the log; connect with \
             a role that `migrate` has created",
            excess.role, excess.rights
        )
    };
    let problems: Vec<String> = excess.iter().map(problem).collect();
    let ok = "no process can change the log except by appending and erasing";
    Finding::from_problems("Postgres roles", Status::Failure, &problems, ok)
}

pub(super) async fn check_redis(args: &RedisArgs) -> Vec<Finding> {
    if !args.is_set() {
        return vec![Finding::warning("Redis", "REDIS_URL is not set; set it")];
    }
    match connect::redis_info(args, TIMEOUT).await {
        Ok(info) => redis_findings(&info),
        Err(error) => vec![Finding::failure("Redis", error_chain(error.as_ref()))],
    }
}

fn redis_findings(info: &redis::InfoDict) -> Vec<Finding> {
    // Valkey reports the version of Redis that it is compatible with, and its own.
    let compatible: String = info.get("redis_version").unwrap_or_default();
    let valkey: Option<String> = info.get("valkey_version");
    let policy: String = info.get("maxmemory_policy").unwrap_or_default();
    let used: u64 = info.get("used_memory").unwrap_or_default();
    let max: u64 = info.get("maxmemory").unwrap_or_default();
    let evicted: u64 = info.get("evicted_keys").unwrap_or_default();

    let name = valkey.map_or_else(|| compatible.clone(), |own| format!("Valkey {own}"));
    let major = compatible.split('.').next();
    let major: Option<u64> = major.and_then(|major| major.parse().ok());
    let mut version_problems = Vec::new();
    if major.is_none_or(|major| major < MIN_REDIS) {
        version_problems.push(format!("{name} is older than {MIN_REDIS}"));
    }
    let mut memory_problems = Vec::new();
    if max > 0 && policy == "noeviction" {
        let problem = "Redis refuses writes when it is full (maxmemory-policy noeviction)";
        memory_problems.push(problem.to_owned());
    }
    if max > 0 && used * 10 > max * 9 {
        let problem = format!("{} of {} MB are in use", used >> 20, max >> 20);
        memory_problems.push(problem);
    }
    if evicted > 0 {
        memory_problems.push(format!(
            "Redis has evicted {}",
            counted(evicted, "key", "keys")
        ));
    }
    vec![
        Finding::from_problems("Redis", Status::Failure, &version_problems, name),
        Finding::from_problems(
            "Redis memory",
            Status::Warning,
            &memory_problems,
            format!("{} MB, {policy}", used >> 20),
        ),
    ]
}
