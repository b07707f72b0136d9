//! What is overdue expires: orders that were not paid, envelopes that were not opened.

use std::sync::Arc;
use std::time::Duration;

use hongbao_proto::v1::{self, server_frame::Event};
use tokio::time::MissedTickBehavior;

use crate::clock::UnixMs;
use crate::ledger::task::LedgerTask;
use crate::limits;
use crate::services::offers::send_to;
use crate::set::Shared;
use crate::set::delivery;
use crate::set::events;
use crate::set::message::StockReport;

/// Works until it is aborted.
pub async fn run(shared: Arc<Shared>, clock: fn() -> UnixMs) {
    let mut interval = tokio::time::interval(Duration::from_millis(limits::EXPIRE_INTERVAL_MS));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        expire(&shared, clock).await;
    }
}

/// Has everything expire that is overdue, by as many postings as it takes.
pub async fn expire(shared: &Shared, clock: fn() -> UnixMs) {
    loop {
        let now = clock();
        // Errors are the ledger's to report; the next interval tries again.
        let Ok(expired) = shared.ledger.run(|reply| LedgerTask::ExpireDue { now, reply }).await else { return };
        for order in &expired.orders {
            let released = StockReport::Released { campaign: order.campaign, serials: vec![order.serial] };
            // An error says that the generator has ended with the server.
            shared.generator.send(released).await.ok();
            // The buyer's hold is over.
            let reminder = v1::Reminder { wins: Vec::new(), orders: vec![events::order(order, None)] };
            send_to(shared, &[order.user], delivery::encode(Event::Reminder(reminder))).await;
        }
        if expired.next_due.is_none_or(|due| due > now) {
            return;
        }
    }
}
