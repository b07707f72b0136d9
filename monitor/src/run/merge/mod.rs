//! Merging reports by second. Pure: the time is passed in, nothing is waited for.
//!
//! A second is closed when every process known to be alive has reported it, or when the straggler
//! window is over. It is complete only if everything in it is exactly that second's: a missing
//! report, one that carries what an earlier, lost report should have carried, and one that came
//! after its own second was closed, each make it incomplete. Nothing is ever estimated, and no
//! total is ever lost: the deltas of all closed seconds add up to the last total of every process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hdrhistogram::Histogram;
use hongbao_proto::report_v1::{Report, Source};
use serde::{Deserialize, Serialize};

use crate::limits::{
    AHEAD_SECONDS_MAX, CATCH_UP_SECONDS_MAX, HISTOGRAMS_PER_REPORT_MAX, LOST_SECONDS, MISSING_NAMED_MAX,
    NAME_BYTES_MAX, NAMES_PER_SOURCE_MAX, REPORTS_PER_SOURCE_SECOND_MAX, SOURCES_MAX,
};
use crate::run::books::{Balance, Book, Claims, Sides};
use crate::run::histogram::{self, Quantiles};
use crate::run::rejection::{Rejection, at_most, check_name};
use crate::run::second::{
    ClosedSecond, Figures, GaugeSecond, Headline, MergedSecond, ReportedByRole, Role, RoleSecond,
};
use hongbao_telemetry::report::{Key, names};

/// Totals and gauges above this are refused, so that sums over all sources fit an i64.
const VALUE_MAX: u64 = 1 << 52;

/// What became of reports that were out of the ordinary; totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MergeCounts {
    pub reports: u64,
    /// Came again for a second that the same instance had reported, and were ignored.
    pub duplicate: u64,
    /// Came after their second was closed; their content is in the next one.
    pub late: u64,
    /// Were too far ahead of our clock; their content is in the second in which they came.
    pub ahead: u64,
    /// Found too many others of the same source under one second, and were ignored.
    pub crowded: u64,
    /// Came from a connection whose instance had been replaced, and were ignored.
    pub stale: u64,
    /// Values ignored because their source has too many names.
    pub names_dropped: u64,
    /// Totals that fell within one instance, and were ignored.
    pub totals_fell: u64,
    /// Seconds never closed because our clock was set forward.
    pub seconds_skipped: u64,
}

/// A process known to the merge; an index that stays valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(usize);

/// One instance of one source, as the connection that reports for it names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    pub source: SourceId,
    /// Of the source, as [`SourceStatus::instances`] counted then.
    instance: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Presence {
    Reporting,
    /// Gone after its last report.
    Left,
    /// Gone without one.
    Lost,
}

#[derive(Debug)]
struct SourceState {
    status: SourceStatus,
    label: String,
    /// The first second that the current instance is expected to report itself.
    instance_since: u64,
    /// The seconds that some instance is expected to report.
    since: u64,
    until: Option<u64>,
    final_report: bool,
    /// The latest second under which something is filed, and that which ended instances have left:
    /// a new instance is never merged before its predecessor, whatever its clock says.
    last_filed: u64,
    filed_by_ended: u64,
    /// Instance and second.
    applied: Option<(u32, u64)>,
    totals: HashMap<String, Total>,
}

impl SourceState {
    fn expected(&self, second: u64) -> bool {
        self.since <= second && self.until.is_none_or(|until| second <= until)
    }
}

/// A counter of one source over its instances.
#[derive(Debug, Clone, Copy)]
struct Total {
    /// What ended instances left.
    ended: u64,
    /// The latest total of the current one.
    current: u64,
    instance: u32,
}

#[derive(Debug)]
struct Filed {
    source: usize,
    instance: u32,
    second: u64,
    report: Decoded,
}

#[derive(Debug)]
struct Decoded {
    counters: Vec<(String, u64)>,
    gauges: Vec<(String, i64)>,
    histograms: Vec<(String, Histogram<u64>)>,
    last: bool,
}

