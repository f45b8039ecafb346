//! Postgres: its data, its settings and its readiness check. It creates the database
//! `reading_sessions` without tables; the migrations create the tables.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sqlx::migrate::MigrateDatabase;
use uuid::Uuid;

use super::child_guard::clear_environment;
use super::data_dir;
use super::discover::Binary;
use super::os_user::OsUser;
use super::own_files;
use super::server_dir::ServerDir;

/// The name of the role and of the database.
const NAME: &str = "reading_sessions";

/// Part of the error that Postgres logs while backends of a killed server still run.
pub const STILL_IN_USE: &str = "is still in use";

pub fn url(dir: &ServerDir) -> String {
    format!(
        "postgres://{NAME}:{}@127.0.0.1:{}/{NAME}",
        dir.password, dir.port
    )
}

/// Creates the data if it is missing.
pub fn prepare(dir: &ServerDir, binary: &Binary) -> anyhow::Result<()> {
    OsUser::check_access(dir.os_user.as_ref(), &dir.path)?;
    let data = dir.data();
    if data.exists() {
        return check_version(&data, binary);
    }
    let os_user = dir.os_user.as_ref();
    let partial = data_dir::partial_path(&data)?;
    own_files::create_dir(&partial, 0o700, os_user)?;
    // The data contains the password, so the template is only usable for a directory
    // with the password of the template.
    if !dir.fsync && template_password(binary, os_user)? == dir.password {
        copy(&template(binary, os_user)?, &partial, os_user)?;
    } else {
        let password = dir.path.join("password");
        initdb(binary, os_user, &password, &partial, dir.fsync)?;
    }
    std::fs::rename(&partial, &data)?;
    Ok(())
}

pub fn command(dir: &ServerDir, binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command.arg("-D").arg(dir.data()).current_dir(&dir.path);
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={}", dir.port),
        // No Unix socket: the path of the directory can be too long for one.
        "unix_socket_directories=".to_owned(),
        "max_connections=300".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "wal_level=replica".to_owned(),
        "logging_collector=off".to_owned(),
    ];
    if !dir.fsync {
        // Skips only the wait for the disk. With synchronous_commit=off or
        // full_page_writes=off, a killed server could lose or tear committed data, and
        // tests kill servers.
        settings.push("fsync=off".to_owned());
    }
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    command
}

/// The server is ready when a connection to it succeeds. Creates the database if it
/// is missing.
pub async fn check_ready(url: &str) -> anyhow::Result<()> {
    if !sqlx::Postgres::database_exists(url).await? {
        sqlx::Postgres::create_database(url).await?;
    }
    Ok(())
}

/// Fails if another major version wrote the data, because Postgres cannot read it.
fn check_version(data: &Path, binary: &Binary) -> anyhow::Result<()> {
    let data_version = std::fs::read_to_string(data.join("PG_VERSION"))
        .with_context(|| format!("{} contains no Postgres data", data.display()))?;
    let binary_version = binary.version.to_string();
    let major = binary_version.split('.').next().unwrap_or_default();
    if data_version.trim() != major {
        bail!(
            "{} cannot read the data in {}, which Postgres {} wrote; remove that folder, or \
             choose another data folder with --data or DEV_DATA",
            binary.title(),
            data.display(),
            data_version.trim()
        );
    }
    Ok(())
}

/// A directory with data and its password, initialised once for all tests. Copying it
/// takes a tenth of the time of `initdb`.
fn template(binary: &Binary, os_user: Option<&OsUser>) -> anyhow::Result<PathBuf> {
    let path = binary.path.as_os_str().as_encoded_bytes();
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, path)
        .simple()
        .to_string();
    let name = format!("postgres-data-{}-{}", binary.version, &hash[..12]);
    let template = data_dir::cache_dir()?.join("templates").join(name);
    data_dir::build_once(&template, |template| {
        let (password, data) = (template.join("password"), template.join("data"));
        data_dir::get_or_create_secret(&password, None, os_user)?;
        own_files::create_dir(&data, 0o700, os_user)?;
        initdb(binary, os_user, &password, &data, false)
    })?;
    Ok(template)
}

pub fn template_password(binary: &Binary, os_user: Option<&OsUser>) -> anyhow::Result<String> {
    let password = template(binary, os_user)?.join("password");
    own_files::read_secret(&password, os_user)?
        .with_context(|| format!("{} is missing", password.display()))
}

/// Copies the content of the template into an empty directory, as the owner of both.
fn copy(template: &Path, data: &Path, os_user: Option<&OsUser>) -> anyhow::Result<()> {
    let mut copy = Command::new("cp");
    copy.current_dir("/")
        .arg("-Rp")
        .arg(template.join("data/."))
        .arg(data);
    let copy = OsUser::run_as(os_user, &mut copy);
    let output = copy.output().context("cannot run cp")?;
    if !output.status.success() {
        bail!(
            "copying {} failed: {}",
            template.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn initdb(
    binary: &Binary,
    os_user: Option<&OsUser>,
    password: &Path,
    data: &Path,
    sync: bool,
) -> anyhow::Result<()> {
    let mut initdb = Command::new(binary.path.with_file_name("initdb"));
    clear_environment(&mut initdb);
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
    let output = OsUser::run_as(os_user, &mut initdb)
        .output()
        .context("cannot run initdb")?;
    if !output.status.success() {
        bail!(
            "initdb failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
