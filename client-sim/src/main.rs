//! `hongbao-sim`: one machine of simulated users, or a fleet of them on this host.

#![forbid(unsafe_code)]

mod pages;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use hongbao_sim::check::{self, CheckArgs};
use hongbao_sim::descriptors;
use hongbao_sim::fleet::{self, plan::FleetArgs, plan::Plan};
use hongbao_sim::machine::{self, config::MachineArgs, config::MachineConfig};
use hongbao_sim::results::Ready;
use hongbao_telemetry::logs::LogArgs;
use hongbao_telemetry::program::build;
use hongbao_telemetry::program::manual::{self, CompletionsArguments, ManArguments};
use hongbao_telemetry::program::output;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Arguments were wrong; nothing was begun.
const BAD_ARGUMENTS: u8 = 2;

/// Simulated users of hongbao-server, on an exact schedule.
#[derive(Debug, Parser)]
#[command(name = "hongbao-sim", version = build::TEXT, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one, once")]
enum Command {
    /// One machine of the fleet, with its share of the users. Prints its control surface's address
    /// as a first line of JSON, and everything it counted as the last
    Machine(MachineArgs),
    /// A whole run: starts machines, commands them through phases, compares both sides' books.
    /// Exits 0 only if all users connected, every second of every phase was kept, every request was
    /// answered once, and the books agree
    Fleet(FleetArgs),
    /// Say how many users this host carries and which of its limits binds first; exit code 1 if
    /// that is too few
    Check(CheckArgs),
    /// Print the manual page, or write all pages into a directory
    Man(ManArguments),
    /// Print completions for a shell
    Completions(CompletionsArguments),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure { code, line }) => {
            output::print_error("hongbao-sim", line);
            ExitCode::from(code)
        }
    }
}

/// Why the program ends early, in one line, and its exit code.
struct Failure {
    code: u8,
    line: String,
}

fn refused(error: impl Display) -> Failure {
    Failure { code: BAD_ARGUMENTS, line: error.to_string() }
}

fn failed<E: Display>(what: &str) -> impl FnOnce(E) -> Failure {
    move |error| Failure { code: 1, line: format!("{what}: {error}") }
}

/// Returns whether all went as it should.
fn run(command: Command) -> Result<bool, Failure> {
    let log = match &command {
        Command::Machine(args) => args.common.log.clone(),
        Command::Fleet(args) => args.common.log.clone(),
        Command::Check(_) | Command::Man(_) | Command::Completions(_) => LogArgs::default(),
    };
    let _log = log.checked("warn").map_err(refused)?.begin().map_err(failed("log"))?;
    match command {
        Command::Machine(args) => run_machine(args)?,
        Command::Fleet(args) => {
            let plan = Plan::try_from(args).map_err(refused)?;
            let summary = fleet::run(&plan, termination()).map_err(failed("fleet"))?;
            return Ok(summary.passed == Some(true));
        }
        Command::Check(args) => return check::run(&args, &mut std::io::stdout()).map_err(failed("check")),
        Command::Man(args) => pages::MANUAL.write(Cli::command(), &args).map_err(failed("man"))?,
        Command::Completions(args) => manual::complete(Cli::command(), &args).map_err(failed("completions"))?,
    }
    Ok(true)
}

fn run_machine(args: MachineArgs) -> Result<(), Failure> {
    if args.with_parent {
        set_pdeathsig(Signal::SIGTERM).map_err(failed("the parent's end would go unnoticed"))?;
    }
    let config = MachineConfig::try_from(args).map_err(refused)?;
    let name = config.name.clone();
    let ready = |address: std::net::SocketAddr| print_line(&Ready { http: address.to_string() });
    let results = descriptors::on_a_private_table("machine", || machine::run(config, ready, termination()))
        .map_err(failed("a thread with a descriptor table of its own"))?;
    print_line(&results.map_err(failed(&name))?.totals);
    Ok(())
}

/// One line of JSON for the program that started this one, which may have gone.
fn print_line(value: &impl serde::Serialize) {
    let line = serde_json::to_string(value).unwrap_or_default();
    output::print(format!("{line}\n"));
}

/// Completes at SIGINT or SIGTERM.
async fn termination() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(event = "signals_failed", %error, "signals cannot be received");
            std::future::pending().await
        }
    }
}
