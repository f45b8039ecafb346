//! The account that Postgres runs under when the supervisor is root, because
//! it refuses to be root. Elsewhere servers run under the supervisor's account.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// An unprivileged account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Account {
    /// The account for Postgres; none when this process is not root.
    pub fn for_postgres() -> anyhow::Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd is unreadable")?;
        match ["postgres", "_postgres", "nobody"]
            .iter()
            .find_map(|name| find(&passwd, name))
        {
            Some(account) => Ok(Some(account)),
            None => {
                bail!("Postgres refuses to run as root, and there is no user postgres or nobody")
            }
        }
    }

    /// Makes a command run under this account.
    pub fn lend<'a>(account: Option<&Self>, command: &'a mut Command) -> &'a mut Command {
        match account {
            Some(account) => command.uid(account.uid).gid(account.gid),
            None => command,
        }
    }

    /// Gives a file or folder to this account.
    pub fn give(account: Option<&Self>, path: &Path) -> anyhow::Result<()> {
        let Some(account) = account else {
            return Ok(());
        };
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .with_context(|| format!("{} cannot be given to {}", path.display(), account.name))
    }

    /// An error that says what to do when the account cannot enter a folder.
    pub fn check_entry(account: Option<&Self>, folder: &Path) -> anyhow::Result<()> {
        let Some(account) = account else {
            return Ok(());
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "cd \"$1\"", "sh"])
            .arg(folder)
            .current_dir("/")
            .stderr(Stdio::null());
        let entered = Self::lend(Some(account), &mut command)
            .status()
            .context("no /bin/sh")?;
        if !entered.success() {
            bail!(
                "Postgres refuses to run as root, so it runs as {}, who may not enter {}: choose \
                 a data folder elsewhere, for example below /var/tmp",
                account.name,
                folder.display()
            );
        }
        Ok(())
    }
}

/// An account's line in `/etc/passwd`. Negative ids, as macOS gives to
/// `nobody`, stand for the largest.
fn find(passwd: &str, name: &str) -> Option<Account> {
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
        (uid != 0).then(|| Account {
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
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
                      postgresql:x:7:7::/:/bin/sh\n\
                      # a comment\n\
                      postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";
        let account = find(passwd, "postgres").unwrap();
        assert_eq!((account.uid, account.gid), (101, 104));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(find(passwd, "root"), None, "root is never unprivileged");
    }

    #[test]
    fn the_negative_ids_of_macos_are_understood() {
        let account = find(
            "nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false",
            "nobody",
        );
        assert_eq!(account.unwrap().uid, u32::MAX - 1);
    }
}
