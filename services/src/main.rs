//! `reading-sessions`: one executable, a subcommand for each role or command.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use mimalloc::MiMalloc;
use services::config::{DatabaseArgs, ServeArgs};
use services::operator::config::Settings;
use services::operator::dev::DevArgs;
use services::operator::events::EventsCommand;
use services::operator::token::TokenArgs;
use services::telemetry::LogFormat;
use services::{operator, roles, telemetry};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
    /// Print the description of the HTTP API (OpenAPI 3.1).
    #[command(after_help = "Example:
  reading-sessions openapi > openapi.json")]
    Openapi,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        // The causes, and never a backtrace: most are settings.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::start(arguments.log_format)?;
    match arguments.command {
        Command::Serve(args) => roles::serve(&args).await,
        Command::Dev(args) => operator::dev::run(&args).await,
        Command::Migrate(args) => operator::migrate::run(&args).await,
        Command::Token(args) => print(&operator::token::run(&args)?),
        Command::Events(command) => operator::events::run(&command).await,
        Command::Config { settings, output } => {
            let settings = Settings::of(&settings);
            match output {
                Output::Text => print(&settings.text()),
                Output::Json => print(&format!("{:#}", settings.json())),
            }
        }
        Command::Openapi => print(services::api::openapi::json().trim_end()),
    }
}

/// Prints a line; a reader that went away, as `head` does, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
