//! What is overdue expires: orders that were not paid, envelopes that were not opened.

use std::sync::Arc;
use std::time::Duration;

use hongbao_proto::v1::{self, server_frame::Event};
use tokio::time::MissedTickBehavior;

use crate::clock::UnixMs;
use crate::ledger::task::LedgerTask;
use crate::limits;
use crate::market::order::Order;
use crate::services::offers::send_to;
use crate::set::Shared;
use crate::set::delivery;
use crate::set::events;
use crate::set::message::StockReport;

/// See the module.
pub struct Expiry {
    shared: Arc<Shared>,
    clock: fn() -> UnixMs,
}

impl Expiry {
    pub fn new(shared: Arc<Shared>, clock: fn() -> UnixMs) -> Self {
        Self { shared, clock }
    }

    /// Works until it is aborted.
    pub async fn run(self) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::EXPIRE_INTERVAL_MS));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.expire().await;
        }
    }

    /// Has everything expire that is overdue, by as many postings as it takes.
    pub async fn expire(&self) {
        loop {
            let now = (self.clock)();
            // Errors are the ledger's to report; the next interval tries again.
            let Ok(expired) = self.shared.ledger.run(|reply| LedgerTask::ExpireDue { now, reply }).await else {
                return;
            };
            for order in &expired.orders {
                let released = StockReport::Released { campaign: order.campaign, serials: vec![order.serial] };
                // An error says that the generator has ended with the server.
                self.shared.generator.send(released).await.ok();
                self.notify_buyer(order).await;
            }
            if expired.next_due.is_none_or(|due| due > now) {
                return;
            }
        }
    }

    /// The hold is over.
    async fn notify_buyer(&self, order: &Order) {
        let orders = vec![events::order(order, None)];
        let frame = delivery::encode(Event::Reminder(v1::Reminder { wins: Vec::new(), orders }));
        send_to(&self.shared, &[order.user], frame).await;
    }
}
