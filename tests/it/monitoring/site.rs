//! The whole installation on one machine: servers, two processes of the service, nginx,
//! exporters and Prometheus. A second set of roles runs in the second process, as many as
//! compose.yaml runs.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection, PgPool};
use tests::nginx::Nginx;
use tests::process::Process;
use tests::proxy::Proxy;
use tests::stack::TestEnv;
use tests::{Stack, app, debian, eventually_ok, scaled, until};
use uuid::Uuid;

use super::exporters::Exporter;
use super::prometheus::Prometheus;

/// Longest time until an alert fires or resolves. The longest thresholds are 30 s.
const ALERT_TIMEOUT: Duration = Duration::from_mins(1);

const JOB: &str = "reading-sessions";

/// Settings of both processes. A small pool is exhausted quickly, and a small stream is
/// soon full.
const SETTINGS: [(&str, &str); 3] = [
    ("DATABASE_POOL_SIZE", "3"),
    ("NATS_STREAM_MAX_BYTES", "150000"),
    ("RATE_LIMIT_LOW_FREQUENCY", "1000000"),
];

pub struct Site {
    pub stack: Arc<Stack>,
    pub env: TestEnv,
    /// For the superuser.
    pub pool: PgPool,
    pub prometheus: Prometheus,
    pub exporters: Vec<Exporter>,
    pub nginx: Nginx,
    /// Runs all roles, and uses `replica`.
    pub first: Process,
    /// Runs the roles `api` and `projections`. `None` while it is killed.
    pub second: Option<Process>,
    second_addresses: [SocketAddr; 2],
    /// The connection of the first process to its replica. The primary plays the replica.
    pub replica: Proxy,
    folder: PathBuf,
    /// The alerts that have fired so far.
    pub fired: BTreeSet<String>,
}

impl Site {
    pub async fn start() -> Self {
        // Downloads at the first run only, and blocks.
        let nginx = tokio::task::spawn_blocking(|| debian::program("nginx", "nginx"));
        let nginx = nginx.await.unwrap();
        let stack = Stack::dedicated().await;
        count_statements(&stack).await;
        let env = stack.new_env().await;
        let replica = Proxy::start(&env.database_url).await;
        let mut settings = SETTINGS.to_vec();
        settings.push(("DATABASE_READ_URL", &replica.url));
        let all = ["api", "relay", "projections", "jobs"];
        let first = Process::start_roles(&env, &all, &settings).await;
        let second_addresses = [kept_address(), kept_address()];
        let second = start_second(&env, second_addresses).await;
        let folder = std::env::temp_dir().join(format!("site-{}", Uuid::new_v4().simple()));
        let api = [first.http, second.http];
        let nginx = Nginx::start(&nginx, &folder, &api).await.unwrap();
        let mut exporters = vec![
            Exporter::of_postgres(&env),
            Exporter::of_redis(&env.redis_url),
            Exporter::of_nginx(nginx.status),
            Exporter::of_host(),
        ];
        let prometheus = Prometheus::start().await;
        for exporter in &mut exporters {
            exporter.start().await;
            prometheus.set_targets(exporter.job, &[(exporter.address, "")]);
        }
        let site = Self {
            pool: app::pool(&env).await,
            stack,
            env,
            prometheus,
            exporters,
            nginx,
            first,
            second: Some(second),
            second_addresses,
            replica,
            folder,
            fired: BTreeSet::new(),
        };
        site.set_processes(true);
        site
    }

    /// Sets the processes that DNS returns to Prometheus.
    pub fn set_processes(&self, with_second: bool) {
        let mut targets = vec![(self.first.admin, "api")];
        if with_second {
            targets.push((self.second_addresses[1], "api"));
        }
        self.prometheus.set_targets(JOB, &targets);
    }

    pub async fn kill_second(&mut self) {
        self.second.take().expect("it runs").kill().await;
    }

