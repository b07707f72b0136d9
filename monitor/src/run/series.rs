//! A run second by second, column by column: what charts are drawn from, live and of recorded runs
//! alike.
//!
//! A [`Row`] is one second, or several folded into one; a [`Series`] is many rows turned into
//! columns; a [`History`] is what is kept of the run that goes on: its latest seconds, and further
//! back only tens of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{SERIES_SECONDS_MAX, SERIES_TENS_MAX, push_newest};
use crate::run::column::{Column, Fold};
use crate::run::host::HostSecond;
use crate::run::second::{
    ANSWERS_PREFIX, ClosedSecond, ENDED_PREFIX, ERRORS_PREFIX, Headline, MergedSecond, Role, VIOLATIONS_PREFIX,
};
use hongbao_telemetry::report::names;

/// Upper bounds of the heat map's rows, microseconds: four a decade from 100 µs to 10 s. One more
/// row is for what is above.
pub const HEAT_BOUNDS_US: [u64; 21] = [
    100, 178, 316, 562, 1_000, 1_780, 3_160, 5_620, 10_000, 17_800, 31_600, 56_200, 100_000, 178_000, 316_000, 562_000,
    1_000_000, 1_780_000, 3_160_000, 5_620_000, 10_000_000,
];

/// Seconds that one row of the older part of a [`History`] stands for.
pub const OLDER_EVERY: u64 = 10;

/// How often what lies in each row of the heat map: `counts[i]` for values of at most
/// `HEAT_BOUNDS_US[i]`, the last for those above.
pub type HeatCounts = [u64; HEAT_BOUNDS_US.len() + 1];

/// Columns of a row, in order: those of `seconds`, then those of `hosts` with their prefix.
pub fn columns() -> impl Iterator<Item = Column> {
    // A row has one second; the host's is the same.
    Headline::COLUMNS.iter().chain(&HostSecond::COLUMNS[1..]).copied()
}

/// Counts a histogram's values by row of the heat map.
pub fn heat_of(histogram: &Histogram<u64>) -> HeatCounts {
    let mut counts = HeatCounts::default();
    for value in histogram.iter_recorded() {
        let us = histogram.lowest_equivalent(value.value_iterated_to());
        counts[HEAT_BOUNDS_US.partition_point(|&bound| bound < us)] += value.count_at_value();
    }
    counts
}

/// Counts by kind, per second; a kind that did not occur is absent.
pub type Kinds = BTreeMap<String, f64>;

/// What ended, was answered, refused and violated, by kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reasons {
    /// Connections that ended at the servers, by reason.
    #[serde(serialize_with = "plain_map")]
    pub ended: Kinds,
    #[serde(serialize_with = "plain_map")]
    pub answers: Kinds,
    /// Typed errors of the servers, by code.
    #[serde(serialize_with = "plain_map")]
    pub errors: Kinds,
    /// What machines saw and no server may do, by kind.
    #[serde(serialize_with = "plain_map")]
    pub violations: Kinds,
}

/// Counters that share a prefix with answers, and are none.
pub const NO_ANSWER: &str = "undelivered";

impl Reasons {
    /// Those of a second.
    pub fn of(merged: &MergedSecond) -> Self {
        let kinds = |role, prefix| {
            let family = merged.family(role, prefix).filter(|(kind, delta)| *delta != 0 && *kind != NO_ANSWER);
            family.map(|(kind, delta)| (kind.to_owned(), delta as f64)).collect()
        };
        Self {
            ended: kinds(Role::Server, ENDED_PREFIX),
            answers: kinds(Role::Server, ANSWERS_PREFIX),
            errors: kinds(Role::Server, ERRORS_PREFIX),
            violations: kinds(Role::Machine, VIOLATIONS_PREFIX),
        }
    }

    pub fn families(&self) -> [&Kinds; 4] {
        [&self.ended, &self.answers, &self.errors, &self.violations]
    }

