//! The command line: serve, or one of the small tools beside it.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser};
use hongbao_server::config::{Config, Settings};
use hongbao_server::node::{Bound, Running, StartError, Stopped};
use hongbao_server::tools::Tool;
use hongbao_telemetry::logs;
use hongbao_telemetry::program::signals::StopSignals;
use hongbao_telemetry::program::{arguments, build, exit, output};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Push server for red envelopes and tickets: a million connections, nothing lost, nothing paid
/// twice.
#[derive(Debug, Parser)]
#[command(name = "hongbao-server", version = build::TEXT, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    tool: Option<Tool>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Args)]
struct Serve {
    /// Settings in TOML, keys as the flags below without the dashes in front; the environment and
    /// flags override them
    #[arg(long, env = "HONGBAO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The books do not balance.
const EXIT_UNBALANCED: u8 = 1;
/// Stopped, but not everything ran dry in time.
const EXIT_CUT_SHORT: u8 = 3;

fn main() -> ExitCode {
    let cli: Cli = arguments::parse();
    let result = match cli.tool {
        None => serve(cli.serve),
        Some(tool) => tool.run(Cli::command()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // Every error of ours says its cause in its own line.
            let code = error.downcast_ref().map_or(exit::USAGE, StartError::exit_code);
            output::print_error("hongbao-server", error);
            ExitCode::from(code)
        }
    }
}

fn serve(serve: Serve) -> anyhow::Result<ExitCode> {
    let settings = serve.settings.layered(serve.config.as_deref())?;
    let _log = settings.log().checked("info")?.begin()?;
    let config = settings.check()?;
    // The main thread serves operators, reports and the generator; shards and the ledger have
    // threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(run(config));
    // The stop's deadline holds for the process, whatever still reads or writes the ledger: it is
    // right at every instant.
    runtime.shutdown_background();
    code
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::take()?;
    let running = tokio::select! {
        running = start(config) => running?,
        // Nobody was let in yet.
        () = signals.recv() => return Ok(ExitCode::SUCCESS),
    };
    tokio::select! {
        () = signals.recv() => {}
        () = running.stop_requested() => {}
    }
    tokio::select! {
        stopped = running.stop().finish() => Ok(match stopped {
            Stopped::InOrder => ExitCode::SUCCESS,
            Stopped::CutShort => ExitCode::from(EXIT_CUT_SHORT),
            Stopped::Unbalanced => ExitCode::from(EXIT_UNBALANCED),
        }),
        () = signals.recv() => at_once(),
    }
}

async fn start(config: Config) -> Result<Running, StartError> {
    Bound::bind(config)?.open().await?.serve().await
}

/// A second signal: whoever sends it does not want to wait. The ledger is safe at every instant.
fn at_once() -> ! {
    tracing::warn!(event = "stop_at_once", "second signal: ending at once");
    logs::flush();
    std::process::exit(i32::from(EXIT_CUT_SHORT))
}
