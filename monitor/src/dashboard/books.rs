//! The two books. Servers say what they paid, users say what they got; the two are counted by different processes from
//! different events, and must agree.
//!
//! Everything is relative to the start of the run: a ledger may be older than it. While load is running, a prize is in one
//! book a moment before it is in the other; so the residual comes with the number of seconds that it has lasted.

use serde::{Deserialize, Serialize};

/// What each side claims to have moved since the run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Prizes that servers handed to SETs.
    pub issued: i64,
    /// Wins in the servers' ledgers.
    pub won: i64,
    /// Their money, fen.
    pub paid_fen: i64,
    /// Distinct prizes that users were told of.
    pub prizes_received: i64,
    /// Their money, fen.
    pub received_fen: i64,
}

/// The books at the end of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// The Unix second; 0 before the first.
    pub second: u64,
    /// What each side claims.
    #[serde(flatten)]
    pub claims: Claims,
    /// Won less received: positive where users have not heard of wins yet, negative where they heard of ones that no ledger
    /// holds.
    pub residual_prizes: i64,
    /// Paid less received, fen.
    pub residual_fen: i64,
    /// For how many seconds in a row, up to this one, a residual was not 0.
    pub unbalanced_seconds: u64,
    /// The longest such row of the run.
    pub unbalanced_seconds_longest: u64,
}

impl Balance {
    /// Whether both books agree, to the prize and to the fen.
    pub fn balanced(&self) -> bool {
        self.residual_prizes == 0 && self.residual_fen == 0
    }

    /// The books one second on. Claims are totals, so a second that was skipped costs the row of seconds its length and
    /// nothing else.
    #[must_use]
    pub fn after(&self, second: u64, claims: Claims) -> Self {
        let mut next = Self {
            second,
            claims,
            residual_prizes: claims.won - claims.prizes_received,
            residual_fen: claims.paid_fen - claims.received_fen,
            ..*self
        };
        if next.balanced() {
            next.unbalanced_seconds = 0;
        } else {
            let since = if self.balanced() { 1 } else { second.saturating_sub(self.second) };
            next.unbalanced_seconds = self.unbalanced_seconds + since;
            next.unbalanced_seconds_longest = self.unbalanced_seconds_longest.max(next.unbalanced_seconds);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims(won: i64, received: i64) -> Claims {
        Claims { issued: won, won, paid_fen: won * 100, prizes_received: received, received_fen: received * 100 }
    }

    #[test]
    fn the_residual_says_how_long_it_has_lasted() {
        let mut books = Balance::default().after(10, claims(3, 3));
        assert!(books.balanced());
        books = books.after(11, claims(5, 4));
        assert_eq!((books.residual_prizes, books.residual_fen, books.unbalanced_seconds), (1, 100, 1));
        books = books.after(14, claims(6, 5));
        assert_eq!(books.unbalanced_seconds, 4);
        books = books.after(15, claims(6, 6));
        assert_eq!((books.balanced(), books.unbalanced_seconds, books.unbalanced_seconds_longest), (true, 0, 4));
    }

    #[test]
    fn the_right_number_of_prizes_with_the_wrong_money_does_not_balance() {
        let wrong = Claims { paid_fen: 301, ..claims(3, 3) };
        let books = Balance::default().after(1, wrong);
        assert!(!books.balanced());
        assert_eq!((books.residual_prizes, books.residual_fen), (0, 1));
    }

    proptest! {
        #[test]
        fn the_residual_depends_on_the_claims_alone(steps in prop::collection::vec((0i64..100, 0i64..100), 1..50)) {
            let mut books = Balance::default();
            for (second, (won, received)) in (1u64..).zip(steps) {
                books = books.after(second, claims(won, received));
                prop_assert_eq!(books.residual_prizes, won - received);
                prop_assert_eq!(books.balanced(), won == received);
                prop_assert_eq!(books.unbalanced_seconds == 0, books.balanced());
                prop_assert!(books.unbalanced_seconds <= books.unbalanced_seconds_longest);
                prop_assert!(books.unbalanced_seconds_longest <= second);
            }
        }
    }
}