    fn families_mut(&mut self) -> [&mut Kinds; 4] {
        [&mut self.ended, &mut self.answers, &mut self.errors, &mut self.violations]
    }
}

/// None of none.
pub fn heat_sum(counts: impl Iterator<Item = HeatCounts>) -> Option<HeatCounts> {
    counts.reduce(|mut sum, counts| {
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        sum
    })
}

/// The second's rows of the two heat maps; absent where nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heat {
    pub latency: Option<HeatCounts>,
    /// How far sends were behind the plan.
    pub send_lag: Option<HeatCounts>,
}

impl Heat {
    /// Those of a second.
    pub fn of(closed: &ClosedSecond) -> Self {
        let heat = |name: &str| {
            let histogram = closed.histograms.get(&(Role::Machine, name.to_owned()))?;
            (!histogram.is_empty()).then(|| heat_of(histogram))
        };
        Self { latency: heat(names::LATENCY.name), send_lag: heat(names::SEND_LAG.name) }
    }
}

/// One second of a run, or several folded into one. As JSON:
/// `{"columns":{name:value,…},"reasons":{…},"heat":{…}}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Of [`columns`], in order, the second first; NaN where a figure is absent, which takes half of
    /// what an Option would.
    #[serde(rename = "columns", serialize_with = "plain_row", deserialize_with = "row_values")]
    values: Box<[f64]>,
    pub reasons: Reasons,
    heat: Heat,
}

impl Row {
    /// Of a second's figures. Latencies of a second in which nothing was answered are absent, not
    /// 0.
    pub fn new(headline: &Headline, host: Option<&HostSecond>, reasons: Reasons, heat: Heat) -> Self {
        let host = host.copied().unwrap_or_default().figures();
        let figures = headline.figures().into_iter().chain(host.into_iter().skip(1));
        let nothing_answered = headline.latency_max_us == 0;
        let nothing_sent = headline.sent == 0 && headline.send_lag_max_us.is_none();
        let values = columns().zip(figures).map(|(column, figure)| {
            let absent = (nothing_answered && column.name.starts_with("latency_"))
                || (nothing_sent && column.name.starts_with("send_lag_"));
            figure.filter(|_| !absent).unwrap_or(f64::NAN)
        });
        Self { values: values.collect(), reasons, heat }
    }

    /// Of a second that was closed just now.
    pub fn of(closed: &ClosedSecond, host: Option<&HostSecond>) -> Self {
        Self::new(&closed.merged.headline, host, Reasons::of(&closed.merged), Heat::of(closed))
    }

    /// Unix time; of several, the first.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; whole seconds are exact")]
    pub fn second(&self) -> u64 {
        self.values[0] as u64
    }

    /// A column's value; none where it is absent, or where there is no such column.
    pub fn get(&self, name: &str) -> Option<f64> {
        let index = columns().position(|column| column.name == name)?;
        present(self.values[index])
    }

    /// Several rows, in order, as one: none of none. Counts of the heat map add up, those by kind
    /// become a mean.
    pub fn folded(rows: &[&Row]) -> Option<Row> {
        let (first, rest) = rows.split_first()?;
        if rest.is_empty() {
            return Some((*first).clone());
        }
        let values = columns().enumerate().map(|(index, column)| {
            column.fold.of(rows.iter().map(|row| present(row.values[index]))).unwrap_or(f64::NAN)
        });
        let mut reasons = Reasons::default();
        for row in rows {
            for (sum, kinds) in reasons.families_mut().into_iter().zip(row.reasons.families()) {
                for (kind, count) in kinds {
                    *sum.entry(kind.clone()).or_default() += count;
                }
            }
        }
        for kinds in reasons.families_mut() {
            kinds.values_mut().for_each(|sum| *sum /= rows.len() as f64);
        }
        let sum = |of: fn(&Heat) -> Option<HeatCounts>| heat_sum(rows.iter().filter_map(|row| of(&row.heat)));
        let heat = Heat { latency: sum(|heat| heat.latency), send_lag: sum(|heat| heat.send_lag) };
        Some(Row { values: values.collect(), reasons, heat })
    }
}

