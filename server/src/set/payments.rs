//! Who collects the price of an order.

use hongbao_proto::{OrderId, UserId};

use crate::ledger::writer::{LedgerHandle, WriterRequest};
use crate::ledger::{Means, Posting};
use crate::set::message::ReplyPermit;

/// Collects prices. The ledger alone decides what an order becomes; a provider has it decide once
/// the money is there.
pub trait PaymentProvider: Send + Sync {
    /// Collects the price of `order` from `user` and answers through `permit`, once and in the end:
    /// with the ledger's reply to [`Posting::Pay`]. A provider without capacity drops the permit;
    /// then nothing was and nothing will be collected.
    ///
    /// Called on a shard's thread: must not block. A provider outside of these books posts
    /// [`Means::Outside`] once it has the money, and gives it back itself where the ledger finds
    /// that it came too late or twice.
    fn collect(&self, user: UserId, order: OrderId, permit: ReplyPermit);
}

/// The users' own wallets, in the ledger: collecting and deciding are one transaction.
pub struct Wallets(pub LedgerHandle<ReplyPermit>);

impl PaymentProvider for Wallets {
    fn collect(&self, user: UserId, order: OrderId, permit: ReplyPermit) {
        let posting = Posting::Pay { user, order, means: Means::Wallet };
        if let Some(place) = self.0.try_reserve() {
            place.send(WriterRequest::Post { posting, reply_to: permit });
        }
    }
}
