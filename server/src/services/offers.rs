//! Envelopes are offered to those of their recipients who are on-line.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hongbao_proto::UserId;
use hongbao_proto::v1::{self, server_frame::Event};
use tokio::sync::mpsc;

use crate::limits;
use crate::set::Shared;
use crate::set::delivery::{self, Count, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::events;
use crate::set::message::Offering;

/// Works until the queue is closed.
pub async fn run(shared: Arc<Shared>, mut offerings: mpsc::Receiver<Offering>) {
    while let Some(offering) = offerings.recv().await {
        offer(&shared, &offering).await;
    }
}

/// Whoever is off-line finds it at the next login.
pub async fn offer(shared: &Shared, offering: &Offering) {
    let offers = vec![events::offer(&offering.offer)];
    send_to(shared, &offering.to, delivery::encode(Event::Offers(v1::Offers { offers }))).await;
}

/// Writes a frame to those of some users who are on-line. Whoever is behind by too much, or in
/// a SET without room, is passed over: all of it is repeated at the next login.
pub(super) async fn send_to(shared: &Shared, users: &[UserId], frame: Bytes) {
    let count = Count::new(|_| {});
    let mut keys: BTreeMap<u32, Vec<ConnectionKey>> = BTreeMap::new();
    for some in users.chunks(limits::FANOUT_STEP) {
        for user in some {
            if let Some(address) = shared.directory.find(*user) {
                keys.entry(address.set).or_default().push(address.key);
            }
        }
        if some.len() == limits::FANOUT_STEP {
            tokio::task::yield_now().await;
        }
    }
    for (set, keys) in keys {
        shared.sets[set as usize].deliver(Delivery::new(keys, frame.clone(), Arc::clone(&count)));
    }
}