fn present(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

/// The values of a [`Row`], of which `value` tells each by its column's name.
fn values(value: impl Fn(&str) -> Option<f64>) -> Box<[f64]> {
    columns().map(|column| value(column.name).unwrap_or(f64::NAN)).collect()
}

fn row_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[f64]>, D::Error> {
    let columns = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    let values = values(|name| *columns.get(name)?);
    if values[0].is_nan() { Err(serde::de::Error::missing_field("second")) } else { Ok(values) }
}

fn plain_row<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(columns().zip(values).map(|(column, &value)| (column.name, Plain(present(value)))))
}

/// A number as people write it: whole ones without a fraction.
struct Plain(Option<f64>);

impl Serialize for Plain {
    #[allow(clippy::cast_possible_truncation, reason = "whole, and within what a float holds exactly")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self.0 {
            Some(value) if value.fract() == 0.0 && value.abs() <= EXACT => serializer.serialize_i64(value as i64),
            Some(value) => serializer.serialize_f64(value),
            None => serializer.serialize_none(),
        }
    }
}

fn plain_map<S: Serializer>(kinds: &Kinds, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(kinds.iter().map(|(kind, &value)| (kind, Plain(Some(value)))))
}

/// Values of one column, in the order of the rows; none where the figure is absent.
pub type Values = Vec<Option<f64>>;

fn plain_columns<S: Serializer>(columns: &BTreeMap<String, Values>, serializer: S) -> Result<S::Ok, S::Error> {
    let plain = |values: &Values| values.iter().copied().map(Plain).collect::<Vec<_>>();
    serializer.collect_map(columns.iter().map(|(name, values)| (name, plain(values))))
}

/// By kind, over the rows; 0 where the kind did not occur.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonColumns {
    #[serde(serialize_with = "plain_columns")]
    pub ended: BTreeMap<String, Values>,
    #[serde(serialize_with = "plain_columns")]
    pub answers: BTreeMap<String, Values>,
    #[serde(serialize_with = "plain_columns")]
    pub errors: BTreeMap<String, Values>,
    #[serde(serialize_with = "plain_columns")]
    pub violations: BTreeMap<String, Values>,
}

/// The heat maps over the rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeatColumns {
    pub bounds_us: Vec<u64>,
    pub latency: Vec<Option<HeatCounts>>,
    pub send_lag: Vec<Option<HeatCounts>>,
}

/// A run, or a stretch of it, column by column; all columns are equally long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub run: String,
    /// Seconds that one value stands for at least.
    pub every: u64,
    /// How several values of a column become one, for whoever folds further.
    #[serde(skip_deserializing)]
    pub fold: BTreeMap<&'static str, Fold>,
    #[serde(serialize_with = "plain_columns")]
    pub columns: BTreeMap<String, Values>,
    pub reasons: ReasonColumns,
    #[serde(skip_deserializing)]
    pub heat: HeatColumns,
}

