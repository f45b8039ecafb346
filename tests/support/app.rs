//! A service in its own corner of a stack, with every role, in this process.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use services::api::serve::Limits;
use services::config::{
    AuthArgs, DatabaseArgs, HttpArgs, NatsArgs, RateLimitArgs, RedisArgs, ReplicaArgs, Role,
    RuleArgs, Secret, ServeArgs, UpkeepArgs,
};
use services::roles::{self, Service};
use sqlx::PgPool;
use uuid::Uuid;

use crate::reader::{self, Reader};
use crate::stack::{Corner, Stack};

/// The secret of all test tokens.
pub const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// How long anything may take to settle after it is healed (promise I5).
pub const SETTLE: Duration = Duration::from_secs(10);

/// A service and its corner.
pub struct App {
    /// The servers.
    pub stack: Arc<Stack>,
    /// Its corner of them.
    pub corner: Corner,
    /// Its database.
    pub pool: PgPool,
    /// For requests; keeps connections.
    pub client: reqwest::Client,
    /// Where it listens.
    pub url: String,
    /// Where probes call.
    pub admin_url: String,
    service: Option<Service>,
}

impl App {
    /// A service with all roles on the shared servers.
    pub async fn start() -> Self {
        Self::on(Stack::shared().await).await
    }

    /// A service with all roles on these servers.
    pub async fn on(stack: Arc<Stack>) -> Self {
        let corner = stack.corner().await;
        Self::at(stack, corner, &Role::ALL).await
    }

    /// A service that verifies tokens as these settings say.
    pub async fn trusting(auth: AuthArgs) -> Self {
        Self::with(|settings| settings.auth = auth).await
    }

    /// Another process's worth of service in the same corner.
    pub async fn beside(&self, roles: &[Role]) -> Self {
        Self::at(Arc::clone(&self.stack), self.corner.clone(), roles).await
    }

    /// A service with all roles and some settings of its own.
    pub async fn with(change: impl FnOnce(&mut ServeArgs)) -> Self {
        let stack = Stack::shared().await;
        let corner = stack.corner().await;
        let mut settings = settings(&corner, &Role::ALL);
        change(&mut settings);
        Self::run(stack, corner, &settings).await
    }

    async fn at(stack: Arc<Stack>, corner: Corner, roles: &[Role]) -> Self {
        let settings = settings(&corner, roles);
        Self::run(stack, corner, &settings).await
    }

