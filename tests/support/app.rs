//! A service that runs in the test process, with its own database, stream and
//! Redis database.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use api::auth::AdminAccess;
use api::secret::Secret;
use api::serve::ClientTimeouts;
use chrono::{DateTime, Utc};
use server::app::{self, Service};
use server::config::{
    AuthArgs, DatabaseArgs, HttpArgs, JobArgs, NatsArgs, ProjectionArgs, RateLimitArgs, RedisArgs,
    ReplicaArgs, Role, RuleArgs, ServeArgs, StreamArgs, StreamCompression, TraceArgs,
};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::eventually::{eventually_ok, scaled, until};
use crate::reader::{self, Reader};
use crate::stack::{Stack, TestEnv};

/// The secret that signs all test tokens.
pub const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// Longest time until the projections have caught up with the log, also after an
/// outage has ended.
pub const SETTLE: Duration = Duration::from_secs(10);

/// The coalesce window of the tests: long enough that rows are ahead of their checkpoint, and
/// short enough to wait for it.
pub const COALESCE_WINDOW: Duration = Duration::from_millis(200);

pub struct App {
    pub stack: Arc<Stack>,
    pub env: TestEnv,
    /// The service's database, for the superuser. Finds the read tables by name.
    pub pool: PgPool,
    pub client: reqwest::Client,
    /// The API, up to `/api/v1/reading-sessions`. Empty without the role `api`.
    pub url: String,
    /// The listener for probes, metrics and the admin API.
    pub admin_url: String,
    service: Option<Service>,
}

impl App {
    /// Starts a service with all roles on the shared servers.
    pub async fn start() -> Self {
        Self::on(Stack::shared().await).await
    }

    /// Starts a service with some roles on the shared servers.
    pub async fn start_roles(roles: &[Role]) -> Self {
        let stack = Stack::shared().await;
        let env = stack.new_env().await;
        Self::at(stack, env, roles).await
    }

    /// Starts a service with all roles on these servers.
    pub async fn on(stack: Arc<Stack>) -> Self {
        let env = stack.new_env().await;
        Self::at(stack, env, &Role::ALL).await
    }

    /// Starts a service that verifies tokens with these settings.
    pub async fn with_auth(auth: AuthArgs) -> Self {
        Self::with_settings(|settings| settings.auth = auth).await
    }

    /// Starts another service in the same test environment.
    pub async fn alongside(&self, roles: &[Role]) -> Self {
        Self::at(Arc::clone(&self.stack), self.env.clone(), roles).await
    }

    /// Starts a service with all roles and changed settings.
    pub async fn with_settings(change: impl FnOnce(&mut ServeArgs)) -> Self {
        let stack = Stack::shared().await;
        let env = stack.new_env().await;
        let mut settings = settings(&env, &Role::ALL);
        change(&mut settings);
        Self::run(stack, env, &settings).await
    }

    async fn at(stack: Arc<Stack>, env: TestEnv, roles: &[Role]) -> Self {
        let settings = settings(&env, roles);
        Self::run(stack, env, &settings).await
    }

    /// Starts a service with these settings.
    pub async fn run(stack: Arc<Stack>, env: TestEnv, settings: &ServeArgs) -> Self {
        let service = app::start(settings).await.unwrap();
        let pool = pool(&env).await;
        Self {
            url: service.http.map_or_else(String::new, |http| {
                format!("http://{http}/api/v1/reading-sessions")
            }),
            admin_url: format!("http://{}", service.admin),
            client: reader::client(),
            service: Some(service),
            stack,
            env,
            pool,
        }
    }