impl Series {
    /// Folds `rows`, which are in order, so that those of the same `every` seconds (counted from
    /// the epoch) become one: flows their mean per second, gauges the last, latencies the greatest.
    /// `every` of 0 is 1.
    pub fn of<'a>(run: &str, every: u64, rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let every = every.max(1);
        let mut columns: Vec<Values> = columns().map(|_| Values::new()).collect();
        let mut reasons = ReasonColumns::default();
        let mut heat = HeatColumns { bounds_us: HEAT_BOUNDS_US.to_vec(), ..HeatColumns::default() };
        let mut count = 0;
        let mut take = |row: &Row| {
            for (values, &value) in columns.iter_mut().zip(&row.values) {
                values.push(present(value));
            }
            let of = [&mut reasons.ended, &mut reasons.answers, &mut reasons.errors, &mut reasons.violations];
            for (columns, kinds) in of.into_iter().zip(row.reasons.families()) {
                for (kind, &value) in kinds {
                    let values = columns.entry(kind.clone()).or_default();
                    values.resize(count, Some(0.0));
                    values.push(Some(value));
                }
            }
            heat.latency.push(row.heat.latency);
            heat.send_lag.push(row.heat.send_lag);
            count += 1;
        };
        let mut group: Vec<&Row> = Vec::new();
        for row in rows {
            if group.first().is_some_and(|first| first.second() / every != row.second() / every) {
                Row::folded(&group).iter().for_each(&mut take);
                group.clear();
            }
            group.push(row);
        }
        Row::folded(&group).iter().for_each(&mut take);
        let families = [&mut reasons.ended, &mut reasons.answers, &mut reasons.errors, &mut reasons.violations];
        families.into_iter().flat_map(BTreeMap::values_mut).for_each(|values| values.resize(count, Some(0.0)));
        let columns = self::columns().map(|column| column.name.to_owned()).zip(columns).collect();
        let fold = self::columns().map(|column| (column.name, column.fold)).collect();
        Self { run: run.to_owned(), every, fold, columns, reasons, heat }
    }

    /// The rows again, without the heat maps.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let seconds = self.columns.get("second").map_or(0, Vec::len);
        (0..seconds).map(|index| {
            let at = |values: &Values| *values.get(index)?;
            let kinds = |columns: &BTreeMap<String, Values>| {
                let counted = columns.iter().filter_map(|(kind, values)| Some((kind.clone(), at(values)?)));
                counted.filter(|&(_, count)| count > 0.0).collect()
            };
            let ReasonColumns { ended, answers, errors, violations } = &self.reasons;
            let [ended, answers, errors, violations] = [ended, answers, errors, violations].map(kinds);
            Row {
                values: values(|name| at(self.columns.get(name)?)),
                reasons: Reasons { ended, answers, errors, violations },
                heat: Heat::default(),
            }
        })
    }
}

/// The run so far: its latest seconds, and what is older by tens. What is older still is on disk.
#[derive(Debug, Default)]
pub struct History {
    seconds: VecDeque<Arc<Row>>,
    /// Left `seconds`, and not a whole ten yet.
    leaving: Vec<Arc<Row>>,
    tens: VecDeque<Arc<Row>>,
}

impl History {
    /// The next second.
    pub fn push(&mut self, row: Arc<Row>) {
        self.seconds.push_back(row);
        if self.seconds.len() <= SERIES_SECONDS_MAX {
            return;
        }
        let Some(oldest) = self.seconds.pop_front() else { return };
        if self.leaving.first().is_some_and(|first| first.second() / OLDER_EVERY != oldest.second() / OLDER_EVERY) {
            let leaving: Vec<&Row> = self.leaving.iter().map(|row| &**row).collect();
            if let Some(ten) = Row::folded(&leaving) {
                push_newest(&mut self.tens, Arc::new(ten), SERIES_TENS_MAX);
            }
            self.leaving.clear();
        }
        self.leaving.push(oldest);
    }

    /// Rows of the seconds `from..=until`, in order, and how many seconds each stands for at most:
    /// [`OLDER_EVERY`] where the range begins before what is kept by the second.
    pub fn range(&self, from: u64, until: u64) -> (Vec<Arc<Row>>, u64) {
        let inside = |row: &&Arc<Row>| (from..=until).contains(&row.second());
        let older: Vec<Arc<Row>> = self.tens.iter().filter(inside).cloned().collect();
        let finest = if older.is_empty() { 1 } else { OLDER_EVERY };
        let newer = self.leaving.iter().chain(&self.seconds).filter(inside).cloned();
        (older.into_iter().chain(newer).collect(), finest)
    }

