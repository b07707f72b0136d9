//! `hongbao-sim`: one machine of simulated users, or a fleet of them on this host.

#![forbid(unsafe_code)]

mod pages;

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
    let command = Cli::parse().command;
    let log = match &command {
        Command::Machine(args) => args.common.log.clone(),
        Command::Fleet(args) => args.common.log.clone(),
        Command::Check(_) | Command::Man(_) | Command::Completions(_) => LogArgs::default(),
    };
    let log = match log.checked("warn") {
        Ok(log) => log,
        Err(error) => return refuse(error),
    };
    let _log = match log.begin() {
        Ok(guard) => guard,
        Err(error) => return fail("log", error),
    };
    match command {
        Command::Machine(args) => run_machine(args),
        Command::Fleet(args) => run_fleet(args),
        Command::Check(args) => match check::run(&args, &mut std::io::stdout()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail("check", error),
        },
        Command::Man(args) => finished("man", pages::MANUAL.write(Cli::command(), &args)),
        Command::Completions(args) => finished("completions", manual::complete(Cli::command(), &args)),
    }
}

fn finished(what: &str, written: std::io::Result<()>) -> ExitCode {
    written.map_or_else(|error| fail(what, error), |()| ExitCode::SUCCESS)
}

fn run_machine(args: MachineArgs) -> ExitCode {
    if args.with_parent
        && let Err(error) = set_pdeathsig(Signal::SIGTERM)
    {
        return fail("the parent's end would go unnoticed", error);
    }
    let config = match MachineConfig::try_from(args) {
        Ok(config) => config,
        Err(error) => return refuse(error),
    };
    let name = config.name.clone();
    let ready = |address: std::net::SocketAddr| print_line(&Ready { http: address.to_string() });
    match descriptors::on_a_private_table("machine", || machine::run(config, ready, termination())) {
        Ok(Ok(results)) => {
            print_line(&results.totals);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(&name, error),
        Err(error) => fail("a thread with a descriptor table of its own", error),
    }
}

/// One line of JSON for the program that started this one, which may have gone.
fn print_line(value: &impl serde::Serialize) {
    let line = serde_json::to_string(value).unwrap_or_default();
    output::print(format!("{line}\n"));
}

fn run_fleet(args: FleetArgs) -> ExitCode {
    let plan = match Plan::try_from(args) {
        Ok(plan) => plan,
        Err(error) => return refuse(error),
    };
    match fleet::run(&plan, termination()) {
        Ok(summary) if summary.passed == Some(true) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail("fleet", error),
    }
}

fn refuse(error: impl std::fmt::Display) -> ExitCode {
    output::print_error("hongbao-sim", error);
    ExitCode::from(BAD_ARGUMENTS)
}

fn fail(what: &str, error: impl std::fmt::Display) -> ExitCode {
    output::print_error("hongbao-sim", format_args!("{what}: {error}"));
    ExitCode::FAILURE
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
