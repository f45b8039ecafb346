//! `reading-sessions dev`: the whole service with servers of its own, on a
//! machine that has neither docker nor root.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use uuid::Uuid;

use api::auth;
use eventlog::clock;
use api::auth::KeySource;
use api::secret::Secret;

use crate::config::ServeArgs;
use dev_servers::{self, Options, Servers};
use crate::cli::migrate;
use crate::app;

/// How long the printed token is valid, in seconds.
const TOKEN_LIFE: i64 = 12 * 3_600;

/// Whose token that is: the same at each start, so that the data are theirs.
const DEVELOPER: Uuid = Uuid::from_u128(0x0193_e5a0_0000_7000_8000_0000_0000_0001);

/// What `dev` takes besides the settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// The folder of the servers' data; it survives restarts. By default
    /// ~/.local/state/reading-sessions or, for root,
    /// /var/tmp/reading-sessions/data. Removing it begins anew.
    #[arg(long, env = "DEV_DATA")]
    pub data: Option<PathBuf>,
    /// Never fetch a server that is not on the machine.
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its type says what it is")]
    pub serve: ServeArgs,
}

/// Runs servers and service until Ctrl-C, then stops all of it in order.
///
/// # Errors
/// When a server cannot be found, fetched or started, or the service not.
pub async fn run(args: &DevArgs) -> anyhow::Result<()> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => dev_servers::default_data()?,
    };
    let mut settings = args.serve.clone();
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
        // Kept with the data, so that tokens stay good over restarts.
        let secret = dev_servers::secret(&data.join("jwt-secret"), None)?;
        settings.auth.jwt_secret = Some(Secret::from(secret));
    }

    // Whatever ends the service, the servers are stopped in order.
    let served = serve(&settings, &mut servers, &data).await;
    let stopped = servers.stop().await;
    served.and(stopped)
}

async fn serve(
    settings: &ServeArgs,
    servers: &mut Servers,
    data: &std::path::Path,
) -> anyhow::Result<()> {
    migrate::run(&settings.database).await?;
    let mut service = app::start(settings).await?;
    environment(settings, servers, data)?;
    // Whoever has read the banner may stop it.
    let signal = app::stop_signal()?;
    let banner = banner(settings, servers, &service, data)?;
    writeln!(std::io::stdout(), "{banner}").context("the addresses were not printed")?;
    let ended = tokio::select! {
        () = signal => Ok(()),
        death = servers.watch() => Err(death),
        error = service.failed() => Err(error),
    };
    tracing::info!("stopping");
    service.stop().await;
    tracing::info!("stopped");
    ended
}

/// A file that lets a shell run operators' commands on these servers.
fn environment(
    settings: &ServeArgs,
    servers: &Servers,
    data: &std::path::Path,
) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut export = |name: &str, value: &str| {
        let _ = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
    };
    export("DATABASE_URL", servers.database_url());
    export("NATS_URL", servers.nats_url());
    export("REDIS_URL", servers.redis_url());
    if let KeySource::Secret(secret) = settings.auth.source()? {
        export("JWT_SECRET", secret.expose());
    }
    dev_servers::write_secret(&data.join("env"), &text)
}

fn banner(
    settings: &ServeArgs,
    servers: &Servers,
    service: &app::Service,
    data: &std::path::Path,
) -> anyhow::Result<String> {
    let token = match settings.auth.source()? {
        KeySource::Secret(secret) => {
            let expires_at = clock::now().timestamp() + TOKEN_LIFE;
            let user = DEVELOPER.to_string();
            let token = auth::token(&secret, &user, true, &settings.auth.claims(), expires_at)?;
            format!("A token for 12 hours, in your shell:\n\n  export TOKEN={token}")
        }
        KeySource::File(_) | KeySource::Url(_) => {
            "Tokens come from your issuer; put one into TOKEN.".to_owned()
        }
    };
    let origins = [&servers.postgres, &servers.nats, &servers.redis]
        .map(|server| format!("  {}", server.origin()))
        .join("\n");
    let mut banner = format!(
        "\nReading Sessions, for development only.\n\n{origins}\n  data in {0}\n  \
         operators' commands find it with: . {0}/env\n\n\
         operators:   http://{1}/readyz\n",
        data.display(),
        service.admin
    );
    // The address of a server that was given is known, and its password is not
    // ours to show.
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
    banner.push_str("Ctrl-C stops all of it.");
    Ok(banner)
}
