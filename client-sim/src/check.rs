//! `hongbao-sim check`: whether this host carries the users, before they are many.

use std::io::{self, Write};
use std::net::SocketAddr;

use clap::Args;
use hongbao_sysctl::judge::USERS_PER_ADDRESS_MAX;
use hongbao_sysctl::{Check, FleetWanted, Verdict};

use crate::limits::SPARE_DESCRIPTORS;
use crate::source;

const _: () = assert!(USERS_PER_ADDRESS_MAX == source::USERS_PER_ADDRESS_MAX as u64);

/// Arguments of `hongbao-sim check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Users of all machines on this host
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub users: u64,
    /// Machines, each a process of its own; default: as many as descriptors ask for
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub machines: Option<u32>,
    /// The server's address; without it only this host's own addresses are counted
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<SocketAddr>,
    /// Raise kernel settings that are too low, until the next boot; none is ever lowered or
    /// narrowed
    #[arg(long)]
    pub fix: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Says on `out` what this host carries; returns whether that is enough.
pub fn run(args: &CheckArgs, out: &mut impl Write) -> io::Result<bool> {
    let wanted = FleetWanted {
        users: args.users,
        machines: args.machines,
        server: args.server,
        spare_descriptors: SPARE_DESCRIPTORS,
    };
    Check { fix: args.fix, json: args.json }.run(out, |facts| Verdict::of_fleet(facts, &wanted))
}