/// One source, as told by the HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub role: Role,
    /// Its name, unique in the role.
    pub name: String,
    pub instance: String,
    /// When that instance says it started, Unix milliseconds.
    pub started_at_ms: u64,
    /// So many so far; the current one is named by it.
    pub instances: u32,
    pub presence: Presence,
    /// The latest second reported.
    pub last_second: Option<u64>,
    /// Reports taken from all its instances.
    pub reports: u64,
    /// Whether it was running before this monitor was, so that its figures begin at its first
    /// report.
    pub older_than_run: bool,
    /// What it last said of itself.
    #[serde(flatten)]
    pub figures: Figures,
}

#[derive(Debug, Default)]
pub struct Merge {
    run_started_ms: u64,
    straggler_ms: u64,
    sources: Vec<SourceState>,
    by_name: HashMap<(Role, String), usize>,
    /// Not closed yet.
    pending: BTreeMap<u64, Vec<Filed>>,
    /// The first second that is not closed; none before the first source.
    next: Option<u64>,
    /// Since the run began.
    totals: BTreeMap<(Role, String), i64>,
    books: Balance,
    counts: MergeCounts,
    /// The run's first second; 0 for the first run.
    began: u64,
    /// The first second of the next run.
    split_at: Option<u64>,
}

impl Merge {
    /// A run that begins at `run_started_ms` (Unix milliseconds) and waits `straggler_ms` after a
    /// second's end for its reports.
    pub fn new(run_started_ms: u64, straggler_ms: u64) -> Self {
        Self { run_started_ms, straggler_ms, ..Self::default() }
    }

    /// With `next`, a second, another run begins, whose totals and books are its own; only what one
    /// book is ahead of the other by then goes over to it, because the other will follow there. If
    /// the last such second has not come, it is now.
    pub fn begin_run(&mut self, next: Option<u64>) {
        if let Some(at) = self.split_at {
            self.split(at);
        }
        self.split_at = next;
    }

    /// As [`begin_run`](Self::begin_run), but in place of the last such second.
    pub fn begin_run_at(&mut self, next: Option<u64>) {
        self.split_at = next;
    }

    fn split(&mut self, at: u64) {
        self.began = at;
        let before = std::mem::take(&mut self.totals);
        for (servers, users) in Book::ALL.map(Book::counters) {
            for (kept, told) in servers.into_iter().zip(users) {
                let [kept, told] = [(Role::Server, kept.name.to_owned()), (Role::Machine, told.name.to_owned())];
                let total = |key| before.get(key).copied().unwrap_or_default();
                let ahead = total(&kept) - total(&told);
                if ahead != 0 {
                    self.totals.insert(if ahead > 0 { kept } else { told }, ahead.abs());
                }
            }
        }
        self.books = Balance::default();
    }

    /// What was out of the ordinary.
    pub fn counts(&self) -> MergeCounts {
        self.counts
    }

    pub fn source(&self, source: SourceId) -> &SourceStatus {
        &self.sources[source.0].status
    }

    /// `role/name`.
    pub fn label(&self, source: SourceId) -> &str {
        &self.sources[source.0].label
    }

    /// Whether some source was already running when the run began: then the books begin at its
    /// first report, and what was in flight at that moment stays in the residual.
    pub fn joined_late(&self) -> bool {
        self.sources.iter().any(|source| source.status.older_than_run)
    }

