//! Enables TLS in a running Postgres.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};

use crate::certificates::{Authority, Identity};
use crate::eventually::until;
use crate::stack::Stack;

const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the Postgres of a dedicated stack refuse connections without TLS. With
/// `clients`, it also requires a client certificate of this authority. A second call
/// replaces the certificate.
///
/// # Panics
/// If the Postgres of this machine was built without TLS.
pub async fn encrypt_postgres(stack: &Stack, server: &Identity, clients: Option<&Authority>) {
    let url = stack.servers.lock().await.database_url().to_owned();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let data: String = sqlx::query_scalar("show data_directory")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let data = Path::new(&data);
    install(data, "server.crt", &server.certificate);
    install(data, "server.key", &server.key);
    let mut rule = "hostssl all all 127.0.0.1/32 scram-sha-256".to_owned();
    if let Some(clients) = clients {
        install(data, "clients.crt", &clients.file());
        rule.push_str(" clientcert=verify-ca");
        connection
            .execute("alter system set ssl_ca_file = 'clients.crt'")
            .await
            .unwrap();
    }
    std::fs::write(data.join("pg_hba.conf"), rule + "\n").unwrap();
    if let Err(error) = connection.execute("alter system set ssl = on").await {
        panic!("the Postgres of this test has no TLS ({error}); install one that has");
    }
    let reloaded = "select pg_reload_conf()";
    connection.execute(reloaded).await.unwrap();
    connection.close().await.unwrap();
    until("Postgres requires TLS", RELOAD_TIMEOUT, async || {
        let plain = PgConnection::connect(&format!("{url}?sslmode=disable")).await;
        plain.is_err_and(|error| error.to_string().contains("no encryption"))
    })
    .await;
}

/// Copies a file into the data directory. Postgres requires that a key belongs to its
/// user and is private.
fn install(data: &Path, name: &str, file: &Path) {
    let owner = data.metadata().unwrap();
    let (partial, installed) = (data.join(format!("{name}.partial")), data.join(name));
    std::fs::copy(file, &partial).unwrap();
    std::fs::set_permissions(&partial, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&partial, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::rename(partial, installed).unwrap();
}
