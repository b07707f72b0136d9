//! The judgement over a run: a plain function from what machines measured and both sides' books to
//! one summary, with a line for each condition that does not hold.
//!
//! Which seconds are kept is [`Phase::judge`]'s rule. In a phase's first second some answers are
//! still under way (QPS times latency of them), and the last second's come after it; both are small
//! against the tolerance as long as answers take less than that part of a second, and a server that
//! falls behind is seen in the second in which it does. What became of users that a storm has cut
//! is the storm's own judgement.

use std::collections::BTreeMap;

use hongbao_telemetry::summary::{self, Books, Memory, Phase, Second, Tolerance};
use serde::Serialize;

use crate::fleet::admin::{Broadcast, Campaign};
use crate::fleet::announcements::{self, AnnouncementSummary, Posted};
use crate::fleet::changes::Changes;
use crate::fleet::journals::JournalTotals;
use crate::fleet::plan::{self, Plan};
use crate::fleet::purchases::{self, EnvelopeSummary, Run, SaleSummary};
use crate::fleet::storms::{self, StormSummary, Storms};
use crate::histogram::{self, Micros};
use crate::results::{Counts, OperationResult, Results, Sum, Totals};

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
#[derive(Debug)]
pub struct Evidence<'a> {
    pub plan: &'a Plan,
    /// Unix second of the first stretch.
    pub first_second: u64,
    /// Users logged in at the end of connecting.
    pub connected: u64,
    /// How long that took.
    pub connect_seconds: f64,
    /// Bytes per connection, where they are known.
    pub memory: Memory,
    pub results: &'a [Results],
    /// Readings of processor time, in order.
    pub efforts: &'a [Effort],
    /// The campaign at its end, where there was one and it could be read.
    pub campaign: Option<&'a Campaign>,
    /// The sale at its end, likewise.
    pub sale: Option<&'a Campaign>,
    /// The envelopes at their end, likewise.
    pub run: Option<&'a Run>,
    pub words: &'a JournalTotals,
    /// Announcements that the server took.
    pub posted: &'a [Posted],
    /// What the server says of each of them.
    pub broadcasts: &'a [Option<Broadcast>],
    /// What else went wrong, a line each.
    pub troubles: Vec<String>,
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