    /// A new reader with a valid token.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader_with_id(Uuid::new_v4())
    }

    /// A reader with a valid token.
    #[must_use]
    pub fn reader_with_id(&self, id: Uuid) -> Reader {
        self.reader_with_token(id, token(id))
    }

    /// A reader with the given token, which may be invalid.
    #[must_use]
    pub fn reader_with_token(&self, id: Uuid, token: String) -> Reader {
        Reader::new(self.client.clone(), self.url.clone(), id, token)
    }

    /// An operator with an admin token. Requests go to paths below `/api/v1/admin`.
    #[must_use]
    pub fn operator(&self) -> Reader {
        operator(self.client.clone(), &self.admin_url)
    }

    /// Like [`App::operator`], with a token for the calls that change nothing.
    #[must_use]
    pub fn viewer(&self) -> Reader {
        let expires_at = eventlog::clock::now() + chrono::TimeDelta::hours(1);
        self.operator_until(AdminAccess::Read, expires_at)
    }

    #[must_use]
    pub fn operator_until(&self, access: AdminAccess, expires_at: DateTime<Utc>) -> Reader {
        let id = Uuid::new_v4();
        let token = signed(id, access, expires_at);
        let url = format!("{}/api/v1/admin", self.admin_url);
        Reader::new(self.client.clone(), url, id, token)
    }

    /// Waits until the `warm_up` job, which starts with the service, has filled the
    /// cache.
    pub async fn warmed_up(&self) {
        until("the warm-up has finished", SETTLE, async || {
            sqlx::query_scalar(
                "select ended_at is not null and not asked and held_until < now()
                from jobs where job = 'warm_up'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap()
        })
        .await;
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::read(&self.client, &self.admin_url).await
    }

    /// A transaction that has read the history. While it is open, a replay of the history
    /// cannot swap in its table.
    pub async fn read_history(&self) -> Transaction<'static, Postgres> {
        let mut reading = self.pool.begin().await.unwrap();
        sqlx::query("select from history limit 1")
            .execute(&mut *reading)
            .await
            .unwrap();
        reading
    }

    /// Shuts the service down gracefully.
    pub async fn stop(mut self) {
        self.service.take().expect("it runs").stop().await;
    }

    /// Shuts the service down gracefully, and returns the log of Postgres. For dedicated
    /// servers: others write their log for all tests.
    pub async fn stop_with_postgres_log(self) -> String {
        let servers = self.stack.servers.lock().await;
        let dir = servers.postgres.dir().unwrap().to_owned();
        drop(servers);
        self.stop().await;
        let log = std::fs::read_to_string(dir.join("log")).unwrap();
        assert!(log.contains("ready to accept"), "{log}");
        log
    }

    /// Waits until every projection has reached the end of the log.
    pub async fn settled(&self) {
        settled(&self.pool, &self.env).await;
    }
}

/// The metrics of a service, in the text format of Prometheus.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    #[must_use]
    pub fn parse(text: String) -> Self {
        Self(text)
    }

    pub(crate) async fn read(client: &reqwest::Client, admin_url: &str) -> Self {
        let metrics = client.get(format!("{admin_url}/metrics"));
        Self(metrics.send().await.unwrap().text().await.unwrap())
    }

    /// The value of a series, by its name and labels as printed. 0 if the series is
    /// missing.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.text(name).map_or(0, |value| {
            let whole = value.strip_suffix(".0").unwrap_or(value);
            whole.parse().unwrap()
        })
    }

    /// The value of a series, by its name and labels as printed. `None` if the series is
    /// missing.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.text(name).map(|value| value.parse().unwrap())
    }

    fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(name));
        values.find_map(|rest| rest.strip_prefix(' '))
    }

    /// The names of all metrics. The name of a counter ends with `_total`; the name of a
    /// histogram has no suffix.
    #[must_use]
    pub fn families(&self) -> BTreeSet<String> {
        let types = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        let names = types.map(|line| match line.split_once(' ') {
            Some((name, "counter")) => format!("{name}_total"),
            Some((name, _)) => name.to_owned(),
            None => panic!("a type line has a name and a type: {line}"),
        });
        names.collect()
    }

    /// Whether a metric of this name is present, with any labels.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut rests = self.0.lines().filter_map(|line| line.strip_prefix(name));
        rests.any(|rest| rest.starts_with([' ', '{']))
    }
}

/// An operator with an admin token. Requests go to paths below `/api/v1/admin`.
#[must_use]
pub fn operator(client: reqwest::Client, admin_url: &str) -> Reader {
    let id = Uuid::new_v4();
    let expires_at = eventlog::clock::now() + chrono::TimeDelta::hours(1);
    let token = signed(id, AdminAccess::Act, expires_at);
    let url = format!("{admin_url}/api/v1/admin");
    Reader::new(client, url, id, token)
}

