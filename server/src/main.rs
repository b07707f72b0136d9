//! The command line: serve, or one of the small tools beside it.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use hongbao_proto::UserId;
use hongbao_proto::token::{Audience, Signer};
use hongbao_server::clock::wall;
use hongbao_server::config::{Config, Settings};
use hongbao_server::ledger::archive;
use hongbao_server::ledger::audit::{AuditOptions, audit_with};
use hongbao_server::limits::FIND_ITEMS_MAX;
use hongbao_server::node::{Bound, Running, StartError, Stopped};
use hongbao_server::tools::find;
use hongbao_server::tools::host;
use hongbao_server::tools::trace;
use hongbao_sysctl::{Check, Verdict, Wanted};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::credentials::load_secret;
use hongbao_telemetry::logs;
use hongbao_telemetry::program::build;
use hongbao_telemetry::program::manual::{self, CompletionsArguments, ManArguments};
use hongbao_telemetry::program::output;
use tokio::signal::unix::{SignalKind, signal};

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

#[derive(Debug, Subcommand)]
enum Tool {
    /// Print a new random secret; put it into a file that only its owner can read
    Secret,
    /// Print a token signed with the shared secret
    Token {
        /// File with the secret; else HONGBAO_SECRET_FILE, else HONGBAO_SECRET
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// What it is good for
        #[arg(long = "for", value_enum, default_value_t = Purpose::User)]
        purpose: Purpose,
        /// User id (1 to 2^53-1) for a user's token, else any name
        #[arg(value_name = "SUBJECT")]
        subject: String,
        /// Lifetime
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Check every invariant of a ledger file, offline; exit code 1 on any imbalance
    Audit {
        /// The ledger
        #[arg(long, value_name = "FILE")]
        ledger: PathBuf,
        /// Journals of the fleet's machines to hold against it
        #[arg(long = "journal", value_name = "FILE")]
        journals: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow a user's requests through ledger, journals and logs, in the order of time; the ledger
    /// may be in use by a running server. Exit code 1 if nothing is found
    Find {
        /// The ledger; only read
        #[arg(long, value_name = "FILE")]
        ledger: PathBuf,
        /// Whose
        #[arg(long, value_name = "ID", value_parser = user_id)]
        user: UserId,
        /// One request: what it got, and what came of that
        #[arg(long, value_name = "ID")]
        request: Option<u64>,
        /// Journals of the fleet's machines
        #[arg(long = "journal", value_name = "FILE", num_args = 1..)]
        journals: Vec<PathBuf>,
        /// Logs of servers, json or pretty; with --log info,facts=debug they hold every decision
        #[arg(long = "log", value_name = "FILE", num_args = 1..)]
        logs: Vec<PathBuf>,
        /// Items told at most; the latest are
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = item_limit)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow one user live, on-line or not: requests, decisions of the ledger, answers, pushes and
    /// ends, until Ctrl-C
    Trace {
        /// Whom
        #[arg(long, value_name = "ID", value_parser = user_id)]
        user: UserId,
        /// The server's operators' surface
        #[arg(long, value_name = "URL", env = "HONGBAO_ADMIN_URL", default_value = "http://127.0.0.1:7402")]
        admin: String,
        /// File with the secret; else HONGBAO_SECRET_FILE, else HONGBAO_SECRET
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Print a JSON object for each event
        #[arg(long)]
        json: bool,
    },
    /// Move settled history out of a ledger into a file of its own, offline: entries up to the
    /// first that is too young, unacknowledged, or of something that is not over. Balances and
    /// limits stay as they are; statements begin after it. A repeat finishes what was interrupted
    Archive {
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
    },
    /// Say what this host carries and which of its limits binds first; exit code 1 if that is too
    /// few connections
    Check {
        /// Connections wanted
        #[arg(long, value_name = "N", default_value_t = host::CONNECTIONS,
              value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        connections: u64,
        /// The fleet runs on this host as well: both ends of each connection are here
        #[arg(long)]
        with_fleet: bool,
        /// Port that the server listens on
        #[arg(long, default_value_t = host::PORT)]
        port: u16,
        /// Raise kernel settings that are too low, until the next boot; none is ever lowered or
        /// narrowed
        #[arg(long)]
        fix: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the manual page, or write all pages into a directory
    Man(ManArguments),
    /// Print completions for a shell
    Completions(CompletionsArguments),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Purpose {
    /// Log in as the subject
    User,
    /// Call the HTTP surface of any process
    Admin,
    /// Report to the monitor
    Report,
}

/// Nothing was found.
const EXIT_NOTHING: u8 = 1;
/// Bad usage or settings; nothing was touched.
const EXIT_USAGE: u8 = 2;
/// An imbalance was found.
const EXIT_UNBALANCED: u8 = 1;
/// This host does not carry the connections wanted.
const EXIT_TOO_SMALL: u8 = 1;
/// Stopped, but not everything ran dry in time.
const EXIT_CUT_SHORT: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.tool {
        None => serve(cli.serve),
        Some(Tool::Secret) => secret(),
        Some(Tool::Token { secret_file, purpose, subject, ttl }) => token(secret_file, purpose, &subject, ttl),
        Some(Tool::Audit { ledger, journals, json }) => run_audit(&ledger, &journals, json),
        Some(Tool::Find { ledger, user, request, journals, logs, limit, json }) => {
            run_find(&find::Wanted { user, request, ledger, journals, logs, limit }, json)
        }
        Some(Tool::Trace { user, admin, secret_file, json }) => run_trace(user, admin, secret_file.as_deref(), json),
        Some(Tool::Archive { ledger, before, to, unacknowledged_too, vacuum }) => {
            run_archive(&ledger, before, &to, unacknowledged_too, vacuum)
        }
        Some(Tool::Check { connections, with_fleet, port, fix, json }) => {
            check(&Wanted { fleet_here: with_fleet, port, ..host::wanted(connections) }, Check { fix, json })
        }
        Some(Tool::Man(arguments)) => told(hongbao_server::tools::pages::MANUAL.write(Cli::command(), &arguments)),
        Some(Tool::Completions(arguments)) => told(manual::complete(Cli::command(), &arguments)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // Every error of ours says its cause in its own line.
            output::print_error("hongbao-server", error);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn told(written: std::io::Result<()>) -> anyhow::Result<ExitCode> {
    written?;
    Ok(ExitCode::SUCCESS)
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
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = tokio::select! {
        running = start(config) => running?,
        // Nobody was let in yet.
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = running.stop_requested() => {}
    }
    tokio::select! {
        stopped = running.stop().finish() => Ok(match stopped {
            Stopped::InOrder => ExitCode::SUCCESS,
            Stopped::CutShort => ExitCode::from(EXIT_CUT_SHORT),
            Stopped::Unbalanced => ExitCode::from(EXIT_UNBALANCED),
        }),
        _ = terminate.recv() => at_once(),
        _ = interrupt.recv() => at_once(),
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

fn secret() -> anyhow::Result<ExitCode> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    writeln!(std::io::stdout(), "{}", const_hex::encode(bytes))?;
    Ok(ExitCode::SUCCESS)
}

fn token(secret_file: Option<PathBuf>, purpose: Purpose, subject: &str, ttl: Duration) -> anyhow::Result<ExitCode> {
    let audience = match purpose {
        Purpose::User => Audience::User,
        Purpose::Admin => Audience::Admin,
        Purpose::Report => Audience::Report,
    };
    if audience == Audience::User {
        let id = subject.parse().map_err(|_| anyhow::anyhow!("user id {subject:?} is not a number"))?;
        UserId::new(id)?;
    }
    let signer = Signer::new(&load_secret(secret_file.as_deref())?);
    writeln!(std::io::stdout(), "{}", signer.sign(subject, audience, unix_seconds(), ttl.as_secs())?)?;
    Ok(ExitCode::SUCCESS)
}

fn run_audit(ledger: &Path, journals: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let report = audit_with(ledger, &AuditOptions { journals, until: None })?;
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(if report.is_balanced() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNBALANCED) })
}

fn run_find(wanted: &find::Wanted, json: bool) -> anyhow::Result<ExitCode> {
    let found = find::find(wanted)?;
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        write!(out, "{found}")?;
    }
    Ok(if found.items.is_empty() { ExitCode::from(EXIT_NOTHING) } else { ExitCode::SUCCESS })
}

fn run_trace(user: UserId, admin: String, secret_file: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    if !admin.starts_with("http://") {
        anyhow::bail!("--admin {admin}: give http://HOST:PORT");
    }
    let wanted = trace::Wanted { user, admin, secret: load_secret(secret_file)?, json };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            never = trace::run(&wanted) => match never? {},
            _ = terminate.recv() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        }
    })
}

fn user_id(text: &str) -> Result<UserId, String> {
    let id = text.parse().map_err(|_| format!("user id {text:?} is not a number"))?;
    UserId::new(id).map_err(|error| error.to_string())
}

fn item_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=FIND_ITEMS_MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("not a number from 1 to {FIND_ITEMS_MAX}")),
    }
}

fn run_archive(
    ledger: &Path,
    before: SystemTime,
    to: &Path,
    unacknowledged_too: bool,
    vacuum: bool,
) -> anyhow::Result<ExitCode> {
    let unix_ms = |time: SystemTime| -> anyhow::Result<u64> {
        Ok(u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
    };
    let wanted = archive::Wanted { before: unix_ms(before)?, unacknowledged_too, vacuum };
    let archived = archive::archive(ledger, to, &wanted, wall())?;
    writeln!(std::io::stdout(), "{archived}")?;
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

fn check(wanted: &Wanted, check: Check) -> anyhow::Result<ExitCode> {
    let fits = check.run(&mut std::io::stdout(), |facts| Verdict::of(facts, wanted))?;
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(EXIT_TOO_SMALL) })
}