    /// A service with these settings, in a corner.
    pub async fn run(stack: Arc<Stack>, corner: Corner, settings: &ServeArgs) -> Self {
        let service = roles::start(settings).await.unwrap();
        let pool = pool(&corner).await;
        Self {
            url: service.http.map_or_else(String::new, |http| {
                format!("http://{http}/api/v1/reading-sessions")
            }),
            admin_url: format!("http://{}", service.admin),
            client: reader::client(),
            service: Some(service),
            stack,
            corner,
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

    /// A reader with any token.
    #[must_use]
    pub fn reader_with_token(&self, id: Uuid, token: String) -> Reader {
        Reader::new(self.client.clone(), self.url.clone(), id, token)
    }

    /// An operator, calling below `/api/v1/admin`.
    #[must_use]
    pub fn operator(&self) -> Reader {
        let id = Uuid::new_v4();
        let expires_at = services::clock::now() + chrono::TimeDelta::hours(1);
        let token = signed(id, true, expires_at);
        let url = format!("{}/api/v1/admin", self.admin_url);
        Reader::new(self.client.clone(), url, id, token)
    }

    /// Waits until upkeep has filled the cache, as it does at its start.
    pub async fn warmed_up(&self) {
        let started = Instant::now();
        let warm = async || -> bool {
            sqlx::query_scalar(
                "select ended_at is not null and not asked and held_until < now()
                from jobs where job = 'warm_up'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap()
        };
        while !warm().await {
            assert!(started.elapsed() < SETTLE, "the cache is not filled");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has counted so far.
    pub async fn metrics(&self) -> Metrics {
        let metrics = self.client.get(format!("{}/metrics", self.admin_url));
        Metrics(metrics.send().await.unwrap().text().await.unwrap())
    }

    /// Stops the service in order.
    pub async fn stop(mut self) {
        self.service.take().expect("it runs").stop().await;
    }

    /// Waits until every projection has come to the end of the log.
    pub async fn settled(&self) {
        settled(&self.pool, &self.corner).await;
    }
}

/// Asks until it is so; bounded.
///
/// # Panics
/// When it is not so for twice as long as anything may take to settle.
pub async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < 2 * SETTLE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a service has counted.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// As they are shown.
    #[must_use]
    pub fn of(text: String) -> Self {
        Self(text)
    }

    /// A count, by its name and labels as they are shown; 0 when nothing was
    /// counted yet.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.find_map(|rest| rest.strip_prefix(' '));
        value.map_or(0, |value| {
            let whole = value.strip_suffix(".0").unwrap_or(value);
            whole.parse().unwrap()
        })
    }

    /// Whether there is a figure of a name, whatever its labels.
    #[must_use]
    pub fn shows(&self, name: &str) -> bool {
        let mut rests = self.0.lines().filter_map(|line| line.strip_prefix(name));
        rests.any(|rest| rest.starts_with([' ', '{']))
    }
}

/// The settings of a service in a corner.
#[must_use]
pub fn settings(corner: &Corner, roles: &[Role]) -> ServeArgs {
    let local = "127.0.0.1:0".parse().unwrap();
    let secret = |url: &str| Some(Secret::from(url.to_owned()));
    ServeArgs {
        roles: roles.to_vec(),
        http: HttpArgs {
            http_addr: local,
            admin_addr: local,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            limits: Limits::default(),
        },
        database: DatabaseArgs {
            database_url: secret(&corner.database_url),
            database_url_file: None,
            // Tests run in parallel on one server.
            database_pool_size: 8,
            database_statement_timeout: Duration::from_secs(30),
            // And the machine is busy with them.
            database_pool_timeout: Duration::from_secs(5),
        },
        replica: ReplicaArgs::default(),
        nats: NatsArgs {
            nats_url: secret(&corner.nats_url),
            nats_url_file: None,
            nats_prefix: corner.nats_prefix.clone(),
        },
        redis: RedisArgs {
            redis_url: secret(&corner.redis_url),
            redis_url_file: None,
        },
        auth: auth(),
        rate_limit: plenty(),
        rules: RuleArgs {
            active_gap: Duration::from_mins(2),
        },
        upkeep: UpkeepArgs {
            idle_after: Duration::from_hours(2),
            retention_days: 90,
            statistics_days: 0,
            idempotency_keys_days: 7,
        },
    }
}

/// Limits that no test meets by chance.
#[must_use]
pub fn plenty() -> RateLimitArgs {
    let plenty = NonZeroU32::new(1_000_000).unwrap();
    RateLimitArgs {
        high_frequency: plenty,
        normal: plenty,
        low_frequency: plenty,
        auth: plenty,
        window: Duration::from_mins(1),
        // The machine is busy with other tests.
        deadline: Duration::from_secs(5),
    }
}

/// The settings of test tokens.
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
    token_until(user, services::clock::now() + chrono::TimeDelta::hours(1))
}

/// A token that is valid until a moment.
#[must_use]
pub fn token_until(user: Uuid, expires_at: DateTime<Utc>) -> String {
    signed(user, false, expires_at)
}

fn signed(user: Uuid, admin: bool, expires_at: DateTime<Utc>) -> String {
    let auth = auth();
    services::api::auth::token(
        &auth.secret().unwrap(),
        &user.to_string(),
        admin,
        &auth,
        expires_at.timestamp(),
    )
    .unwrap()
}

/// A pool that finds the read tables by name, as the service's do.
pub async fn pool(corner: &Corner) -> PgPool {
    let options: sqlx::postgres::PgConnectOptions = corner.database_url.parse().unwrap();
    sqlx::postgres::PgPoolOptions::new()
        .max_connections(4)
        .connect_with(options.options([("search_path", "read,public")]))
        .await
        .unwrap()
}

/// Waits until every projection has come to the end of the log.
pub async fn settled(pool: &PgPool, corner: &Corner) {
    let started = Instant::now();
    while let Err(behind) = caught_up(pool, corner).await {
        assert!(
            started.elapsed() < SETTLE,
            "not settled within {SETTLE:?}: {behind}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether every projection has come to the end of the log.
///
/// # Errors
/// When one is behind, or a server does not answer.
pub async fn caught_up(pool: &PgPool, corner: &Corner) -> anyhow::Result<()> {
    let head = eventlog::read::head(pool).await?;
    for projection in ["history", "daily_stats"] {
        let position = projections::checkpoint::read(pool, projection).await?;
        anyhow::ensure!(position >= head, "{projection} is at {position} of {head}");
    }
    let redis = redis::Client::open(corner.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let position: Option<i64> =
        redis::AsyncCommands::hget(&mut redis, "reading_session:projection", "checkpoint").await?;
    anyhow::ensure!(
        position >= Some(head),
        "active_sessions is at {position:?} of {head}"
    );
    Ok(())
}
