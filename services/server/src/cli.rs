//! The command line: one executable, with a command for each task of an operator
//! or developer.

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::Context;
use api::openapi;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use eventlog::error::error_chain;
use eventlog::migrations;
use sqlx::PgPool;

use crate::config::{DatabaseArgs, ServeArgs};
use crate::telemetry::{self, LogFormat};
use crate::{app, connect};

mod audit;
mod config;
mod dead_letters;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod events;
mod jobs;
mod load;
mod migrate;
mod projections;
mod reader;
mod replay;
mod secret_flags;
mod token;
mod verify;
mod warm_up;

mod format;
mod list;
mod names;
mod output;
mod progress_bar;
mod table;
mod wait;

use output::{print, report};
use wait::Interrupted;

/// The exit code of clap for wrong arguments and settings.
const WRONG_ARGUMENTS: u8 = 2;

/// Event-sourced back end for e-readers: reading sessions, history and
/// statistics.
///
/// Commands arrive over HTTP. Events are stored in Postgres and published to
/// NATS. Projections update the read tables in Postgres and the cache in Redis.
#[derive(Parser)]
#[command(name = "reading-sessions", version, arg_required_else_help = true)]
#[cfg_attr(
    feature = "dev",
    command(
        after_help = "Commands need the addresses of the servers. With \"reading-sessions dev\" running:
  . <data folder>/env"
    )
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Format of log lines, on standard error.
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        global = true,
        help_heading = "Logs",
        display_order = 1_000
    )]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service, with all roles or only some.
    #[command(after_help = "Examples:
  reading-sessions serve
  reading-sessions serve --role api --http-addr 0.0.0.0:8080
  reading-sessions serve --role relay --role projections")]
    Serve(Box<ServeArgs>),
    /// Run the service with private servers, for development.
    #[cfg(feature = "dev")]
    #[command(
        after_help = "DATABASE_URL, NATS_URL and REDIS_URL each replace the private server \
of that kind.

Examples:
  reading-sessions dev
  reading-sessions dev --data /tmp/reading --http-addr 127.0.0.1:9080 --admin-addr 127.0.0.1:9081
  DATABASE_URL=postgres://localhost/reading reading-sessions dev"
    )]
    Dev(Box<dev::DevArgs>),
    /// Create the roles of Postgres, apply missing migrations and create partitions.
    #[command(
        after_help = "DATABASE_URL names a role that may create roles, such as a superuser. The \
service connects with the roles that this command creates:

  reading_api          role api               POSTGRES_API_PASSWORD
  reading_relay        role relay             POSTGRES_RELAY_PASSWORD
  reading_projections  role projections       POSTGRES_PROJECTIONS_PASSWORD
  reading_jobs         jobs, admin API        POSTGRES_JOBS_PASSWORD
  reading_operator     other commands         POSTGRES_OPERATOR_PASSWORD
  reading_service      all of these           POSTGRES_SERVICE_PASSWORD
  reading_monitor      exporter of metrics    POSTGRES_MONITOR_PASSWORD

If the variable in the last column is set, or its variant with _FILE, the role may log in with \
that password.

Example:
  DATABASE_URL=postgres://postgres@localhost/reading POSTGRES_SERVICE_PASSWORD=… \\
    reading-sessions migrate"
    )]
    Migrate(migrate::MigrateArgs),
    /// Print the settings in effect, without secrets.
    #[command(after_help = "Examples:
  reading-sessions config
  reading-sessions config -o json")]
    Config(Box<config::ConfigArgs>),
    /// Check that all servers are configured correctly and that all workers are
    /// running.
    #[command(after_help = "The command changes nothing.

Exit codes: 0 no failure (warnings are possible), 1 a failure, 2 wrong arguments.

Examples:
  reading-sessions doctor
  reading-sessions doctor -o json")]
    Doctor(doctor::DoctorArgs),
    /// List projections with global position, lag, state and worker; pause or
    /// resume one.
    #[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments.

Examples:
  reading-sessions projections
  reading-sessions projections -o json
  reading-sessions projections pause history
  reading-sessions projections resume history")]
    #[command(mut_subcommand("list", |list| {
        list.about("List projections (the same as without a subcommand)")
    }))]
    Projections(projections::ProjectionsArgs),
    /// Rebuild a projection from the log, while clients send queries and commands.
    #[command(
        after_help = "Queries use the old data until the replay is done. After an interruption \
the next replay continues.

Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C or SIGTERM.