    /// Every source of the run; those that had gone before it began are not.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let of_the_run = |source: &&SourceState| source.until.is_none_or(|until| until >= self.began);
        self.sources.iter().filter(of_the_run).map(|source| source.status.clone()).collect()
    }

    /// A process introduces itself. A newer instance replaces an older one of the same role and
    /// name, and so does a new connection of the same instance: whoever owns connections ends the
    /// older one.
    pub fn connect(&mut self, now_ms: u64, hello: &Source) -> Result<Joined, Rejection> {
        let role = hello.role.parse().map_err(|_| Rejection::role(&hello.role))?;
        for (what, text) in [("a source's name", &hello.name), ("an instance", &hello.instance)] {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            check_name(what, text, NAME_BYTES_MAX, "A-Z a-z 0-9 . _ -", allowed)?;
        }
        let second = now_ms / 1000;
        let index = match self.by_name.get(&(role, hello.name.clone())) {
            Some(&index) => {
                self.rejoin(index, second, hello)?;
                index
            }
            None => self.join(role, second, hello)?,
        };
        self.next.get_or_insert(second);
        Ok(Joined { source: SourceId(index), instance: self.sources[index].status.instances })
    }

    fn join(&mut self, role: Role, second: u64, hello: &Source) -> Result<usize, Rejection> {
        if self.sources.len() >= SOURCES_MAX {
            return Err(Rejection::Full);
        }
        let status = SourceStatus {
            role,
            name: hello.name.clone(),
            instance: hello.instance.clone(),
            started_at_ms: hello.started_at_ms,
            instances: 1,
            presence: Presence::Reporting,
            last_second: None,
            reports: 0,
            older_than_run: hello.started_at_ms < self.run_started_ms,
            figures: Figures::default(),
        };
        self.sources.push(SourceState {
            status,
            label: format!("{role}/{}", hello.name),
            instance_since: second,
            since: second,
            until: None,
            final_report: false,
            last_filed: 0,
            filed_by_ended: 0,
            applied: None,
            totals: HashMap::new(),
        });
        let index = self.sources.len() - 1;
        self.by_name.insert((role, hello.name.clone()), index);
        Ok(index)
    }

    fn rejoin(&mut self, index: usize, second: u64, hello: &Source) -> Result<(), Rejection> {
        let source = &mut self.sources[index];
        if source.status.instance != hello.instance {
            let newer = (hello.started_at_ms, &hello.instance) > (source.status.started_at_ms, &source.status.instance);
            // An older start does not matter once the newer instance is gone: the host's clock was
            // set back.
            if !newer && source.status.presence == Presence::Reporting {
                return Err(Rejection::Older(source.label.clone()));
            }
            source.status.instance.clone_from(&hello.instance);
            source.status.started_at_ms = hello.started_at_ms;
            source.status.instances += 1;
            source.status.figures = Figures::default();
            source.instance_since = second;
            source.status.last_second = None;
            source.filed_by_ended = source.last_filed;
        }
        if source.until.is_some_and(|until| until + 1 < second) {
            source.since = second;
        }
        source.until = None;
        source.status.presence = Presence::Reporting;
        source.final_report = false;
        Ok(())
    }

    /// The connection of a process has ended.
    pub fn disconnect(&mut self, now_ms: u64, joined: Joined) {
        let source = &mut self.sources[joined.source.0];
        if source.status.instances != joined.instance {
            return;
        }
        if source.final_report {
            source.status.presence = Presence::Left;
            source.until = source.status.last_second;
        } else {
            source.status.presence = Presence::Lost;
            source.until = Some(now_ms / 1000 + LOST_SECONDS);
        }
    }

    /// Takes a report, to be merged when its second is closed.
    pub fn report(&mut self, now_ms: u64, joined: Joined, report: Report) -> Result<(), Rejection> {
        let reported = report.second;
        let decoded = decode(report)?;
        let source = &mut self.sources[joined.source.0];
        if source.status.instances != joined.instance {
            self.counts.stale += 1;
            return Ok(());
        }
        let current = now_ms / 1000;
        let next = *self.next.get_or_insert(current);
        let mut filed_under = reported;
        if reported > current + AHEAD_SECONDS_MAX {
            self.counts.ahead += 1;
            filed_under = current.max(next);
        } else if reported < next {
            self.counts.late += 1;
            filed_under = next;
        }
        filed_under = filed_under.max(source.filed_by_ended);
        let filed = self.pending.entry(filed_under).or_default();
        let same_source = || filed.iter().filter(|filed| filed.source == joined.source.0);
        let again = source.status.last_second == Some(reported)
            || same_source().any(|filed| (filed.instance, filed.second) == (joined.instance, reported));
        if again {
            self.counts.duplicate += 1;
            return Ok(());
        }
        if same_source().count() >= REPORTS_PER_SOURCE_SECOND_MAX {
            self.counts.crowded += 1;
            return Ok(());
        }
        self.counts.reports += 1;
        source.status.reports += 1;
        source.final_report |= decoded.last;
        if source.status.last_second.is_none_or(|last| last <= reported) {
            decoded.gauges.iter().for_each(|(name, value)| source.status.figures.gauge(name, *value));
        }
        source.status.last_second = source.status.last_second.max(Some(reported));
        source.last_filed = source.last_filed.max(filed_under);
        filed.push(Filed { source: joined.source.0, instance: joined.instance, second: reported, report: decoded });
        Ok(())
    }

    /// Closes every second that is due at `now_ms`, in order.
    pub fn advance(&mut self, now_ms: u64) -> Vec<ClosedSecond> {
        let Some(mut second) = self.next else { return Vec::new() };
        let current = now_ms / 1000;
        let mut closed = Vec::new();
        if current.saturating_sub(second) > CATCH_UP_SECONDS_MAX {
            second = self.skip_to(second, current - CATCH_UP_SECONDS_MAX);
        }
        while second < current {
            if now_ms < (second + 1) * 1000 + self.straggler_ms && !self.all_reported(second) {
                break;
            }
            let ends_run = self.split_at.is_some_and(|at| at <= second);
            closed.extend(self.close(second));
            second += 1;
            self.next = Some(second);
            // Whoever asks says first when the run after that begins.
            if ends_run {
                break;
            }
        }
        closed
    }

    /// When [`advance`](Self::advance) may next have something to close without another report:
    /// Unix milliseconds after `now_ms`. None before the first source.
    pub fn due_ms(&self, now_ms: u64) -> Option<u64> {
        let end = (self.next? + 1) * 1000;
        [end, end + self.straggler_ms].into_iter().find(|&due| due > now_ms)
    }

    /// Closes everything that was reported, whether due or not: the run is over.
    pub fn finish(&mut self) -> Vec<ClosedSecond> {
        let (Some(first), Some((&last, _))) = (self.next, self.pending.last_key_value()) else { return Vec::new() };
        self.next = Some(last + 1);
        (first..=last).filter_map(|second| self.close(second)).collect()
    }

    fn skip_to(&mut self, from: u64, to: u64) -> u64 {
        self.counts.seconds_skipped += to - from;
        let kept = self.pending.split_off(&to);
        let skipped = std::mem::replace(&mut self.pending, kept);
        let target = self.pending.entry(to).or_default();
        target.splice(0..0, skipped.into_values().flatten());
        if target.is_empty() {
            self.pending.remove(&to);
        }
        self.next = Some(to);
        to
    }

    fn all_reported(&self, second: u64) -> bool {
        let reported = self.reported(second);
        self.sources.iter().enumerate().all(|(index, source)| !source.expected(second) || reported.contains(&index))
    }

    /// Who has reported `second` itself, rather than something late that is filed under it.
    fn reported(&self, second: u64) -> BTreeSet<usize> {
        let filed = self.pending.get(&second).map_or(&[][..], Vec::as_slice);
        let fresh = |filed: &&Filed| {
            let source = &self.sources[filed.source];
            filed.second == second && (filed.instance == source.status.instances || second < source.instance_since)
        };
        filed.iter().filter(fresh).map(|filed| filed.source).collect()
    }

    fn close(&mut self, second: u64) -> Option<ClosedSecond> {
        if let Some(at) = self.split_at.take_if(|at| *at <= second) {
            self.split(at);
        }
        let reported = self.reported(second);
        let expected: Vec<usize> =
            (0..self.sources.len()).filter(|&index| self.sources[index].expected(second)).collect();
        let mut filed = self.pending.remove(&second).unwrap_or_default();
        if expected.is_empty() && filed.is_empty() {
            return None;
        }
        let missing = || expected.iter().filter(|index| !reported.contains(index));
        let mut complete = missing().next().is_none();
        let missing = missing().take(MISSING_NAMED_MAX).map(|&index| self.sources[index].label.clone()).collect();

        filed.sort_by_key(|filed| (filed.source, filed.instance, filed.second));
        let mut roles: BTreeMap<Role, RoleSecond> = BTreeMap::new();
        let mut values: BTreeMap<(usize, String), i64> = BTreeMap::new();
        let mut gauges = Vec::new();
        let mut histograms: BTreeMap<(Role, String), Histogram<u64>> = BTreeMap::new();
        for Filed { source: index, instance, second: reported, report } in filed {
            let source = &mut self.sources[index];
            complete &= reported == second && follows_on(source, instance, reported);
            let in_order = source.applied.is_none_or(|applied| applied < (instance, reported));
            source.applied = source.applied.max(Some((instance, reported)));
            for (name, total) in report.counters {
                if let Some(delta) = apply(source, &mut self.counts, instance, in_order, &name, total) {
                    *values.entry((index, name)).or_default() += delta;
                }
            }
            if reported == second {
                for (name, value) in report.gauges {
                    gauges.push((index, name, value));
                }
            }
            for (name, histogram) in report.histograms {
                let merged =
                    histograms.entry((source.status.role, name)).or_insert_with(|| resizing(histogram.sigfig()));
                // An auto-resizing histogram takes any value; its precision was bounded when it was
                // decoded.
                if merged.add(&histogram).is_err() {
                    complete = false;
                }
            }
        }

        let mut values_of = ReportedByRole::new();
        for ((index, name), delta) in values {
            let status = &mut self.sources[index].status;
            if name == names::CPU.name {
                status.figures.cpu_us = Some(delta);
            }
            *self.totals.entry((status.role, name.clone())).or_default() += delta;
            roles.entry(status.role).or_default().counters.entry(name.clone()).or_default().delta += delta;
            values_of.entry(status.role.to_string()).or_default().add_counter(&status.name, name, delta);
        }
        for ((role, name), &total) in &self.totals {
            roles.entry(*role).or_default().counters.entry(name.clone()).or_default().total = total;
        }
        for (index, name, value) in gauges {
            let SourceStatus { role, name: source, .. } = &self.sources[index].status;
            let gauges = &mut roles.entry(*role).or_default().gauges;
            let gauge = gauges.entry(name.clone()).or_insert(GaugeSecond { sum: 0, min: value, max: value });
            gauge.sum += value;
            gauge.min = gauge.min.min(value);
            gauge.max = gauge.max.max(value);
            values_of.entry(role.to_string()).or_default().add_gauge(source, name, value);
        }
        for ((role, name), histogram) in &histograms {
            roles.entry(*role).or_default().histograms.insert(name.clone(), Quantiles::of(histogram));
        }
        self.books = self.books.after(second, self.claims());
        let mut merged = MergedSecond {
            second,
            complete,
            sources_expected: expected.len(),
            sources_reported: reported.len(),
            missing,
            roles,
            books: self.books,
            headline: Headline::default(),
        };
        merged.headline = Headline::of(&merged);
        Some(ClosedSecond { reported: values_of, merged: Arc::new(merged), histograms })
    }

    fn claims(&self) -> Claims {
        let total = |role: Role, key: &Key| self.totals.get(&(role, key.name.to_owned())).copied().unwrap_or_default();
        let sides = |book: Book| {
            let (servers, users) = book.counters();
            Sides {
                servers_count: total(Role::Server, &servers[0]),
                servers_fen: total(Role::Server, &servers[1]),
                users_count: total(Role::Machine, &users[0]),
                users_fen: total(Role::Machine, &users[1]),
            }
        };
        Claims {
            issued: total(Role::Server, &names::PRIZES_ISSUED),
            won: total(Role::Server, &names::PRIZES_WON),
            paid_fen: total(Role::Server, &names::PAID_FEN),
            prizes_received: total(Role::Machine, &names::PRIZES_RECEIVED),
            received_fen: total(Role::Machine, &names::RECEIVED_FEN),
            sales: sides(Book::Sales),
            envelopes: sides(Book::Envelopes),
        }
    }
}

