//! What the program does beside serving: one file a command.

pub mod archive;
pub mod audit;
pub mod check;
pub mod find;
pub mod pages;
pub mod token;
pub mod trace;

use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, Subcommand};
use hongbao_proto::UserId;
use hongbao_telemetry::program::manual::{self, CompletionsArguments, ManArguments};
use serde::Serialize;

/// A tool did what it was asked, and the answer is no: nothing found, books that do not balance, a
/// host that is too small.
pub const EXIT_NEGATIVE: u8 = 1;

#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Print a new random secret; put it into a file that only its owner can read
    Secret,
    /// Print a token signed with the shared secret
    Token(token::Arguments),
    /// Check every invariant of a ledger file, offline; exit code 1 on any imbalance
    Audit(audit::Arguments),
    /// Follow a user's requests through ledger, journals and logs, in the order of time; the ledger
    /// may be in use by a running server. Exit code 1 if nothing is found
    Find(find::Arguments),
    /// Follow one user live, on-line or not: requests, decisions of the ledger, answers, pushes and
    /// ends, until Ctrl-C
    Trace(trace::Arguments),
    /// Move settled history out of a ledger into a file of its own, offline: entries up to the
    /// first that is too young, unacknowledged, or of something that is not over. Balances and
    /// limits stay as they are; statements begin after it. A repeat finishes what was interrupted
    Archive(archive::Arguments),
    /// Say what this host carries and which of its limits binds first; exit code 1 if that is too
    /// few connections
    Check(check::Arguments),
    /// Print the manual page, or write all pages into a directory
    Man(ManArguments),
    /// Print completions for a shell
    Completions(CompletionsArguments),
}

impl Tool {
    /// `program`: the whole command line, for those that describe it.
    pub fn run(&self, program: Command) -> anyhow::Result<ExitCode> {
        match self {
            Tool::Secret => token::secret(),
            Tool::Token(arguments) => token::run(arguments),
            Tool::Audit(arguments) => audit::run(arguments),
            Tool::Find(arguments) => find::run(arguments),
            Tool::Trace(arguments) => trace::run(arguments),
            Tool::Archive(arguments) => archive::run(arguments),
            Tool::Check(arguments) => check::run(arguments),
            Tool::Man(arguments) => written(pages::MANUAL.write(program, arguments)),
            Tool::Completions(arguments) => written(manual::complete(program, arguments)),
        }
    }
}

fn written(written: io::Result<()>) -> anyhow::Result<ExitCode> {
    written?;
    Ok(ExitCode::SUCCESS)
}

/// On standard output: as JSON, or as `text`.
fn print(json: bool, value: &impl Serialize, text: Arguments<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    } else {
        out.write_fmt(text)?;
    }
    Ok(())
}

fn user_id(text: &str) -> Result<UserId, String> {
    let id = text.parse().map_err(|_| format!("user id {text:?} is not a number"))?;
    UserId::new(id).map_err(|error| error.to_string())
}
