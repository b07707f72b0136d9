//! `hongbao-monitor`: see `--help`.

#![forbid(unsafe_code)]

mod pages;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use hongbao_monitor::app::{Monitor, RunError, print};
use hongbao_monitor::config::{Arguments, Config, LOG_DEFAULT};
use hongbao_monitor::report::load::ReportError;
use hongbao_monitor::report::{self, CompareArguments, ReportArguments};
use hongbao_monitor::terminal::lines;
use hongbao_monitor::terminal::{self, TopArguments};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::logs;
use hongbao_telemetry::program::build;
use hongbao_telemetry::program::manual::{self, CompletionsArguments, ManArguments};
use hongbao_telemetry::program::output;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The books do not agree, and were expected to.
const EXIT_UNBALANCED: u8 = 3;
/// Ended by a second signal, like a shell says of an interrupted program.
const EXIT_INTERRUPTED: i32 = 130;

/// Merges the per-second reports of servers and fleet machines, keeps the two books, records the
/// run; or, as a subcommand, tells what a recorded run came to.
///
/// Each value can also be set in the environment; a flag wins. The family's secret comes from
/// --secret-file, else from the file that HONGBAO_SECRET_FILE names, else from HONGBAO_SECRET
/// itself.
///
/// Exit codes: 0 a run that was ended by SIGTERM or SIGINT, a report that was written; 1 a failure;
/// 2 a bad setting, or nothing to report; 3 --expect-balanced, and the books do not agree.
#[derive(Debug, Parser)]
#[command(name = "hongbao-monitor", version = build::TEXT, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write charts, tables and figures of a recorded run; prints where they are
    Report(ReportArguments),
    /// Put two recorded runs side by side: what each came to, and how the second relates to the
    /// first
    Compare(CompareArguments),
    /// Show a running monitor's run on this terminal, live; ? explains the keys
    Top(TopArguments),
    /// Print the manual page, or write all pages into a directory
    Man(ManArguments),
    /// Print completions for a shell
    Completions(CompletionsArguments),
}

fn main() -> ExitCode {
    let CommandLine { command, serve } = match CommandLine::try_parse() {
        Ok(given) => given,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            // What is missing or contradicts is on lines of its own; usage and tips come after a
            // blank one.
            let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            return failure(2, lines.join(" ").trim_start_matches("error: "));
        }
        Err(help) => {
            print(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    match command {
        None => serve_until_stopped(serve),
        Some(Command::Report(arguments)) => exit_printing(report::write(&arguments)),
        Some(Command::Compare(arguments)) => exit_printing(report::compare(&arguments)),
        Some(Command::Top(arguments)) => on_runtime(show(&arguments)),
        Some(Command::Man(arguments)) => exit_after(pages::MANUAL.write(CommandLine::command(), &arguments)),
        Some(Command::Completions(arguments)) => exit_after(manual::complete(CommandLine::command(), &arguments)),
    }
}

fn serve_until_stopped(arguments: Arguments) -> ExitCode {
    match Config::checked(arguments, unix_seconds()) {
        Ok(config) => on_runtime(async {
            run(config).await.unwrap_or_else(|error| failure(error.exit_code(), &error.to_string()))
        }),
        Err(problem) => failure(2, &problem),
    }
}

async fn show(arguments: &TopArguments) -> ExitCode {
    match terminal::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(error.exit_code(), &error.to_string()),
    }
}

fn on_runtime(program: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(program),
        Err(error) => failure(1, &format!("cannot start: {error}")),
    }
}

fn exit_printing(outcome: Result<String, ReportError>) -> ExitCode {
    match outcome {
        Ok(text) => {
            print(&format!("{text}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => failure(2, &error.to_string()),
    }
}

fn exit_after(written: std::io::Result<()>) -> ExitCode {
    written.map_or_else(|error| failure(1, &error.to_string()), |()| ExitCode::SUCCESS)
}

fn failure(code: u8, problem: &str) -> ExitCode {
    output::print_error("hongbao-monitor", problem);
    ExitCode::from(code)
}

async fn run(config: Config) -> Result<ExitCode, RunError> {
    let signals = |kind| signal(kind).map_err(|source| RunError::System { what: "cannot take signals".into(), source });
    let (terminate, interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let cannot_log = |source| RunError::System { what: "cannot log".into(), source };
    let log = config.given.log.checked(LOG_DEFAULT).map_err(|error| cannot_log(std::io::Error::other(error)))?;
    let _log = log.begin().map_err(cannot_log)?;
    let expect_balanced = config.given.expect_balanced;
    let monitor = Monitor::bind(config).await?;
    output::print(format!("{}\n", monitor.banner()));

    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(terminate, interrupt, stop.clone()));
    let outcome = monitor.run(stop).await?;
    if outcome.stdout_is_read {
        output::print(lines::summary(&outcome.run, outcome.sources.len()));
    } else {
        tracing::warn!(
            event = "books_unread",
            "nobody reads standard output: the final books are in the recording only"
        );
    }
    Ok(if expect_balanced && !outcome.run.books.balanced() {
        ExitCode::from(EXIT_UNBALANCED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The first signal stops in order; the second ends at once.
async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    for asked in 0.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if asked > 0 {
            logs::flush();
            std::process::exit(EXIT_INTERRUPTED);
        }
        stop.cancel();
    }
}