pub fn judge(mut evidence: Evidence<'_>) -> Summary {
    let mut failures = std::mem::take(&mut evidence.troubles);
    let Evidence { plan, results, .. } = evidence;
    let mut totals = Totals::default();
    results.iter().for_each(|result| totals.add(&result.totals));
    let outstanding: u64 = results.iter().map(|result| result.outstanding).sum();
    let users = u64::from(plan.users);

    if evidence.connected != users {
        failures.push(format!("{} of {users} users were logged in", evidence.connected));
    }
    let JournalTotals { fleet: journals, guests } = evidence.words;
    let (mut phases, mut storms, mut announcements) = (Vec::new(), Storms::default(), Vec::new());
    let mut changes = Changes::default();
    if !results.is_empty() {
        let mut from = evidence.first_second;
        storms = storms::judge(plan, from, results, &mut failures);
        announcements = announcements::judge(users, evidence.posted, evidence.broadcasts, results, &mut failures);
        changes = Changes::of(plan, from, results);
        for (index, phase) in plan.stretches().enumerate() {
            let judged = plan.warm_up.is_none() || index > 0;
            let tolerance = phase.tolerance.unwrap_or(plan.tolerance);
            let measured = Measured { from, phase, judged, tolerance, storms: &storms, changes: &changes };
            phases.push(summarize(&measured, results, evidence.efforts, &mut failures));
            from += phase.seconds;
        }
    }
    let unanswered = totals.unanswered + outstanding;
    if unanswered > 0 {
        failures.push(format!("{unanswered} requests were never answered"));
    }
    let open_reactions: u64 = results.iter().map(|result| result.reactions_outstanding).sum();
    let unsettled = totals.reactions_unanswered + open_reactions;
    if unsettled > 0 {
        failures.push(format!("{unsettled} requests outside of the schedule were never answered"));
    }
    let operations = operations(results, |result| &result.operations, &mut failures);
    let reactions = self::operations(results, |result| &result.reactions, &mut failures);
    let envelopes = purchases::judge_envelopes(evidence.run, &totals, journals, &mut failures);
    let sale = purchases::judge_sale(plan.tickets, evidence.sale, results, (journals, guests), &mut failures);
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
        changes: changes.summaries,
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

/// Sums over all machines, by kind.
fn operations(
    results: &[Results],
    of: fn(&Results) -> &BTreeMap<String, OperationResult>,
    failures: &mut Vec<String>,
) -> Vec<OperationSummary> {
    let mut kinds: BTreeMap<&str, (OperationResult, Micros)> = BTreeMap::new();
    for result in results {
        for (name, part) in of(result) {
            let (sum, latency) = kinds.entry(name).or_insert_with(|| (OperationResult::default(), histogram::empty()));
            sum.planned += part.planned;
            sum.sent += part.sent;
            sum.answered += part.answered;
            sum.outcomes.add(&part.outcomes);
            if !part.latency.is_empty()
                && let Err(error) = histogram::add_base64(latency, &part.latency)
            {
                failures.push(format!("{}: {name}: {error}", result.name));
            }
        }
    }
    let summary = |(name, (sum, latency)): (&str, (OperationResult, Micros))| OperationSummary {
        name: name.to_owned(),
        planned: sum.planned,
        sent: sum.sent,
        answered: sum.answered,
        outcomes: sum.outcomes,
        p50_ms: quantile_ms(&latency, 0.5),
        p99_ms: quantile_ms(&latency, 0.99),
        p999_ms: quantile_ms(&latency, 0.999),
        max_ms: quantile_ms(&latency, 1.0),
    };
    kinds.into_iter().map(summary).collect()
}

struct Measured<'a> {
    from: u64,
    phase: &'a plan::Phase,
    judged: bool,
    tolerance: Tolerance,
    storms: &'a Storms,
    changes: &'a Changes,
}

