//! The exporters of compose.yaml, from Debian packages, with the deployed arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use eventlog::roles::DatabaseRole;
use reqwest::Url;
use tests::production_redis::ProductionRedis;
use tests::stack::TestEnv;
use tests::{Stack, debian, reader, until};
use tokio::process::{Child, Command};

use super::files::path;
use super::site::kept_address;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// An exporter, which ends with the test.
pub struct Exporter {
    /// The job of Prometheus that scrapes it.
    pub job: &'static str,
    pub address: SocketAddr,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Exporter {
    /// An exporter of Postgres, as the role `reading_monitor`.
    pub fn of_postgres(env: &TestEnv) -> Self {
        let url = env.as_role(DatabaseRole::Monitor).database_url;
        let queries = path("deploy/prometheus/postgres-queries.yaml");
        Self::new(
            "postgres",
            "prometheus-postgres-exporter",
            vec![format!("--extend.query-path={}", queries.display())],
            vec![(
                "DATA_SOURCE_NAME",
                format!("{url}?sslmode=disable&lock_timeout=500"),
            )],
        )
    }

    /// An exporter of Redis, as the user in the URL.
    pub fn of_redis(url: &str) -> Self {
        let url = Url::parse(url).unwrap();
        let (host, port) = (url.host_str().unwrap(), url.port().unwrap());
        Self::new(
            "redis",
            "prometheus-redis-exporter",
            vec![
                "--config-command=-".to_owned(),
                "--set-client-name=false".to_owned(),
            ],
            vec![
                ("REDIS_ADDR", format!("redis://{host}:{port}")),
                ("REDIS_USER", url.username().to_owned()),
                (
                    "REDIS_PASSWORD",
                    url.password().unwrap_or_default().to_owned(),
                ),
            ],
        )
    }

    /// An exporter of nginx, with the address of its counters. A paused nginx is unavailable for the
    /// exporter before the scrape times out.
    pub fn of_nginx(status: SocketAddr) -> Self {
        Self::new(
            "nginx",
            "prometheus-nginx-exporter",
            vec![
                format!("--nginx.scrape-uri=http://{status}/"),
                "--nginx.timeout=300ms".to_owned(),
            ],
            Vec::new(),
        )
    }

    /// An exporter of this machine.
    pub fn of_host() -> Self {
        let collectors = ["cpu", "diskstats", "filesystem", "loadavg", "meminfo"];
        let collectors = collectors.map(|name| format!("--collector.{name}"));
        let arguments = [
            &["--collector.disable-defaults".to_owned()][..],
            &collectors,
        ]
        .concat();
        Self::new("host", "prometheus-node-exporter", arguments, Vec::new())
    }

    fn new(
        job: &'static str,
        package: &str,
        arguments: Vec<String>,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            job,
            address: kept_address(),
            program: debian::program(package, package),
            arguments,
            environment,
            child: None,
        }
    }

    /// Starts it, always with the same address.
    pub async fn start(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(format!("--web.listen-address={}", self.address))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let url = format!("http://{}/", self.address);
        let client = reader::client();
        let what = format!("the exporter of {}", self.job);
        until(&what, START_TIMEOUT, async || {
            client.get(&url).send().await.is_ok()
        })
        .await;
    }

    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// The metrics, in the text format.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.address);
        let response = reader::client().get(url).send().await.unwrap();
        response.text().await.unwrap()
    }
}

#[tokio::test]
async fn redis_exporter_works_as_its_own_user() {
    let stack = Stack::shared().await;
    let redis = ProductionRedis::start(&stack).await;
    let mut exporter = Exporter::of_redis(&redis.url("monitor"));
    exporter.start().await;
    let metrics = exporter.metrics().await;
    for line in [
        "redis_up 1",
        "redis_memory_max_bytes ",
        "redis_commands_total{",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    // The slow log contains keys of readers. The exporter works without it.
    for refusal in redis.refusals().await {
        assert!(refusal.contains("slowlog|get"), "{refusal}");
    }
}