/// The settings of a service in a test environment, listening on free ports.
#[must_use]
pub fn settings(env: &TestEnv, roles: &[Role]) -> ServeArgs {
    let local = "127.0.0.1:0".parse().unwrap();
    let secret = |url: &str| Some(Secret::from(url.to_owned()));
    ServeArgs {
        roles: roles.to_vec(),
        http: HttpArgs {
            http_addr: local,
            admin_addr: local,
            trusted_proxies: Vec::new(),
            connections_per_address: None,
            cors_origins: Vec::new(),
            timeouts: ClientTimeouts::default(),
        },
        database: DatabaseArgs {
            database_url: secret(&env.database_url),
            database_url_file: None,
            // Tests run in parallel on one server.
            database_pool_size: 8,
            database_statement_timeout: Duration::from_secs(30),
            database_pool_timeout: scaled(Duration::from_secs(5)),
        },
        replica: ReplicaArgs::default(),
        nats: NatsArgs {
            nats_url: secret(&env.nats_url),
            nats_prefix: env.nats_prefix.clone(),
            ..NatsArgs::default()
        },
        stream: StreamArgs {
            max_age_days: 30,
            // JetStream reserves the bytes of each stream, and the tests share a server.
            max_bytes: 0,
            compression: StreamCompression::S2,
            replicas: 1,
        },
        redis: RedisArgs {
            redis_url: secret(&env.redis_url),
            ..RedisArgs::default()
        },
        auth: auth(),
        rate_limit: unlimited(),
        rules: RuleArgs {
            active_gap: Duration::from_mins(2),
        },
        projections: ProjectionArgs {
            coalesce_window: COALESCE_WINDOW,
        },
        jobs: JobArgs {
            idle_after: Duration::from_hours(2),
            retention_days: 90,
            statistics_days: 0,
            idempotency_keys_days: 7,
        },
        traces: TraceArgs::default(),
    }
}

/// Rate limits that no test reaches by accident.
#[must_use]
pub fn unlimited() -> RateLimitArgs {
    let calls = NonZeroU32::new(1_000_000).unwrap();
    RateLimitArgs {
        high_frequency: calls,
        normal: calls,
        low_frequency: calls,
        sync: calls,
        auth: calls,
        window: Duration::from_mins(1),
        deadline: scaled(Duration::from_secs(5)),
        daily_bytes: 0,
    }
}

/// The settings that accept test tokens.
#[must_use]
pub fn auth() -> AuthArgs {
    AuthArgs {
        jwt_secret: Some(Secret::from(SECRET.to_owned())),
        ..AuthArgs::default()
    }
}

/// A token that is valid for an hour.
#[must_use]
pub fn token(user: Uuid) -> String {
    token_until(user, eventlog::clock::now() + chrono::TimeDelta::hours(1))
}

#[must_use]
pub fn token_until(user: Uuid, expires_at: DateTime<Utc>) -> String {
    signed(user, AdminAccess::None, expires_at)
}

fn signed(user: Uuid, admin: AdminAccess, expires_at: DateTime<Utc>) -> String {
    let auth = auth();
    api::auth::issue_token(
        &auth.secret().unwrap(),
        &user.to_string(),
        admin,
        &auth.claims(),
        expires_at.timestamp(),
    )
    .unwrap()
}

/// A pool of the superuser that finds the read tables by name, as the service's pools do.
pub async fn pool(env: &TestEnv) -> PgPool {
    let options: sqlx::postgres::PgConnectOptions = env.admin_url.parse().unwrap();
    sqlx::postgres::PgPoolOptions::new()
        .max_connections(4)
        .connect_with(options.options([("search_path", "read,public")]))
        .await
        .unwrap()
}

/// Waits until every projection has reached the end of the log.
pub async fn settled(pool: &PgPool, env: &TestEnv) {
    eventually_ok("projections at the end of the log", SETTLE, async || {
        caught_up(pool, env).await
    })
    .await;
}

/// Succeeds if every projection has reached the end of the log.
///
/// # Errors
/// If a projection is behind or a server is unreachable.
pub async fn caught_up(pool: &PgPool, env: &TestEnv) -> anyhow::Result<()> {
    let head = eventlog::read::head(pool).await?;
    for projection in ["history", "daily_stats"] {
        let checkpoint = projections::checkpoint::read(pool, projection).await?;
        anyhow::ensure!(
            checkpoint >= head,
            "{projection} is at global position {checkpoint} of {head}"
        );
    }
    let redis = redis::Client::open(env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let projection: Option<String> =
        redis::AsyncCommands::get(&mut redis, "reading_session:projection").await?;
    let checkpoint = projection.and_then(|text| text.split(' ').next()?.parse::<i64>().ok());
    anyhow::ensure!(
        checkpoint >= Some(head),
        "active_sessions is at global position {checkpoint:?} of {head}"
    );
    Ok(())
}
