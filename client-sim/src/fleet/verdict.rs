//! The judgement over a run: a plain function from what machines measured and both sides' books to
//! one summary, with a line for each condition that does not hold.
//!
//! Which seconds are kept is [`Phase::judge`]'s rule. In a phase's first second some answers are
//! still under way (QPS times latency of them), and the last second's come after it; both are small
//! against the tolerance as long as answers take less than that part of a second, and a server that
//! falls behind is seen in the second in which it does. What became of users that a storm has cut
//! is the storm's own judgement.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use hongbao_telemetry::summary::{self, Books, Change, Memory, Phase, Second, Tolerance};
use serde::Serialize;

use crate::fleet::admin::Campaign;
use crate::fleet::announcements::{self, AnnouncementSummary, Posted};
use crate::fleet::changes;
use crate::fleet::journals::{CountAndFen, JournalSums, JournalTotals, sum_up};
use crate::fleet::plan::{self, Plan};
use crate::fleet::purchases::{self, EnvelopeSummary, Run, SaleSummary};
use crate::fleet::storms::{self, StormSummary, Storms};
use crate::histogram::Micros;
use crate::results::{Counts, OperationResult, Results, Totals};
use crate::sum::Sum;

/// Processor time and answers between two moments of a phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Unix nanoseconds.
    pub at: u64,
    /// Server's processor time so far, microseconds, where it is known.
    pub server_cpu_us: Option<u64>,
    /// Machines' processor time so far, microseconds.
    pub fleet_cpu_us: u64,
    pub answered: u64,
}

/// Everything that a judgement needs.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Unix second of the first stretch.
    pub first_second: u64,
    /// Users logged in at the end of connecting.
    pub connected: u64,
    /// How long that took.
    pub connect_seconds: f64,
    /// Bytes per connection, where they are known.
    pub memory: Memory,
    pub results: Vec<Results>,
    /// Readings of processor time, in order.
    pub efforts: Vec<Effort>,
    /// The campaign at its end, where there was one and it could be read.
    pub campaign: Option<Campaign>,
    /// The sale at its end, likewise.
    pub sale: Option<Campaign>,
    /// The envelopes at their end, likewise.
    pub run: Option<Run>,
    pub words: JournalTotals,
    /// Announcements that the server took.
    pub posted: Vec<Posted>,
    /// What else went wrong, a line each.
    pub troubles: Vec<String>,
}

impl Evidence {
    /// Keeps what was read, or a line on why it could not be.
    pub fn note<T>(&mut self, read: Result<T, impl fmt::Display>) -> Option<T> {
        read.map_err(|error| self.troubles.push(error.to_string())).ok()
    }
}

/// Requests of one kind over the whole fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationSummary {
    pub name: String,
    pub planned: u64,
    pub sent: u64,
    pub answered: u64,
    pub outcomes: Counts,
    /// From the planned send time; of what users do of their own accord, from the sending.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// What `--summary` holds.
pub type Summary = summary::Summary<Parts>;

/// What of it only the fleet knows by type.
#[derive(Debug, Serialize)]
pub struct Parts {
    pub storms: Vec<StormSummary>,
    pub announcements: Vec<AnnouncementSummary>,
    pub announcements_received: u64,
    /// Of the schedule; empty: there were only grabs.
    pub operations: Vec<OperationSummary>,
    /// What users did of their own accord.
    pub reactions: Vec<OperationSummary>,
    pub envelopes: Option<EnvelopeSummary>,
    pub sale: Option<SaleSummary>,
    pub totals: Totals,
}

