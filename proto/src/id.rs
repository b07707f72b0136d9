//! Checked identifiers and money. A value that came over the wire becomes one of these before
//! anything uses it.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

/// A number from outside that is not a valid identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is outside 1..={max}")]
pub struct IdError {
    pub what: &'static str,
    /// The number that came.
    pub value: u64,
    /// The largest acceptable number.
    pub max: u64,
}

macro_rules! checked_id {
    ($(#[$doc:meta])* $name:ident($inner:ty => $primitive:ty), $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name($inner);

        impl $name {
            /// The largest acceptable value.
            pub const MAX: u64 = $max;

            /// Checks `value` against `1..=MAX`.
            pub const fn new(value: u64) -> Result<Self, IdError> {
                let error = IdError { what: $what, value, max: $max };
                if value > $max {
                    return Err(error);
                }
                // The comparison above makes the cast exact.
                #[allow(clippy::cast_possible_truncation)]
                match <$inner>::new(value as $primitive) {
                    Some(inner) => Ok(Self(inner)),
                    None => Err(error),
                }
            }

            /// The plain number.
            pub const fn get(self) -> $primitive {
                self.0.get()
            }
        }

        impl TryFrom<u64> for $name {
            type Error = IdError;
            fn try_from(value: u64) -> Result<Self, IdError> {
                Self::new(value)
            }
        }

        impl From<$name> for u64 {
            fn from(id: $name) -> u64 {
                u64::from(id.0.get())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

checked_id!(
    /// A user, as named by the subject of its token. At most 2^53 - 1, so that it survives a trip
    /// through JSON.
    UserId(NonZeroU64 => u64), "user id", (1 << 53) - 1
);
checked_id!(
    /// A campaign, numbered from 1 by the ledger.
    CampaignId(NonZeroU32 => u32), "campaign id", u32::MAX as u64
);
checked_id!(
    /// A client-chosen request id. At most 2^63 - 1, so that it fits SQL's integers.
    RequestId(NonZeroU64 => u64), "request id", i64::MAX as u64
);

checked_id!(
    /// A group envelope, numbered from 1 by the ledger.
    EnvelopeId(NonZeroU64 => u64), "envelope id", (1 << 40) - 1
);
checked_id!(
    /// A reservation or purchase of one unit of a sale, numbered from 1 by the ledger.
    OrderId(NonZeroU64 => u64), "order id", (1 << 40) - 1
);
checked_id!(
    /// A chat room, named by those who use it.
    RoomId(NonZeroU64 => u64), "room id", (1 << 53) - 1
);

/// The number of a prize inside its campaign, from 0 up to the campaign's total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(pub u64);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Money in fen (分), 1/100 yuan. Never a float; arithmetic that could wrap is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fen(pub u64);

impl Fen {
    pub const ZERO: Fen = Fen(0);

    /// The sum, or `None` where it does not fit.
    pub const fn checked_add(self, other: Fen) -> Option<Fen> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Fen(sum)),
            None => None,
        }
    }

    /// The difference, or `None` where it would be negative.
    pub const fn checked_sub(self, other: Fen) -> Option<Fen> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Fen(difference)),
            None => None,
        }
    }
}

impl fmt::Display for Fen {
    /// Yuan with two decimals, for people: `Fen(1234)` reads `12.34`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_zero_and_what_is_above_their_maximum() {
        assert_eq!(UserId::new(UserId::MAX).map(UserId::get), Ok((1 << 53) - 1));
        for value in [0, UserId::MAX + 1, u64::MAX] {
            assert_eq!(UserId::new(value).unwrap_err().value, value);
        }
        assert!(CampaignId::new(u64::from(u32::MAX)).is_ok());
        // The low 32 bits alone would be a valid id.
        assert!(CampaignId::new((1 << 32) + 7).is_err());
        assert!(RequestId::new(1 << 63).is_err());
    }

    #[test]
    fn fen_refuses_to_wrap_and_reads_as_yuan() {
        assert_eq!(Fen(u64::MAX).checked_add(Fen(1)), None);
        assert_eq!(Fen(1).checked_sub(Fen(2)), None);
        assert_eq!(Fen(1205).to_string(), "12.05");
    }
}
