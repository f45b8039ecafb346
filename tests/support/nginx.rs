//! nginx in front of API processes, with the configuration of deploy/nginx.conf.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::free_address;

const DEPLOYED: &str = include_str!("../../deploy/nginx.conf");

/// Folders in which packages install nginx. They are not in every user's `PATH`.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Longest time until nginx accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The running process, which ends when this is dropped.
pub struct Nginx {
    pub http: SocketAddr,
    /// The listener of the counters.
    pub status: SocketAddr,
    pub pid: u32,
    _child: Child,
}

/// The executable, if it is installed.
#[must_use]
pub fn executable() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    folders
        .map(|folder| folder.join("nginx"))
        .find(|file| file.is_file())
}

impl Nginx {
    /// Starts nginx in front of these processes, with its files in `folder`.
    ///
    /// # Errors
    /// If nginx does not accept connections.
    pub async fn start(
        executable: &Path,
        folder: &Path,
        api: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let http = free_address();
        let admin = free_address();
        let health = free_address();
        let status = free_address();
        let file = folder.join("nginx.conf");
        std::fs::write(
            &file,
            configuration(folder, [http, admin, health, status], api)?,
        )?;
        let log = std::fs::File::create(folder.join("error.log"))?;
        let child = Command::new(executable)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&file)
            // One process: with a master process, its workers would outlive a kill.
            .args(["-e", "stderr", "-g", "daemon off; master_process off;"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting nginx failed")?;
        let connected = async {
            while TcpStream::connect(http).await.is_err() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let started = tokio::time::timeout(START_TIMEOUT, connected).await;
        started.with_context(|| {
            let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
            format!("nginx accepts no connections: {log}")
        })?;
        Ok(Self {
            http,
            status,
            pid: child.id().context("nginx has ended")?,
            _child: child,
        })
    }
}

/// The deployed configuration with other addresses and folders.
fn configuration(
    folder: &Path,
    [http, admin, health, status]: [SocketAddr; 4],
    api: &[SocketAddr],
) -> anyhow::Result<String> {
    let server = |suffix: &str| {
        let servers = api.iter().map(|api| format!("server {api}{suffix};"));
        servers.collect::<Vec<_>>().join("\n        ")
    };
    let folder = folder.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .concat();
    let replacements = [
        ("pid /tmp/nginx.pid;", format!("pid {folder}/nginx.pid;")),
        ("http {\n", format!("http {{\n{paths}")),
        // There is no DNS server, and the addresses are fixed.
        (
            "    resolver 127.0.0.11 valid=5s ipv6=off;\n",
            String::new(),
        ),
        (
            "server api:8080 resolve max_fails=2 fail_timeout=5s;",
            server(" max_fails=2 fail_timeout=5s"),
        ),
        ("server jobs:8081 resolve;", server("")),
        ("listen 8080 ", format!("listen {http} ")),
        ("listen 8081;", format!("listen {admin};")),
        ("listen 127.0.0.1:8082;", format!("listen {health};")),
        ("listen nginx-status:8082;", format!("listen {status};")),
    ];
    let mut text = DEPLOYED.to_owned();
    for (from, to) in replacements {
        ensure!(
            text.matches(from).count() == 1,
            "deploy/nginx.conf does not contain `{from}` once"
        );
        text = text.replace(from, &to);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployed_configuration_gets_other_addresses() {
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let api = [address("127.0.0.1:4001"), address("127.0.0.1:4002")];
        let text = configuration(
            Path::new("/data/nginx"),
            [
                "127.0.0.1:5000",
                "127.0.0.1:5001",
                "127.0.0.1:5002",
                "127.0.0.1:5003",
            ]
            .map(address),
            &api,
        )
        .unwrap();
        for line in [
            "server 127.0.0.1:4001 max_fails=2 fail_timeout=5s;",
            "server 127.0.0.1:4002 max_fails=2 fail_timeout=5s;",
            "listen 127.0.0.1:5000 backlog=4096;",
            "listen 127.0.0.1:5001;",
            "listen 127.0.0.1:5002;",
            "pid /data/nginx/nginx.pid;",
            "proxy_temp_path /data/nginx/proxy;",
            "hash $http_authorization consistent;",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        let mut lines = text.lines().filter(|line| !line.trim().starts_with('#'));
        assert!(!lines.any(|line| line.contains("resolve")), "{text}");
    }
}
