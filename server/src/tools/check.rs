//! `hongbao-server check`: what this host carries, judged by our limits.

use std::process::ExitCode;

use clap::Args;
use hongbao_sysctl::{Check, Shards, Verdict, Wanted};

use crate::limits;
use crate::tools::EXIT_NEGATIVE;
use crate::transport::descriptors;

/// Where users connect unless configured otherwise.
pub const PORT: u16 = 7400;

/// Connections to check for unless told otherwise.
pub const CONNECTIONS: u64 = 1_000_000;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Connections wanted
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    connections: u64,
    /// The fleet runs on this host as well: both ends of each connection are here
    #[arg(long)]
    with_fleet: bool,
    /// Port that the server listens on
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Raise kernel settings that are too low, until the next boot; none is ever lowered or
    /// narrowed
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// So many connections from other hosts, to a server that chooses its shards itself.
pub fn wanted(connections: u64) -> Wanted {
    Wanted {
        connections,
        fleet_here: false,
        port: PORT,
        shards: Shards::Chosen,
        tables: descriptors::TABLES,
        backlog: u64::from(limits::LISTEN_BACKLOG.unsigned_abs()),
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { connections, with_fleet, port, fix, json } = *arguments;
    let wanted = Wanted { fleet_here: with_fleet, port, ..wanted(connections) };
    let fits = Check { fix, json }.run(&mut std::io::stdout(), |facts| Verdict::of(facts, &wanted))?;
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NEGATIVE) })
}
