//! `reading-sessions token`: prints a token for development and tests, signed
//! with HS256. Only an issuer can sign tokens for public keys: this service never
//! has the private ones.

use std::time::Duration;

use api::auth::{self, AdminAccess};
use chrono::TimeDelta;
use clap::Args;
use eventlog::clock;
use uuid::Uuid;

use super::names::uuid;
use super::output::print;
use crate::config::AuthArgs;

#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// Id of the reader or operator.
    #[arg(long, value_name = "UUID", value_parser = uuid::<Uuid>)]
    user: Uuid,
    /// Allow all admin calls too.
    #[arg(long)]
    admin: bool,
    /// Allow the admin calls too that change nothing.
    #[arg(long, conflicts_with = "admin")]
    admin_read: bool,
    /// Time until the token expires: a number and s, m, h or d, at most 365d.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    auth: AuthArgs,
}

pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let expires_at = clock::now() + TimeDelta::from_std(args.ttl)?;
    let admin = match (args.admin, args.admin_read) {
        (true, _) => AdminAccess::Act,
        (false, true) => AdminAccess::Read,
        (false, false) => AdminAccess::None,
    };
    let token = auth::issue_token(
        &args.auth.secret()?,
        &args.user.to_string(),
        admin,
        &args.auth.claims(),
        expires_at.timestamp(),
    )?;
    print(&token)
}

/// Parses a number and a unit, for example `90m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || "expected a number and s, m, h or d, for example 90m, at most 365d".to_owned();
    let unit = text.chars().last().ok_or_else(invalid)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(invalid()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| invalid())?;
    match count.checked_mul(seconds) {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_needs_a_unit_and_has_a_maximum() {
        assert_eq!(parse_duration("90m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_hours(48)));
        for invalid in [
            "",
            "h",
            "1",
            "0s",
            "-1h",
            "1w",
            "366d",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(parse_duration(invalid).is_err(), "{invalid}");
        }
    }
}
