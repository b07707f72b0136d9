use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use hongbao_proto::report_v1::{Counter, Gauge};
use proptest::prelude::*;

use super::*;

const START: u64 = 1_000;
const STRAGGLER_MS: u64 = 2_000;

fn merge() -> Merge {
    Merge::new(START * 1000, STRAGGLER_MS)
}

fn source(role: &str, name: &str, instance: &str, started: u64) -> Source {
    Source {
        role: role.into(),
        name: name.into(),
        instance: instance.into(),
        started_at_ms: started * 1000,
        ..Source::default()
    }
}

fn report(second: u64, counters: &[(&str, u64)]) -> Report {
    let counter = |&(name, total): &(&str, u64)| Counter { name: name.into(), total };
    Report { second, counters: counters.iter().map(counter).collect(), ..Report::default() }
}

fn last(mut report: Report) -> Report {
    report.gauges.push(Gauge { name: names::FINAL_REPORT.name.into(), value: 1 });
    report
}

fn delta(closed: &ClosedSecond, role: Role, name: &str) -> i64 {
    closed.merged.roles[&role].counters[name].delta
}

/// Just after the end of `second`.
fn after(second: u64) -> u64 {
    (second + 1) * 1000 + 5
}

#[test]
fn a_second_closes_complete_as_soon_as_all_have_reported_it() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    let two = merge.connect(START * 1000, &source("machine", "m2", "b", START)).unwrap();
    merge.report(after(START), one, report(START, &[("grabs_sent", 5)])).unwrap();
    assert!(merge.advance(after(START)).is_empty());
    merge.report(after(START), two, report(START, &[("grabs_sent", 7)])).unwrap();
    let closed = merge.advance(after(START));
    assert_eq!(closed.len(), 1);
    assert!(closed[0].merged.complete);
    assert_eq!(delta(&closed[0], Role::Machine, "grabs_sent"), 12);
    assert_eq!(closed[0].merged.headline.sent, 12);
}

#[test]
fn requests_of_every_kind_are_planned_and_sent() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    let grabs = [("grabs_planned", 240), ("grabs_sent", 240), ("grabs_answered", 239)];
    let all = [("scheduled_due", 300), ("scheduled_sent", 300), ("scheduled_answered", 298)];
    merge.report(after(START), one, report(START, &[grabs, all].concat())).unwrap();
    let headline = merge.advance(after(START))[0].merged.headline;
    assert_eq!((headline.planned, headline.sent, headline.answered), (300, 300, 298));
}

#[test]
fn a_straggler_makes_its_second_incomplete_and_counts_next() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    let two = merge.connect(START * 1000, &source("machine", "m2", "b", START)).unwrap();
    merge.report(after(START), one, report(START, &[("grabs_sent", 5)])).unwrap();
    assert!(merge.advance((START + 1) * 1000 + STRAGGLER_MS - 1).is_empty());
    let closed = merge.advance((START + 1) * 1000 + STRAGGLER_MS);
    assert_eq!(closed.len(), 1);
    assert!(!closed[0].merged.complete);
    assert_eq!(closed[0].merged.missing, ["machine/m2"]);

    merge.report(after(START + 2), two, report(START, &[("grabs_sent", 7)])).unwrap();
    for (joined, total) in [(one, 9), (two, 8)] {
        merge.report(after(START + 2), joined, report(START + 1, &[("grabs_sent", total)])).unwrap();
    }
    let closed = merge.advance(after(START + 2));
    assert!(!closed[0].merged.complete, "it holds what belongs to the second before");
    assert_eq!(delta(&closed[0], Role::Machine, "grabs_sent"), 12);
    assert_eq!(merge.counts().late, 1);
}

#[test]
fn a_lost_report_makes_two_seconds_incomplete_and_no_loss() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    let mut closed = Vec::new();
    for (second, total) in [(START, 10), (START + 2, 30), (START + 3, 40)] {
        merge.report(after(second), one, report(second, &[("grabs_sent", total)])).unwrap();
        closed.extend(merge.advance(after(second)));
    }
    closed.extend(merge.advance(after(START + 4)));
    let seen: Vec<_> = closed.iter().map(|closed| (closed.merged.second - START, closed.merged.complete)).collect();
    assert_eq!(seen, [(0, true), (1, false), (2, false), (3, true)]);
    assert_eq!(closed.iter().map(|closed| delta(closed, Role::Machine, "grabs_sent")).sum::<i64>(), 40);
}