Examples:
  reading-sessions replay history
  reading-sessions replay daily_stats --restart
  reading-sessions replay active_sessions"
    )]
    Replay(replay::ReplayArgs),
    /// Write every active session to the cache, while clients send queries and commands.
    #[command(
        name = "warm-up",
        alias = "warmup",
        after_help = "The service does this by itself at the start and when Redis was emptied.
A warm-up does not remove wrong entries; `replay active_sessions` does.

Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C or SIGTERM.

Example:
  reading-sessions warm-up"
    )]
    WarmUp(warm_up::WarmUpArgs),
    /// Compare read tables and the cache with the log, while clients send
    /// queries and commands.
    #[command(
        after_help = "Exit codes: 0 equal, 1 something differs, 2 wrong arguments, 3 the check \
failed or was stopped.

Examples:
  reading-sessions verify
  reading-sessions verify history active_sessions
  reading-sessions verify -o json"
    )]
    Verify(verify::VerifyArgs),
    /// List events that a projection could not apply; retry or discard one.
    #[command(
        after_help = "Exit codes: 0 done, 1 failed or not found, 2 wrong arguments.

Examples:
  reading-sessions dead-letters
  reading-sessions dead-letters --projection history --state parked -o json
  reading-sessions dead-letters show history.1234
  reading-sessions dead-letters retry history.1234
  reading-sessions dead-letters discard history.1234"
    )]
    #[command(mut_subcommand("list", |list| {
        list.about("List dead letters (the same as without a subcommand)")
    }))]
    DeadLetters(dead_letters::DeadLettersArgs),
    /// List background jobs and their last runs, or run one now.
    #[command(
        alias = "upkeep",
        after_help = "Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C or \
SIGTERM.

Examples:
  reading-sessions jobs
  reading-sessions jobs -o json
  reading-sessions jobs run idle_sessions"
    )]
    #[command(mut_subcommand("list", |list| {
        list.about("List background jobs (the same as without a subcommand)")
    }))]
    Jobs(jobs::JobsArgs),
    /// List what operators did, over HTTP and on the command line, newest first.
    #[command(
        after_help = "An entry with the outcome `started` belongs to an action that runs, or \
whose process ended before it stored the outcome.

Exit codes: 0 done, 1 failed, 2 wrong arguments.

Examples:
  reading-sessions audit
  reading-sessions audit --limit 10 -o json"
    )]
    Audit(audit::AuditArgs),
    /// Export or erase all data of a reader.
    #[command(
        subcommand,
        after_help = "Examples:
  reading-sessions reader export 0193e5a0-0000-7000-8000-000000000001 --out reader.json
  reading-sessions reader erase 0193e5a0-0000-7000-8000-000000000001"
    )]
    Reader(reader::ReaderCommand),
    /// Print events of the log.
    #[command(
        subcommand,
        after_help = "Examples:
  reading-sessions events tail --since 10m
  reading-sessions events show 0193e5a0-6d1c-7c3a-9a51-0e6c5e1f7a10"
    )]
    Events(events::EventsCommand),
    /// Load a deployment with simulated readers, and check errors and latencies.
    #[command(
        after_help = "Three in four users start, update and end sessions and read the history; one \
in four requests the active session in bursts. The sessions are real. Without --erase they remain \
in the service, ended: see docs/operations/load-test.md. A first Ctrl-C ends the run early, and a \
second one does not wait; both print the report.

Exit codes: 0 all criteria met, 1 a criterion not met, 2 wrong arguments, or the run did not start \
or could not print its report, 3 --erase left data.

Examples:
  JWT_SECRET_FILE=jwt-secret reading-sessions load http://127.0.0.1:8080 --erase
  reading-sessions load https://reading.example --tokens tokens.txt --users 500 --spawn-rate 20
  reading-sessions load https://reading.example --tokens tokens.txt --max-p95 50 -o json"
    )]
    Load(Box<load::LoadArgs>),
    /// Print an HS256 token for development.
    #[command(
        after_help = "The secret comes from JWT_SECRET or JWT_SECRET_FILE. `dev` stores its \
secret in the file jwt-secret of its data folder.

