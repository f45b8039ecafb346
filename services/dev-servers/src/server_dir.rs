//! A server's folder: what it keeps across starts, and making it ready for
//! one. Starts no server, but ends one that an earlier run left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::os_user::Account;
use super::discover::Binary;
use super::server_kind::Kind;
use super::{data_dir, nats, postgres, processes, redis};

/// A server's folder and what it keeps.
#[derive(Clone, Debug)]
pub struct Home {
    pub folder: PathBuf,
    /// The account it runs under, when that is not ours.
    pub account: Option<Account>,
    pub fsync: bool,
    pub port: u16,
    pub password: String,
}

impl Home {
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }
}

/// Makes a server's folder ready: no leftover runs in it, and port, password,
/// configuration and data are there.
pub fn open(
    kind: Kind,
    binary: &Binary,
    folder: &Path,
    account: Option<Account>,
    fsync: bool,
) -> anyhow::Result<Home> {
    fs::create_dir_all(folder)?;
    // Postgres insists that its folder is private; the others' passwords are.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    Account::give(account.as_ref(), folder)?;
    end_leftover(kind, folder)?;
    let _ = fs::rename(folder.join("log"), folder.join("log.previous"));

    let password_file = folder.join("password");
    let password = match (kind, fsync) {
        (Kind::Postgres, false) => Some(postgres::template_password(binary, account.as_ref())?),
        _ => None,
    };
    let password = data_dir::secret(&password_file, password)?;
    Account::give(account.as_ref(), &password_file)?;
    let port = data_dir::port(&folder.join("port"))?;
    let home = Home {
        folder: folder.to_owned(),
        account,
        fsync,
        port,
        password,
    };
    prepare(kind, &home, binary)?;
    Ok(home)
}

/// Puts configuration and data where they are missing.
pub fn prepare(kind: Kind, home: &Home, binary: &Binary) -> anyhow::Result<()> {
    match kind {
        Kind::Postgres => postgres::prepare(home, binary),
        Kind::Nats => nats::prepare(home),
        Kind::Redis => redis::prepare(home),
    }
}

/// Ends a server of a supervisor that died with all its leashes. Its number
/// may have passed to another process, which does not name our folder.
fn end_leftover(kind: Kind, folder: &Path) -> anyhow::Result<()> {
    let Ok(pid) = fs::read_to_string(folder.join("pid")) else {
        return Ok(());
    };
    let Ok(pid) = pid.trim().parse::<u32>() else {
        return Ok(());
    };
    let folder = folder.to_str().context("the data folder is not UTF-8")?;
    let is_ours = || processes::command_line(pid).is_some_and(|line| line.contains(folder));
    if !is_ours() {
        return Ok(());
    }
    let children = processes::children(pid);
    processes::signal(pid, Signal::CONT);
    processes::signal(pid, kind.stop_signal());
    if !processes::wait_until_gone(&[pid], Duration::from_secs(10)) && is_ours() {
        processes::signal(pid, Signal::KILL);
    }
    if !processes::wait_until_gone(&[pid], Duration::from_secs(5)) {
        bail!(
            "{} of an earlier run, process {pid}, does not end",
            kind.name()
        );
    }
    processes::wait_until_gone(&children, Duration::from_secs(5));
    Ok(())
}
