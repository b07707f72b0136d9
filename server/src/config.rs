//! Settings: a TOML file, overridden by the environment, overridden by flags; then checked as a
//! whole, before anything is bound or created. What cannot be used is said in one line, with the value
//! and the remedy.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use clap::Args;
use hongbao_proto::token::{Audience, LEEWAY_SECONDS, Secret, Verifier};
use hongbao_telemetry::logs::{Format, LogArgs};
use serde::Deserialize;

use crate::limits;
use crate::transport::descriptors::{self, TABLES, Tables};

/// `auto` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub enum Count {
    /// Chosen from the host's cores and limits.
    Auto,
    Exactly(NonZeroU32),
}

impl std::str::FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Count::Auto),
            number => number
                .parse()
                .map(Count::Exactly)
                .map_err(|_| format!("{number:?} is neither \"auto\" nor a number from 1 on")),
        }
    }
}

impl TryFrom<toml::Value> for Count {
    type Error = String;
    fn try_from(value: toml::Value) -> Result<Self, String> {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse()
    }
}

macro_rules! settings {
    ($($(#[$attribute:meta])* $name:ident: $type:ty,)*) => {
        /// Every setting, as given: absent where a layer says nothing of it.
        #[derive(Debug, Clone, Default, Args, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Settings { $($(#[$attribute])* pub $name: Option<$type>,)* }

        impl Settings {
            /// What `self` leaves open is taken from `lower`.
            fn over(self, lower: Self) -> Self {
                Self { $($name: self.$name.or(lower.$name),)* }
            }
        }
    };
}

settings! {
    /// Address for users' connections [default: 0.0.0.0:7400]
    #[arg(long, env = "HONGBAO_LISTEN", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Address of the admin HTTP surface; every route but the probes asks for a bearer token
    /// [default: 127.0.0.1:7402]
    #[arg(long, env = "HONGBAO_ADMIN", value_name = "ADDR:PORT")]
    admin: SocketAddr,
    /// Monitor to report to once a second; none: no reports
    #[arg(long, env = "HONGBAO_MONITOR", value_name = "ADDR:PORT")]
    monitor: SocketAddr,
    /// Name of this server in reports, unique among servers [default: server-1]
    #[arg(long, env = "HONGBAO_NAME", value_name = "NAME")]
    name: String,
    /// Ledger file, made if it does not exist; its directory must be writable [default:
    /// hongbao.ledger]
    #[arg(long, env = "HONGBAO_LEDGER", value_name = "FILE")]
    ledger: PathBuf,
    /// File with the shared secret that signs tokens; else HONGBAO_SECRET_FILE, else HONGBAO_SECRET
    /// (the secret itself)
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Ed25519 public key (PEM): users' tokens are then EdDSA instead of HS256
    #[arg(long, env = "HONGBAO_USER_KEY", value_name = "FILE")]
    user_key: PathBuf,
    /// How far the clock of whoever issues users' tokens may differ from ours, at most 5m [default: 5s]
    #[arg(long, env = "HONGBAO_TOKEN_LEEWAY", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    token_leeway: Duration,
    /// End a connection when the token expires that its user logged in with [default: true]
    #[arg(long, env = "HONGBAO_END_AT_EXPIRY", value_name = "BOOL")]
    end_at_expiry: bool,
    /// Connections to be carried; with --shards auto it decides how many shards there are, where a
    /// descriptor table is too small
    #[arg(long, env = "HONGBAO_CONNECTIONS", value_name = "CONNECTIONS")]
    connections: u32,
    /// Whether each shard has a descriptor table of its own, so that `ulimit -n` holds per shard
    /// [default: auto]
    #[arg(long, env = "HONGBAO_DESCRIPTORS", value_enum)]
    descriptors: Tables,
    /// Threads that serve connections, each with its own listener: auto (one per core, more if
    /// tables are private and too small) or a number [default: auto]
    #[arg(long, env = "HONGBAO_SHARDS", value_name = "N|auto")]
    shards: Count,
    /// Keep each shard on one core, round-robin, and have it serve the peers whose packets arrive
    /// there: fewer interrupts between cores, where nothing else competes for one of them [default:
    /// false]
    #[arg(long, env = "HONGBAO_PIN_SHARDS", value_name = "BOOL")]
    pin_shards: bool,
    /// After each wake a shard lets so much time pass before it looks again: what comes meanwhile
    /// is served together, for less processor time each, and up to so much later. For hosts with
    /// many more shards than cores; 0s: off [default: 0s]
    #[arg(long, env = "HONGBAO_COALESCE", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    coalesce: Duration,
    /// Partitions of connections over all shards: auto (two per shard, one from 17 shards on) or a
    /// number, a multiple of the shards [default: auto]
    #[arg(long, env = "HONGBAO_SETS", value_name = "N|auto")]
    sets: Count,
    /// Connections of one SET at most; a shard whose SETs are full stops listening [default: 20000]
    #[arg(long, env = "HONGBAO_SET_CAPACITY", value_name = "CONNECTIONS")]
    set_capacity: u32,
    /// Grabs per second over the whole server; what is above is answered Overloaded; 0: no limit
    /// [default: 0]
    #[arg(long, env = "HONGBAO_MAX_QPS", value_name = "PER_SECOND")]
    max_qps: u32,
    /// Logins per second over the whole server; who comes above it is told the moment at which it
    /// will be let in; 0: no limit [default: 20000]
    #[arg(long, env = "HONGBAO_LOGIN_RATE", value_name = "PER_SECOND")]
    login_rate: u32,
    /// Requests per second of one connection; bursts of twice that are forgiven [default: 500]
    #[arg(long, env = "HONGBAO_MAX_CONNECTION_QPS", value_name = "PER_SECOND")]
    max_connection_qps: u32,
    /// From a connection's first byte to its Login [default: 10s]
    #[arg(long, env = "HONGBAO_LOGIN_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    login_timeout: Duration,
    /// Silence after which a connection is ended [default: 10m]
    #[arg(long, env = "HONGBAO_IDLE_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    idle_timeout: Duration,
    /// How long an orderly stop may take before it is cut short [default: 15s]
    #[arg(long, env = "HONGBAO_STOP_DEADLINE", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    stop_deadline: Duration,
    /// At a stop users are told to return after a while spread evenly over twice this [default: 5s]
    #[arg(long, env = "HONGBAO_RETURN_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    return_after: Duration,
    /// Tell every connection when a campaign opens or ends [default: true]
    #[arg(long, env = "HONGBAO_NOTIFY_CAMPAIGNS", value_name = "BOOL")]
    notify_campaigns: bool,
    /// Grabs of a sale's first so long are served in an order drawn by lot, not by arrival, where a
    /// sale that begins later than it is created does not say otherwise; at most 5s [default: 0s]
    #[arg(long, env = "HONGBAO_FAIR_WINDOW", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde")]
    fair_window: Duration,
    /// Written once everything is bound: JSON with the actual addresses
    #[arg(long, env = "HONGBAO_READY_FILE", value_name = "FILE")]
    ready_file: PathBuf,
    /// How log lines look [default: pretty]
    #[arg(long, env = "HONGBAO_LOG_FORMAT", value_enum)]
    log_format: Format,
    /// What to log to standard error: a level, or directives such as info,facts=debug, which adds
    /// every durable win, opened share and order; else RUST_LOG says so [default: info]
    #[arg(id = "log_filter", long = "log", env = "HONGBAO_LOG", value_name = "FILTER")]
    log: String,
}

/// Settings that were checked, with every default filled in.
#[derive(Debug)]
pub struct Config {
    /// See [`Settings::listen`], as for all fields of the same name.
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub monitor: Option<SocketAddr>,
    pub name: String,
    pub ledger: PathBuf,
    /// Signs reports' tokens, and checks everybody's.
    pub secret: Secret,
    /// Checks users' tokens.
    pub user_verifier: Verifier,
    pub end_at_expiry: bool,
    /// Whether each shard has a descriptor table of its own.
    pub private_tables: bool,
    pub shards: u32,
    pub pin_shards: bool,
    pub coalesce: Duration,
    pub sets: u32,
    pub set_capacity: u32,
    /// Connections to be carried: --connections, else what the SETs have room for.
    pub connections: u64,
    /// `None`: no limit.
    pub max_qps: Option<NonZeroU32>,
    /// `None`: no limit.
    pub login_rate: Option<NonZeroU32>,
    pub max_connection_qps: u32,
    /// Whole seconds.
    pub login_seconds: u32,
    /// Whole seconds.
    pub idle_seconds: u32,
    pub stop_deadline: Duration,
    /// Milliseconds.
    pub return_after_ms: u32,
    pub notify_campaigns: bool,
    /// Milliseconds.
    pub fair_window_ms: u32,
    pub ready_file: Option<PathBuf>,
}

impl Settings {
    /// Merges the layers, fills in the defaults and checks the whole. Reads files; touches nothing
    /// else.
    pub fn resolve(self, file: Option<&Path>) -> anyhow::Result<Config> {
        self.layered(file)?.check()
    }

    /// What the file adds to flags and environment. Not checked yet.
    pub fn layered(self, file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = file else { return Ok(self) };
        let refused = |error: &dyn std::error::Error| {
            anyhow!("config file {}: {}", path.display(), error.to_string().trim().replace('\n', " "))
        };
        let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
        Ok(self.over(toml::from_str(&text).map_err(|error| refused(&error))?))
    }

    /// What they say of the log, which begins before all else is looked at.
    pub fn log(&self) -> LogArgs {
        LogArgs { filter: self.log.clone(), format: self.log_format }
    }

    /// Fills in the defaults and checks the whole.
    pub fn check(self) -> anyhow::Result<Config> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let limit = descriptors::hard_limit();
        let connections = u64::from(self.connections.unwrap_or(0));
        let private_tables = match self.descriptors.unwrap_or(Tables::Auto) {
            Tables::Auto => connections > TABLES.room(limit, cores),
            Tables::Shared => false,
            Tables::Private => true,
        };
        let shards = match (self.shards.unwrap_or(Count::Auto), self.sets) {
            (Count::Exactly(shards), _) => shards.get(),
            (Count::Auto, Some(Count::Exactly(sets))) => cores.min(sets.get()),
            (Count::Auto, _) if private_tables => {
                let most = TABLES.shards_max;
                TABLES.shards_for(connections, limit, cores, most).ok_or_else(|| {
                    anyhow!("--connections {connections} do not fit {most} tables of {limit} descriptors: raise `ulimit -Hn`")
                })?
            }
            (Count::Auto, _) => cores,
        };
        let pin_shards = self.pin_shards.unwrap_or(false);
        let is_given = matches!(self.shards, Some(Count::Exactly(_)));
        ensure!(
            !pin_shards || !is_given || shards.is_multiple_of(cores),
            "--shards {shards} with --pin-shards is not a multiple of the {cores} cores: each core holds equally many shards"
        );
        // Else the shards next to where the round closes would get more peers than the others.
        let shards = if pin_shards { shards.next_multiple_of(cores) } else { shards };
        let sets = match self.sets.unwrap_or(Count::Auto) {
            Count::Exactly(sets) => sets.get(),
            Count::Auto if shards > 16 => shards,
            Count::Auto => shards * 2,
        };
        ensure!(
            sets.is_multiple_of(shards),
            "--sets {sets} is not a multiple of --shards {shards}: each shard holds equally many SETs"
        );
        let sets_max = limits::SETS_MAX;
        ensure!(sets <= sets_max, "--sets {sets} is above {sets_max}: use fewer SETs of a larger --set-capacity");
        let (set_capacity, capacity_max) = (self.set_capacity.unwrap_or(20_000), limits::SET_CAPACITY_MAX);
        ensure!(
            (1..=capacity_max).contains(&(set_capacity as usize)),
            "--set-capacity {set_capacity} is outside 1..={capacity_max}"
        );
        let room = u64::from(sets) * u64::from(set_capacity);
        ensure!(
            connections <= room,
            "--connections {connections} do not fit {sets} SETs of {set_capacity}: raise --sets or --set-capacity"
        );
        let name = self.name.unwrap_or_else(|| "server-1".to_owned());
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        ensure!(
            is_plain && (1..=64).contains(&name.len()),
            "--name {name:?} must be 1 to 64 letters, digits, '-', '_' or '.'"
        );
        let max_connection_qps = self.max_connection_qps.unwrap_or(limits::CONNECTION_RATE);
        ensure!(max_connection_qps > 0, "--max-connection-qps 0 would refuse every request: give at least 1");
        let login_seconds = seconds("--login-timeout", self.login_timeout.unwrap_or(Duration::from_secs(10)))?;
        let idle_seconds = seconds("--idle-timeout", self.idle_timeout.unwrap_or(Duration::from_secs(600)))?;
        ensure!(
            idle_seconds >= login_seconds,
            "--idle-timeout {idle_seconds}s is shorter than --login-timeout {login_seconds}s"
        );
        let fair_window = self.fair_window.unwrap_or_default();
        let coalesce = self.coalesce.unwrap_or_default();
        let return_after = self.return_after.unwrap_or(Duration::from_secs(5));
        let leeway = self.token_leeway.unwrap_or(Duration::from_secs(LEEWAY_SECONDS));
        for (flag, value, max) in [
            ("--fair-window", fair_window, Duration::from_millis(limits::FAIR_WINDOW_MS_MAX.into())),
            ("--coalesce", coalesce, limits::COALESCE_MAX),
            ("--return-after", return_after, Duration::from_secs(3_600)),
            ("--token-leeway", leeway, Duration::from_secs(300)),
        ] {
            ensure!(value <= max, "{flag} {value:?} is above {max:?}");
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 7400)));
        let admin = self.admin.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7402)));
        let is_same_host = listen.ip() == admin.ip() || listen.ip().is_unspecified();
        ensure!(
            listen.port() == 0 || listen.port() != admin.port() || !is_same_host,
            "--listen {listen} and --admin {admin} need different ports"
        );
        let secret = hongbao_telemetry::credentials::load_secret(self.secret_file.as_deref())?;
        let user_verifier = match &self.user_key {
            None => Verifier::hs256(&secret, Audience::User),
            Some(path) => {
                let refused = |error: &dyn std::error::Error| anyhow!("--user-key {}: {error}", path.display());
                let pem = std::fs::read(path).map_err(|error| refused(&error))?;
                Verifier::eddsa(&pem, Audience::User).map_err(|error| refused(&error))?
            }
        };
        let user_verifier = user_verifier.with_leeway(leeway.as_secs());
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        Ok(Config {
            listen,
            admin,
            monitor: self.monitor,
            name,
            ledger: self.ledger.unwrap_or_else(|| PathBuf::from("hongbao.ledger")),
            secret,
            user_verifier,
            end_at_expiry: self.end_at_expiry.unwrap_or(true),
            private_tables,
            shards,
            pin_shards,
            coalesce,
            sets,
            set_capacity,
            connections: if connections > 0 { connections } else { room },
            max_qps: NonZeroU32::new(self.max_qps.unwrap_or(0)),
            login_rate: NonZeroU32::new(self.login_rate.unwrap_or(limits::LOGIN_RATE)),
            max_connection_qps,
            login_seconds,
            idle_seconds,
            stop_deadline: self.stop_deadline.unwrap_or(Duration::from_secs(15)),
            return_after_ms: millis(return_after),
            notify_campaigns: self.notify_campaigns.unwrap_or(true),
            fair_window_ms: millis(fair_window),
            ready_file: self.ready_file,
        })
    }
}

