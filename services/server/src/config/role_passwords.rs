//! The passwords of the roles of Postgres, which `migrate` sets.

use std::path::PathBuf;

use anyhow::ensure;
use api::secret::Secret;
use eventlog::roles::DatabaseRole;

use super::{read_secret, variable};

/// The roles that may log in, each with its password. The others keep what they have.
#[derive(Clone, Debug, Default)]
pub struct RolePasswords(pub Vec<(DatabaseRole, Secret)>);

impl RolePasswords {
    /// Reads `POSTGRES_API_PASSWORD`, or the file in `POSTGRES_API_PASSWORD_FILE`, and so on
    /// for each role. They have no flags, because arguments are visible to every user of
    /// the machine.
    ///
    /// # Errors
    /// When a file cannot be read or is empty, or both variables are set.
    pub fn from_environment() -> anyhow::Result<Self> {
        let mut passwords = Vec::new();
        for role in DatabaseRole::ALL {
            let name = setting(role);
            let value = variable(&name).map(Secret::from);
            let file = std::env::var_os(format!("{name}_FILE")).filter(|file| !file.is_empty());
            let file = file.map(PathBuf::from);
            ensure!(
                value.is_none() || file.is_none(),
                "{name} and {name}_FILE are both set; unset one"
            );
            if value.is_some() || file.is_some() {
                let password = read_secret(&name, value.as_ref(), file.as_ref())?;
                // Postgres would remove the password and still let the role log in.
                ensure!(
                    !password.expose().is_empty(),
                    "the file in {name}_FILE is empty; write the password into it, or unset \
                     {name}_FILE"
                );
                passwords.push((role, password));
            }
        }
        Ok(Self(passwords))
    }
}

/// The environment variable with the password of a role.
fn setting(role: DatabaseRole) -> String {
    let role = role.name().trim_start_matches("reading_").to_uppercase();
    format!("POSTGRES_{role}_PASSWORD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_a_setting_for_its_password() {
        assert_eq!(
            DatabaseRole::ALL.map(setting),
            [
                "API",
                "RELAY",
                "PROJECTIONS",
                "JOBS",
                "OPERATOR",
                "SERVICE",
                "MONITOR"
            ]
            .map(|role| format!("POSTGRES_{role}_PASSWORD"))
        );
    }
}
