//! An entry: one movement of money, or of a unit, between two accounts; and how accounts are
//! numbered.
//!
//! An account's balance is the sum of what it was credited less the sum of what it was debited.
//! Each entry debits one account and credits another by the same amount, so all balances together
//! are 0 after every entry. The treasury stands for the world outside and is the one account below
//! zero: minus all that was ever put into the books.
//!
//! At most one of the two accounts is a user's. Its entries form a chain: each names the one before
//! it, and the account the last one. So whatever concerns a user is found without an index in
//! random order, which would cost more than all the rest of a win.

use std::fmt;

use hongbao_proto::{CampaignId, EnvelopeId, RequestId, UserId};
use serde::Serialize;

use crate::clock::UnixMs;

/// The number of an account. Derived from its owner, so that no index has to find it: users are
/// positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

impl AccountId {
    /// The world outside.
    pub const TREASURY: AccountId = AccountId(0);

    /// What campaigns and house envelopes have given back. Below every campaign's account: campaign
    /// ids end at 2^32.
    pub const REFUNDS: AccountId = AccountId(-(1 << 40));

    /// What sales have taken in, once they are settled.
    pub const PROCEEDS: AccountId = AccountId(-(1 << 40) - 1);

    /// Envelopes are below this, by their numbers.
    pub const ENVELOPES: i64 = -(1 << 41);

    #[allow(clippy::cast_possible_wrap)] // user ids end at 2^53
    pub const fn user(user: UserId) -> Self {
        Self(user.get() as i64)
    }

    /// The fund of a rain, or the till of a sale.
    pub fn campaign(id: CampaignId) -> Self {
        Self(-i64::from(id.get()))
    }

    #[allow(clippy::cast_possible_wrap)] // envelope ids end at 2^40
    pub const fn envelope(id: EnvelopeId) -> Self {
        Self(Self::ENVELOPES - id.get() as i64)
    }

    pub fn owner(self) -> Owner {
        let id = self.0.unsigned_abs();
        match self {
            Self::TREASURY => Owner::Treasury,
            Self::REFUNDS => Owner::Refunds,
            Self::PROCEEDS => Owner::Proceeds,
            Self(1..) => UserId::new(id).map_or(Owner::Nobody, Owner::User),
            Self(..Self::ENVELOPES) => {
                EnvelopeId::new(id - Self::ENVELOPES.unsigned_abs()).map_or(Owner::Nobody, Owner::Envelope)
            }
            Self(_) => CampaignId::new(id).map_or(Owner::Nobody, Owner::Campaign),
        }
    }

    pub const fn is_user(self) -> bool {
        self.0 > 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Treasury,
    /// What was given back to the house.
    Refunds,
    /// What sales have taken in.
    Proceeds,
    User(UserId),
    /// A campaign's fund or till.
    Campaign(CampaignId),
    Envelope(EnvelopeId),
    /// No account has this number.
    Nobody,
}

/// What an entry is for. The numbers are written into files, never to be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(i64)]
pub enum Kind {
    /// Treasury to campaign, once, at the creation of a rain.
    Fund = 1,
    /// Campaign to user: a prize. `item`: its serial.
    Win = 2,
    /// Campaign to refunds, at most once, when a rain is settled.
    Refund = 3,
    /// Campaign to user, 0 fen: a unit of a sale is held for the user. `item`: the order.
    Reserve = 4,
    /// User to campaign, 0 fen: the unit is for sale again. `item`: the order.
    Release = 5,
    /// User to campaign: the price of an order. `item`: the order.
    Pay = 6,
    /// Treasury to campaign: the price of an order, collected outside of these books. `item`: the
    /// order.
    PayOutside = 7,
    /// User or treasury to envelope.
    Send = 8,
    /// Envelope to user: a share. `item`: its number.
    Open = 9,
    /// Envelope to its sender, or to the refunds: the unopened rest.
    Return = 10,
    /// Treasury to user.
    Deposit = 11,
    /// Campaign to proceeds, at most once, when a sale is settled.
    Bank = 12,
}

impl Kind {
    pub const ALL: [Kind; 12] = [
        Kind::Fund,
        Kind::Win,
        Kind::Refund,
        Kind::Reserve,
        Kind::Release,
        Kind::Pay,
        Kind::PayOutside,
        Kind::Send,
        Kind::Open,
        Kind::Return,
        Kind::Deposit,
        Kind::Bank,
    ];

    /// The number in files.
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// The kind of a number in a file.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// As in JSON.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1, without gaps.
    pub id: i64,
    pub at: UnixMs,
    pub kind: Kind,
    pub debit: AccountId,
    pub credit: AccountId,
    /// Fen.
    pub amount: i64,
    /// See [`Kind`]; 0 where it says nothing.
    pub item: i64,
    /// The request that caused it, where one of a user's did.
    pub request: Option<RequestId>,
    /// The entry before this one in the chain of the user; 0: none.
    pub previous: i64,
}

impl Entry {
    /// The account of the user whom it concerns.
    pub fn user_account(&self) -> Option<AccountId> {
        [self.debit, self.credit].into_iter().find(|account| account.is_user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_account_tells_its_owner() {
        for id in [1, 7, CampaignId::MAX] {
            let id = CampaignId::new(id).unwrap();
            assert_eq!(AccountId::campaign(id).owner(), Owner::Campaign(id));
        }
        for id in [1, UserId::MAX] {
            let id = UserId::new(id).unwrap();
            assert_eq!(AccountId::user(id).owner(), Owner::User(id));
        }
        for id in [1, EnvelopeId::MAX] {
            let id = EnvelopeId::new(id).unwrap();
            assert_eq!(AccountId::envelope(id).owner(), Owner::Envelope(id));
        }
        assert_eq!(AccountId::TREASURY.owner(), Owner::Treasury);
        assert_eq!(AccountId::REFUNDS.owner(), Owner::Refunds);
        assert_eq!(AccountId::PROCEEDS.owner(), Owner::Proceeds);
        for nobody in [1 << 53, -(1 << 32), -(1 << 41), i64::MIN, i64::MAX] {
            assert_eq!(AccountId(nobody).owner(), Owner::Nobody, "{nobody}");
        }
    }

    #[test]
    fn kinds_are_numbered_for_good() {
        let codes: Vec<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, (1..=12).collect::<Vec<_>>());
        assert_eq!(Kind::from_code(2), Some(Kind::Win));
        assert_eq!(Kind::from_code(13), None);
    }
}
