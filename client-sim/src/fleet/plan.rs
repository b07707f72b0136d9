//! What a fleet is asked to do: arguments, checked in whole before anything is started.

use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hongbao_proto::token::Secret;
use hongbao_telemetry::summary::Tolerance;
use humantime::format_duration;

use crate::arguments::{self, ArgumentError, CommonArgs, is_whole_seconds, require, split_at_mark};
use crate::fleet::events;
use crate::limits::ANNOUNCE_SECONDS;
use crate::machine::config::UserRange;
use crate::schedule::mix::{Mix, Operation};

pub use crate::fleet::events::{PlannedAnnouncements, PlannedEnvelopes, PlannedStorm, PlannedTickets};

/// Seconds of rain beyond the phases: for what lies between its beginning and the first phase, and
/// some to spare.
const RAIN_SPARE_SECONDS: u64 = ANNOUNCE_SECONDS + 30;

/// Tickets that a user can pay where no limit is set.
const TICKETS_AFFORDED: u64 = 20;

/// Statements that are read at the end.
const STATEMENTS: u32 = 200;

/// Arguments of `hongbao-sim fleet`.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// Machines, each a process of its own
    #[arg(long, default_value_t = 4)]
    pub machines: u32,
    /// Users of the whole fleet
    #[arg(long, default_value_t = 15_000)]
    pub users: u32,
    /// The server's admin API, http://HOST:PORT; without it there is no rain and no comparison of
    /// books
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// Phases one after the other: [NAME=]QPSxDURATION[~TOLERANCE][@MIX], in whole seconds; a
    /// phase's own mix is written as --mix's, with + in place of commas
    #[arg(long, default_value = "5000x20s,10000x20s", value_delimiter = ',')]
    pub phases: Vec<Phase>,
    /// Before the first phase, its QPS for so long, reported but not judged
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// Rain during the phases: prizes a second, and their amounts
    #[arg(long, value_name = "RATE[:MINFEN-MAXFEN]", requires = "admin")]
    pub rain: Option<Rain>,
    /// Storms: at second T of the phases a share of the users is cut at once; SHARE@T, as in
    /// 30%@20s
    #[arg(long, value_name = "SHARE@T", value_delimiter = ',')]
    pub storm: Vec<PlannedStorm>,
    /// For all users whom a storm has cut to be logged in again
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub storm_deadline: Duration,
    /// N announcements to everybody, the first at second T of the phases; N@T[/EVERY], as in
    /// 3@10s/1s
    #[arg(long, value_name = "N@T[/EVERY]", requires = "admin")]
    pub announce: Option<PlannedAnnouncements>,
    /// Users open what they are offered within a second, outside of the schedule; default: with
    /// --envelopes
    #[arg(long, value_name = "BOOL")]
    pub react: Option<bool>,
    /// Envelopes that the house sends: COUNT[:RATE[:RECIPIENTS]][@T], RATE (50) a second to
    /// RECIPIENTS (10) users each, from second T of the phases on. The run lasts until all are
    /// empty or refunded
    #[arg(long, value_name = "COUNT[:RATE[:RECIPIENTS]][@T]", requires = "admin")]
    pub envelopes: Option<PlannedEnvelopes>,
    /// For so long an envelope can be opened
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub envelope_lifetime: Duration,
    /// Tickets on sale: TOTAL[:PRICEFEN[:LIMIT]][@T], for PRICEFEN (100), LIMIT for each user at
    /// most, from second T of the phases on
    #[arg(long, value_name = "TOTAL[:PRICEFEN[:LIMIT]][@T]", requires = "admin")]
    pub tickets: Option<PlannedTickets>,
    /// For so long a ticket is held for its payment
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// What each user's wallet is given before the first phase, fen; default: with --tickets,
    /// enough for as many as it may hold, or for 20
    #[arg(long, value_name = "FEN", requires = "admin")]
    pub deposit: Option<u64>,
    /// Users whose statements are read at the end and held against what they were told; default:
    /// 200 with --mix, --envelopes or --tickets, else none
    #[arg(long, value_name = "N")]
    pub statements: Option<u32>,
    /// How far sent and answered may be from planned in any second, in phases that do not say so
    /// themselves
    #[arg(long, default_value = "2%")]
    pub tolerance: Tolerance,
    /// Where the summary is written as JSON
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// File with where each machine can be scraped, for the file_sd_configs of a Prometheus;
    /// emptied at the end
    #[arg(long, value_name = "FILE")]
    pub targets_file: Option<PathBuf>,
    /// Where machines write their journals; default: a new directory under the system's temporary
    /// one
    #[arg(long, value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,
    /// Journal of guests who play among the users (hongbao-monitor writes journals/guests.csv in
    /// its recording). Where it exists at the end, what it holds counts as what users were told
    #[arg(long, value_name = "FILE")]
    pub guest_journal: Option<PathBuf>,
    /// Connections opened a second, over the whole fleet
    #[arg(long, default_value_t = 5_000, value_name = "PER_SECOND")]
    pub connect_rate: u32,
    /// Keep each machine on one core, round-robin. With a server on the same host that pins its
    /// shards, a request then stays on the core that sent it
    #[arg(long)]
    pub pin_machines: bool,
    /// For all users to be logged in; default: three times what --connect-rate needs, and 30s
    #[arg(long, value_parser = humantime::parse_duration)]
    pub connect_timeout: Option<Duration>,
    /// Rest between the last login and the measuring of memory
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub settle: Duration,
    /// NTP server that machines take their time from; default: the fleet answers SNTP itself on
    /// loopback, so that all machines share this host's clock
    #[arg(long, value_name = "HOST:PORT")]
    pub ntp: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A stretch of constant QPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    pub name: String,
    /// Requests a second over the whole fleet, at least 1.
    pub qps: u32,
    /// At least 1.
    pub seconds: u64,
    /// How far sent and answered may be from planned in any second, where it differs from that of
    /// the other phases.
    pub tolerance: Option<Tolerance>,
    /// What its requests are, where they are not the plan's.
    pub mix: Option<Mix>,
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not [NAME=]QPSxDURATION[~TOLERANCE][@MIX], as in 5000x20s or 5000x20s~1%");
        let (stretch, mix) = split_at_mark(text.trim(), '@');
        let (stretch, tolerance) = split_at_mark(stretch, '~');
        let (name, rest) = stretch.split_once('=').map_or((None, stretch), |(name, rest)| (Some(name), rest));
        let (mix, tolerance) = (mix.map(str::parse).transpose()?, tolerance.map(str::parse).transpose()?);
        let (qps, duration) = rest.split_once('x').ok_or_else(wrong)?;
        let qps: u32 = qps.parse().map_err(|_| wrong())?;
        let duration = humantime::parse_duration(duration).map_err(|_| wrong())?;
        if qps == 0 || duration.is_zero() || !is_whole_seconds(duration) {
            return Err(format!("`{text}`: at least one request a second, and whole seconds"));
        }
        let name = name.map_or_else(|| format!("{qps}/s"), str::to_owned);
        Ok(Self { name, qps, seconds: duration.as_secs(), tolerance, mix })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rain {
    /// Prizes a second.
    pub rate: u32,
    /// Smallest prize, fen.
    pub min_fen: u64,
    /// Largest prize, fen.
    pub max_fen: u64,
}