fn seconds(flag: &str, duration: Duration) -> anyhow::Result<u32> {
    let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    ensure!((1..=86_400).contains(&seconds), "{flag} {duration:?} is outside 1s..=1day");
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn secret_file() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789abcdef0123456789abcdef\n").unwrap();
        file
    }

    fn config_file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn settings(secret: &tempfile::NamedTempFile) -> Settings {
        Settings { secret_file: Some(secret.path().into()), ..Settings::default() }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let (secret, file) = (
            secret_file(),
            config_file("set-capacity = 77\nmax-qps = 5\nshards = \"auto\"\nsets = 8\nidle-timeout = \"1h\""),
        );
        let config = Settings { max_qps: Some(9), ..settings(&secret) }.resolve(Some(file.path())).unwrap();
        assert_eq!(
            (config.set_capacity, config.max_qps.map(NonZeroU32::get), config.sets, config.idle_seconds),
            (77, Some(9), 8, 3_600)
        );
        assert_eq!((config.login_seconds, config.login_rate.map(NonZeroU32::get)), (10, Some(limits::LOGIN_RATE)));
    }

    #[test]
    fn a_login_rate_of_zero_is_no_limit() {
        let (secret, file) = (secret_file(), config_file("login-rate = 300"));
        let config = settings(&secret).resolve(Some(file.path())).unwrap();
        assert_eq!(config.login_rate.map(NonZeroU32::get), Some(300));
        let config = Settings { login_rate: Some(0), ..settings(&secret) }.resolve(Some(file.path())).unwrap();
        assert_eq!(config.login_rate, None);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let (secret, file) = (secret_file(), config_file("set-capasity = 77"));
        let error = settings(&secret).resolve(Some(file.path())).unwrap_err().to_string();
        assert!(
            error.contains("set-capasity") && error.contains(&*file.path().to_string_lossy()) && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn contradictions_name_both_values() {
        let secret = secret_file();
        let refused = |change: fn(&mut Settings)| {
            let mut settings = settings(&secret);
            change(&mut settings);
            settings.resolve(None).unwrap_err().to_string()
        };
        let uneven = refused(|settings| {
            settings.shards = NonZeroU32::new(2).map(Count::Exactly);
            settings.sets = NonZeroU32::new(5).map(Count::Exactly);
        });
        assert!(uneven.contains("--sets 5") && uneven.contains("--shards 2"), "{uneven}");
        let timeouts = refused(|settings| settings.idle_timeout = Some(Duration::from_secs(3)));
        assert!(timeouts.contains("3s") && timeouts.contains("10s"), "{timeouts}");
        let ports = refused(|settings| settings.admin = Some(SocketAddr::from(([127, 0, 0, 1], 7400))));
        assert!(ports.contains("0.0.0.0:7400") && ports.contains("127.0.0.1:7400"), "{ports}");
        assert!(refused(|settings| settings.set_capacity = Some(0)).contains("--set-capacity 0"));
        let patient = refused(|settings| settings.fair_window = Some(Duration::from_secs(6)));
        assert!(patient.contains("--fair-window 6s") && patient.contains("5s"), "{patient}");
        let slow = refused(|settings| settings.coalesce = Some(Duration::from_secs(1)));
        assert!(slow.contains("--coalesce 1s") && slow.contains("100ms"), "{slow}");
    }

    #[test]
    fn each_core_gets_equally_many_pinned_shards() {
        let secret = secret_file();
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap());
        let pinned = |shards| {
            let shards = NonZeroU32::new(shards).map(Count::Exactly);
            Settings { pin_shards: Some(true), shards, ..settings(&secret) }.resolve(None)
        };
        assert_eq!(pinned(3 * cores).unwrap().shards, 3 * cores);
        if cores > 1 {
            let uneven = pinned(3 * cores + 1).unwrap_err().to_string();
            assert!(uneven.contains(&format!("--shards {}", 3 * cores + 1)), "{uneven}");
        }
        let auto = Settings {
            pin_shards: Some(true),
            descriptors: Some(Tables::Private),
            connections: Some(100_000),
            ..settings(&secret)
        };
        assert!(auto.resolve(None).unwrap().shards.is_multiple_of(cores));
    }
}
