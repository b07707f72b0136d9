//! What may be wrong with the arguments of a machine and of a fleet alike.

use std::path::Path;
use std::time::Duration;

use hongbao_proto::token::Secret;
use hongbao_telemetry::credentials::{self, CredentialError};

use crate::descriptors;

/// The longest `--pace`.
const PACE_MAX: Duration = Duration::from_secs(1);

/// The longest `--coalesce`.
const COALESCE_MAX: Duration = Duration::from_millis(100);

/// Why arguments cannot be followed. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error(
        "{users} users on {machines} machine(s) are {each} connections in one process, which may hold {available}: use at least {needed} machines, or raise RLIMIT_NOFILE"
    )]
    Descriptors { users: u32, machines: u32, each: u32, available: u64, needed: u64 },
    #[error("descriptor limit: {0}")]
    DescriptorLimit(#[from] nix::Error),
    #[error("--{option} {value}: {reason}")]
    Range { option: &'static str, value: String, reason: &'static str },
    #[error(transparent)]
    Secret(#[from] CredentialError),
}

/// The value of an option is outside its range.
pub fn range(option: &'static str, value: impl ToString, reason: &'static str) -> ArgumentError {
    ArgumentError::Range { option, value: value.to_string(), reason }
}

/// Refuses more connections than this host gives descriptors to one process.
pub fn check_descriptors(users: u32, machines: u32) -> Result<(), ArgumentError> {
    let (each, available) = (users.div_ceil(machines), descriptors::for_connections()?);
    if u64::from(each) > available {
        let needed = u64::from(users).div_ceil(available.max(1));
        return Err(ArgumentError::Descriptors { users, machines, each, available, needed });
    }
    Ok(())
}

/// Refuses waits that no machine can keep.
pub fn check_waits(pace: Duration, coalesce: Duration, answer_timeout: Duration) -> Result<(), ArgumentError> {
    if pace > PACE_MAX {
        return Err(range("pace", humantime::format_duration(pace), "at most 1s"));
    }
    if coalesce > COALESCE_MAX {
        return Err(range("coalesce", humantime::format_duration(coalesce), "at most 100ms"));
    }
    if answer_timeout.is_zero() {
        return Err(range("answer-timeout", "0s", "more than nothing"));
    }
    Ok(())
}

/// The shared secret, from the file or from the environment.
pub fn secret(file: Option<&Path>) -> Result<Secret, ArgumentError> {
    Ok(credentials::load_secret(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_the_option_its_value_and_the_remedy() {
        let said = |checked: Result<(), ArgumentError>| checked.unwrap_err().to_string();
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        assert_eq!(said(check_waits(2 * second, none, second)), "--pace 2s: at most 1s");
        assert_eq!(said(check_waits(second, second, second)), "--coalesce 1s: at most 100ms");
        assert_eq!(said(check_waits(second, none, none)), "--answer-timeout 0s: more than nothing");
        assert!(check_waits(second, COALESCE_MAX, second).is_ok());
        assert!(check_descriptors(1, 1).is_ok());
        assert!(said(check_descriptors(u32::MAX, 1)).starts_with("4294967295 users on 1 machine(s)"));
    }
}
