//! What happens to users without their asking: envelopes are offered to those on-line, and what is overdue expires.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::campaign::UnixMs;
use crate::ledger::{Expired, Ledger, LedgerError, Outcome, Posting};
use crate::limits;
use crate::shard::message::{Offering, StockReport};
use crate::shard::set::Shared;

/// See the module.
pub struct Clerk {
    shared: Arc<Shared>,
    clock: fn() -> UnixMs,
}

impl Clerk {
    /// A clerk of this node.
    pub fn new(shared: Arc<Shared>, clock: fn() -> UnixMs) -> Self {
        Self { shared, clock }
    }

    /// Works until every queue is closed.
    pub async fn run(self, mut offerings: mpsc::Receiver<Offering>) {
        let mut interval = tokio::time::interval(Duration::from_millis(limits::EXPIRE_INTERVAL_MS));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                offering = offerings.recv() => match offering {
                    Some(offering) => self.offer(&offering),
                    None => return,
                },
                _ = interval.tick() => self.expire().await,
            }
        }
    }

    fn offer(&self, _offering: &Offering) {}

    /// Has everything expire that is overdue, by as many postings as it takes.
    async fn expire(&self) {
        loop {
            let now = (self.clock)();
            // Errors are the ledger's to report; the next interval tries again.
            let Ok(Ok(Some(expired))) = self.shared.ledger.call(move |ledger| expire(ledger, now)).await else {
                return;
            };
            for order in &expired.orders {
                let released = StockReport::Released { campaign: order.campaign, serials: vec![order.serial] };
                // An error says that the generator has ended with the server.
                self.shared.generator.send(released).await.ok();
            }
            if expired.next_due.is_none_or(|due| due > now) {
                return;
            }
        }
    }
}

fn expire(ledger: &mut dyn Ledger, now: UnixMs) -> Result<Option<Box<Expired>>, LedgerError> {
    if ledger.next_due().is_none_or(|due| due > now) {
        return Ok(None);
    }
    match ledger.post(&[Posting::Expire], now)?.pop() {
        Some(Outcome::Expired(expired)) => Ok(Some(expired)),
        _ => Err(LedgerError::Corrupt("the ledger answered something else to an expiry".to_owned())),
    }
}
