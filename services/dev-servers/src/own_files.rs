//! Directories and files that only this user controls.
//!
//! Data folders contain passwords and executables, and a path that the user passes may
//! be in a directory that all users can write to. Another user can create the path
//! first, with links to files of the victim or with secrets that the other user knows.
//! Every function here therefore fails on a symbolic link, on another owner, and on
//! permissions that allow others to write. It checks what it has opened and not the
//! path, so that nothing can be replaced between a check and its use.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use rustix::fs::OFlags;

use super::os_user::OsUser;

/// Permissions of the group and of others to write.
const OTHERS_WRITE: u32 = 0o022;

/// Creates a directory, or checks the existing one, and sets its mode. The missing
/// parents are created as well. The existing directory may belong to `former_owner`;
/// then this user becomes its owner.
pub fn ensure_dir(path: &Path, mode: u32, former_owner: Option<&OsUser>) -> anyhow::Result<()> {
    // A trailing slash would make the kernel follow a link.
    let path: PathBuf = path.components().collect();
    let ensure = || -> anyhow::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let dir = open(&path, File::options().read(true))?;
        let metadata = dir.metadata()?;
        if !metadata.is_dir() {
            bail!("it is not a directory");
        }
        check_owner(&metadata, former_owner)?;
        if metadata.mode() & OTHERS_WRITE != 0 {
            bail!(
                "other users can write to it (mode {:o}); remove it, or run `chmod -R go-w` on it \
                 if you trust its content",
                metadata.mode() & 0o7777
            );
        }
        if metadata.uid() != own_uid() {
            fchown(&dir, Some(own_uid()), Some(own_gid()))?;
        }
        Ok(dir.set_permissions(Permissions::from_mode(mode))?)
    };
    ensure().with_context(|| format!("cannot use the directory {}", path.display()))
}

/// Creates a directory that must not exist yet, for `owner` or else for this user.
pub fn create_dir(path: &Path, mode: u32, owner: Option<&OsUser>) -> anyhow::Result<()> {
    let create = || -> anyhow::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        let dir = open(path, File::options().read(true))?;
        OsUser::chown(owner, &dir)?;
        // Changing the owner comes first: it may clear bits of the mode.
        Ok(dir.set_permissions(Permissions::from_mode(mode))?)
    };
    create().with_context(|| format!("cannot create the directory {}", path.display()))
}

/// Fails if another user could replace a directory by renaming it or a parent of it.
/// `path` is absolute and contains no links.
pub fn check_parents(path: &Path) -> anyhow::Result<()> {
    // In a user namespace, another id than 0 may stand for root.
    let trusted = [own_uid(), 0, fs::metadata("/")?.uid()];
    for parent in path.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(parent)
            .with_context(|| format!("cannot read {}", parent.display()))?;
        if !trusted.contains(&metadata.uid()) {
            bail!(
                "its parent {} belongs to another user (uid {}); choose another folder",
                parent.display(),
                metadata.uid()
            );
        }
        // In a sticky directory, only the owner of an entry can rename it. A directory
        // that its group can write to is common, because each user has a private group.
        if metadata.mode() & 0o1002 == 0o002 {
            bail!(
                "every user can replace it, because its parent {} is writable for all (mode {:o}); \
                 choose another folder",
                parent.display(),
                metadata.mode() & 0o7777
            );
        }
    }
    Ok(())
}

/// Opens a file to lock it or to append to it, and creates it if it is missing. It
/// never truncates the file.
pub fn open_or_create(path: &Path) -> anyhow::Result<File> {
    let open = || -> anyhow::Result<File> {
        let file = open(path, File::options().append(true).create(true).mode(0o600))?;
        check_file(&file.metadata()?, None)?;
        Ok(file)
    };
    open().with_context(|| format!("cannot use the file {}", path.display()))
}

/// Reads a file that this process or an earlier one wrote. Returns `None` if it is
/// missing.
pub fn read(path: &Path) -> anyhow::Result<Option<String>> {
    read_checked(path, |metadata| check_file(metadata, None))
}