pub fn judge(plan: &Plan, mut evidence: Evidence) -> Summary {
    let mut failures = std::mem::take(&mut evidence.troubles);
    let results = &evidence.results[..];
    let totals: Totals = sum(results, |result| &result.totals);
    let outstanding: u64 = sum(results, |result| &result.outstanding);
    let users = u64::from(plan.users);

    if evidence.connected != users {
        failures.push(format!("{} of {users} users were logged in", evidence.connected));
    }
    let JournalTotals { fleet: journals, guests } = &evidence.words;
    let (mut phases, mut storms, mut announcements) = (Vec::new(), Storms::default(), Vec::new());
    let mut changes = Vec::new();
    if !results.is_empty() {
        let mut from = evidence.first_second;
        storms = storms::judge(plan, from, results, &mut failures);
        announcements = announcements::judge(users, &evidence.posted, results, &mut failures);
        changes = changes::of(plan, from, results);
        for (index, phase) in plan.stretches().enumerate() {
            let judged = plan.warm_up.is_none() || index > 0;
            let tolerance = phase.tolerance.unwrap_or(plan.tolerance);
            let measured = Measured { from, phase, judged, tolerance, storms: &storms, changes: &changes };
            phases.push(summarize(&measured, results, &evidence.efforts, &mut failures));
            from += phase.seconds;
        }
    }
    let unanswered = totals.unanswered + outstanding;
    if unanswered > 0 {
        failures.push(format!("{unanswered} requests were never answered"));
    }
    let unsettled = totals.reactions_unanswered + sum::<u64>(results, |result| &result.reactions_outstanding);
    if unsettled > 0 {
        failures.push(format!("{unsettled} requests outside of the schedule were never answered"));
    }
    let operations = operations(sum(results, |result| &result.operations));
    let reactions = self::operations(sum(results, |result| &result.reactions));
    let envelopes = purchases::judge_envelopes(evidence.run.as_ref(), &totals, journals, &mut failures);
    let sale = purchases::judge_sale(plan.tickets, evidence.sale.as_ref(), results, (journals, guests), &mut failures);
    purchases::judge_chat(plan.common.rooms, &totals, &mut failures);
    for (kind, count) in &totals.violations {
        failures.push(format!("{count} violations of the protocol by the server: {kind}"));
    }
    let books = balance(&evidence, &totals, &mut failures);
    let clocks = results.iter().map(|result| (result.name.clone(), result.clock)).collect();
    Summary {
        passed: Some(failures.is_empty()),
        failures,
        users,
        machines: u64::from(plan.machines),
        connected: evidence.connected,
        connect_seconds: evidence.connect_seconds,
        tolerance: plan.tolerance.to_string(),
        phases,
        changes,
        books,
        memory: evidence.memory,
        outcomes: totals.outcomes.clone(),
        errors: totals.errors.clone(),
        violations: totals.violations.clone(),
        reconnects: totals.reconnects,
        unanswered,
        clocks,
        parts: Parts {
            storms: storms.summaries,
            announcements,
            announcements_received: totals.announcements,
            operations,
            reactions,
            envelopes,
            sale,
            totals,
        },
    }
}

fn sum<T: Sum + Default>(results: &[Results], of: fn(&Results) -> &T) -> T {
    results.iter().fold(T::default(), |mut sum, result| {
        sum.add(of(result));
        sum
    })
}

fn operations(kinds: BTreeMap<String, OperationResult>) -> Vec<OperationSummary> {
    let summary = |(name, OperationResult { planned, sent, answered, outcomes, latency })| OperationSummary {
        name,
        planned,
        sent,
        answered,
        outcomes,
        p50_ms: latency.quantile_ms(0.5),
        p99_ms: latency.quantile_ms(0.99),
        p999_ms: latency.quantile_ms(0.999),
        max_ms: latency.quantile_ms(1.0),
    };
    kinds.into_iter().map(summary).collect()
}

struct Measured<'a> {
    from: u64,
    phase: &'a plan::Phase,
    judged: bool,
    tolerance: Tolerance,
    storms: &'a Storms,
    changes: &'a [Change],
}