impl FromStr for Rain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not RATE[:MINFEN-MAXFEN], as in 200:1-500");
        let (rate, amounts) = text.split_once(':').unwrap_or((text, "1-500"));
        let (min, max) = amounts.split_once('-').unwrap_or((amounts, amounts));
        let parse = |number: &str| number.parse::<u64>().map_err(|_| wrong());
        let rain = Self { rate: rate.parse().map_err(|_| wrong())?, min_fen: parse(min)?, max_fen: parse(max)? };
        if rain.rate == 0 || rain.min_fen == 0 || rain.min_fen > rain.max_fen {
            return Err(format!("`{text}`: at least one prize a second, and 1 <= MINFEN <= MAXFEN"));
        }
        Ok(rain)
    }
}

/// Everything a fleet needs: its arguments, checked, and what follows from them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub args: FleetArgs,
    /// A phase before the others that is not judged.
    pub warm_up: Option<Phase>,
    pub react: bool,
    pub statements: u32,
    pub journal_dir: PathBuf,
    pub connect_timeout: Duration,
    pub secret: Secret,
}

impl Deref for Plan {
    type Target = FleetArgs;

    fn deref(&self) -> &FleetArgs {
        &self.args
    }
}

impl Plan {
    /// Users of machine `index`, from 0: contiguous, and as many as on any other machine, or one
    /// more.
    pub fn share(&self, index: u32) -> UserRange {
        let edge = |index: u32| {
            u32::try_from(u64::from(self.users) * u64::from(index) / u64::from(self.machines)).unwrap_or(u32::MAX)
        };
        UserRange { first: edge(index) + 1, last: edge(index + 1) }
    }