#[test]
fn duplicates_are_ignored_and_seconds_may_come_out_of_order() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    for (second, total) in [(START + 1, 30), (START, 10), (START + 1, 30), (START, 10)] {
        merge.report(after(START + 1), one, report(second, &[("grabs_sent", total)])).unwrap();
    }
    let closed = merge.advance(after(START + 1));
    assert_eq!(closed.iter().map(|closed| delta(closed, Role::Machine, "grabs_sent")).collect::<Vec<_>>(), [10, 20]);
    assert!(closed.iter().all(|closed| closed.merged.complete));
    assert_eq!(merge.counts().duplicate, 2);
}

#[test]
fn a_restarted_process_adds_to_its_sum_but_a_ledger_continues() {
    let mut merge = merge();
    let totals = |won, issued| [("prizes_won", won), ("paid_fen", won * 100), ("prizes_issued", issued)];
    let old = merge.connect(START * 1000, &source("server", "s1", "a", START)).unwrap();
    merge.report(after(START), old, report(START, &totals(1_000_000, 0))).unwrap();
    merge.report(after(START + 1), old, report(START + 1, &totals(1_000_050, 60))).unwrap();
    merge.disconnect(after(START + 1), old);
    let new = merge.connect(after(START + 2), &source("server", "s1", "b", START + 3)).unwrap();
    // Won by the old instance after its last report, and durable: 5.
    merge.report(after(START + 3), new, report(START + 3, &totals(1_000_055, 8))).unwrap();
    merge.advance(after(START + 5));
    let books = merge.books;
    assert_eq!((books.claims.won, books.claims.paid_fen, books.claims.issued), (55, 5_500, 68));
    assert_eq!(merge.sources()[0].instances, 2);
}

#[test]
fn a_ledger_replaced_by_an_empty_one_shows_in_the_residual() {
    let mut merge = merge();
    let old = merge.connect(START * 1000, &source("server", "s1", "a", START)).unwrap();
    merge.report(after(START), old, report(START, &[("prizes_won", 40)])).unwrap();
    let new = merge.connect(after(START), &source("server", "s1", "b", START + 1)).unwrap();
    merge.report(after(START + 1), new, report(START + 1, &[("prizes_won", 0)])).unwrap();
    merge.advance(after(START + 4));
    assert_eq!(merge.books.residual_prizes, -40);
}

#[test]
fn the_next_run_begins_with_what_one_book_is_ahead_by() {
    let mut merge = merge();
    let server = merge.connect(START * 1000, &source("server", "s1", "a", START)).unwrap();
    let machine = merge.connect(START * 1000, &source("machine", "m1", "b", START)).unwrap();
    let gone = merge.connect(START * 1000, &source("machine", "m2", "c", START)).unwrap();
    let mut closed = Vec::new();
    merge.begin_run_at(Some(START + 2));
    for (second, won, told) in [(START, 0, 0), (START + 1, 50, 40), (START + 2, 60, 45), (START + 3, 60, 60)] {
        merge.report(after(second), server, report(second, &[("prizes_won", won), ("paid_fen", won * 10)])).unwrap();
        let told = report(second, &[("prizes_received", told), ("received_fen", told * 10)]);
        merge.report(after(second), machine, told).unwrap();
        if second == START {
            merge.report(after(second), gone, last(report(second, &[]))).unwrap();
            merge.disconnect(after(second), gone);
        }
        closed.extend(merge.advance(after(second)));
        if second == START + 2 {
            merge.begin_run(Some(START + 100));
        }
    }
    let books: Vec<_> = closed.iter().map(|closed| closed.merged.books).collect();
    assert_eq!(books.iter().map(|books| books.residual_prizes).collect::<Vec<_>>(), [0, 10, 15, 0]);
    // Ten were on their way when the run ended, and ten are won in the next.
    assert_eq!((books[1].claims.won, books[2].claims.won, books[3].claims.won), (50, 20, 20));
    assert_eq!((books[3].claims.prizes_received, books[3].residual_fen), (20, 0));
    assert!(books[3].balanced() && books[2].unbalanced_seconds == 1);
    assert_eq!(merge.sources().len(), 2, "who had gone before is not of the run");
}

#[test]
fn a_process_older_than_the_run_counts_from_its_first_report() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START - 500)).unwrap();
    merge.report(after(START), one, report(START, &[("prizes_received", 70)])).unwrap();
    merge.report(after(START + 1), one, report(START + 1, &[("prizes_received", 75)])).unwrap();
    let closed = merge.advance(after(START + 1));
    assert!(!closed[0].merged.complete && closed[1].merged.complete);
    assert_eq!(merge.books.claims.prizes_received, 5);
    assert!(merge.joined_late());
}

