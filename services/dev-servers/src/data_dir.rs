//! Directories: the data folder, which one process locks, and the cache directory,
//! which all processes share. Chooses and stores ports and passwords.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::os_user::{OsUser, is_root};
use super::{own_files, processes};

/// Below the range from which the kernel takes the ports of outgoing connections. A
/// client that repeatedly calls a stopped server could otherwise get the server's
/// port for its own end. It would then connect to itself and keep the server from
/// starting.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Random ports that are tried before the search fails.
const MAX_PORT_CANDIDATES: usize = 1_000;

/// A data folder, locked by this process until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it. Fails if another user owns
    /// it or can write to it.
    pub fn lock(path: &Path) -> anyhow::Result<Self> {
        let cannot_use = || {
            format!(
                "cannot use the data folder {}; choose another one with --data or DEV_DATA",
                path.display()
            )
        };
        // The user of Postgres must be able to enter. Files with secrets are private.
        own_files::ensure_dir(path, 0o755, None).with_context(cannot_use)?;
        let path = path.canonicalize().with_context(cannot_use)?;
        own_files::check_parents(&path).with_context(cannot_use)?;
        let lock = own_files::open_or_create(&path.join("lock")).with_context(cannot_use)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "servers are already running in {}; stop the process that started them, or choose \
                 another data folder with --data or DEV_DATA",
                path.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot_use),
        }
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The default data folder of `reading-sessions dev`. For root it is outside of the
/// home directory, which the unprivileged user of Postgres cannot enter.
pub fn default_data_dir() -> anyhow::Result<PathBuf> {
    if is_root() {
        return Ok(cache_dir()?.join("data"));
    }
    match user_dir("XDG_STATE_HOME", ".local/state") {
        Some(dir) => Ok(dir.join("reading-sessions")),
        None => Ok(cache_dir()?.join("data")),
    }
}

/// A new data folder for tests, named after this process. Also removes the
/// directories of processes that have exited, because a test process exits without
/// removing its own.
pub fn scratch_data_dir() -> anyhow::Result<PathBuf> {
    let parent = cache_dir()?.join("scratch");
    own_files::ensure_dir(&parent, 0o755, None)?;
    for entry in fs::read_dir(&parent)?.flatten() {
        let name = entry.file_name();
        let creator = name.to_str().and_then(|name| name.split_once('-'));
        let Some(Ok(creator)) = creator.map(|(pid, _)| pid.parse()) else {
            continue;
        };
        let path = entry.path();
        if processes::command_line(creator).is_none()
            && let Ok(_locked) = DataDir::lock(&path)
        {
            // Another process may be removing the same directory.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(parent.join(format!(
        "{}-{}",
        std::process::id(),
        Uuid::new_v4().simple()
    )))
}

/// The directory that all processes of this user share, for downloaded servers and
/// templates. For root it is outside of the home directory, like the data.
pub fn cache_dir() -> anyhow::Result<PathBuf> {
    if !is_root()
        && let Some(dir) = user_dir("XDG_CACHE_HOME", ".cache")
        && fs::create_dir_all(dir.join("reading-sessions")).is_ok()
    {
        return checked_cache_dir(dir.join("reading-sessions"));
    }
    let uid = rustix::process::geteuid().as_raw();
    let name = if uid == 0 {
        "reading-sessions".to_owned()
    } else {
        format!("reading-sessions-{uid}")
    };
    checked_cache_dir(Path::new("/var/tmp").join(name))
}

/// All users can write to `/var/tmp`, and the directory contains executables.
fn checked_cache_dir(path: PathBuf) -> anyhow::Result<PathBuf> {
    own_files::ensure_dir(&path, 0o755, None)?;
    Ok(path)
}

/// The directory in an environment variable, or else `default` below the home
/// directory. `None` if neither is an absolute path.
fn user_dir(variable: &str, default: &str) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let from_variable = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(absolute);
    from_variable.or_else(|| {
        std::env::home_dir()
            .filter(absolute)
            .map(|home| home.join(default))
    })
}