Examples:
  reading-sessions token --user 0193e5a0-0000-7000-8000-000000000001
  reading-sessions token --user 0193e5a0-0000-7000-8000-000000000001 --admin --ttl 10m"
    )]
    Token(token::TokenArgs),
    /// Print the OpenAPI 3.1 description of the HTTP API.
    #[command(after_help = "Examples:
  reading-sessions openapi > openapi.json
  reading-sessions openapi --admin > openapi-admin.json")]
    Openapi {
        /// Print the admin API instead of the public API.
        #[arg(long, alias = "operators")]
        admin: bool,
    },
}

/// Parses the arguments and runs the command.
///
/// The runtime is started here, not in the executable, so that the code of all
/// commands is compiled in this library.
#[tokio::main]
#[must_use]
pub async fn main() -> ExitCode {
    let result = run(parse()).await;
    result.unwrap_or_else(|error| {
        if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
            report(&interrupted.to_string());
            return ExitCode::from(Interrupted::EXIT_CODE);
        }
        // Without a backtrace: most causes are settings and servers.
        report(&format!("Error: {}", error_chain(error.as_ref())));
        ExitCode::FAILURE
    })
}

/// Parses the arguments of this process. Exits if they are wrong.
fn parse() -> Arguments {
    let matches = without_empty_variables(Arguments::command()).get_matches();
    let parsed = match secret_flags::check(&matches) {
        Ok(()) => Arguments::from_arg_matches(&matches),
        Err(text) => Err(Arguments::command().error(ErrorKind::ValueValidation, text)),
    };
    parsed.unwrap_or_else(|error| error.exit())
}

/// An empty environment variable counts as unset. A line such as `JWKS_URL=` in a file with
/// variables would be an invalid value otherwise.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| {
            if arg.get_env().is_some_and(is_empty) {
                arg.env(None::<&'static str>)
            } else {
                arg
            }
        })
        .mut_subcommands(without_empty_variables)
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Err(error) = telemetry::init(arguments.log_format, arguments.command.log_filter()) {
        report(&format!("Error: {}", error_chain(error.as_ref())));
        return Ok(ExitCode::from(WRONG_ARGUMENTS));
    }
    match arguments.command {
        Command::Serve(args) => app::serve(&args).await?,
        #[cfg(feature = "dev")]
        Command::Dev(args) => dev::run(&args).await?,
        Command::Migrate(args) => migrate::run(&args).await?,
        Command::Config(args) => config::run(&args)?,
        Command::Doctor(args) => return doctor::run(&args).await,
        Command::Projections(args) => projections::run(&args).await?,
        Command::Replay(args) => replay::run(&args).await?,
        Command::WarmUp(args) => warm_up::run(&args).await?,
        Command::Verify(args) => return Ok(verify::run(&args).await),
        Command::DeadLetters(args) => dead_letters::run(&args).await?,
        Command::Jobs(args) => jobs::run(&args).await?,
        Command::Audit(args) => audit::run(&args).await?,
        Command::Reader(command) => reader::run(&command).await?,
        Command::Events(command) => events::run(&command).await?,
        Command::Load(args) => return Ok(load::run(&args).await),
        Command::Token(args) => token::run(&args)?,
        Command::Openapi { admin } => {
            let document = if admin {
                openapi::admin::document()
            } else {
                openapi::document()
            };
            print(openapi::json(&document).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Command {
    /// The log filter if `RUST_LOG` is not set.
    fn log_filter(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Migrate(_) => telemetry::SERVICE_FILTER,
            #[cfg(feature = "dev")]
            Self::Dev(_) => telemetry::SERVICE_FILTER,
            _ => telemetry::COMMAND_FILTER,
        }
    }
}

/// Connects to Postgres, and checks that it is at the migration of this build.
async fn connect_database(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    connect::check_postgres(args).await?;
    let pool = connect::admin_pool(args)?;
    migrations::check(&pool)
        .await
        .context("checking the migrations of the database failed")?;
    Ok(pool)
}

#[cfg(test)]
mod tests;
