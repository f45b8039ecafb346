//! The directory of one server: what it keeps across starts, and its preparation for
//! a start. This module starts no server, but stops one that an earlier run left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::discover::Binary;
use super::os_user::OsUser;
use super::server_kind::ServerKind;
use super::{data_dir, nats, own_files, postgres, processes, redis};

/// How long a leftover server may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long killed processes may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The directory of a server and the values that it stores.
#[derive(Clone, Debug)]
pub struct ServerDir {
    pub path: PathBuf,
    /// The user that the server runs as; `None` for the user of this process.
    pub os_user: Option<OsUser>,
    pub fsync: bool,
    pub port: u16,
    pub password: String,
}

impl ServerDir {
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.path.join("pid")
    }
}

/// Prepares a directory for a start: stops a leftover server, and creates port,
/// password, configuration and data where they are missing.
pub fn open(
    kind: ServerKind,
    binary: &Binary,
    path: &Path,
    os_user: Option<OsUser>,
    fsync: bool,
) -> anyhow::Result<ServerDir> {
    // Only root has another user for its server. The server's user owns the data and
    // must be able to enter, but cannot replace the files that root opens. Older versions
    // made it the owner of the directory, too.
    let owner = os_user.as_ref();
    let mode = if owner.is_some() { 0o711 } else { 0o700 };
    own_files::ensure_dir(path, mode, owner)?;
    stop_leftover(kind, path)?;
    let _ = fs::rename(path.join("log"), path.join("log.previous"));

    let proposed = match (kind, fsync) {
        (ServerKind::Postgres, false) => Some(postgres::template_password(binary, owner)?),
        _ => None,
    };
    let password = data_dir::get_or_create_secret(&path.join("password"), proposed, owner)?;
    let port = data_dir::get_or_choose_port(&path.join("port"))?;
    let dir = ServerDir {
        path: path.to_owned(),
        os_user,
        fsync,
        port,
        password,
    };
    prepare(kind, &dir, binary)?;
    Ok(dir)
}

/// Creates the configuration, and the data if it is missing.
pub fn prepare(kind: ServerKind, dir: &ServerDir, binary: &Binary) -> anyhow::Result<()> {
    match kind {
        ServerKind::Postgres => postgres::prepare(dir, binary),
        ServerKind::Nats => nats::prepare(dir),
        ServerKind::Redis => redis::prepare(dir),
    }
}

/// Stops a server of an earlier run. Such a server remains only if its watcher was
/// killed as well. Another process may have its pid by now, but the arguments of that
/// process do not contain `path`.
fn stop_leftover(kind: ServerKind, path: &Path) -> anyhow::Result<()> {
    let Some(pid) = own_files::read(&path.join("pid"))? else {
        return Ok(());
    };
    let Ok(pid) = pid.trim().parse::<u32>() else {
        return Ok(());
    };
    let path = path
        .to_str()
        .context("the path of the data folder is not UTF-8")?;
    let is_leftover = || processes::command_line(pid).is_some_and(|line| line.contains(path));
    if !is_leftover() {
        return Ok(());
    }
    let children = processes::children(pid);
    processes::signal(pid, Signal::CONT);
    processes::signal(pid, kind.stop_signal());
    if !processes::wait_until_gone(&[pid], STOP_TIMEOUT) && is_leftover() {
        processes::signal(pid, Signal::KILL);
    }
    if !processes::wait_until_gone(&[pid], KILL_TIMEOUT) {
        bail!(
            "{} of an earlier run (process {pid}) does not exit; kill it and retry",
            kind.name()
        );
    }
    processes::wait_until_gone(&children, KILL_TIMEOUT);
    Ok(())
}
