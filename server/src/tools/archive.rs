//! `hongbao-server archive`: settled history leaves a ledger, offline.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use crate::clock::wall;
use crate::ledger::archive::{Wanted, archive};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The ledger; refused while a server has it open
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// Move what is older: a time in UTC (2026-10-01 or 2026-10-01T08:00:00Z) or an age (90d);
    /// at least a day ago
    #[arg(long, value_name = "TIME", value_parser = time_or_age)]
    before: SystemTime,
    /// The archive, a new file
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Also what its user has not acknowledged, and will not be told any more
    #[arg(long)]
    unacknowledged_too: bool,
    /// Afterwards give the room back to the file system; needs as much of it for a while as the
    /// ledger takes
    #[arg(long)]
    vacuum: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { ledger, before, to, unacknowledged_too, vacuum } = arguments;
    let before = u64::try_from(before.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let wanted = Wanted { before, unacknowledged_too: *unacknowledged_too, vacuum: *vacuum };
    writeln!(std::io::stdout(), "{}", archive(ledger, to, &wanted, wall())?)?;
    Ok(ExitCode::SUCCESS)
}

fn time_or_age(text: &str) -> Result<SystemTime, String> {
    let midnight = format!("{text}T00:00:00Z");
    if let Ok(time) = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339_weak(&midnight)) {
        return Ok(time);
    }
    let age = humantime::parse_duration(text)
        .map_err(|_| "neither a time such as 2026-10-01 or 2026-10-01T08:00:00Z nor an age such as 90d".to_owned())?;
    SystemTime::now().checked_sub(age).ok_or_else(|| "before the beginning of time".to_owned())
}