fn summarize(measured: &Measured<'_>, results: &[Results], efforts: &[Effort], failures: &mut Vec<String>) -> Phase {
    let Measured { from, phase, judged, tolerance, storms, changes } = *measured;
    let (target, inside) = (u64::from(phase.qps), from..from + phase.seconds);
    let (server_cpu_us_per_request, fleet_cpu_us_per_request) = effort_per_request(&inside, efforts);
    let mut summary = Phase {
        name: phase.name.clone(),
        judged,
        from,
        qps_target: target,
        seconds: phase.seconds,
        server_cpu_us_per_request,
        fleet_cpu_us_per_request,
        per_second: seconds(&inside, results, storms, changes),
        ..Phase::default()
    };
    let (mut latency, mut send_lag) = (Micros::default(), Micros::default());
    for result in results {
        let mut segments = result.segments.iter().filter(|segment| inside.contains(&segment.from)).peekable();
        if segments.peek().is_none_or(|first| first.from != from) {
            failures.push(format!("{}: phase {} is missing from its results", result.name, phase.name));
            continue;
        }
        for segment in segments {
            summary.planned += segment.planned;
            summary.sent += segment.sent;
            summary.answered += segment.answered;
            summary.held_by_storm += segment.held_by_storm;
            // What was measured under somebody else's QPS is no figure of this phase.
            if !changes::cover(changes, segment.from) {
                latency.add(&segment.latency);
                send_lag.add(&segment.send_lag);
            }
        }
    }
    summary.p50_ms = latency.quantile_ms(0.5);
    summary.p99_ms = latency.quantile_ms(0.99);
    summary.p999_ms = latency.quantile_ms(0.999);
    summary.max_ms = latency.quantile_ms(1.0);
    summary.send_lag_p50_ms = send_lag.quantile_ms(0.5);
    summary.send_lag_p99_ms = send_lag.quantile_ms(0.99);
    summary.send_lag_p999_ms = send_lag.quantile_ms(0.999);
    summary.send_lag_max_ms = send_lag.quantile_ms(1.0);
    summary.judge(tolerance);
    if judged {
        let (planned, due) = (summary.planned, target * phase.seconds);
        if planned != due && !summary.per_second.iter().any(|second| second.changed) {
            failures.push(format!("phase {}: {planned} turns of {due} were taken", phase.name));
        }
        let (kept, of) = (summary.seconds_within_tolerance, summary.seconds_judged());
        if let Some(worst) = summary.worst_second.filter(|_| kept < of) {
            failures.push(format!(
                "phase {}: {kept} of {of} seconds within {tolerance} of {target} requests; the worst, second {}, had {} sent and {} answered",
                phase.name, worst.second - from + 1, worst.sent, worst.answered,
            ));
        }
    }
    summary
}

fn seconds(inside: &Range<u64>, results: &[Results], storms: &Storms, changes: &[Change]) -> Vec<Second> {
    let empty = |second| Second {
        second,
        storm: storms.cover(second),
        changed: changes::cover(changes, second),
        ..Second::default()
    };
    let mut seconds: BTreeMap<u64, Second> = inside.clone().map(|second| (second, empty(second))).collect();
    for row in results.iter().flat_map(|result| &result.seconds) {
        if let Some(sum) = seconds.get_mut(&row.second) {
            sum.planned += row.planned;
            sum.sent += row.sent;
            sum.answered += row.answered;
        }
    }
    seconds.into_values().collect()
}

/// Between the first and the last reading inside the phase.
fn effort_per_request(inside: &Range<u64>, efforts: &[Effort]) -> (Option<f64>, Option<f64>) {
    let inside = |effort: &&Effort| inside.contains(&(effort.at / crate::clock::SECOND));
    let (Some(first), Some(last)) = (efforts.iter().find(inside), efforts.iter().rfind(inside)) else {
        return (None, None);
    };
    let answered = last.answered.saturating_sub(first.answered);
    if answered == 0 {
        return (None, None);
    }
    let each = |used: u64| used as f64 / answered as f64;
    // A server that was started anew counts from 0 again.
    let server =
        last.server_cpu_us.zip(first.server_cpu_us).and_then(|(last, first)| last.checked_sub(first)).map(each);
    (server, Some(each(last.fleet_cpu_us.saturating_sub(first.fleet_cpu_us))))
}

