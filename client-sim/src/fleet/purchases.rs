//! What users deal in besides the rain: envelopes that the house sends, and a sale of tickets.
//! Asked for through the admin API, followed to their end, and judged: every envelope is empty or
//! refunded, and both sides' books over the sale agree.

use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;

use crate::clock::{Clock, SECOND};
use crate::fleet::admin::{Admin, Campaign, EnvelopeRun};
use crate::fleet::journals::{JournalSums, sum_up};
use crate::fleet::plan::{Plan, PlannedEnvelopes, PlannedTickets};
use crate::results::{Results, Totals};

/// Between two looks at a run of envelopes.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// For the server to send the envelopes, beyond what their rate takes, and to refund those that
/// have expired.
const RUN_PATIENCE: Duration = Duration::from_secs(15);

/// A run of envelopes at its end, as far as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub planned: PlannedEnvelopes,
    /// What the server said last.
    pub view: EnvelopeRun,
    /// From the request to the end, seconds.
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EnvelopeSummary {
    pub at_second: u64,
    pub recipients: u32,
    pub seconds: f64,
    pub server: EnvelopeRun,
    pub offered: u64,
    pub opened: u64,
    pub opened_fen: u64,
    pub journal_shares: u64,
    pub journal_fen: u64,
    /// What was paid out of them, less what users were told they opened; absent where the server
    /// does not say, or not yet.
    pub residual_fen: Option<i128>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SaleSummary {
    pub campaign: u32,
    pub at_second: u64,
    pub total: u64,
    pub price_fen: u64,
    /// By the server's books.
    pub paid: u64,
    pub paid_fen: u64,
    pub waiting: u64,
    /// As users were told.
    pub told_paid: u64,
    pub told_fen: u64,
    pub told_waiting: u64,
    pub journal_paid: u64,
    pub journal_fen: u64,
    pub residual_fen: i128,
}

/// Has the plan's envelopes sent at their moment, and waits until all are empty or refunded, or
/// should be. `first_second`: Unix second of the first stretch.
pub async fn run_envelopes(
    plan: &Plan,
    clock: &Clock,
    first_second: u64,
    admin: Option<&Admin>,
) -> (Option<Run>, Option<String>) {
    let (Some(planned), Some(admin)) = (plan.envelopes, admin) else { return (None, None) };
    let begin = (plan.phases_begin(first_second) + planned.at_second) * SECOND;
    tokio::time::sleep_until(clock.instant(begin).into()).await;
    let id = match admin.send_envelopes(plan, planned).await {
        Ok(id) => id,
        Err(error) => return (None, Some(format!("envelopes: {error}"))),
    };
    let sending = Duration::from_secs(u64::from(planned.count.div_ceil(planned.rate)));
    let deadline = sending + plan.envelope_lifetime + RUN_PATIENCE;
    let mut last = None;
    loop {
        let since = Duration::from_nanos(clock.now().saturating_sub(begin));
        // A look that fails is no trouble while there is time for another.
        let trouble = match admin.envelope_run(id).await {
            Ok(view) => {
                let finished = view.finished;
                last = Some(Run { planned, view, seconds: since.as_secs_f64() });
                if finished {
                    return (last, None);
                }
                None
            }
            Err(error) => Some(format!("envelopes: {error}")),
        };
        if since > deadline {
            return (last, trouble);
        }
        sleep(LOOK_PAUSE).await;
    }
}

pub fn judge_envelopes(
    run: Option<&Run>,
    totals: &Totals,
    journals: &JournalSums,
    failures: &mut Vec<String>,
) -> Option<EnvelopeSummary> {
    let totals = totals.envelopes;
    if (totals.opened, totals.opened_fen) != journals.shares {
        failures.push(format!(
            "journals hold {} shares of {} fen, machines counted {} of {} fen",
            journals.shares.0, journals.shares.1, totals.opened, totals.opened_fen
        ));
    }
    let Run { planned, view, seconds } = run?;
    if !view.finished || view.open > 0 || view.sent != view.count {
        failures.push(format!(
            "envelopes: {} of {} were sent, and {} of these are neither empty nor refunded",
            view.sent, view.count, view.open
        ));
    }
    let put_in = view.sent_fen.map(|total| i128::from(total) - i128::from(view.refunded_fen));
    let paid_out = view.opened_fen.map(i128::from).or(put_in);
    // Before the end the server tells only of envelopes that cannot be opened any more.
    let residual_fen = paid_out.filter(|_| view.finished).map(|paid| paid - i128::from(totals.opened_fen));
    if let Some(residual) = residual_fen.filter(|residual| *residual != 0) {
        failures.push(format!(
            "the books over envelopes differ by {residual} fen: users were told of {} fen, and {} fen went back",
            totals.opened_fen, view.refunded_fen
        ));
    }
    Some(EnvelopeSummary {
        at_second: planned.at_second,
        recipients: planned.recipients,
        seconds: *seconds,
        server: view.clone(),
        offered: totals.offered,
        opened: totals.opened,
        opened_fen: totals.opened_fen,
        journal_shares: journals.shares.0,
        journal_fen: journals.shares.1,
        residual_fen,
    })
}

/// Judges a sale; `sale`: the server's books at its end.
pub fn judge_sale(
    planned: Option<PlannedTickets>,
    sale: Option<&Campaign>,
    results: &[Results],
    (journals, guests): (&JournalSums, &JournalSums),
    failures: &mut Vec<String>,
) -> Option<SaleSummary> {
    let totals = results.iter().flat_map(|result| &result.sales);
    let (counted, (sold, sold_fen)) = (sum_up(totals.clone().map(|one| (one.paid, one.paid_fen))), journals.sold());
    if counted != (sold, sold_fen) {
        failures.push(format!(
            "journals hold {sold} units sold for {sold_fen} fen, machines counted {} for {} fen",
            counted.0, counted.1
        ));
    }
    let (sale, tickets) = sale.zip(planned)?;
    let of_sale = || totals.clone().filter(|one| one.campaign == sale.id);
    let to_guests = guests.sold.get(&sale.id).copied();
    let (told_paid, told_fen) = sum_up(of_sale().map(|one| (one.paid, one.paid_fen)).chain(to_guests));
    let told_waiting = of_sale().map(|one| one.waiting).sum();
    let residual_fen = i128::from(sale.paid_fen) - i128::from(told_fen);
    if residual_fen != 0 || sale.won != told_paid {
        failures.push(format!(
            "the books over the sale differ: the server sold {} units for {} fen, users were told of {told_paid} for {told_fen} fen",
            sale.won, sale.paid_fen
        ));
    }
    if sale.won > tickets.total {
        failures.push(format!("{} of {} tickets were sold", sale.won, tickets.total));
    }
    if sale.reserved + told_waiting > 0 {
        failures.push(format!(
            "orders wait for their payment after the end of their hold: {} by the server's books, {told_waiting} by the users'",
            sale.reserved
        ));
    }
    let journal = journals.sold.get(&sale.id).copied().unwrap_or_default();
    Some(SaleSummary {
        campaign: sale.id,
        at_second: tickets.at_second,
        total: tickets.total,
        price_fen: tickets.price_fen,
        paid: sale.won,
        paid_fen: sale.paid_fen,
        waiting: sale.reserved,
        told_paid,
        told_fen,
        told_waiting,
        journal_paid: journal.0,
        journal_fen: journal.1,
        residual_fen,
    })
}

/// Judges chat: what receipts say was delivered was heard. Who reconnected may have missed
/// something, or joined a room late.
pub fn judge_chat(rooms: u32, totals: &Totals, failures: &mut Vec<String>) {
    let chat = totals.chat;
    if totals.reconnects == 0 && rooms == 0 && chat.delivered != chat.received {
        failures.push(format!(
            "{} messages were delivered, and {} heard, though nobody reconnected",
            chat.delivered, chat.received
        ));
    }
    if totals.reconnects == 0 && chat.missed > chat.dropped {
        failures.push(format!(
            "{} messages of rooms were missed, and {} dropped, though nobody reconnected",
            chat.missed, chat.dropped
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{ChatTotals, EnvelopeTotals};

    fn run(change: impl FnOnce(&mut EnvelopeRun)) -> Run {
        let mut view = EnvelopeRun {
            id: 1,
            count: 10,
            sent: 10,
            open: 0,
            sent_fen: Some(500),
            opened_shares: None,
            opened_fen: None,
            refunded_fen: 100,
            finished: true,
        };
        change(&mut view);
        Run { planned: "10".parse().unwrap(), view, seconds: 1.0 }
    }

    fn failures(run: &Run, shares: (u64, u64)) -> Vec<String> {
        let envelopes = EnvelopeTotals { offered: 9, opened: 8, opened_fen: 400, ..EnvelopeTotals::default() };
        let totals = Totals { envelopes, ..Totals::default() };
        let (journals, mut failures) = (JournalSums { shares, ..JournalSums::default() }, Vec::new());
        assert!(judge_envelopes(Some(run), &totals, &journals, &mut failures).is_some());
        failures
    }

    #[test]
    fn envelopes_end_empty_or_refunded_and_every_fen_is_somewhere() {
        assert_eq!(failures(&run(|_| {}), (8, 400)), Vec::<String>::new());
        let one = |run: Run, shares, words: &str| {
            let failures = failures(&run, shares);
            assert!(failures.len() == 1 && failures[0].contains(words), "{words}: {failures:?}");
        };
        one(run(|view| view.open = 1), (8, 400), "10 of 10 were sent, and 1 of these are neither empty nor refunded");
        one(run(|view| view.finished = false), (8, 400), "neither empty nor refunded");
        one(run(|view| view.sent = 9), (8, 400), "9 of 10 were sent");
        one(run(|view| view.refunded_fen = 101), (8, 400), "differ by -1 fen");
        one(run(|view| view.opened_fen = Some(402)), (8, 400), "differ by 2 fen");
        one(run(|_| {}), (7, 400), "journals hold 7 shares of 400 fen");
    }

    #[test]
    fn the_books_over_a_sale_agree_and_no_order_waits() {
        let judged = |change: fn(&mut Campaign)| {
            let mut sale = Campaign { id: 3, issued: 9, won: 4, paid_fen: 400, reserved: 0 };
            change(&mut sale);
            let journals = JournalSums::default();
            let mut failures = Vec::new();
            let summary =
                judge_sale("9:100".parse().ok(), Some(&sale), &[], (&journals, &journals), &mut failures).unwrap();
            (summary.residual_fen, failures)
        };
        // Nobody was told anything.
        let (residual, failures) = judged(|_| {});
        assert_eq!((residual, failures.len()), (400, 1));
        assert!(failures[0].contains("the server sold 4 units for 400 fen, users were told of 0 for 0 fen"));
        assert!(judged(|sale| (sale.won, sale.paid_fen) = (0, 0)).1.is_empty());
        assert!(judged(|sale| sale.reserved = 2).1[1].contains("after the end of their hold: 2 by the server's books"));
        assert!(judged(|sale| sale.won = 10).1[1].contains("10 of 9 tickets were sold"));
    }

    #[test]
    fn what_was_delivered_was_heard_unless_somebody_reconnected() {
        let judged = |rooms, reconnects, chat| {
            let mut failures = Vec::new();
            judge_chat(rooms, &Totals { chat, reconnects, ..Totals::default() }, &mut failures);
            failures.len()
        };
        let deaf = ChatTotals { delivered: 5, received: 4, ..ChatTotals::default() };
        assert_eq!((judged(0, 0, deaf), judged(0, 1, deaf), judged(3, 0, deaf)), (1, 0, 0));
        let gap = ChatTotals { missed: 2, dropped: 1, ..ChatTotals::default() };
        assert_eq!((judged(3, 0, gap), judged(3, 1, gap)), (1, 0));
    }
}