    /// All stretches of the schedule: the warm-up, if any, and the phases.
    pub fn stretches(&self) -> impl Iterator<Item = &Phase> {
        self.warm_up.iter().chain(&self.phases)
    }

    /// Unix second in which the first phase begins, where the first stretch begins in
    /// `first_second`.
    pub fn phases_begin(&self, first_second: u64) -> u64 {
        first_second + self.warm_up.as_ref().map_or(0, |warm_up| warm_up.seconds)
    }

    /// The name of machine `index`, from 0.
    pub fn machine_name(index: u32) -> String {
        format!("machine-{:02}", index + 1)
    }

    /// The journal of machine `index`, from 0.
    pub fn journal(&self, index: u32) -> PathBuf {
        self.journal_dir.join(format!("{}.csv", Self::machine_name(index)))
    }

    /// Unix second of a storm of the plan.
    pub fn storm_at(&self, first_second: u64, storm: &PlannedStorm) -> u64 {
        self.phases_begin(first_second) + storm.at_second
    }

    /// Prizes that the rain needs to last.
    pub fn rain_total(&self, rain: Rain) -> u64 {
        let seconds: u64 = self.stretches().map(|phase| phase.seconds).sum();
        u64::from(rain.rate) * (seconds + RAIN_SPARE_SECONDS)
    }
}

impl TryFrom<FleetArgs> for Plan {
    type Error = ArgumentError;

    fn try_from(mut args: FleetArgs) -> Result<Self, ArgumentError> {
        let FleetArgs { machines, users, .. } = args;
        if machines == 0 || machines > users {
            let reason = "every machine needs a user, and there must be a machine";
            return Err(ArgumentError::Wrong(format!("--machines {machines} --users {users}: {reason}")));
        }
        arguments::check_descriptors(users, machines)?;
        args.common.check()?;
        require(args.connect_rate >= machines, "connect-rate", args.connect_rate, "at least one for each machine")?;
        require(is_whole_seconds(args.warm_up), "warm-up", format_duration(args.warm_up), "whole seconds")?;
        if let Some(admin) = &mut args.admin {
            require(admin.starts_with("http://"), "admin", &admin, "http://HOST:PORT")?;
            admin.truncate(admin.trim_end_matches('/').len());
        }
        if let Some(summary) = &args.summary {
            let parent = summary.parent().filter(|parent| parent.as_os_str().is_empty() || parent.is_dir());
            require(parent.is_some(), "summary", summary.display(), "its directory must exist")?;
        }
        let warm_up = args.phases.first().filter(|_| !args.warm_up.is_zero()).map(|first| Phase {
            name: "warm-up".to_owned(),
            seconds: args.warm_up.as_secs(),
            tolerance: None,
            ..first.clone()
        });
        let lasting = args.phases.iter().map(|phase| phase.seconds).sum();
        events::check_storms(&mut args.storm, args.storm_deadline, lasting)?;
        if let Some(announce) = args.announce {
            events::check_announcements(announce, lasting)?;
        }
        check_purchases(&args, lasting)?;
        if let (None, Some(PlannedTickets { price_fen: 1.., limit, .. })) = (args.deposit, args.tickets) {
            args.deposit =
                args.tickets.map(|one| one.price_fen.saturating_mul(limit.map_or(TICKETS_AFFORDED, u64::from)));
        }
        let mut mixes = args.phases.iter().filter_map(|phase| phase.mix).chain([args.common.mix]);
        let deals = args.envelopes.is_some() || args.tickets.is_some() || mixes.any(|mix| !mix.is_grabs());
        let connect_seconds = u64::from(users.div_ceil(args.connect_rate));
        let journal_dir = || std::env::temp_dir().join(format!("hongbao-journals-{}", std::process::id()));
        Ok(Self {
            warm_up,
            react: args.react.unwrap_or(args.envelopes.is_some()),
            statements: args.statements.unwrap_or(if deals { STATEMENTS } else { 0 }),
            journal_dir: args.journal_dir.clone().unwrap_or_else(journal_dir),
            connect_timeout: args.connect_timeout.unwrap_or(Duration::from_secs(30 + 3 * connect_seconds)),
            secret: args.common.secret()?,
            args,
        })
    }
}

