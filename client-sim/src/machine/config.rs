//! What is asked of one machine: arguments, checked before anything is opened.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hongbao_proto::token::Secret;

use crate::arguments::{self, ArgumentError, CommonArgs, require};
use crate::ids::RunTag;
use crate::source::{SourcePolicy, Sources};

/// Arguments of `hongbao-sim machine`.
#[derive(Debug, Clone, Args)]
pub struct MachineArgs {
    /// Ids of this machine's users, inclusive, from 1: FIRST..LAST
    #[arg(long, value_name = "FIRST..LAST")]
    pub users: UserRange,
    /// Users of the whole fleet
    #[arg(long, value_name = "N")]
    pub total: u32,
    /// Requests a second over the whole fleet, from the epoch on; without it the control surface
    /// says when and how many
    #[arg(long)]
    pub qps: Option<u32>,
    /// When the schedule begins, Unix seconds or RFC 3339; default: when all users of this machine
    /// are logged in
    #[arg(long, requires = "qps", value_parser = parse_epoch)]
    pub epoch: Option<u64>,
    /// NTP server that every machine of the fleet takes its time from
    #[arg(long, value_name = "HOST:PORT")]
    pub ntp: String,
    /// Name towards the monitor, unique in the fleet
    #[arg(long, default_value = "machine-01")]
    pub name: String,
    /// Where the control surface listens
    #[arg(long, default_value = "127.0.0.1:0")]
    pub http: SocketAddr,
    /// Where all that users are told they won, opened, ordered and paid is written, as CSV
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Connections opened a second
    #[arg(long, default_value_t = 2_000, value_name = "PER_SECOND")]
    pub connect_rate: u32,
    /// Stay on one core: the N-th of those that it may run on, from 0, counted round
    #[arg(long, value_name = "N")]
    pub core: Option<u32>,
    /// Addresses to connect from, separated by commas; `auto`: on loopback, enough of 127.64.0.0/10
    #[arg(long, default_value = "auto", value_name = "LIST|auto")]
    pub source_addresses: SourcePolicy,
    /// Campaign to grab from; 0: any rain
    #[arg(long, default_value_t = 0, value_name = "ID")]
    pub campaign: u32,
    /// Users open what they are offered, at once and outside of the schedule
    #[arg(long)]
    pub react: bool,
    /// Sale that ticket turns grab from; POST /v1/sale may name another
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub sale: Option<u32>,
    /// How long a login token is good
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub token_ttl: Duration,
    /// End with the process that started this one
    #[arg(long, hide = true)]
    pub with_parent: bool,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// User ids `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    /// At least 1.
    pub first: u32,
    /// At least `first`.
    pub last: u32,
}

impl FromStr for UserRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match parsed {
            Some((first, last)) if 1 <= first && first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not FIRST..LAST with 1 <= FIRST <= LAST < 2^32")),
        }
    }
}

fn parse_epoch(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time =
        humantime::parse_rfc3339_weak(text).map_err(|error| format!("neither Unix seconds nor RFC 3339: {error}"))?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    Ok(since.as_secs())
}

/// Everything a machine needs: its arguments, checked, and what follows from them.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    pub args: MachineArgs,
    pub secret: Secret,
    pub sources: Sources,
}

impl Deref for MachineConfig {
    type Target = MachineArgs;

    fn deref(&self) -> &MachineArgs {
        &self.args
    }
}

impl MachineConfig {
    pub fn user_count(&self) -> u32 {
        self.users.last - self.users.first + 1
    }

    /// Index of the first of them in the fleet, from 0.
    pub fn first_index(&self) -> u32 {
        self.users.first - 1
    }
}

impl TryFrom<MachineArgs> for MachineConfig {
    type Error = ArgumentError;

    fn try_from(args: MachineArgs) -> Result<Self, ArgumentError> {
        let UserRange { first, last } = args.users;
        let wrong = |reason: String| Err(ArgumentError::Wrong(reason));
        if last > args.total {
            return wrong(format!("--users {first}..{last} goes beyond --total {}", args.total));
        }
        let users = last - first + 1;
        arguments::check_descriptors(users, 1)?;
        args.common.check()?;
        require(args.connect_rate > 0, "connect-rate", 0, "at least 1")?;
        let ttl = humantime::format_duration(args.token_ttl);
        require(args.token_ttl >= Duration::from_secs(1), "token-ttl", ttl, "at least 1s")?;
        if let Some(Err(error)) = args.epoch.map(RunTag::new) {
            return wrong(format!("--epoch: {error}"));
        }
        let secret = args.common.secret()?;
        let sources = Sources::new(&args.source_addresses, args.common.server.ip(), first.into(), users)?;
        Ok(Self { args, secret, sources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ranges_and_epochs_are_read_or_refused() {
        assert_eq!("1..3750".parse(), Ok(UserRange { first: 1, last: 3_750 }));
        for wrong in ["0..5", "5..4", "1-5", "1..", "1..4294967296"] {
            assert!(wrong.parse::<UserRange>().unwrap_err().contains(wrong));
        }
        assert_eq!(parse_epoch("1800000000"), Ok(1_800_000_000));
        assert_eq!(parse_epoch("2027-01-15T08:00:00Z"), Ok(1_800_000_000));
        assert!(parse_epoch("tomorrow").is_err());
    }
}
