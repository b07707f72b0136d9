//! What a machine and a fleet are both told, and what may be wrong with their arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hongbao_proto::token::Secret;
use hongbao_telemetry::credentials::{self, CredentialError};
use hongbao_telemetry::logs::LogArgs;
use humantime::format_duration;

use crate::descriptors;
use crate::schedule::mix::Mix;

/// The longest `--pace`.
const PACE_MAX: Duration = Duration::from_secs(1);

/// The longest `--coalesce`.
const COALESCE_MAX: Duration = Duration::from_millis(100);

/// Arguments that a fleet hands to its machines as they are.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The server's address
    #[arg(long, value_name = "HOST:PORT")]
    pub server: SocketAddr,
    /// The monitor's ingest address
    #[arg(long, value_name = "HOST:PORT")]
    pub monitor: Option<SocketAddr>,
    /// File with the shared secret; default: environment HONGBAO_SECRET_FILE or HONGBAO_SECRET
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Between two looks of a machine at the schedule, at least; what has become due meanwhile is
    /// sent together. Raise it with the number of machines on this host: waking dozens of them
    /// every millisecond costs more than the requests
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    pub pace: Duration,
    /// After each wake a machine lets so much time pass before it looks again: answers are read
    /// together, for less processor time each, and up to so much later
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub coalesce: Duration,
    /// What the requests are, by weight: of grab, open, chat and ticket. An open without an offered
    /// envelope is a grab instead. A phase, or POST /v1/qps, may say otherwise
    #[arg(long, default_value = "grab=1", value_name = "NAME=WEIGHT,…")]
    pub mix: Mix,
    /// Users talk in N rooms, each in one, instead of to each other
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rooms: u32,
    /// Largest acceptable error of a machine's clock offset
    #[arg(long, default_value = "50ms", value_parser = humantime::parse_duration)]
    pub clock_budget: Duration,
    /// After so long without an answer a request counts as unanswered
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub answer_timeout: Duration,
    #[command(flatten)]
    pub log: LogArgs,
}

impl CommonArgs {
    /// Refuses waits that no machine can keep.
    pub fn check(&self) -> Result<(), ArgumentError> {
        require(self.pace <= PACE_MAX, "pace", format_duration(self.pace), "at most 1s")?;
        require(self.coalesce <= COALESCE_MAX, "coalesce", format_duration(self.coalesce), "at most 100ms")?;
        require(!self.answer_timeout.is_zero(), "answer-timeout", "0s", "more than nothing")
    }

    /// The shared secret, from the file or from the environment.
    pub fn secret(&self) -> Result<Secret, ArgumentError> {
        Ok(credentials::load_secret(self.secret_file.as_deref())?)
    }

    /// The same as a command line. What the environment says of secret and log, a child inherits.
    pub fn to_command_line(&self) -> Vec<String> {
        let duration = |duration| format_duration(duration).to_string();
        let always = [
            ("server", self.server.to_string()),
            ("pace", duration(self.pace)),
            ("coalesce", duration(self.coalesce)),
            ("mix", self.mix.to_string()),
            ("rooms", self.rooms.to_string()),
            ("clock-budget", duration(self.clock_budget)),
            ("answer-timeout", duration(self.answer_timeout)),
        ];
        let given = [
            ("monitor", self.monitor.map(|monitor| monitor.to_string())),
            ("log", self.log.filter.clone()),
            ("log-format", self.log.format.map(|format| format.name().to_owned())),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
        always.into_iter().chain(given).flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }
}

/// Why arguments cannot be followed. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error("{0}")]
    Wrong(String),
    #[error("descriptor limit: {0}")]
    DescriptorLimit(#[from] nix::Error),
    #[error(transparent)]
    Secret(#[from] CredentialError),
}

/// Refuses the value of an option unless it is as it must be.
pub fn require(holds: bool, option: &str, value: impl ToString, reason: &str) -> Result<(), ArgumentError> {
    if holds { Ok(()) } else { Err(ArgumentError::Wrong(format!("--{option} {}: {reason}", value.to_string()))) }
}

/// What stands before the mark, and behind it where there is one.
pub fn split_at_mark(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

pub fn is_whole_seconds(duration: Duration) -> bool {
    duration.subsec_nanos() == 0
}

/// Refuses more connections than this host gives descriptors to one process.
pub fn check_descriptors(users: u32, machines: u32) -> Result<(), ArgumentError> {
    let (each, available) = (users.div_ceil(machines), descriptors::for_connections()?);
    if u64::from(each) > available {
        let needed = u64::from(users).div_ceil(available.max(1));
        return Err(ArgumentError::Wrong(format!(
            "{users} users on {machines} machine(s) are {each} connections in one process, which may hold {available}: use at least {needed} machines, or raise RLIMIT_NOFILE"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn common(line: &[&str]) -> CommonArgs {
        let program = ["sim", "--server", "127.0.0.1:1"];
        <Cli as clap::Parser>::parse_from(program.iter().chain(line)).common
    }

    #[test]
    fn each_refusal_names_the_option_its_value_and_the_remedy() {
        let refusal = |line: &[&str]| common(line).check().unwrap_err().to_string();
        assert_eq!(refusal(&["--pace", "2s"]), "--pace 2s: at most 1s");
        assert_eq!(refusal(&["--coalesce", "1s"]), "--coalesce 1s: at most 100ms");
        assert_eq!(refusal(&["--answer-timeout", "0s"]), "--answer-timeout 0s: more than nothing");
        assert!(common(&["--pace", "1s", "--coalesce", "100ms"]).check().is_ok());
        assert!(check_descriptors(1, 1).is_ok());
        let too_many = check_descriptors(u32::MAX, 1).unwrap_err().to_string();
        assert!(too_many.starts_with("4294967295 users on 1 machine(s)"));
    }

    #[test]
    fn a_machine_is_told_what_the_fleet_was_told() {
        let line = [
            "--pace=3ms",
            "--coalesce=2ms",
            "--mix=grab=9,open=1",
            "--rooms=4",
            "--clock-budget=7ms",
            "--answer-timeout=6s",
            "--monitor=127.0.0.1:2",
            "--log=debug",
            "--log-format=json",
        ];
        for line in [&line[..], &[]] {
            let (fleet, seen) = (common(line), common(line).to_command_line());
            let machine = <Cli as clap::Parser>::parse_from(std::iter::once("sim".to_owned()).chain(seen)).common;
            assert_eq!(format!("{machine:?}"), format!("{fleet:?}"));
        }
    }
}
