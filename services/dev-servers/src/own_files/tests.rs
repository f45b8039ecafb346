//! Paths that another user could have prepared are refused, and their targets stay
//! as they are.

use std::os::unix::fs::{chown, symlink};

use uuid::Uuid;

use super::*;
use crate::data_dir::{self, DataDir};
use crate::os_user::is_root;

/// The id of an unprivileged user, for tests that run as root.
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
