//! `reading-sessions dev`: the complete service with private servers, on a machine
//! without Docker and root.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use api::auth::{self, KeySource};
use api::secret::Secret;
use clap::Args;
use dev_servers::{Options, Server, Servers};
use eventlog::clock;
use eventlog::error::error_chain;
use eventlog::roles::DatabaseRole;
use uuid::Uuid;

use super::migrate;
use super::output::print;
use crate::app::{self, Service};
use crate::config::{DatabaseArgs, RolePasswords, ServeArgs};
use crate::connect;

/// The lifetime of the printed token, in seconds.
const TOKEN_LIFETIME: i64 = 12 * 3_600;

/// The user of the printed token. It is the same at each start, so that earlier
/// sessions stay accessible.
const DEVELOPER: Uuid = Uuid::from_u128(0x0193_e5a0_0000_7000_8000_0000_0000_0001);

#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Data folder of the private servers [default:
    /// ~/.local/state/reading-sessions, for root
    /// /var/tmp/reading-sessions/data].
    ///
    /// The data survives restarts. Remove the folder to start from scratch.
    #[arg(long, env = "DEV_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Never download a server.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Runs the servers and the service until Ctrl-C, and stops them in order.
pub async fn run(args: &DevArgs) -> anyhow::Result<()> {
    let data = match &args.data {
        Some(data) => std::path::absolute(data)?,
        None => dev_servers::default_data_dir()?,
    };
    let mut settings = args.serve.clone();
    app::check_addresses(&settings)?;
    if settings.database.database_url.is_some() {
        check_postgres(&settings.database).await?;
    }
    let given = |secret: &Option<Secret>| secret.as_ref().map(|url| url.expose().to_owned());
    let mut servers = Servers::start(Options {
        data: data.clone(),
        fsync: true,
        offline: args.offline,
        postgres: given(&settings.database.database_url),
        nats: given(&settings.nats.nats_url),
        redis: given(&settings.redis.redis_url),
    })
    .await?;
    settings.database.database_url = Some(Secret::from(servers.database_url().to_owned()));
    settings.nats.nats_url = Some(Secret::from(servers.nats_url().to_owned()));
    settings.redis.redis_url = Some(Secret::from(servers.redis_url().to_owned()));
    if !settings.auth.is_set() {
        // The secret is stored with the data, so that tokens stay valid after a
        // restart.
        let secret = dev_servers::get_or_create_secret(&data.join("jwt-secret"))?;
        settings.auth.jwt_secret = Some(Secret::from(secret));
    }

    // The servers stop in order, also if the service fails.
    let served = serve(settings, &mut servers, &data).await;
    let stopped = servers.stop().await;
    served.and(stopped)
}

/// Checks a Postgres that the user has set.
async fn check_postgres(args: &DatabaseArgs) -> anyhow::Result<()> {
    connect::check_postgres(args).await.map_err(|error| {
        anyhow!(
            "{}; unset DATABASE_URL to start a private Postgres",
            error_chain(error.as_ref())
        )
    })
}

async fn serve(mut settings: ServeArgs, servers: &mut Servers, data: &Path) -> anyhow::Result<()> {
    settings.database.database_url = Some(migrate(&settings.database, servers, data).await?);
    let settings = &settings;
    let mut service = app::start(settings).await?;
    write_environment(settings, servers, data)?;
    // The handlers must be installed before the banner: its reader may send a
    // signal at once.
    let signal = app::stop_signal()?;
    print(&banner(settings, servers, &service, data)?)?;
    let ended = tokio::select! {
        () = signal => Ok(()),
        death = servers.watch() => Err(death),
        error = service.failed() => Err(error),
    };
    app::stop_and_log(service).await;
    ended
}