/// Whether a report carries its own second and nothing of a lost one before it.
fn follows_on(source: &SourceState, instance: u32, second: u64) -> bool {
    match source.applied {
        Some((applied_instance, applied)) if applied_instance == instance => second == applied + 1,
        // The first of an instance, which counts from the instance's start.
        _ => instance == source.status.instances && source.status.started_at_ms / 1000 >= second,
    }
}

/// Takes over a counter's total, and returns what it adds to the run.
fn apply(
    source: &mut SourceState,
    counts: &mut MergeCounts,
    instance: u32,
    in_order: bool,
    name: &str,
    total: u64,
) -> Option<i64> {
    let of_the_ledger = source.status.role == Role::Server && names::OF_THE_LEDGER.contains(&name);
    let Some(known) = source.totals.get_mut(name) else {
        if source.totals.len() >= NAMES_PER_SOURCE_MAX {
            counts.names_dropped += 1;
            return None;
        }
        // A ledger's life began before the run, and so did that of a process older than it: both
        // begin here.
        let before_the_run = of_the_ledger || (source.status.older_than_run && source.status.instances == 1);
        source.totals.insert(name.to_owned(), Total { ended: 0, current: total, instance });
        return Some(if before_the_run { 0 } else { signed(total) });
    };
    if instance < known.instance {
        counts.stale += 1;
        return None;
    }
    let before = known.ended + known.current;
    if instance > known.instance && !of_the_ledger {
        known.ended = before;
        known.current = 0;
    }
    if instance == known.instance && total < known.current {
        // Of a report that came after a later one it says nothing new.
        counts.totals_fell += u64::from(in_order);
        return Some(0);
    }
    known.instance = instance;
    known.current = total;
    Some(signed(known.ended + known.current) - signed(before))
}

