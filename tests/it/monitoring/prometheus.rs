//! A Prometheus server with the deployed configuration. Only addresses and durations
//! differ: it scrapes and evaluates every second, and windows are short.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};
use tests::process::free_address;
use tests::{debian, reader, until};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::files::{rule_files, string, yaml};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Deployed windows are divided by this.
const WINDOW_DIVISOR: u64 = 60;

/// Shortest window in seconds: it contains several scrapes.
const MIN_WINDOW: u64 = 5;

/// A running server, which ends with the test.
pub struct Prometheus {
    folder: PathBuf,
    url: String,
    client: reqwest::Client,
    started_at: i64,
    _child: Child,
}

impl Prometheus {
    /// Starts a server without targets, except itself.
    pub async fn start() -> Self {
        let name = format!("prometheus-{}", Uuid::new_v4().simple());
        let folder = std::env::temp_dir().join(name);
        for part in ["rules", "targets"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        write_file(&folder.join("prometheus.yml"), &configuration());
        for (name, content) in rule_files() {
            write_file(&folder.join("rules").join(name), &shortened(content));
        }
        let address = free_address();
        let program = debian::program("prometheus", "prometheus");
        let child = Command::new(program)
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let server = Self {
            folder,
            url: format!("http://{address}"),
            client: reader::client(),
            started_at: now(),
            _child: child,
        };
        server.set_targets("prometheus", &[(address, "")]);
        until("Prometheus is ready", START_TIMEOUT, async || {
            let ready = server.client.get(format!("{}/-/ready", server.url));
            ready.send().await.is_ok_and(|ready| ready.status() == 200)
        })
        .await;
        server
    }

    /// Replaces the targets of a job: addresses, each with the DNS name that returned it.
    pub fn set_targets(&self, job: &str, targets: &[(SocketAddr, &str)]) {
        let groups: Vec<Value> = targets
            .iter()
            .map(|(address, name)| {
                json!({
                    "targets": [address.to_string()],
                    "labels": { "__meta_dns_name": name },
                })
            })
            .collect();
        // Prometheus must not read half a file.
        let file = self.folder.join("targets").join(format!("{job}.json"));
        let partial = file.with_extension("partial");
        write_file(&partial, &Value::from(groups));
        std::fs::rename(partial, file).unwrap();
    }

    /// The series that an expression returns at this moment.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        self.get("query", &[("query", expression)]).await
    }

    /// The names of the alerts that fire.
    pub async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.query(r#"ALERTS{alertstate="firing"}"#).await;
        let names = alerts
            .iter()
            .map(|alert| string(&alert["metric"]["alertname"]));
        names.collect()
    }

    /// Whether an expression has returned a number at any time since the start.
    pub async fn has_returned_data(&self, expression: &str) -> bool {
        let series = self
            .get(
                "query_range",
                &[
                    ("query", expression),
                    ("start", &self.started_at.to_string()),
                    ("end", &now().to_string()),
                    ("step", "1"),
                ],
            )
            .await;
        let mut samples = series
            .iter()
            .flat_map(|one| one["values"].as_array().into_iter().flatten());
        samples.any(|sample| string(&sample[1]).parse().is_ok_and(f64::is_finite))
    }

    async fn get(&self, call: &str, parameters: &[(&str, &str)]) -> Vec<Value> {
        let url = format!("{}/api/v1/{call}", self.url);
        let url = Url::parse_with_params(&url, parameters).unwrap();
        let response = self.client.get(url).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["status"], "success", "{parameters:?}: {body}");
        body["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn now() -> i64 {
    eventlog::clock::now().timestamp()
}

/// Writes JSON, which is YAML too.
fn write_file(file: &Path, content: &Value) {
    std::fs::write(file, content.to_string()).unwrap();
}

/// The deployed configuration. Its jobs read their targets from files.
fn configuration() -> Value {
    let mut configuration = yaml("deploy/prometheus/prometheus.yml");
    configuration["global"] = json!({
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    });
    for job in configuration["scrape_configs"].as_array_mut().unwrap() {
        let job = job.as_object_mut().unwrap();
        let file = format!("targets/{}.json", job["job_name"].as_str().unwrap());
        for discovery in ["dns_sd_configs", "static_configs"] {
            job.remove(discovery);
        }
        if job["job_name"] == "postgres" {
            // While Postgres is down, its exporter tries again after a second.
            for setting in ["scrape_interval", "scrape_timeout"] {
                job.insert(setting.to_owned(), json!("2s"));
            }
        }
        let files = json!([{ "files": [file], "refresh_interval": "1s" }]);
        job.insert("file_sd_configs".to_owned(), files);
    }
    configuration
}

/// Rules with short windows. An alert fires after a second.
fn shortened(mut file: Value) -> Value {
    for group in file["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            if rule["for"].is_string() {
                rule["for"] = json!("1s");
            }
            rule["expr"] = json!(with_short_windows(&string(&rule["expr"])));
        }
    }
    file
}

/// The expression with shorter ranges: `[5m]` becomes `[5s]`.
fn with_short_windows(expression: &str) -> String {
    let mut parts = expression.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (window, rest) = part.split_once(']').expect("a window ends");
        let seconds = (seconds(window) / WINDOW_DIVISOR).max(MIN_WINDOW);
        let _ = write!(text, "[{seconds}s]{rest}");
    }
    text
}

/// The length of a duration such as `15m`.
fn seconds(duration: &str) -> u64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => panic!("an unknown unit in {duration}"),
    };
    factor * number.parse::<u64>().unwrap()
}