#[test]
fn a_process_that_left_is_not_missed_and_one_that_vanished_is() {
    let mut merge = merge();
    let polite = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    let rude = merge.connect(START * 1000, &source("machine", "m2", "b", START)).unwrap();
    merge.report(START * 1000 + 500, polite, last(report(START, &[("grabs_sent", 1)]))).unwrap();
    merge.disconnect(START * 1000 + 501, polite);
    merge.report(after(START), rude, report(START, &[("grabs_sent", 1)])).unwrap();
    let closed = merge.advance(after(START));
    assert!(closed[0].merged.complete);
    merge.disconnect(after(START), rude);
    let closed = merge.advance(after(START + 60));
    assert_eq!(closed.len() as u64, LOST_SECONDS + 1);
    assert!(closed.iter().all(|closed| closed.merged.missing == ["machine/m2"]));
    let presences: Vec<_> = merge.sources().iter().map(|source| source.presence).collect();
    assert_eq!(presences, [Presence::Left, Presence::Lost]);
}

#[test]
fn an_older_instance_is_refused_while_a_newer_one_is_connected() {
    let mut merge = merge();
    merge.connect(START * 1000, &source("server", "s1", "b", START + 5)).unwrap();
    let older = source("server", "s1", "a", START + 4);
    assert_eq!(merge.connect(START * 1000, &older), Err(Rejection::Older("server/s1".into())));
    merge.connect(START * 1000, &source("server", "s1", "c", START + 6)).unwrap();
    assert_eq!(merge.sources().len(), 1);
}

#[test]
fn reports_of_a_replaced_instance_are_ignored() {
    let mut merge = merge();
    let old = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    merge.connect(START * 1000, &source("machine", "m1", "b", START + 1)).unwrap();
    merge.report(after(START), old, report(START, &[("grabs_sent", 5)])).unwrap();
    assert_eq!((merge.counts().stale, merge.counts().reports), (1, 0));
}

#[test]
fn bad_introductions_and_reports_are_refused_with_their_reason() {
    let mut merge = merge();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert!(matches!(merge.connect(0, &source("oracle", "s", "a", 1)), Err(Rejection::Role(_))));
    for name in ["", "a b", "../etc", long.as_str()] {
        assert!(matches!(merge.connect(0, &source("server", name, "a", 1)), Err(Rejection::Name { .. })), "{name}");
        assert!(matches!(merge.connect(0, &source("server", "s", name, 1)), Err(Rejection::Name { .. })), "{name}");
    }
    let one = merge.connect(START * 1000, &source("machine", "m1", "a", START)).unwrap();
    let mut refused = |report| merge.report(after(START), one, report).unwrap_err();
    let name = "a metric's name must be 1 to 64 of a-z 0-9 _";
    assert_eq!(refused(report(START, &[("Grabs", 1)])).to_string(), name);
    assert_eq!(refused(report(START, &[(&long, 1)])).to_string(), name);
    assert_eq!(refused(report(START, &[("grabs", u64::MAX)])), Rejection::Range("total of grabs".into()));
    let many: Vec<_> = (0..=NAMES_PER_SOURCE_MAX).map(|_| ("grabs", 1)).collect();
    assert!(matches!(refused(report(START, &many)), Rejection::TooMany { .. }));
    let mut odd = report(START, &[]);
    odd.histograms =
        vec![hongbao_proto::report_v1::Histogram { name: "latency_us".into(), v2_deflate: vec![1, 2].into() }];
    assert!(matches!(refused(odd), Rejection::Histogram { .. }));
}

#[test]
fn roles_and_books_have_the_names_that_the_wire_and_json_know() {
    use hongbao_telemetry::report::names::role;
    for (role, name) in [(Role::Server, role::SERVER), (Role::Machine, role::MACHINE)] {
        assert_eq!((role.as_ref(), role.to_string(), name.parse()), (name, name.to_owned(), Ok(role)));
        assert_eq!(serde_json::to_value(role).unwrap(), name);
    }
    assert_eq!(Book::ALL.map(Book::name), ["rain", "sales", "envelopes"]);
}

#[test]
fn no_source_and_no_name_beyond_the_bounds_is_kept() {
    let mut merge = merge();
    for index in 0..SOURCES_MAX {
        merge.connect(START * 1000, &source("machine", &format!("m{index}"), "a", START)).unwrap();
    }
    assert_eq!(merge.connect(START * 1000, &source("server", "s", "a", START)), Err(Rejection::Full));

    let mut merge = self::merge();
    let one = merge.connect(START * 1000, &source("machine", "m", "a", START)).unwrap();
    for (second, round) in (START..).zip(0..3) {
        let names: Vec<String> = (0..NAMES_PER_SOURCE_MAX).map(|index| format!("name_{round}_{index}")).collect();
        let counters: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        merge.report(after(second), one, report(second, &counters)).unwrap();
        merge.advance(after(second));
    }
    assert_eq!(merge.counts().names_dropped, 2 * NAMES_PER_SOURCE_MAX as u64);
}