    /// Starts the second process at its former address, and waits until Prometheus has
    /// scraped it.
    pub async fn start_second(&mut self) {
        self.second = Some(start_second(&self.env, self.second_addresses).await);
        let address = self.second_addresses[1];
        let up = format!(r#"up{{job="{JOB}", instance="{address}"}} == 1"#);
        self.until_returned(&up).await;
    }

    /// The URLs of the processes, and that of nginx in front of them.
    pub fn urls(&self) -> [String; 3] {
        [self.first.http, self.second_addresses[0], self.nginx.http]
            .map(|address| format!("http://{address}/api/v1/reading-sessions"))
    }

    pub fn exporter(&mut self, job: &str) -> &mut Exporter {
        let mut exporters = self.exporters.iter_mut();
        exporters.find(|exporter| exporter.job == job).unwrap()
    }

    /// Waits until Prometheus has scraped all targets, and has seen requests.
    pub async fn until_scraped(&self) {
        let targets = self.exporters.len() + 3;
        let up = format!("count(up == 1) == {targets}");
        let requests = "sum(rate(reading_sessions_http_requests_total[5s])) > 0";
        for expression in [&up, requests] {
            self.until_returned(expression).await;
        }
    }

    /// Waits until an expression returns a series.
    pub async fn until_returned(&self, expression: &str) {
        until(expression, ALERT_TIMEOUT, async || {
            !self.prometheus.query(expression).await.is_empty()
        })
        .await;
    }

    /// Waits until these alerts fire.
    pub async fn until_firing(&mut self, names: &[&str]) {
        let expected: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut fired = BTreeSet::new();
        eventually_ok("alerts fire", ALERT_TIMEOUT, async || {
            fired.extend(self.prometheus.firing().await);
            let missing: Vec<_> = expected.difference(&fired).collect();
            if missing.is_empty() {
                return Ok(());
            }
            Err(format!("{missing:?} do not"))
        })
        .await;
        self.fired.extend(fired);
    }

    /// Waits until none of these alerts fires.
    pub async fn until_resolved(&self, names: &[&str]) {
        eventually_ok("alerts resolve", ALERT_TIMEOUT, async || {
            let mut firing = self.prometheus.firing().await;
            firing.retain(|name| names.contains(&name.as_str()));
            if firing.is_empty() {
                return Ok(());
            }
            Err(format!("{firing:?} still fire"))
        })
        .await;
    }

    /// Opens connections to Postgres until at most `left` more fit.
    pub async fn take_connections(&self, left: i64) -> Vec<PgConnection> {
        let free: i64 = sqlx::query_scalar(
            "select current_setting('max_connections')::bigint - count(*) from pg_stat_activity
            where backend_type = 'client backend'",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let mut connections = Vec::new();
        for _ in left..free {
            let connection = PgConnection::connect(&self.env.admin_url);
            let connection = tokio::time::timeout(scaled(ALERT_TIMEOUT), connection);
            connections.push(connection.await.unwrap().unwrap());
        }
        connections
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An address for a listener that restarts. Connections of this machine have ports of
/// 127.0.0.1, so none of them takes its port meanwhile.
pub fn kept_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.9:0").unwrap();
    listener.local_addr().unwrap()
}

async fn start_second(env: &TestEnv, addresses: [SocketAddr; 2]) -> Process {
    Process::start_roles_at(env, &["api", "projections"], &SETTINGS, addresses).await
}

/// Makes Postgres load `pg_stat_statements`, as compose.yaml does. `migrate` then creates
/// the extension.
async fn count_statements(stack: &Stack) {
    let mut servers = stack.servers.lock().await;
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();
    for setting in [
        "shared_preload_libraries = 'pg_stat_statements'",
        "pg_stat_statements.track_utility = off",
    ] {
        let statement = format!("alter system set {setting}");
        connection.execute(statement.as_str()).await.unwrap();
        // The second one is unknown until the library is loaded.
        if setting.starts_with("shared") {
            connection.close().await.unwrap();
            servers.postgres.stop().await.unwrap();
            servers.postgres.start().await.unwrap();
            connection = PgConnection::connect(servers.database_url()).await.unwrap();
        }
    }
    connection.execute("select pg_reload_conf()").await.unwrap();
}
