//! From arguments and environment to a checked configuration, before the world is touched.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::limits::{GUESTS_MAX, GUESTS_ON_LOOPBACK};
use crate::recording::rotation::{Rotation, parse_size};
use crate::terminal::lines::ViewMode;
use hongbao_telemetry::logs::LogArgs;

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
    pub listen: SocketAddr,

    /// Address of the HTTP interface: /api/v1/{seconds,latest,books,sources,run}, /metrics,
    /// /healthz, /readyz. On an address that is not loopback, everything below /api needs an
    /// administrator's bearer token (audience hongbao-admin). A listening socket that is handed
    /// over by LISTEN_FDS takes its place
    #[arg(long, env = "HONGBAO_MONITOR_HTTP", value_name = "ADDR:PORT", default_value = "127.0.0.1:7404")]
    pub http: SocketAddr,

    /// Host by which the HTTP interface may be asked for, besides names and addresses of loopback;
    /// several separated by commas
    #[arg(long, env = "HONGBAO_MONITOR_HTTP_NAME", value_name = "HOST", value_delimiter = ',')]
    pub http_name: Vec<String>,

    /// Hosts whose servers and machines may be sent orders at the addresses that they report, IP
    /// addresses separated by commas; those of this host's loopback may anyway. An order carries an
    /// administrator's token
    #[arg(long, env = "HONGBAO_MONITOR_TRUST_CONTROL", value_name = "IP", value_delimiter = ',')]
    pub trust_control: Vec<IpAddr>,

    /// People who may play on /shake at once; 0: nobody [default: 32 where --http is on loopback, 0
    /// elsewhere]
    #[arg(long, env = "HONGBAO_MONITOR_GUESTS", value_name = "N")]
    guests: Option<usize>,

    /// The server that they play on [default: the first that reports to this monitor]
    #[arg(long, env = "HONGBAO_MONITOR_GUEST_SERVER", value_name = "ADDR:PORT")]
    pub guest_server: Option<SocketAddr>,

    /// Directory of this one run, made if needed; it must not hold a recording yet. However long the
    /// monitor runs, it is one run [default: runs below --recordings]
    #[arg(long, env = "HONGBAO_MONITOR_RECORD", value_name = "DIR",
          conflicts_with_all = ["recordings", "run_for", "keep"])]
    record: Option<PathBuf>,

    /// Directory of runs, each recorded below it under the UTC time of its begin. A new run begins
    /// at local midnight, when the first machine of a fleet reports, and after --run-for
    #[arg(long, env = "HONGBAO_MONITOR_RECORDINGS", value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,

    /// How long a run lasts at most, 1s or more; then the next begins
    #[arg(long, env = "HONGBAO_MONITOR_RUN_FOR", value_name = "DURATION", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,

    /// What all runs below --recordings may take together, such as 10GiB: when a run begins, the
    /// oldest are deleted, each with all that lies in its directory, but never the current one
    /// [default: all are kept]
    #[arg(long, env = "HONGBAO_MONITOR_KEEP", value_name = "SIZE", value_parser = parse_size)]
    keep: Option<u64>,

    /// How long after its end a second waits for reports, 0s to 30s; then it is closed as
    /// incomplete
    #[arg(long, env = "HONGBAO_MONITOR_STRAGGLERS", value_name = "DURATION", default_value = "2s",
          value_parser = humantime::parse_duration)]
    pub stragglers: Duration,

    /// What to write to standard output; `hongbao-monitor top` shows more on a terminal
    #[arg(long, env = "HONGBAO_MONITOR_VIEW", value_name = "VIEW", value_enum, default_value = "lines")]
    pub view: ViewMode,

    /// File to write once everything is bound, as JSON:
    /// {"ingest":"addr:port","http":"addr:port","record":"dir"}
    #[arg(long, env = "HONGBAO_MONITOR_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// File that holds the family's secret
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// End with code 3 if the books do not agree at the end
    #[arg(long, env = "HONGBAO_MONITOR_EXPECT_BALANCED")]
    pub expect_balanced: bool,

    /// What to log, and how. HONGBAO_MONITOR_LOG counts where neither --log nor HONGBAO_LOG is
    /// given.
    #[command(flatten)]
    pub log: LogArgs,
}

/// A checked configuration: what was given, and what follows from it.
#[derive(Debug)]
pub struct Config {
    pub given: Arguments,
    /// How many people may play.
    pub guests: usize,
    /// The first recording's directory.
    pub record: PathBuf,
    /// Of those that follow it, where any do.
    pub rotation: Option<Rotation>,
}

