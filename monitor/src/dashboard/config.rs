//! From arguments and environment to a checked configuration, before the world is touched.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::view::ViewMode;
use crate::logs::LogArgs;

const STRAGGLER_MAX: Duration = Duration::from_secs(30);

/// What is logged unless something else is said.
pub const LOG_DEFAULT: &str = "info";

/// How this program's filter is also called.
const FILTER_VARIABLE: &str = "HONGBAO_MONITOR_LOG";

/// Arguments of a monitor that serves; without a subcommand it does.
#[derive(Debug, Parser)]
#[command(name = "hongbao-monitor", version)]
pub struct Arguments {
    /// Address for reporters (TCP); port 0 lets the system choose
    #[arg(long, env = "HONGBAO_MONITOR_LISTEN", value_name = "ADDR:PORT", default_value = "127.0.0.1:7403")]
    listen: SocketAddr,

    /// Address of the HTTP interface: /api/v1/{seconds,latest,books,sources,run}, /metrics, /healthz, /readyz. On an
    /// address that is not loopback, everything below /api needs an administrator's bearer token (audience hongbao-admin)
    #[arg(long, env = "HONGBAO_MONITOR_HTTP", value_name = "ADDR:PORT", default_value = "127.0.0.1:7404")]
    http: SocketAddr,

    /// Directory of the recording, made if needed; it must not hold one yet [default: ./recordings/ and the UTC time]
    #[arg(long, env = "HONGBAO_MONITOR_RECORD", value_name = "DIR")]
    record: Option<PathBuf>,

    /// How long after its end a second waits for reports, 0s to 30s; then it is closed as incomplete
    #[arg(long, env = "HONGBAO_MONITOR_STRAGGLERS", value_name = "DURATION", default_value = "2s",
          value_parser = humantime::parse_duration)]
    stragglers: Duration,

    /// What to show on standard output: auto is table on a terminal and lines elsewhere
    #[arg(long, env = "HONGBAO_MONITOR_VIEW", value_name = "VIEW", value_enum, default_value = "auto")]
    view: ViewMode,

    /// File to write once everything is bound, as JSON: {"ingest":"addr:port","http":"addr:port","record":"dir"}
    #[arg(long, env = "HONGBAO_MONITOR_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// File that holds the family's secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// End with code 3 if the books do not agree at the end
    #[arg(long, env = "HONGBAO_MONITOR_EXPECT_BALANCED")]
    expect_balanced: bool,

    /// What to log, and how. HONGBAO_MONITOR_LOG counts where neither --log nor HONGBAO_LOG is given.
    #[command(flatten)]
    log: LogArgs,
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Where reporters connect.
    pub listen: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// The recording's directory.
    pub record: PathBuf,
    /// The straggler window.
    pub stragglers: Duration,
    /// What is shown; never `Auto`.
    pub view: ViewMode,
    /// Written once bound.
    pub ready_file: Option<PathBuf>,
    /// The secret's file, if one was named.
    pub secret_file: Option<PathBuf>,
    /// Whether unbalanced books are a failure.
    pub expect_balanced: bool,
    /// What to log, and how; it has been checked.
    pub log: LogArgs,
}

impl Config {
    /// Checks what was given; the error is one line with the values in it.
    pub fn checked(arguments: Arguments, now_seconds: u64) -> Result<Self, String> {
        let Arguments { listen, http, record, stragglers, view, ready_file, secret_file, expect_balanced, log } =
            arguments;
        if listen == http && listen.port() != 0 {
            return Err(format!("--listen {listen} and --http {http} are the same address; they must differ"));
        }
        if stragglers > STRAGGLER_MAX {
            let (given, most) = (humantime::format_duration(stragglers), humantime::format_duration(STRAGGLER_MAX));
            return Err(format!("--stragglers is {given}; at most {most} are allowed"));
        }
        if view == ViewMode::Table && view.resolved() != ViewMode::Auto.resolved() {
            return Err("--view table needs a terminal on standard output; use lines or none".to_owned());
        }
        let filter = log.filter.or_else(|| std::env::var(FILTER_VARIABLE).ok());
        let log = LogArgs { filter, ..log };
        log.checked(LOG_DEFAULT).map_err(|error| error.to_string())?;
        let record = record.unwrap_or_else(|| {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(now_seconds);
            let name = humantime::format_rfc3339_seconds(time).to_string().replace([':', '-'], "");
            PathBuf::from("recordings").join(name)
        });
        let view = view.resolved();
        Ok(Self { listen, http, record, stragglers, view, ready_file, secret_file, expect_balanced, log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(arguments: &[&str]) -> Result<Config, String> {
        let arguments = Arguments::try_parse_from(["hongbao-monitor"].iter().chain(arguments));
        Config::checked(arguments.map_err(|error| error.to_string())?, 1_700_000_000)
    }

    #[test]
    fn the_defaults_are_on_loopback_and_record_under_the_time() {
        let config = checked(&[]).unwrap();
        assert!(config.listen.ip().is_loopback() && config.http.ip().is_loopback());
        assert_eq!(config.record, PathBuf::from("recordings/20231114T221320Z"));
        assert_eq!(config.stragglers, Duration::from_secs(2));
    }

    #[test]
    fn settings_that_contradict_each_other_are_named_with_both_values() {
        let error = checked(&["--listen", "127.0.0.1:9", "--http", "127.0.0.1:9"]).unwrap_err();
        assert!(error.contains("--listen 127.0.0.1:9") && error.contains("--http 127.0.0.1:9"), "{error}");
        assert!(checked(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for arguments in [
            ["--stragglers", "31s"],
            ["--stragglers", "soon"],
            ["--listen", "here"],
            ["--view", "3d"],
            ["--log", "a=b=c"],
        ] {
            assert!(checked(&arguments).is_err(), "{arguments:?}");
        }
    }
}