/// Builds a directory that several processes may need at once: one process builds it,
/// and the others wait. A build that is killed leaves no directory at `dir`.
pub fn build_once(
    dir: &Path,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let parent = dir.parent().context("the directory has no parent")?;
    own_files::ensure_dir(parent, 0o755, None)?;
    if dir.exists() {
        return Ok(());
    }
    let lock = own_files::open_or_create(&dir.with_added_extension("lock"))?;
    lock.lock()?;
    if dir.exists() {
        return Ok(());
    }
    let partial = partial_path(dir)?;
    own_files::create_dir(&partial, 0o755, None)?;
    build(&partial)?;
    fs::rename(&partial, dir)?;
    Ok(())
}

/// A new path beside `dir`, where it is built before it is renamed. The path is never
/// reused, because a child of a killed process may still write to it. Removes the
/// directories that killed builds have left.
pub fn partial_path(dir: &Path) -> anyhow::Result<PathBuf> {
    let parent = dir.parent().context("the directory has no parent")?;
    let name = dir
        .file_name()
        .and_then(|name| name.to_str())
        .context("the directory has no name")?;
    let prefix = format!("{name}.partial-");
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(parent.join(format!("{prefix}{}", Uuid::new_v4().simple())))
}

/// Removes a directory if it exists.
pub fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The secret that `file` stores. If the file is missing, stores `proposed` or else a
/// random secret. `owner` can read the file; `None` for this user.
pub fn get_or_create_secret(
    file: &Path,
    proposed: Option<String>,
    owner: Option<&OsUser>,
) -> anyhow::Result<String> {
    if let Some(stored) = own_files::read_secret(file, owner)?
        && !stored.is_empty()
    {
        return Ok(stored);
    }
    let random = || format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let secret = proposed.unwrap_or_else(random);
    own_files::write_secret(file, &secret, owner)?;
    Ok(secret)
}

/// The port that `file` stores. If the file is missing or another process uses the
/// port, chooses and stores a free port.
pub fn get_or_choose_port(file: &Path) -> anyhow::Result<u16> {
    let stored = own_files::read(file)?.and_then(|text| text.trim().parse().ok());
    if let Some(port) = stored
        && is_port_free(port)
    {
        return Ok(port);
    }
    let width = u128::from(PORT_RANGE.end - PORT_RANGE.start);
    let offset =
        |random: Uuid| u16::try_from(random.as_u128() % width).expect("less than the width");
    let candidates = std::iter::repeat_with(|| PORT_RANGE.start + offset(Uuid::new_v4()));
    let port = candidates
        .take(MAX_PORT_CANDIDATES)
        .find(|port| is_port_free(*port))
        .with_context(|| format!("found no free port in {PORT_RANGE:?}"))?;
    own_files::write_secret(file, &port.to_string(), None)?;
    Ok(port)
}

/// Whether a server could listen on this port of loopback.
pub fn is_port_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn new_dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("data-dir-{}", Uuid::new_v4().simple()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn port_is_kept_until_another_process_uses_it() {
        let dir = new_dir();
        let file = dir.join("port");
        let first = get_or_choose_port(&file).unwrap();
        assert_eq!(get_or_choose_port(&file).unwrap(), first);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        let second = get_or_choose_port(&file).unwrap();
        assert_ne!(second, first);
        drop(taken);
        assert_eq!(get_or_choose_port(&file).unwrap(), second);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn secret_is_kept_and_private() {
        let dir = new_dir();
        let file = dir.join("password");
        let random = get_or_create_secret(&file, None, None).unwrap();
        assert_eq!(random.len(), 64);
        let kept = get_or_create_secret(&file, Some("other".to_owned()), None).unwrap();
        assert_eq!(kept, random);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn failed_build_leaves_nothing_and_successful_build_is_kept() {
        let dir = new_dir();
        let built = dir.join("built");
        build_once(&built, |_| bail!("no network")).unwrap_err();
        assert!(!built.exists());
        build_once(&built, |partial| {
            Ok(fs::write(partial.join("file"), "whole")?)
        })
        .unwrap();
        build_once(&built, |_| bail!("built twice")).unwrap();
        assert_eq!(fs::read_to_string(built.join("file")).unwrap(), "whole");
        let left = fs::read_dir(&dir)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name());
        assert!(
            !left
                .into_iter()
                .any(|name| name.to_string_lossy().contains("partial"))
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