    /// Rows by the second after `second`, as far back as they are kept.
    pub fn after(&self, second: u64) -> Vec<Arc<Row>> {
        let first = self.seconds.partition_point(|row| row.second() <= second);
        self.seconds.range(first..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn row(second: u64, sent: i64, online: i64, p99: u64) -> Row {
        let headline = Headline {
            second,
            sent,
            users_online: online,
            complete: true,
            latency_p99_us: p99,
            latency_max_us: p99,
            overloaded: (sent > 0).then_some(sent / 2),
            ..Headline::default()
        };
        let answers = (sent != 0).then(|| ("overloaded".to_owned(), sent as f64));
        let reasons = Reasons { answers: answers.into_iter().collect(), ..Reasons::default() };
        let mut counts = HeatCounts::default();
        counts[2] = sent.unsigned_abs();
        Row::new(&headline, None, reasons, Heat { latency: Some(counts), send_lag: None })
    }

    #[test]
    fn flows_fold_into_means_gauges_into_lasts_latency_into_maxima() {
        let rows = [row(100, 10, 5, 7), row(101, 20, 6, 90), row(102, 30, 4, 8), row(105, 40, 9, 1)];
        let series = Series::of("r", 5, &rows);
        assert_eq!(series.columns["second"], [Some(100.0), Some(105.0)]);
        assert_eq!(series.columns["sent"], [Some(20.0), Some(40.0)]);
        assert_eq!(series.columns["users_online"], [Some(4.0), Some(9.0)]);
        assert_eq!(series.columns["latency_p99_us"], [Some(90.0), Some(1.0)]);
        assert_eq!(series.reasons.answers["overloaded"], [Some(20.0), Some(40.0)]);
        assert_eq!(series.heat.latency[0].unwrap()[2], 60);
        assert_eq!(series.heat.send_lag, [None, None]);
        assert!(series.columns.values().all(|values| values.len() == 2));
    }

    #[test]
    fn what_is_absent_is_null_and_whole_numbers_have_no_fraction() {
        let rows = [row(1, 0, 3, 0), row(2, 3, 3, 10)];
        let json = json!(Series::of("r", 1, &rows));
        assert_eq!(json["columns"]["latency_p99_us"], json!([null, 10]));
        assert_eq!(json["columns"]["host_memory_available_bytes"], json!([null, null]));
        assert_eq!(json["columns"]["overloaded"], json!([null, 1]));
        assert_eq!(json["reasons"]["answers"]["overloaded"], json!([0, 3]));
        let json = json!(rows[1]);
        assert_eq!((&json["columns"]["second"], &json["columns"]["complete"]), (&json!(2), &json!(1)));
        assert_eq!(json["reasons"]["answers"], json!({ "overloaded": 3 }));
        assert_eq!((&json["heat"]["latency"][2], &json["heat"]["send_lag"]), (&json!(3), &json!(null)));
    }

    /// Rows and what they come to, for `page/tests/store.test.js`: the page folds as we do.
    #[test]
    fn the_page_is_tested_by_what_every_column_comes_to() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/page/tests/folded.json");
        let seconds =
            [(1_000, [9.0, 2.0, 6.0]), (1_001, [4.0, 8.0, 1.0]), (1_002, [5.0, 5.0, 7.0]), (1_003, [6.0, 1.0, 2.0])];
        let rows: Vec<Row> = seconds
            .into_iter()
            .map(|(second, figures)| {
                let mut row = row(second, i64::try_from(second % 4).unwrap() * 10, 1, 5);
                for (index, (value, column)) in row.values.iter_mut().zip(columns()).enumerate() {
                    let absent = (index as u64 + second).is_multiple_of(5);
                    *value = match column.fold {
                        Fold::First => second as f64,
                        _ if absent => f64::NAN,
                        _ => figures[index % figures.len()] + index as f64,
                    };
                }
                row
            })
            .collect();
        let told = json!({ "series": Series::of("r", 1, &rows), "seconds": rows, "folded": Series::of("r", 2, &rows) });
        let told = serde_json::to_string(&told).unwrap() + "\n";
        if std::env::var_os("UPDATE_FOLDED").is_some() {
            std::fs::write(path, &told).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), told, "run this test with UPDATE_FOLDED=1");
    }