/// Refuses envelopes and sales that cannot be, or that nobody would buy from.
fn check_purchases(args: &FleetArgs, lasting: u64) -> Result<(), ArgumentError> {
    let mut mixes = args.phases.iter().map(|phase| phase.mix.unwrap_or(args.common.mix));
    let sells = mixes.any(|mix| mix.weight(Operation::Ticket) > 0);
    if let Some(tickets) = args.tickets {
        events::check_moment("tickets", Duration::from_secs(tickets.at_second), lasting)?;
        require(sells, "tickets", tickets.total, "some phase's mix must have ticket turns")?;
    }
    require(!sells || args.tickets.is_some(), "mix", args.common.mix, "ticket turns need --tickets")?;
    if let Some(envelopes) = args.envelopes {
        events::check_moment("envelopes", Duration::from_secs(envelopes.at_second), lasting)?;
        let reason = "an envelope is for no more users than there are";
        require(envelopes.recipients <= args.users, "envelopes", envelopes.recipients, reason)?;
    }
    require(args.deposit != Some(0), "deposit", 0, "at least 1 fen")?;
    let (lifetime, hold) = (args.envelope_lifetime, args.hold);
    let is_lifetime = is_whole_seconds(lifetime) && !lifetime.is_zero();
    require(is_lifetime, "envelope-lifetime", format_duration(lifetime), "whole seconds, 1 at least")?;
    require(hold >= Duration::from_secs(1), "hold", format_duration(hold), "at least 1s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_or_refused() {
        let phase = |name: &str, qps, seconds| Phase { name: name.into(), qps, seconds, tolerance: None, mix: None };
        assert_eq!("5000x20s".parse(), Ok(phase("5000/s", 5_000, 20)));
        assert_eq!("rush=7x2m".parse(), Ok(phase("rush", 7, 120)));
        let tolerance = Some(Tolerance::percent(1));
        assert_eq!("rush=7x2m~1%".parse(), Ok(Phase { tolerance, ..phase("rush", 7, 120) }));
        let mix = Some("grab=3,open=1".parse().unwrap());
        assert_eq!("7x2m@grab=3+open=1".parse(), Ok(Phase { mix, ..phase("7/s", 7, 120) }));
        assert_eq!("rush=7x2m~1%@grab=3+open=1".parse(), Ok(Phase { tolerance, mix, ..phase("rush", 7, 120) }));
        for wrong in [
            "7x2m@",
            "7x2m@shake=1",
            "7x2m~",
            "7x2m~100%",
            "",
            "5000",
            "0x20s",
            "5000x0s",
            "5000x1500ms",
            "x20s",
            "5000x20",
        ] {
            assert!(wrong.parse::<Phase>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rains_are_read_or_refused() {
        assert_eq!("200".parse(), Ok(Rain { rate: 200, min_fen: 1, max_fen: 500 }));
        assert_eq!("200:5-9".parse(), Ok(Rain { rate: 200, min_fen: 5, max_fen: 9 }));
        assert_eq!("200:5".parse(), Ok(Rain { rate: 200, min_fen: 5, max_fen: 5 }));
        for wrong in ["", "0", "200:", "200:9-5", "200:0-5", "200:-5"] {
            assert!(wrong.parse::<Rain>().is_err(), "{wrong}");
        }
    }
}
