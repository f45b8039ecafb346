//! `reading-sessions`: one executable, a subcommand for each role or command.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use api::openapi;
use server::config::{DatabaseArgs, ServeArgs};
use server::cli::config::Settings;
use server::cli::dead_letters::DeadLettersArgs;
use server::cli::dev::DevArgs;
use server::cli::doctor::DoctorArgs;
use server::cli::events::EventsCommand;
use server::cli::projections::ProjectionsArgs;
use server::cli::reader::ReaderCommand;
use server::cli::replay::ReplayArgs;
use server::cli::token::TokenArgs;
use server::cli::jobs::JobsCommand;
use server::cli::verify::VerifyArgs;
use server::cli::warm_up::WarmUpArgs;
use server::cli::{Output, print};
use server::telemetry::LogFormat;
use server::{app, cli, telemetry};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Reading sessions for e-reader back ends: commands over HTTP, an event log in
/// Postgres, events on NATS, projections in Postgres and Redis.
#[derive(Parser)]
#[command(name = "reading-sessions", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines look.
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service: all roles in one process, or some.
    #[command(after_help = "Examples:
  reading-sessions serve
  reading-sessions serve --role api --http-addr 0.0.0.0:8080
  reading-sessions serve --role relay --role projections")]
    Serve(Box<ServeArgs>),
    /// Run the service with servers of its own, for development.
    #[command(after_help = "Examples:
  reading-sessions dev
  reading-sessions dev --data /tmp/reading --http-addr 127.0.0.1:9080 --admin-addr 127.0.0.1:9081
  DATABASE_URL=postgres://localhost/reading reading-sessions dev

Of DATABASE_URL, NATS_URL and REDIS_URL each takes the place of that server alone.")]
    Dev(Box<DevArgs>),
    /// Bring the database's schema up to date.
    #[command(after_help = "Example:
  DATABASE_URL=postgres://localhost/reading reading-sessions migrate")]
    Migrate(DatabaseArgs),
    /// Print a token for development; with HS256 only.
    #[command(
        after_help = "The secret comes from JWT_SECRET or JWT_SECRET_FILE; that of `dev` is in \
the file jwt-secret of its data folder.

Examples:
  reading-sessions token --user 018f4c2e-7c1a-7000-8000-000000000001
  reading-sessions token --user 018f4c2e-7c1a-7000-8000-000000000001 --admin --ttl 10m"
    )]
    Token(TokenArgs),
    /// Look at the events of the log.
    #[command(
        subcommand,
        after_help = "Examples:
  reading-sessions events tail --since 10m
  reading-sessions events show 0193e5a0-0000-7000-8000-000000000001"
    )]
    Events(EventsCommand),
    /// Print the settings that take effect, without secrets.
    #[command(after_help = "Examples:
  reading-sessions config
  reading-sessions config -o json")]
    Config {
        #[command(flatten)]
        settings: Box<ServeArgs>,
        /// How to print.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Look whether the servers are as they must be and everything goes on.
    #[command(
        after_help = "It changes nothing. Exit codes: 0 nothing fails (there may be warnings), \
1 something does, 2 usage.

Examples:
  reading-sessions doctor
  reading-sessions doctor -o json"
    )]
    Doctor(DoctorArgs),
    /// Show how far projections are and who works on them; pause or resume one.
    #[command(after_help = "Exit codes: 0 done, 1 not done (or not known), 2 usage.

Examples:
  reading-sessions projections
  reading-sessions projections -o json
  reading-sessions projections pause history
  reading-sessions projections resume history")]
    Projections(ProjectionsArgs),
    /// Make a projection again from the log, while everything goes on.
    #[command(
        after_help = "Queries go on reading what was there until it is done. One that is stopped or killed goes on from there the next time.

Exit codes: 0 done, 1 not done, 2 usage, 130 stopped by Ctrl-C or SIGTERM.

