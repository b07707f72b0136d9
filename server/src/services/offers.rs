//! What happens to users without their asking: envelopes are offered to those on-line, and what is
//! overdue expires.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hongbao_proto::UserId;
use hongbao_proto::v1::{self, server_frame::Event};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::UnixMs;
use crate::limits;
use crate::market::order::Order;
use crate::set::Shared;
use crate::set::deliver::{self, Count, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::events;
use crate::set::message::{Control, Message, Offering, StockReport};

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
                    Some(offering) => self.offer(&offering).await,
                    None => return,
                },
                _ = interval.tick() => self.expire().await,
            }
        }
    }

    /// Tells those on-line; the others find it at their next login.
    pub async fn offer(&self, offering: &Offering) {
        let offers = vec![events::offer(&offering.offer)];
        let frame = deliver::encode(Event::Offers(v1::Offers { offers }));
        self.push(&offering.to, frame).await;
    }

    /// Tells the buyer of an order that its hold is over.
    async fn tell_expired(&self, order: &Order) {
        let orders = vec![events::order(order, None)];
        let frame = deliver::encode(Event::Reminder(v1::Reminder { wins: Vec::new(), orders }));
        self.push(&[order.user], frame).await;
    }

    /// Writes a frame to those of some users who are on-line. Whoever is behind by too much, or in
    /// a SET without room, is passed over: all that is told here is told again at the next login.
    async fn push(&self, to: &[UserId], frame: Bytes) {
        let count = Count::new(|_| {});
        let mut keys: BTreeMap<u32, Vec<ConnectionKey>> = BTreeMap::new();
        for some in to.chunks(limits::FANOUT_STEP) {
            for user in some {
                if let Some(address) = self.shared.directory.find(*user) {
                    keys.entry(address.set).or_default().push(address.key);
                }
            }
            if some.len() == limits::FANOUT_STEP {
                tokio::task::yield_now().await;
            }
        }
        for (set, keys) in keys {
            let delivery = Control::Deliver(Delivery::new(keys, frame.clone(), Arc::clone(&count)));
            if let Err(refused) = self.shared.sets[set as usize].inbox.try_send(Message::Control(delivery)) {
                drop(refused);
            }
        }
    }

    /// Has everything expire that is overdue, by as many postings as it takes.
    pub async fn expire(&self) {
        loop {
            let now = (self.clock)();
            // Errors are the ledger's to report; the next interval tries again.
            let Ok(expired) = self.shared.ledger.expire_due(now).await else { return };
            for order in &expired.orders {
                let released = StockReport::Released { campaign: order.campaign, serials: vec![order.serial] };
                // An error says that the generator has ended with the server.
                self.shared.generator.send(released).await.ok();
                self.tell_expired(order).await;
            }
            if expired.next_due.is_none_or(|due| due > now) {
                return;
            }
        }
    }
}
