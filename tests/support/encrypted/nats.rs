//! A NATS server with TLS.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::certificates::{Authority, Identity};
use crate::eventually::eventually;
use crate::stack::Stack;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server with `JetStream`, which ends with the test.
pub struct EncryptedNats {
    folder: PathBuf,
    child: Child,
    port: u16,
}

impl EncryptedNats {
    /// Starts a server that refuses connections without TLS. With `clients`, it also
    /// requires a client certificate of this authority. `users` are more settings, for
    /// example those of `authorization`.
    pub async fn start(
        stack: &Stack,
        server: &Identity,
        clients: Option<&Authority>,
        users: &Value,
    ) -> Self {
        let executable = {
            let servers = stack.servers.lock().await;
            let executable = servers.nats.executable();
            executable
                .expect("a server that the tests started")
                .to_owned()
        };
        let folder = std::env::temp_dir().join(format!("nats-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let mut tls = json!({ "cert_file": server.certificate, "key_file": server.key });
        if let Some(clients) = clients {
            tls["ca_file"] = json!(clients.file());
            tls["verify"] = json!(true);
        }
        let mut settings = json!({
            "listen": "127.0.0.1:-1",
            "tls": tls,
            "jetstream": { "store_dir": folder },
        });
        for (name, value) in users.as_object().expect("settings") {
            settings[name] = value.clone();
        }
        let file = folder.join("nats.conf");
        std::fs::write(&file, format!("{settings:#}\n")).unwrap();
        let child = Command::new(executable)
            .arg("-c")
            .arg(&file)
            .arg("--ports_file_dir")
            .arg(&folder)
            .arg("-l")
            .arg(folder.join("log"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut server = Self {
            folder,
            child,
            port: 0,
        };
        server.port = server.client_port().await;
        server
    }

    async fn client_port(&self) -> u16 {
        let pid = self.child.id().expect("it runs");
        let ports = self.folder.join(format!("nats-server_{pid}.ports"));
        eventually("NATS listens", START_TIMEOUT, async || {
            let ports = std::fs::read(&ports).ok()?;
            let ports: Value = serde_json::from_slice(&ports).ok()?;
            let url = ports["nats"][0].as_str().unwrap();
            Some(url.rsplit_once(':').unwrap().1.parse().unwrap())
        })
        .await
    }

    /// The client address as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for EncryptedNats {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