impl Config {
    /// Checks what was given; the error is one line with the values in it.
    pub fn checked(mut given: Arguments, now_seconds: u64) -> Result<Self, String> {
        let Arguments { listen, http, .. } = given;
        if listen == http && listen.port() != 0 {
            return Err(format!("--listen {listen} and --http {http} are the same address; they must differ"));
        }
        let guests = given.guests.unwrap_or(if http.ip().is_loopback() { GUESTS_ON_LOOPBACK } else { 0 });
        if guests > GUESTS_MAX {
            return Err(format!("--guests is {guests}; at most {GUESTS_MAX} are allowed"));
        }
        let is_host = |name: &String| name.parse::<axum::http::uri::Authority>().is_ok_and(|it| it.host() == *name);
        if let Some(name) = given.http_name.iter().find(|name| !is_host(name)) {
            return Err(format!("--http-name {name:?} is no host's name; give it without scheme and port"));
        }
        if let Some(ip) = given.trust_control.iter().find(|ip| ip.is_unspecified()) {
            return Err(format!("--trust-control {ip} is no host's address"));
        }
        if given.stragglers > STRAGGLER_MAX {
            let [is, most] = [given.stragglers, STRAGGLER_MAX].map(humantime::format_duration);
            return Err(format!("--stragglers is {is}; at most {most} are allowed"));
        }
        given.log.filter = given.log.filter.or_else(|| std::env::var(FILTER_VARIABLE).ok());
        given.log.checked(LOG_DEFAULT).map_err(|error| error.to_string())?;
        if given.run_for.is_some_and(|run_for| run_for < Duration::from_secs(1)) {
            return Err("--run-for is less than 1s".to_owned());
        }
        let Arguments { record, recordings, run_for, keep, .. } = &given;
        let rotation = Rotation { root: recordings.clone(), run_for: *run_for, keep: *keep };
        let (record, rotation) = match record {
            Some(record) => (record.clone(), None),
            None => (rotation.directory(now_seconds), Some(rotation)),
        };
        Ok(Self { given, guests, record, rotation })
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
        assert!(config.given.listen.ip().is_loopback() && config.given.http.ip().is_loopback());
        assert_eq!(config.record, PathBuf::from("recordings/20231114T221320Z"));
        assert_eq!(config.rotation, Some(Rotation { root: "recordings".into(), run_for: None, keep: None }));
        assert_eq!(config.given.stragglers, Duration::from_secs(2));
    }

    #[test]
    fn guests_are_let_in_on_loopback_and_elsewhere_only_on_request() {
        let guests = |arguments: &[&str]| checked(arguments).unwrap().guests;
        assert_eq!((guests(&[]), guests(&["--guests", "0"])), (GUESTS_ON_LOOPBACK, 0));
        assert_eq!((guests(&["--http", "0.0.0.0:1"]), guests(&["--http", "0.0.0.0:1", "--guests", "5"])), (0, 5));
        let given = checked(&["--http-name", "a.example,b", "--trust-control", "192.0.2.1,::1"]).unwrap().given;
        assert_eq!((given.http_name.len(), given.trust_control.len()), (2, 2));
    }

    #[test]
    fn contradicting_settings_are_named_with_both_values() {
        let error = checked(&["--listen", "127.0.0.1:9", "--http", "127.0.0.1:9"]).unwrap_err();
        assert!(error.contains("--listen 127.0.0.1:9") && error.contains("--http 127.0.0.1:9"), "{error}");
        assert!(checked(&["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn a_named_recording_is_one_run_and_others_follow_one_another() {
        let config = checked(&["--recordings", "runs", "--keep", "10GiB", "--run-for", "1h"]).unwrap();
        assert_eq!(config.record, PathBuf::from("runs/20231114T221320Z"));
        let rotation = config.rotation.unwrap();
        assert_eq!((rotation.keep, rotation.run_for), (Some(10 << 30), Some(Duration::from_secs(3_600))));
        let config = checked(&["--record", "mine"]).unwrap();
        assert_eq!((config.record, config.rotation), (PathBuf::from("mine"), None));
        for more in [["--keep", "1GiB"], ["--run-for", "1h"], ["--recordings", "runs"]] {
            assert!(checked(&[&["--record", "mine"], more.as_slice()].concat()).is_err(), "{more:?}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for arguments in [
            ["--keep", "much"],
            ["--run-for", "900ms"],
            ["--stragglers", "31s"],
            ["--stragglers", "soon"],
            ["--listen", "here"],
            ["--view", "3d"],
            ["--log", "a=b=c"],
            ["--http-name", "http://monitor.example"],
            ["--http-name", "monitor.example:80"],
            ["--trust-control", "monitor.example"],
            ["--trust-control", "0.0.0.0"],
            ["--guests", "4097"],
            ["--guest-server", "here"],
        ] {
            assert!(checked(&arguments).is_err(), "{arguments:?}");
        }
    }
}
