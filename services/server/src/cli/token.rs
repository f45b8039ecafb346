//! `reading-sessions token`: a token for development and tests, signed with
//! HS256. Tokens of public keys come from whoever has the private ones; this
//! service never does.

use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use uuid::Uuid;

use api::auth;
use eventlog::clock;
use crate::config::AuthArgs;

/// Whose token, and for how long.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// The reader's id.
    #[arg(long)]
    pub user: Uuid,
    /// For operator calls too.
    #[arg(long)]
    pub admin: bool,
    /// How long it is valid: a number and s, m, h or d.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub ttl: Duration,
    #[command(flatten)]
    #[expect(missing_docs, reason = "its type says what it is")]
    pub auth: AuthArgs,
}

/// The token, as it goes behind `Bearer`.
///
/// # Errors
/// When there is no secret, it is too short, or tokens are verified with public
/// keys.
pub fn run(args: &TokenArgs) -> anyhow::Result<String> {
    let expires_at = clock::now() + TimeDelta::from_std(args.ttl)?;
    auth::token(
        &args.auth.secret()?,
        &args.user.to_string(),
        args.admin,
        &args.auth.claims(),
        expires_at.timestamp(),
    )
}

/// A number and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and s, m, h or d, as 90m, at most 365d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match count.checked_mul(seconds) {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_an_end() {
        assert_eq!(duration("90m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for refused in [
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
            assert!(duration(refused).is_err(), "{refused}");
        }
    }
}