/// Migrates the database. Returns the address for the service: that of the role
/// `reading_service` in a private Postgres.
async fn migrate(
    database: &DatabaseArgs,
    servers: &Servers,
    data: &Path,
) -> anyhow::Result<Secret> {
    let password = dev_servers::get_or_create_secret(&data.join("service-password"))?;
    let role = DatabaseRole::Service;
    let Some(url) = servers.database_url_as(role.name(), &password) else {
        migrate::apply(database, &RolePasswords::default())
            .await
            .context("unset DATABASE_URL to start a private Postgres")?;
        return Ok(Secret::from(servers.database_url().to_owned()));
    };
    let passwords = RolePasswords(vec![(role, Secret::from(password))]);
    migrate::apply(database, &passwords).await?;
    Ok(Secret::from(url))
}

/// Writes the file `env`, with which a shell can run commands against these
/// servers.
fn write_environment(settings: &ServeArgs, servers: &Servers, data: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut export = |name: &str, value: &str| {
        let _ = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
    };
    export("DATABASE_URL", settings.database.url()?.expose());
    export("NATS_URL", servers.nats_url());
    export("REDIS_URL", servers.redis_url());
    if let KeySource::Secret(secret) = settings.auth.source()? {
        export("JWT_SECRET", secret.expose());
    }
    if servers.postgres.port().is_some() {
        let _ = writeln!(
            text,
            "# The superuser of Postgres, which only `migrate` needs: DATABASE_URL='{}'",
            servers.database_url()
        );
    }
    dev_servers::write_secret(&data.join("env"), &text)
}

fn banner(
    settings: &ServeArgs,
    servers: &Servers,
    service: &Service,
    data: &Path,
) -> anyhow::Result<String> {
    let token = match settings.auth.source()? {
        KeySource::Secret(secret) => {
            let expires_at = clock::now().timestamp() + TOKEN_LIFETIME;
            let user = DEVELOPER.to_string();
            let claims = settings.auth.claims();
            let access = auth::AdminAccess::Act;
            let token = auth::issue_token(&secret, &user, access, &claims, expires_at)?;
            format!("Set a token that is valid for 12 hours:\n\n  export TOKEN={token}")
        }
        KeySource::File(_) | KeySource::Url(_) => "Set TOKEN to a token of your issuer.".to_owned(),
    };
    let origins = [
        (&servers.postgres, "DATABASE_URL"),
        (&servers.nats, "NATS_URL"),
        (&servers.redis, "REDIS_URL"),
    ]
    .map(|(server, setting)| format!("  {}", origin(server, setting)))
    .join("\n");
    let mut banner = format!(
        "\nReading Sessions, for development only.\n\n{origins}\n  data in {0}\n  \
         to run commands against these servers: . {0}/env\n\n\
         operators:   http://{1}/readyz\n\
         console:     http://{1}/\n\
         admin API:   http://{1}/api/v1/admin\n",
        data.display(),
        service.admin
    );
    // The URL of a server that the user has set may contain a password, so it is
    // not printed.
    if servers.nats.port().is_some() {
        let _ = writeln!(banner, "events:      {}", servers.nats_url());
    }
    if let Some(http) = service.http {
        let _ = write!(
            banner,
            "client apps: http://{http}/api/v1/reading-sessions\n\
             API docs:    http://{http}/docs\n\n\
             {token}\n\n\
             Start a session:\n\n  \
             curl -s http://{http}/api/v1/reading-sessions/start -H \"Authorization: Bearer $TOKEN\" \
             -H 'Content-Type: application/json' -d '{{\"book_id\": \"{}\"}}'\n\n",
            Uuid::new_v4()
        );
    }
    let _ = write!(
        banner,
        "Ctrl-C stops the service and its servers; the data stays in {}",
        data.display()
    );
    Ok(banner)
}

/// Where a server comes from. For a server that the user has set, the address
/// without its credentials, and the setting.
fn origin(server: &Server, setting: &str) -> String {
    if server.port().is_some() {
        return server.origin();
    }
    let url = Secret::from(server.url().to_owned()).redacted_url();
    // The name before the `@` may be a token.
    let address = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next()?.rsplit('@').next())
        .map_or_else(String::new, |address| format!(" at {address}"));
    format!("{}{address} ({setting})", server.name())
}