fn signed(value: u64) -> i64 {
    // Totals are bounded by VALUE_MAX, and their sums over restarts grow by at most that each.
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn resizing(digits: u8) -> Histogram<u64> {
    let mut histogram =
        Histogram::new(digits).unwrap_or_else(|_| unreachable!("{digits} digits come from a histogram"));
    histogram.auto(true);
    histogram
}

fn decode(report: Report) -> Result<Decoded, Rejection> {
    at_most("report", report.counters.len(), "counters", NAMES_PER_SOURCE_MAX)?;
    at_most("report", report.gauges.len(), "gauges", NAMES_PER_SOURCE_MAX)?;
    at_most("report", report.histograms.len(), "histograms", HISTOGRAMS_PER_REPORT_MAX)?;
    let named = |name: String| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        check_name("a metric's name", &name, NAME_BYTES_MAX, "a-z 0-9 _", allowed).map(|()| name)
    };
    let in_range = |name: &str, value: u64| match value <= VALUE_MAX {
        true => Ok(()),
        false => Err(Rejection::Range(format!("total of {name}"))),
    };
    let mut decoded = Decoded { counters: Vec::new(), gauges: Vec::new(), histograms: Vec::new(), last: false };
    for counter in report.counters {
        let name = named(counter.name)?;
        in_range(&name, counter.total)?;
        decoded.counters.push((name, counter.total));
    }
    for gauge in report.gauges {
        let name = named(gauge.name)?;
        in_range(&name, gauge.value.unsigned_abs())?;
        if name == names::FINAL_REPORT.name {
            decoded.last = gauge.value != 0;
        } else {
            decoded.gauges.push((name, gauge.value));
        }
    }
    for histogram in report.histograms {
        let name = named(histogram.name)?;
        match histogram::decode(&histogram.v2_deflate) {
            Ok(histogram) => decoded.histograms.push((name, histogram)),
            Err(problem) => return Err(Rejection::Histogram { name, problem }),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
