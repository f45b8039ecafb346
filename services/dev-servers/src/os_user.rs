//! The user that Postgres runs as when this process is root, because Postgres refuses
//! to run as root. All other servers run as the user of this process.

use std::fs::File;
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// An unprivileged user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsUser {
    name: String,
    uid: u32,
    gid: u32,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl OsUser {
    /// The user for Postgres; `None` if this process is not root.
    pub fn for_postgres() -> anyhow::Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        match ["postgres", "_postgres", "nobody"]
            .iter()
            .find_map(|name| find(&passwd, name))
        {
            Some(user) => Ok(Some(user)),
            None => bail!(
                "Postgres cannot run as root, and this machine has no unprivileged user for it; \
                 create the user postgres"
            ),
        }
    }

    /// Makes a command run as this user.
    pub fn run_as<'a>(user: Option<&Self>, command: &'a mut Command) -> &'a mut Command {
        match user {
            Some(user) => command.uid(user.uid).gid(user.gid),
            None => command,
        }
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Makes this user the owner of an open file or directory.
    pub fn chown(user: Option<&Self>, file: &File) -> anyhow::Result<()> {
        let Some(user) = user else {
            return Ok(());
        };
        fchown(file, Some(user.uid), Some(user.gid))
            .with_context(|| format!("cannot change the owner to {}", user.name))
    }

    /// Fails if this user cannot enter a directory.
    pub fn check_access(user: Option<&Self>, dir: &Path) -> anyhow::Result<()> {
        let Some(user) = user else {
            return Ok(());
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "cd \"$1\"", "sh"])
            .arg(dir)
            .current_dir("/")
            .stderr(Stdio::null());
        let entered = Self::run_as(Some(user), &mut command)
            .status()
            .context("cannot run /bin/sh")?;
        if !entered.success() {
            bail!(
                "Postgres cannot run as root, and the user {} has no access to {}; choose another \
                 data folder, for example below /var/tmp",
                user.name,
                dir.display()
            );
        }
        Ok(())
    }
}

/// Finds a user in the text of `/etc/passwd`; never root. macOS has negative ids,
/// which wrap around to the largest ids.
fn find(passwd: &str, name: &str) -> Option<OsUser> {
    let id = |text: &str| {
        text.parse::<u32>()
            .ok()
            .or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
    };
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        (uid != 0).then(|| OsUser {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
                      postgresql:x:7:7::/:/bin/sh\n\
                      # a comment\n\
                      postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";
        let user = find(passwd, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert_eq!(find(passwd, "mysql"), None);
        assert_eq!(find(passwd, "root"), None, "root is not unprivileged");
    }

    #[test]
    fn negative_id_of_macos_is_parsed() {
        let user = find(
            "guest:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false",
            "guest",
        );
        assert_eq!(user.unwrap().uid, u32::MAX - 1);
    }
}
