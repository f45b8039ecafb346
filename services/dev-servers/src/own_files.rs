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
mod tests;