/// Like [`read`], for a secret of this user or of `owner`. Fails if other users can
/// read it.
pub fn read_secret(path: &Path, owner: Option<&OsUser>) -> anyhow::Result<Option<String>> {
    read_checked(path, |metadata| {
        check_file(metadata, owner)?;
        if metadata.mode() & 0o077 != 0 {
            bail!(
                "other users can read this secret (mode {:o}); remove the file to get a new secret",
                metadata.mode() & 0o7777
            );
        }
        Ok(())
    })
}

/// Writes a file that only its owner can read: `owner`, or else this user. Replaces an
/// existing file.
pub fn write_secret(path: &Path, content: &str, owner: Option<&OsUser>) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        // The rename keeps a killed process from leaving half a file at the final path.
        let partial = path.with_added_extension("partial");
        let _ = fs::remove_file(&partial);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        OsUser::chown(owner, &file)?;
        file.write_all(content.as_bytes())?;
        Ok(fs::rename(&partial, path)?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn read_checked(
    path: &Path,
    check: impl FnOnce(&Metadata) -> anyhow::Result<()>,
) -> anyhow::Result<Option<String>> {
    let read = || -> anyhow::Result<String> {
        let mut file = open(path, File::options().read(true))?;
        check(&file.metadata()?)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error.context(format!("cannot use the file {}", path.display()))),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let error: Option<&std::io::Error> = error.downcast_ref();
    error.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Opens a path without following a link, and without waiting for the other end of a
/// pipe.
fn open(path: &Path, options: &mut OpenOptions) -> anyhow::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = options.custom_flags(flags.bits().cast_signed()).open(path);
    opened.map_err(|error| {
        if path.is_symlink() {
            anyhow!("it is a symbolic link; remove it")
        } else {
            error.into()
        }
    })
}

fn check_file(metadata: &Metadata, other_owner: Option<&OsUser>) -> anyhow::Result<()> {
    if !metadata.is_file() {
        bail!("it is not a regular file; remove it");
    }
    check_owner(metadata, other_owner)
}

fn check_owner(metadata: &Metadata, other_owner: Option<&OsUser>) -> anyhow::Result<()> {
    let uid = metadata.uid();
    if uid != own_uid() && other_owner.is_none_or(|owner| owner.uid() != uid) {
        bail!("it belongs to another user (uid {uid}); remove it, or choose another folder");
    }
    Ok(())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use uuid::Uuid;

    use super::super::data_dir::{self, DataDir};
    use super::super::os_user::is_root;
    use super::*;

    /// The user id of `nobody`, for tests that run as root.
    const NOBODY: u32 = 65_534;

    /// A new directory below the temporary directory, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("own-files-{}", Uuid::new_v4().simple()));
            ensure_dir(&dir, 0o755, None).unwrap();
            Self(dir)
        }

        /// A file with a content that must stay as it is.
        fn victim(&self) -> PathBuf {
            let victim = self.0.join("victim");
            fs::write(&victim, "precious").unwrap();
            victim
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refusal<T>(result: anyhow::Result<T>) -> String {
        format!("{:#}", result.err().expect("a refusal"))
    }

    fn lock_refusal(folder: &Path) -> String {
        refusal(DataDir::lock(folder))
    }

    #[test]
    fn link_instead_of_the_lock_is_refused_and_its_target_unchanged() {
        let scratch = Scratch::new();
        let (folder, victim) = (scratch.0.join("data"), scratch.victim());
        fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o755);
        symlink(&victim, folder.join("lock")).unwrap();
        let error = lock_refusal(&folder);
        assert!(error.contains("lock: it is a symbolic link"), "{error}");
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }

    #[test]
    fn link_instead_of_the_folder_is_refused_and_its_target_unchanged() {
        let scratch = Scratch::new();
        let (target, folder) = (scratch.0.join("home"), scratch.0.join("data"));
        fs::create_dir(&target).unwrap();
        set_mode(&target, 0o700);
        symlink(&target, &folder).unwrap();
        for folder in [folder.clone(), folder.join("")] {
            let error = lock_refusal(&folder);
            assert!(error.contains("it is a symbolic link"), "{error}");
            assert!(error.contains("--data"), "{error}");
        }
        assert_eq!(mode(&target), 0o700);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }

    #[test]
    fn folder_that_others_can_write_to_is_refused() {
        let scratch = Scratch::new();
        let folder = scratch.0.join("data");
        fs::create_dir(&folder).unwrap();
        for others_write in [0o777, 0o1777, 0o775] {
            set_mode(&folder, others_write);
            let error = lock_refusal(&folder);
            assert!(error.contains("other users can write to it"), "{error}");
            assert_eq!(mode(&folder), others_write);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn folder_of_another_user_is_refused() {
        let scratch = Scratch::new();
        let folder = if is_root() {
            let folder = scratch.0.join("data");
            fs::create_dir(&folder).unwrap();
            chown(&folder, Some(NOBODY), None).unwrap();
            folder
        } else {
            PathBuf::from("/usr")
        };
        let error = lock_refusal(&folder);
        assert!(error.contains("it belongs to another user"), "{error}");
        assert!(!folder.join("lock").exists());
    }

    #[test]
    fn folder_that_others_can_replace_is_refused() {
        let scratch = Scratch::new();
        let (parent, folder) = (scratch.0.join("shared"), scratch.0.join("shared/data"));
        fs::create_dir(&parent).unwrap();
        set_mode(&parent, 0o777);
        let error = lock_refusal(&folder);
        assert!(error.contains("every user can replace it"), "{error}");
        // As in /tmp, other users cannot rename the entries of a sticky directory.
        set_mode(&parent, 0o1777);
        DataDir::lock(&folder).unwrap();
        if is_root() {
            chown(&parent, Some(NOBODY), None).unwrap();
            let error = lock_refusal(&folder);
            assert!(error.contains("shared belongs to another user"), "{error}");
        }
    }

    #[test]
    fn planted_secret_is_refused() {
        let scratch = Scratch::new();
        let secret = scratch.0.join("jwt-secret");
        let known = "known-to-another-user";
        let get = || refusal(data_dir::get_or_create_secret(&secret, None, None));

        fs::write(&secret, known).unwrap();
        for others_read in [0o644, 0o640, 0o604] {
            set_mode(&secret, others_read);
            let error = get();
            assert!(
                error.contains("other users can read this secret"),
                "{error}"
            );
        }
        if is_root() {
            set_mode(&secret, 0o600);
            chown(&secret, Some(NOBODY), None).unwrap();
            let error = get();
            assert!(error.contains("it belongs to another user"), "{error}");
        }
        fs::remove_file(&secret).unwrap();
        symlink(scratch.victim(), &secret).unwrap();
        let error = get();
        assert!(error.contains("it is a symbolic link"), "{error}");

        // Without the planted file, the secret is random and private.
        fs::remove_file(&secret).unwrap();
        let random = data_dir::get_or_create_secret(&secret, None, None).unwrap();
        assert_ne!(random, known);
        assert_eq!(mode(&secret), 0o600);
    }

    #[test]
    fn written_file_replaces_a_link_and_keeps_its_target() {
        let scratch = Scratch::new();
        let (victim, port) = (scratch.victim(), scratch.0.join("port"));
        for link in [port.clone(), port.with_added_extension("partial")] {
            symlink(&victim, link).unwrap();
        }
        write_secret(&port, "20000", None).unwrap();
        assert_eq!(read(&port).unwrap().as_deref(), Some("20000"));
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }

    #[test]
    fn pipe_is_refused_without_waiting_for_its_other_end() {
        let scratch = Scratch::new();
        let pipe = scratch.0.join("port");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let error = refusal(read(&pipe));
        assert!(error.contains("it is not a regular file"), "{error}");
    }
}
