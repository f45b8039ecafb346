//! Folders: the data folder that one supervisor holds, and the cache that all
//! share. Decides what ports and passwords are, and remembers them.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::os_user::is_root;
use super::processes;

/// Ports are taken from below those that the kernel gives to outgoing
/// connections. In that range a client that calls a dead server again and again
/// may be given the server's own port to call from, and then talks to itself
/// and keeps the server from starting.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A data folder, held by this process until dropped.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    _lock: File,
}

impl Held {
    /// Creates the folder where needed, and takes it.
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("the data folder {} cannot be used", folder.display());
        fs::create_dir_all(folder).with_context(cannot)?;
        let folder = folder.canonicalize().with_context(cannot)?;
        // What is secret in it is so by itself; Postgres must pass through.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).with_context(cannot)?;
        let lock = File::create(folder.join("lock")).with_context(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => bail!(
                "servers already run in {}: stop the process that started them, or choose another \
                 data folder",
                folder.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
        }
    }

    /// Its absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Where the data of `reading-sessions dev` belongs when nobody says otherwise:
/// for root outside of its home, which Postgres, unprivileged, may not enter.
pub fn default_data() -> anyhow::Result<PathBuf> {
    if is_root() {
        return Ok(cache()?.join("data"));
    }
    home("XDG_STATE_HOME", ".local/state")
        .map(|folder| folder.join("reading-sessions"))
        .map_or_else(|| Ok(cache()?.join("data")), Ok)
}

/// A new folder for the servers of a test, named after this process. Those of
/// processes that are gone are removed: a test process ends without a chance to
/// tidy up.
pub fn scratch_data() -> anyhow::Result<PathBuf> {
    let parent = cache()?.join("scratch");
    fs::create_dir_all(&parent)?;
    for entry in fs::read_dir(&parent)?.flatten() {
        let name = entry.file_name();
        let creator = name.to_str().and_then(|name| name.split_once('-'));
        let Some(Ok(creator)) = creator.map(|(pid, _)| pid.parse()) else {
            continue;
        };
        let folder = entry.path();
        if processes::command_line(creator).is_none()
            && let Ok(_held) = Held::take(&folder)
        {
            // Another process may be at the same.
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(parent.join(format!(
        "{}-{}",
        std::process::id(),
        Uuid::new_v4().simple()
    )))
}

/// The folder of what all runs of this account share: fetched servers, empty
/// databases. For root outside of its home, as its data.
pub fn cache() -> anyhow::Result<PathBuf> {
    if !is_root()
        && let Some(folder) = home("XDG_CACHE_HOME", ".cache")
        && fs::create_dir_all(folder.join("reading-sessions")).is_ok()
    {
        return Ok(folder.join("reading-sessions"));
    }
    let uid = rustix::process::geteuid().as_raw();
    let name = if uid == 0 {
        "reading-sessions".to_owned()
    } else {
        format!("reading-sessions-{uid}")
    };
    let folder = Path::new("/var/tmp").join(name);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::symlink_metadata(&folder),
    }
    .map_err(anyhow::Error::from)
    .and_then(|found| {
        // Anyone may write to /var/tmp, and what lies here is executed.
        if !found.is_dir() || found.uid() != uid {
            bail!("it belongs to someone else");
        }
        Ok(fs::set_permissions(
            &folder,
            fs::Permissions::from_mode(0o755),
        )?)
    })
    .with_context(|| format!("the folder {} cannot be used", folder.display()))?;
    Ok(folder)
}

/// A folder for one purpose: from its variable, else below the home folder.
fn home(variable: &str, below: &str) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let own = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(absolute);
    own.or_else(|| {
        std::env::home_dir()
            .filter(absolute)
            .map(|home| home.join(below))
    })
}

/// Builds a folder that several processes may want at once: one builds it, the
/// others wait. Killed midway, it leaves nothing that is taken for the whole.
pub fn build_once(
    folder: &Path,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let parent = folder.parent().context("the folder has no parent")?;
    fs::create_dir_all(parent)?;
    let lock = File::create(folder.with_added_extension("lock"))?;
    lock.lock()?;
    if folder.exists() {
        return Ok(());
    }
    let partial = partial(folder)?;
    fs::create_dir(&partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    build(&partial)?;
    fs::rename(&partial, folder)?;
    Ok(())
}

/// Where to build a folder before it is renamed: a new name each time, because
/// a process that a killed supervisor started may still write to the last one.
/// Removes what such left behind.
pub fn partial(folder: &Path) -> anyhow::Result<PathBuf> {
    let parent = folder.parent().context("the folder has no parent")?;
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .context("the folder has no name")?;
    let prefix = format!("{name}.partial-");
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(parent.join(format!("{prefix}{}", Uuid::new_v4().simple())))
}

/// Removes a folder that need not exist.
pub fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read.
pub fn write_secret(file: &Path, content: &str) -> anyhow::Result<()> {
    // Its mode counts only when the file is new; and a half-written one of a
    // killed process must not stay.
    let partial = file.with_added_extension("partial");
    let _ = fs::remove_file(&partial);
    let mut open = File::options();
    let mut written = open
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    written.write_all(content.as_bytes())?;
    fs::rename(&partial, file).with_context(|| format!("{} cannot be written", file.display()))
}

/// The remembered secret of a folder; at first the proposed one, or a random
/// one.
pub fn secret(file: &Path, proposed: Option<String>) -> anyhow::Result<String> {
    if let Ok(known) = fs::read_to_string(file)
        && !known.is_empty()
    {
        return Ok(known);
    }
    let random = || format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let secret = proposed.unwrap_or_else(random);
    write_secret(file, &secret)?;
    Ok(secret)
}

/// The remembered port of a folder; a new one at first, and when something else
/// has taken it meanwhile.
pub fn port(file: &Path) -> anyhow::Result<u16> {
    let known = fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = known
        && is_free(port)
    {
        return Ok(port);
    }
    let width = u128::from(PORTS.end - PORTS.start);
    let offset =
        |random: Uuid| u16::try_from(random.as_u128() % width).expect("less than the width");
    let candidates = std::iter::repeat_with(|| PORTS.start + offset(Uuid::new_v4()));
    let port = candidates
        .take(1_000)
        .find(|port| is_free(*port))
        .context("no free port is left")?;
    fs::write(file, port.to_string())?;
    Ok(port)
}

/// Whether a server could listen on this port of loopback.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("folder-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_port_is_remembered_until_something_else_takes_it() {
        let folder = folder();
        let file = folder.join("port");
        let first = port(&file).unwrap();
        assert_eq!(port(&file).unwrap(), first);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        let second = port(&file).unwrap();
        assert_ne!(second, first);
        drop(taken);
        assert_eq!(port(&file).unwrap(), second);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_secret_is_remembered_and_private() {
        let folder = folder();
        let file = folder.join("password");
        let made_up = secret(&file, None).unwrap();
        assert_eq!(made_up.len(), 64);
        assert_eq!(secret(&file, Some("other".to_owned())).unwrap(), made_up);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_build_that_fails_leaves_nothing_and_one_that_succeeds_is_kept() {
        let folder = folder();
        let built = folder.join("built");
        build_once(&built, |_| bail!("no network")).unwrap_err();
        assert!(!built.exists());
        build_once(&built, |partial| {
            Ok(fs::write(partial.join("file"), "whole")?)
        })
        .unwrap();
        build_once(&built, |_| bail!("built twice")).unwrap();
        assert_eq!(fs::read_to_string(built.join("file")).unwrap(), "whole");
        let left = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name());
        assert!(
            !left
                .into_iter()
                .any(|name| name.to_string_lossy().contains("partial"))
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