Examples:
  reading-sessions replay history
  reading-sessions replay daily_stats --restart
  reading-sessions replay active_sessions"
    )]
    Replay(ReplayArgs),
    /// Fill the cache with every active session, while everything goes on.
    #[command(
        name = "warm-up",
        alias = "warmup",
        after_help = "The service does it by itself when it starts and when Redis came back empty. What is \
wrong in the cache stays: `replay active_sessions` removes that first.

Exit codes: 0 done, 1 not done, 2 usage, 130 stopped by Ctrl-C or SIGTERM.

Example:
  reading-sessions warm-up"
    )]
    WarmUp(WarmUpArgs),
    /// Compare read tables and the cache with the log, while everything goes on.
    #[command(
        after_help = "Exit codes: 0 equal, 1 something differs, 2 usage, 3 it could not be \
checked (or was stopped).

Examples:
  reading-sessions verify
  reading-sessions verify history active_sessions
  reading-sessions verify -o json"
    )]
    Verify(VerifyArgs),
    /// Show events that a projection could not apply; retry or discard one.
    #[command(after_help = "Exit codes: 0 done, 1 not done (or not known), 2 usage.

Examples:
  reading-sessions dead-letters
  reading-sessions dead-letters --projection history --state parked -o json
  reading-sessions dead-letters show history.1234
  reading-sessions dead-letters retry history.1234
  reading-sessions dead-letters discard history.1234")]
    DeadLetters(DeadLettersArgs),
    /// List background jobs and their last runs, or run one now.
    #[command(alias = "upkeep", after_help = "Exit codes: 0 done, 1 not done, 2 usage, 130 stopped.

Examples:
  reading-sessions jobs
  reading-sessions jobs -o json
  reading-sessions jobs run idle_sessions")]
    Jobs(JobsCommand),
    /// Hand out all data of a reader, or erase it.
    #[command(
        subcommand,
        after_help = "Examples:
  reading-sessions reader export 018f4c2e-7c1a-7000-8000-000000000001 --out reader.json
  reading-sessions reader erase 018f4c2e-7c1a-7000-8000-000000000001"
    )]
    Reader(ReaderCommand),
    /// Print the description of the HTTP API (OpenAPI 3.1).
    #[command(after_help = "Examples:
  reading-sessions openapi > openapi.json
  reading-sessions openapi --operators > openapi-admin.json")]
    Openapi {
        /// Of operators' calls, not of client apps'.
        #[arg(long)]
        operators: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        // The causes, and never a backtrace: most are settings.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {}", cli::why(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let filter = match arguments.command {
        Command::Serve(_) | Command::Dev(_) | Command::Migrate(_) => telemetry::SERVICE,
        _ => telemetry::COMMAND,
    };
    telemetry::start(arguments.log_format, filter)?;
    match arguments.command {
        Command::Serve(args) => app::serve(&args).await?,
        Command::Dev(args) => cli::dev::run(&args).await?,
        Command::Migrate(args) => cli::migrate::run(&args).await?,
        Command::Token(args) => print(&cli::token::run(&args)?)?,
        Command::Events(command) => cli::events::run(&command).await?,
        Command::Config { settings, output } => {
            let settings = Settings::of(&settings);
            match output {
                Output::Text => print(&settings.text())?,
                Output::Json => print(&format!("{:#}", settings.json()))?,
            }
        }
        Command::Doctor(args) => return cli::doctor::run(&args).await,
        Command::Projections(args) => return cli::projections::run(&args).await,
        Command::Replay(args) => return cli::replay::run(&args).await,
        Command::WarmUp(args) => return cli::warm_up::run(&args).await,
        Command::Verify(args) => return Ok(cli::verify::run(&args).await),
        Command::Jobs(args) => return cli::jobs::run(&args).await,
        Command::DeadLetters(args) => return cli::dead_letters::run(&args).await,
        Command::Reader(command) => return cli::reader::run(&command).await,
        Command::Openapi { operators } => {
            let document = if operators {
                openapi::admin::document()
            } else {
                openapi::document()
            };
            print(openapi::json(&document).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