    #[test]
    fn heat_map_bounds_are_four_a_decade_and_hold_their_values() {
        for (index, bound) in HEAT_BOUNDS_US.iter().enumerate() {
            let exact = 100.0 * 10f64.powf(index as f64 / 4.0);
            assert!((*bound as f64 / exact - 1.0).abs() < 0.002, "{bound} is not {exact}");
        }
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for us in [0, 100, 101, 10_000_000, 60_000_000] {
            histogram.record(us).unwrap();
        }
        let counts = heat_of(&histogram);
        assert_eq!((counts[0], counts[1], counts[20], counts[21]), (2, 1, 1, 1));
    }

    #[test]
    fn columns_have_different_names() {
        let names: Vec<&str> = columns().map(|column| column.name).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.contains(&"residual_share_fen") && names.contains(&"host_cpu_user_seconds"));
        assert!(!names.contains(&"host_second"));
        assert_eq!(columns().filter(|column| column.fold == Fold::First).count(), 1);
    }

    #[test]
    fn seconds_beyond_the_bound_are_kept_by_tens_then_on_disk_only() {
        let mut history = History::default();
        let total = (SERIES_SECONDS_MAX + 10 * SERIES_TENS_MAX) as u64 + 45;
        for second in 0..total {
            history.push(Arc::new(row(second, 1, 1, 1)));
        }
        assert!(history.seconds.len() == SERIES_SECONDS_MAX && history.tens.len() == SERIES_TENS_MAX);
        assert!(history.leaving.len() <= 10);
        let (rows, finest) = history.range(0, u64::MAX);
        let last = rows.last().unwrap().second();
        assert_eq!((last, finest), (total - 1, 10));
        assert!(rows.windows(2).all(|pair| pair[0].second() < pair[1].second()));
        let (rows, finest) = history.range(last - 9, last);
        assert_eq!((rows.len(), finest), (10, 1));
        assert_eq!(history.after(last - 3).len(), 3);
        assert_eq!(history.after(0).len(), SERIES_SECONDS_MAX);
    }

    proptest! {
        #[test]
        fn folding_keeps_what_flowed_and_every_extreme(
            seconds in prop::collection::btree_map(0u64..500, (0i64..1_000, 1u64..1_000_000), 1..200),
            every in 1u64..70,
        ) {
            let rows: Vec<Row> = seconds.iter().map(|(&at, &(sent, p99))| row(at, sent, sent, p99)).collect();
            let series = Series::of("r", every, &rows);
            let length = series.columns["second"].len();
            prop_assert!(series.columns.values().all(|values| values.len() == length));
            prop_assert!(series.reasons.answers.values().all(|values| values.len() == length));
            prop_assert!(series.heat.latency.len() == length);
            let most = seconds.values().map(|(_, p99)| *p99).max().unwrap();
            let told = series.columns["latency_p99_us"].iter().flatten().copied().fold(0.0, f64::max);
            prop_assert!((told - most as f64).abs() < 1e-9);
            let mut groups: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
            for (at, (sent, _)) in &seconds {
                groups.entry(at / every).or_default().push(*sent);
            }
            for (told, group) in series.columns["sent"].iter().zip(groups.values()) {
                let mean = group.iter().sum::<i64>() as f64 / group.len() as f64;
                prop_assert!((told.unwrap() - mean).abs() < 1e-9);
            }
            for (told, group) in series.columns["users_online"].iter().zip(groups.values()) {
                prop_assert!((told.unwrap() - *group.last().unwrap() as f64).abs() < 1e-9);
            }
        }
    }
}
