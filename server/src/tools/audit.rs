//! `hongbao-server audit`: every invariant of a ledger file, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::ledger::audit::{AuditOptions, audit_with};
use crate::tools::{EXIT_NEGATIVE, print};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The ledger
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// Journals of the fleet's machines to hold against it
    #[arg(long = "journal", value_name = "FILE")]
    journals: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(Arguments { ledger, journals, json }: &Arguments) -> anyhow::Result<ExitCode> {
    let report = audit_with(ledger, &AuditOptions { journals, until: None })?;
    print(*json, &report, format_args!("{report}\n"))?;
    Ok(if report.is_balanced() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NEGATIVE) })
}