#[test]
fn a_source_that_reports_closed_seconds_late_fills_nothing() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m", "a", START)).unwrap();
    merge.advance(after(START + 50));
    for second in 0..40 {
        merge.report(after(START + 50), one, report(START + second, &[("grabs_sent", second)])).unwrap();
    }
    assert_eq!(merge.counts().crowded, 40 - REPORTS_PER_SOURCE_SECOND_MAX as u64);
}

#[test]
fn a_report_from_far_ahead_counts_now_and_a_leap_skips_seconds() {
    let mut merge = merge();
    let one = merge.connect(START * 1000, &source("machine", "m", "a", START)).unwrap();
    merge.report(START * 1000 + 500, one, report(START + 3_600, &[("grabs_sent", 3)])).unwrap();
    assert_eq!(merge.counts().ahead, 1);
    let closed = merge.advance((START + 86_400) * 1000);
    assert!(closed.len() as u64 <= CATCH_UP_SECONDS_MAX);
    assert_eq!(merge.counts().seconds_skipped, 86_400 - CATCH_UP_SECONDS_MAX);
    assert_eq!(delta(&closed[0], Role::Machine, "grabs_sent"), 3);
}

#[test]
fn histograms_of_a_second_are_merged() {
    let mut merge = merge();
    let mut expected = Histogram::<u64>::new(3).unwrap();
    for (name, values) in [("m1", [100, 200]), ("m2", [300, 90_000])] {
        let joined = merge.connect(START * 1000, &source("machine", name, "a", START)).unwrap();
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        for value in values {
            histogram.record(value).unwrap();
            expected.record(value).unwrap();
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
        let mut report = report(START, &[]);
        let name = names::LATENCY.name.to_owned();
        report.histograms = vec![hongbao_proto::report_v1::Histogram { name, v2_deflate: bytes.into() }];
        merge.report(after(START), joined, report).unwrap();
    }
    let closed = merge.advance(after(START));
    let headline = closed[0].merged.headline;
    let quantiles = Quantiles::of(&expected);
    assert_eq!((headline.latency_p50_us, headline.latency_max_us), (quantiles.p50, quantiles.max));
    assert_eq!(closed[0].histograms[&(Role::Machine, names::LATENCY.name.to_owned())].len(), 4);
}

proptest! {
    /// Whatever is lost, late, repeated, reordered or restarted: the deltas of the closed seconds
    /// add up to what the processes last reported, each second closes at most once, and in order.
    #[test]
    fn totals_survive_any_delivery(
        steps in prop::collection::vec((0usize..3, 0u64..6, 0u64..50, prop::bool::weighted(0.1), 0u64..1500), 1..120),
    ) {
        let mut merge = merge();
        let mut now = START * 1000;
        let mut closed = Vec::new();
        // Per source: instance number, the connection, totals of ended instances, total of this
        // one.
        let mut state: Vec<(u64, Joined, u64, u64)> = Vec::new();
        for index in 0..3u64 {
            let joined = merge.connect(now, &source("machine", &format!("m{index}"), "i0", START)).unwrap();
            state.push((0, joined, 0, 0));
        }
        // Reports of one instance are only ever delayed, not overtaken by an older total: TCP keeps
        // their order.
        for (index, back, added, restart, pause) in steps {
            now += pause;
            let (number, joined, ended, total) = &mut state[index];
            if restart {
                merge.disconnect(now, *joined);
                *number += 1;
                *ended += std::mem::take(total);
                let started = now / 1000 + *number;
                *joined = merge.connect(now, &source("machine", &format!("m{index}"), &format!("i{number}"), started)).unwrap();
            }
            let second = (now / 1000).saturating_sub(back);
            let taken = merge.counts().reports;
            merge.report(now, *joined, report(second, &[("prizes_received", *total + added)])).unwrap();
            if merge.counts().reports > taken {
                // A report for an earlier second than one already taken may be ignored in part: it
                // says nothing newer.
                *total += added;
            }
            closed.extend(merge.advance(now));
        }
        closed.extend(merge.finish());
        let seconds: Vec<u64> = closed.iter().map(|closed| closed.merged.second).collect();
        prop_assert!(seconds.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", seconds);
        let sum: i64 = closed.iter().filter_map(|closed| closed.merged.roles.get(&Role::Machine)?.counters.get("prizes_received"))
            .map(|counter| counter.delta).sum();
        prop_assert_eq!(sum, merge.books.claims.prizes_received);
        let expected: u64 = state.iter().map(|(_, _, ended, total)| ended + total).sum();
        prop_assert_eq!(sum, i64::try_from(expected).unwrap());
    }
}