fn balance(evidence: &Evidence, totals: &Totals, failures: &mut Vec<String>) -> Books {
    let JournalTotals { fleet, guests } = &evidence.words;
    let journals = fleet.totals();
    if journals != (totals.prizes, totals.fen) {
        failures.push(format!(
            "journals hold {} prizes of {} fen, machines counted {} of {} fen",
            journals.0, journals.1, totals.prizes, totals.fen
        ));
    }
    let contradictions = fleet.contradictions + guests.contradictions;
    if contradictions > 0 {
        failures.push(format!("{contradictions} prizes, shares or units were told to two users, or changed"));
    }
    let campaign = evidence.campaign.as_ref();
    let in_journals = |sums: &JournalSums| match campaign {
        Some(campaign) => sums.campaigns.get(&campaign.id).copied().unwrap_or_default(),
        None => sums.totals(),
    };
    let (journals, guests) = (in_journals(fleet), in_journals(guests));
    let counted: CountAndFen = match campaign {
        Some(campaign) => {
            let all = evidence.results.iter().flat_map(|result| &result.campaigns);
            sum_up(all.filter(|one| one.campaign == campaign.id).map(|one| (one.prizes, one.fen)))
        }
        None => (totals.prizes, totals.fen),
    };
    let (received, received_fen) = (counted.0 + guests.0, counted.1 + guests.1);
    let residual_fen = campaign.map(|campaign| i128::from(campaign.paid_fen) - i128::from(received_fen));
    if let Some(campaign) = campaign.filter(|campaign| residual_fen != Some(0) || campaign.won != received) {
        failures.push(format!(
            "the books differ: the server paid {} prizes of {} fen, users received {received} of {received_fen} fen",
            campaign.won, campaign.paid_fen
        ));
    }
    Books {
        campaign: campaign.map(|campaign| campaign.id),
        issued: campaign.map(|campaign| campaign.issued),
        won: campaign.map(|campaign| campaign.won),
        paid_fen: campaign.map(|campaign| campaign.paid_fen),
        received,
        received_fen,
        journal_prizes: journals.0 + guests.0,
        journal_fen: journals.1 + guests.1,
        guest_prizes: Some(guests.0),
        guest_fen: Some(guests.1),
        residual_fen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{CampaignResult, SecondRow, SegmentResult, StormOrder, StormResult, StormSecond, StormView};

    const FROM: u64 = 1_800_000_000;

    fn plan() -> Plan {
        use clap::Parser;

        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: plan::FleetArgs,
        }
        let line = "fleet --machines 2 --users 10 --server 127.0.0.1:1 --phases 100x2s --answer-timeout 1s";
        Plan {
            args: Cli::parse_from(line.split(' ')).args,
            warm_up: None,
            react: false,
            statements: 0,
            journal_dir: "/nonexistent".into(),
            connect_timeout: std::time::Duration::from_secs(1),
            secret: hongbao_proto::token::Secret::from_text("0123456789abcdef0123456789abcdef").unwrap(),
        }
    }

    /// One of two machines that each had half of everything.
    fn half(name: &str) -> Results {
        let row = |second| SecondRow { second, planned: 50, sent: 50, answered: 50, ..SecondRow::default() };
        Results {
            name: name.to_owned(),
            totals: Totals { planned: 100, sent: 100, answered: 100, prizes: 2, fen: 20, ..Totals::default() },
            segments: vec![SegmentResult {
                from: FROM,
                qps: 100,
                planned: 100,
                sent: 100,
                answered: 100,
                held_by_storm: 0,
                latency: many(2_000, 100),
                send_lag: many(2_000, 100),
            }],
            seconds: vec![row(FROM), row(FROM + 1)],
            campaigns: vec![CampaignResult { campaign: 1, prizes: 2, fen: 20 }],
            ..Results::default()
        }
    }

    fn many(micros: u64, count: usize) -> Micros {
        let mut latency = Micros::empty();
        (0..count).for_each(|_| latency.record(micros));
        latency
    }

    fn judge_with(spoil: impl FnOnce(&mut Vec<Results>, &mut Campaign, &mut JournalSums)) -> Summary {
        judge_plan(&plan(), spoil)
    }

    fn judge_plan(plan: &Plan, spoil: impl FnOnce(&mut Vec<Results>, &mut Campaign, &mut JournalSums)) -> Summary {
        let mut results = vec![half("machine-01"), half("machine-02")];
        let mut campaign = Campaign { id: 1, issued: 9, won: 4, paid_fen: 40, reserved: 0 };
        let mut journals = JournalSums { campaigns: [(1, (4, 40))].into(), ..JournalSums::default() };
        spoil(&mut results, &mut campaign, &mut journals);
        let effort = |second: u64, cpu: u64, answered| Effort {
            at: (FROM + second) * crate::clock::SECOND,
            server_cpu_us: Some(cpu),
            fleet_cpu_us: 2 * cpu,
            answered,
        };
        let evidence = Evidence {
            first_second: FROM,
            connected: 10,
            connect_seconds: 1.0,
            results,
            efforts: vec![effort(0, 1_000, 20), effort(1, 2_000, 120)],
            campaign: Some(campaign),
            words: JournalTotals { fleet: journals, guests: JournalSums::default() },
            ..Evidence::default()
        };
        judge(plan, evidence)
    }

    #[test]
    fn a_run_in_which_all_held_passes() {
        let summary = judge_with(|_, _, _| {});
        assert_eq!((summary.passed, &summary.failures), (Some(true), &Vec::new()));
        let phase = &summary.phases[0];
        assert_eq!((phase.seconds, phase.seconds_within_tolerance, phase.sent, phase.answered), (2, 2, 200, 200));
        assert!((phase.p99_ms - 2.0).abs() < 0.01);
        assert_eq!((phase.server_cpu_us_per_request, phase.fleet_cpu_us_per_request), (Some(10.0), Some(20.0)));
        assert_eq!((summary.books.residual_fen, summary.books.received_fen, summary.books.won), (Some(0), 40, Some(4)));
    }

    #[test]
    fn each_condition_that_does_not_hold_has_its_line() {
        let failing = |spoil: fn(&mut Vec<Results>, &mut Campaign, &mut JournalSums), line: &str| {
            let summary = judge_with(spoil);
            assert_eq!(summary.passed, Some(false));
            assert!(summary.failures.iter().any(|failure| failure.contains(line)), "{line}: {:?}", summary.failures);
        };
        failing(|results, _, _| results[0].seconds[1].answered = 47, "1 of 2 seconds within 2% of 100 requests");
        failing(|results, _, _| results[0].seconds[0].sent = 53, "the worst, second 1, had 103 sent");
        failing(|results, _, _| results[0].segments[0].planned = 99, "199 turns of 200 were taken");
        failing(|results, _, _| results[0].outstanding = 3, "3 requests were never answered");
        failing(|results, _, _| results[0].totals.unanswered = 2, "2 requests were never answered");
        failing(
            |results, _, _| results[1].totals.violations.extend([("duplicate_answer".into(), 1)]),
            "1 violations of the protocol by the server: duplicate_answer",
        );
        let outside = "2 requests outside of the schedule were never answered";
        failing(|results, _, _| results[1].totals.reactions_unanswered = 2, outside);
        failing(|results, _, _| results[1].reactions_outstanding = 2, outside);
        failing(|results, _, _| results[1].totals.envelopes.opened = 1, "journals hold 0 shares of 0 fen");
        failing(|_, _, journals| journals.sold = [(3, (1, 5))].into(), "journals hold 1 units sold for 5 fen");
        failing(|results, _, _| results[1].totals.chat.delivered = 1, "1 messages were delivered, and 0 heard");
        failing(|_, campaign, _| campaign.paid_fen = 41, "the books differ");
        failing(|_, campaign, _| campaign.won = 5, "the books differ");
        failing(|_, _, journals| journals.campaigns.clear(), "journals hold 0 prizes");
        failing(|_, _, journals| journals.contradictions = 1, "told to two users");
        failing(|results, _, _| results[0].segments.clear(), "is missing from its results");
    }

    #[test]
    fn a_phase_has_its_own_tolerance_and_counts_the_seconds_within() {
        let spoil = |results: &mut Vec<Results>, _: &mut Campaign, _: &mut JournalSums| results[0].seconds[0].sent = 47;
        let mut plan = plan();
        for (phase, passed, kept) in [("100x2s~1%", false, 1), ("100x2s~3%", true, 2), ("100x2s", false, 1)] {
            plan.args.phases = vec![phase.parse().unwrap()];
            let summary = judge_plan(&plan, spoil);
            assert_eq!((summary.passed, summary.phases[0].seconds_within_tolerance), (Some(passed), kept), "{phase}");
        }
        let phase = &judge_plan(&plan, spoil).phases[0];
        let within = [phase.seconds_within_1_percent, phase.seconds_within_2_percent, phase.seconds_within_3_percent];
        assert_eq!((within, phase.tolerance.as_str()), ([1, 1, 2], "2%"));
        assert_eq!(phase.worst_second.map(|worst| (worst.second, worst.sent)), Some((FROM, 97)));
        assert!((phase.worst_deviation_percent - 3.0).abs() < 0.01);
    }

    /// One machine's part of a storm that cut one user.
    fn storm(over: bool, last_back_us: u64, latency: &Micros) -> StormResult {
        let storm = StormOrder { share: "20%".parse().unwrap(), at: FROM + 1, watch_seconds: 60 };
        let view = StormView { storm, cut: 1, back: u64::from(over), over, last_back_us: Some(last_back_us) };
        let others = vec![StormSecond { second: 0, latency: latency.clone().into() }];
        StormResult { view, others, held: Micros::default() }
    }

    #[test]
    fn the_seconds_of_a_storm_are_not_judged_and_are_counted() {
        let mut plan = plan();
        plan.args.storm = vec!["20%@1s".parse().unwrap()];
        let summary = judge_plan(&plan, |results, _, _| {
            let (latency, late) = (many(4_000, 20), many(700_000, 1));
            for result in results {
                result.seconds[1].answered = 40;
                result.segments[0].held_by_storm = 10;
                result.storms = vec![storm(true, 900_000, &latency)];
                result.storms[0].held = late.clone();
                // In this second all were back.
                result.storms[0].others.push(StormSecond { second: 1, latency: late.clone().into() });
            }
        });
        assert_eq!((summary.passed, &summary.failures), (Some(true), &Vec::new()));
        let judged = &summary.parts.storms[0];
        assert_eq!((judged.cut, judged.back, judged.seconds_until_all_back), (2, 2, Some(0.9)));
        assert_eq!((judged.others_requests, judged.held_requests), (40, 2));
        assert!((judged.others_max_ms - 4.0).abs() < 0.01 && (judged.held_max_ms - 700.0).abs() < 1.0);
        let phase = &summary.phases[0];
        assert_eq!((phase.seconds_within_tolerance, phase.storm_seconds, phase.held_by_storm), (1, 1, 20));
        assert_eq!(phase.per_second.iter().map(|second| second.storm).collect::<Vec<_>>(), [false, true]);
        assert!(crate::fleet::table::render(&summary).contains("1/1 s ±2%, storm: 1 s excluded"));
    }

    #[test]
    fn a_storm_fails_if_users_stay_away_come_late_or_others_suffer() {
        let mut plan = plan();
        plan.args.storm = vec!["20%@1s".parse().unwrap()];
        let failures = |part: StormResult| {
            judge_plan(&plan, |results, _, _| results.iter_mut().for_each(|result| result.storms = vec![part.clone()]))
                .failures
        };
        let (none, slow) = (Micros::empty(), many(1_500_000, 100));
        assert_eq!(failures(storm(false, 900_000, &none)), ["storm of 20% at 1 s: 0 of 2 users came back"]);
        assert_eq!(
            failures(storm(true, 61_000_000, &none)),
            ["storm of 20% at 1 s: all were back after 61.0 s only; the deadline is 60 s"]
        );
        let suffering = failures(storm(true, 900_000, &slow));
        assert!(suffering[0].contains("p99 of the requests of others was 1500 ms, more than 1000 ms"), "{suffering:?}");
        let missing = judge_plan(&plan, |_, _, _| {}).failures;
        assert_eq!(missing[0], "storm of 20% at 1 s: it is missing from the results of machine-01");
    }

    #[test]
    fn seconds_of_a_qps_ordered_by_others_are_named_and_not_judged() {
        let summary = judge_with(|results, _, _| {
            for result in results {
                let ordered = SegmentResult { from: FROM + 1, qps: 300, planned: 150, ..result.segments[0].clone() };
                result.segments[0].planned = 50;
                result.segments.push(ordered);
                result.seconds[1].sent = 150;
            }
        });
        assert_eq!((summary.passed, &summary.failures), (Some(true), &Vec::new()));
        let change = summary::Change { from: FROM + 1, until: FROM + 2, qps: 300, machines: 2 };
        assert_eq!(summary.changes, [change]);
        let phase = &summary.phases[0];
        assert_eq!((phase.seconds_within_tolerance, phase.changed_seconds, phase.storm_seconds), (1, 1, 0));
        assert!(crate::fleet::table::render(&summary).contains("1/1 s ±2%, ordered otherwise: 1 s excluded"));
    }

    #[test]
    fn a_second_that_fails_before_another_qps_is_ordered_is_judged() {
        let summary = judge_with(|results, _, _| {
            let ordered = SegmentResult { from: FROM + 1, qps: 300, ..results[0].segments[0].clone() };
            results[0].segments.push(ordered);
            results[0].seconds[0].sent = 30;
        });
        assert!(summary.failures[0].contains("0 of 1 seconds within 2%"), "{:?}", summary.failures);
        assert_eq!(summary.changes[0].machines, 1);
    }

    #[test]
    fn a_storm_ordered_by_others_is_not_judged_nor_are_its_seconds() {
        let summary = judge_with(|results, _, _| {
            for result in results {
                result.seconds[1].answered = 40;
                result.storms = vec![storm(true, 900_000, &Micros::empty())];
            }
        });
        assert_eq!((summary.passed, &summary.failures), (Some(true), &Vec::new()));
        assert_eq!((summary.parts.storms.len(), summary.phases[0].storm_seconds), (0, 1));
    }

    #[test]
    fn what_guests_were_told_counts_as_what_users_were_told() {
        let words = |guests: CountAndFen| JournalTotals {
            fleet: JournalSums { campaigns: [(1, (4, 40))].into(), ..JournalSums::default() },
            guests: JournalSums { campaigns: [(1, guests)].into(), ..JournalSums::default() },
        };
        let judged = |words| {
            let evidence = Evidence {
                first_second: FROM,
                connected: 10,
                results: vec![half("machine-01"), half("machine-02")],
                campaign: Some(Campaign { id: 1, issued: 9, won: 5, paid_fen: 47, reserved: 0 }),
                words,
                ..Evidence::default()
            };
            judge(&plan(), evidence)
        };
        let summary = judged(words((1, 7)));
        assert_eq!((summary.passed, &summary.failures), (Some(true), &Vec::new()));
        let books = &summary.books;
        assert_eq!(
            (books.received, books.guest_prizes, books.guest_fen, books.residual_fen),
            (5, Some(1), Some(7), Some(0))
        );
        assert!(judged(words((1, 8))).failures[0].contains("the books differ"));
    }

    #[test]
    fn a_second_at_the_edge_of_the_tolerance_is_kept() {
        let summary = judge_with(|results, _, _| results[0].seconds[0].answered = 48);
        assert_eq!((summary.passed, summary.phases[0].seconds_within_tolerance), (Some(true), 2));
    }
}