fn summarize(measured: &Measured<'_>, results: &[Results], efforts: &[Effort], failures: &mut Vec<String>) -> Phase {
    let Measured { from, phase, judged, tolerance, storms, changes } = *measured;
    let is_changed = changes.touch(&(from..from + phase.seconds));
    let (mut latency, mut send_lag) = (histogram::empty(), histogram::empty());
    let (mut planned, mut sent, mut answered, mut held_by_storm) = (0, 0, 0, 0);
    for result in results {
        let inside = |at: &u64| (from..from + phase.seconds).contains(at);
        let mut segments = result.segments.iter().filter(|segment| inside(&segment.from)).peekable();
        if segments.peek().is_none_or(|first| first.from != from) {
            failures.push(format!("{}: phase {} is missing from its results", result.name, phase.name));
            continue;
        }
        for segment in segments {
            planned += segment.planned;
            sent += segment.sent;
            answered += segment.answered;
            held_by_storm += segment.held_by_storm;
            // What was measured under somebody else's QPS is no figure of this phase.
            if changes.cover(segment.from) {
                continue;
            }
            for (sum, text) in [(&mut latency, &segment.latency), (&mut send_lag, &segment.send_lag)] {
                if let Err(error) = histogram::add_base64(sum, text) {
                    failures.push(format!("{}: phase {}: {error}", result.name, phase.name));
                }
            }
        }
    }
    let target = u64::from(phase.qps);
    let (server_cpu_us_per_request, fleet_cpu_us_per_request) = effort_per_request(from, phase.seconds, efforts);
    let mut summary = Phase {
        name: phase.name.clone(),
        judged,
        from,
        qps_target: target,
        seconds: phase.seconds,
        planned,
        sent,
        answered,
        held_by_storm,
        p50_ms: quantile_ms(&latency, 0.5),
        p99_ms: quantile_ms(&latency, 0.99),
        p999_ms: quantile_ms(&latency, 0.999),
        max_ms: quantile_ms(&latency, 1.0),
        send_lag_p50_ms: quantile_ms(&send_lag, 0.5),
        send_lag_p99_ms: quantile_ms(&send_lag, 0.99),
        send_lag_p999_ms: quantile_ms(&send_lag, 0.999),
        send_lag_max_ms: quantile_ms(&send_lag, 1.0),
        server_cpu_us_per_request,
        fleet_cpu_us_per_request,
        per_second: seconds(from, phase.seconds, results, (storms, changes)),
        ..Phase::default()
    };
    summary.judge(tolerance);
    if judged {
        if planned != target * phase.seconds && !is_changed {
            failures.push(format!("phase {}: {planned} turns of {} were taken", phase.name, target * phase.seconds));
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

fn seconds(from: u64, count: u64, results: &[Results], (storms, changes): (&Storms, &Changes)) -> Vec<Second> {
    let empty =
        |second| Second { second, storm: storms.cover(second), changed: changes.cover(second), ..Default::default() };
    let mut seconds: BTreeMap<u64, Second> = (from..from + count).map(|second| (second, empty(second))).collect();
    for row in results.iter().flat_map(|result| &result.seconds) {
        if let Some(sum) = seconds.get_mut(&row.second) {
            sum.planned += row.planned;
            sum.sent += row.sent;
            sum.answered += row.answered;
        }
    }
    seconds.into_values().collect()
}

fn quantile_ms(histogram: &Micros, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

/// Between the first and the last reading inside the phase.
fn effort_per_request(from: u64, seconds: u64, efforts: &[Effort]) -> (Option<f64>, Option<f64>) {
    let inside = |effort: &&Effort| (from..from + seconds).contains(&(effort.at / crate::clock::SECOND));
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

fn balance(evidence: &Evidence<'_>, totals: &Totals, failures: &mut Vec<String>) -> Books {
    let JournalTotals { fleet: journals, guests } = evidence.words;
    let all_journals = journals.totals();
    if all_journals != (totals.prizes, totals.fen) {
        failures.push(format!(
            "journals hold {} prizes of {} fen, machines counted {} of {} fen",
            all_journals.0, all_journals.1, totals.prizes, totals.fen
        ));
    }
    let contradictions = journals.contradictions + guests.contradictions;
    if contradictions > 0 {
        failures.push(format!("{contradictions} prizes, shares or units were told to two users, or changed"));
    }
    let Some(campaign) = evidence.campaign else {
        return Books {
            received: totals.prizes + guests.totals().0,
            received_fen: totals.fen + guests.totals().1,
            journal_prizes: all_journals.0 + guests.totals().0,
            journal_fen: all_journals.1 + guests.totals().1,
            guest_prizes: Some(guests.totals().0),
            guest_fen: Some(guests.totals().1),
            ..Books::default()
        };
    };
    let ours = evidence.results.iter().flat_map(|result| &result.campaigns).filter(|one| one.campaign == campaign.id);
    let (guest_prizes, guest_fen) = guests.campaigns.get(&campaign.id).copied().unwrap_or_default();
    let (received, received_fen) =
        ours.fold((guest_prizes, guest_fen), |sum, one| (sum.0 + one.prizes, sum.1 + one.fen));
    let journals = journals.campaigns.get(&campaign.id).copied().unwrap_or_default();
    let residual_fen = i128::from(campaign.paid_fen) - i128::from(received_fen);
    if residual_fen != 0 || campaign.won != received {
        failures.push(format!(
            "the books differ: the server paid {} prizes of {} fen, users received {received} of {received_fen} fen",
            campaign.won, campaign.paid_fen
        ));
    }
    Books {
        campaign: Some(campaign.id),
        issued: Some(campaign.issued),
        won: Some(campaign.won),
        paid_fen: Some(campaign.paid_fen),
        received,
        received_fen,
        journal_prizes: journals.0 + guest_prizes,
        journal_fen: journals.1 + guest_fen,
        guest_prizes: Some(guest_prizes),
        guest_fen: Some(guest_fen),
        residual_fen: Some(residual_fen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::journals::{CountAndFen, JournalSums};
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
        let mut latency = histogram::empty();
        latency.record_n(2_000, 100).unwrap();
        let row = |second| SecondRow { second, planned: 50, sent: 50, answered: 50, ..SecondRow::default() };
        Results {
            name: name.to_owned(),
            totals: Totals { planned: 100, sent: 100, answered: 100, prizes: 2, fen: 20, ..Totals::default() },
            outstanding: 0,
            reactions_outstanding: 0,
            operations: BTreeMap::new(),
            reactions: BTreeMap::new(),
            sales: Vec::new(),
            segments: vec![SegmentResult {
                from: FROM,
                qps: 100,
                planned: 100,
                sent: 100,
                answered: 100,
                held_by_storm: 0,
                latency: histogram::to_base64(&latency),
                send_lag: histogram::to_base64(&latency),
            }],
            seconds: vec![row(FROM), row(FROM + 1)],
            storms: Vec::new(),
            announced: Vec::new(),
            campaigns: vec![CampaignResult { campaign: 1, prizes: 2, fen: 20 }],
            clock: summary::Clock::default(),
            process: crate::results::ProcessView::default(),
        }
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
        judge(Evidence {
            plan,
            first_second: FROM,
            connected: 10,
            connect_seconds: 1.0,
            memory: Memory::default(),
            results: &results,
            efforts: &[effort(0, 1_000, 20), effort(1, 2_000, 120)],
            campaign: Some(&campaign),
            sale: None,
            run: None,
            words: &JournalTotals { fleet: journals, guests: JournalSums::default() },
            posted: &[],
            broadcasts: &[],
            troubles: Vec::new(),
        })
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
        let others = vec![StormSecond { second: 0, latency: histogram::to_base64(latency) }];
        StormResult { view, others, held: String::new() }
    }

    #[test]
    fn the_seconds_of_a_storm_are_not_judged_and_are_counted() {
        let mut plan = plan();
        plan.args.storm = vec!["20%@1s".parse().unwrap()];
        let summary = judge_plan(&plan, |results, _, _| {
            let (mut latency, mut late) = (histogram::empty(), histogram::empty());
            latency.record_n(4_000, 20).unwrap();
            late.record(700_000).unwrap();
            for result in results {
                result.seconds[1].answered = 40;
                result.segments[0].held_by_storm = 10;
                result.storms = vec![storm(true, 900_000, &latency)];
                result.storms[0].held = histogram::to_base64(&late);
                // In this second all were back.
                result.storms[0].others.push(StormSecond { second: 1, latency: histogram::to_base64(&late) });
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
        let (none, mut slow) = (histogram::empty(), histogram::empty());
        slow.record_n(1_500_000, 100).unwrap();
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
                result.storms = vec![storm(true, 900_000, &histogram::empty())];
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
        let results = [half("machine-01"), half("machine-02")];
        let campaign = Campaign { id: 1, issued: 9, won: 5, paid_fen: 47, reserved: 0 };
        let judged = |words: &JournalTotals| {
            judge(Evidence {
                plan: &plan(),
                first_second: FROM,
                connected: 10,
                connect_seconds: 1.0,
                memory: Memory::default(),
                results: &results,
                efforts: &[],
                campaign: Some(&campaign),
                sale: None,
                run: None,
                words,
                posted: &[],
                broadcasts: &[],
                troubles: Vec::new(),
            })
        };
        let summary = judged(&words((1, 7)));
        assert_eq!((summary.passed, &summary.failures), (Some(true), &Vec::new()));
        let books = &summary.books;
        assert_eq!(
            (books.received, books.guest_prizes, books.guest_fen, books.residual_fen),
            (5, Some(1), Some(7), Some(0))
        );
        assert!(judged(&words((1, 8))).failures[0].contains("the books differ"));
    }

    #[test]
    fn a_second_at_the_edge_of_the_tolerance_is_kept() {
        let summary = judge_with(|results, _, _| results[0].seconds[0].answered = 48);
        assert_eq!((summary.passed, summary.phases[0].seconds_within_tolerance), (Some(true), 2));
    }
}
