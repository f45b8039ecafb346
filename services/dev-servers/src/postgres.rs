//! Postgres: its data folder, its settings, and whether it answers. Touches no
//! table; the schema comes from the migrations.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sqlx::migrate::MigrateDatabase;
use uuid::Uuid;

use super::os_user::Account;
use super::data_dir;
use super::server_dir::Home;
use super::discover::Binary;
use super::child_guard::only_needed_environment;

/// The name of the role and of the database.
const NAME: &str = "reading_sessions";

/// What Postgres says while processes of a killed predecessor still notice.
pub const PREDECESSOR: &str = "is still in use";

pub fn url(home: &Home) -> String {
    format!(
        "postgres://{NAME}:{}@127.0.0.1:{}/{NAME}",
        home.password, home.port
    )
}

/// Creates the data where there is none.
pub fn prepare(home: &Home, binary: &Binary) -> anyhow::Result<()> {
    Account::check_entry(home.account.as_ref(), &home.folder)?;
    let data = home.data();
    if data.exists() {
        return check_version(&data, binary);
    }
    let partial = data_dir::partial(&data)?;
    let account = home.account.as_ref();
    // The password is in the data, so only a folder that got the template's
    // can be a copy of it.
    if !home.fsync && template_password(binary, account)? == home.password {
        copy(&template(binary, account)?, &partial)?;
    } else {
        initdb(
            binary,
            account,
            &home.folder.join("password"),
            &partial,
            home.fsync,
        )?;
    }
    std::fs::rename(&partial, &data)?;
    Ok(())
}

pub fn command(home: &Home, binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command.arg("-D").arg(home.data()).current_dir(&home.folder);
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={}", home.port),
        // Nothing but loopback, and no path that could be too long for one.
        "unix_socket_directories=".to_owned(),
        "max_connections=300".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "wal_level=replica".to_owned(),
        "logging_collector=off".to_owned(),
    ];
    if !home.fsync {
        // Only the wait for the disk goes. With synchronous_commit=off or
        // full_page_writes=off even a killed server could lose or tear what it
        // confirmed, and tests kill servers.
        settings.push("fsync=off".to_owned());
    }
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    command
}

/// Answers when the database can be connected to; creates it at first.
pub async fn answers(url: &str) -> anyhow::Result<()> {
    if !sqlx::Postgres::database_exists(url).await? {
        sqlx::Postgres::create_database(url).await?;
    }
    Ok(())
}

/// A server cannot read the data of another major version.
fn check_version(data: &Path, binary: &Binary) -> anyhow::Result<()> {
    let of_data = std::fs::read_to_string(data.join("PG_VERSION"))
        .with_context(|| format!("{} holds no Postgres data", data.display()))?;
    let of_binary = binary.version.to_string();
    let major = of_binary.split('.').next().unwrap_or_default();
    if of_data.trim() != major {
        bail!(
            "the data in {} were written by Postgres {}, and {} cannot read them: remove that \
             folder, or choose another data folder",
            data.display(),
            of_data.trim(),
            binary.title()
        );
    }
    Ok(())
}

/// Data that were initialised once for all tests, with their password beside
/// them: a copy takes a tenth of the time of initdb.
fn template(binary: &Binary, account: Option<&Account>) -> anyhow::Result<PathBuf> {
    let path = binary.path.as_os_str().as_encoded_bytes();
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, path)
        .simple()
        .to_string();
    let name = format!("postgres-{}-{}", binary.version, &hash[..12]);
    let template = data_dir::cache()?.join("templates").join(name);
    data_dir::build_once(&template, |template| {
        let password = template.join("password");
        data_dir::secret(&password, None)?;
        Account::give(account, &password)?;
        Account::give(account, template)?;
        initdb(binary, account, &password, &template.join("data"), false)
    })?;
    Ok(template)
}

/// The password of the data that a test's are a copy of.
pub fn template_password(binary: &Binary, account: Option<&Account>) -> anyhow::Result<String> {
    let password = template(binary, account)?.join("password");
    std::fs::read_to_string(&password)
        .with_context(|| format!("{} is unreadable", password.display()))
}

fn copy(template: &Path, data: &Path) -> anyhow::Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("-Rp").arg(template.join("data")).arg(data);
    let output = copy.output().context("cp does not start")?;
    if !output.status.success() {
        bail!(
            "the template was not copied: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn initdb(
    binary: &Binary,
    account: Option<&Account>,
    password: &Path,
    data: &Path,
    sync: bool,
) -> anyhow::Result<()> {
    let mut initdb = Command::new(binary.path.with_file_name("initdb"));
    only_needed_environment(&mut initdb);
    initdb
        .current_dir("/")
        .arg("-D")
        .arg(data)
        .arg("--pwfile")
        .arg(password);
    initdb.args([
        "--username",
        NAME,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
    ]);
    if !sync {
        initdb.arg("--no-sync");
    }
    let output = Account::lend(account, &mut initdb)
        .output()
        .context("initdb does not start")?;
    if !output.status.success() {
        bail!(
            "initdb said: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
