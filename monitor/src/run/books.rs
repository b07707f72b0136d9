//! The two books, of each kind of trade: rain, sales, envelopes. Servers say what they paid, users
//! say what they got; the two are counted by different processes from different events, and must
//! agree.
//!
//! Everything is relative to the start of the run: a ledger may be older than it. While load is
//! running, a prize is in one book a moment before it is in the other; so the residual comes with
//! the number of seconds that it has lasted.

use serde::{Deserialize, Serialize};

use hongbao_telemetry::report::{Key, names};

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
    /// Units of sales that are somebody's for good: in the ledgers, and as users were told.
    #[serde(skip_serializing_if = "Sides::is_empty")]
    pub sales: Sides,
    /// Shares of envelopes opened, likewise.
    #[serde(skip_serializing_if = "Sides::is_empty")]
    pub envelopes: Sides,
}

/// Both sides of one kind of trade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sides {
    pub servers_count: i64,
    /// Their money, fen.
    pub servers_fen: i64,
    pub users_count: i64,
    /// Its money, fen.
    pub users_fen: i64,
}

impl Sides {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What servers count beyond users: positive where users have not heard yet, negative where
    /// they heard what no ledger holds.
    pub fn residual_count(&self) -> i64 {
        self.servers_count - self.users_count
    }

    /// The same of the money, fen.
    pub fn residual_fen(&self) -> i64 {
        self.servers_fen - self.users_fen
    }

    /// Whether both sides agree, to the unit and to the fen.
    pub fn balanced(&self) -> bool {
        self.residual_count() == 0 && self.residual_fen() == 0
    }
}

/// One book: what servers say they gave, what users say they got.
#[derive(Debug, Clone, Serialize)]
pub struct Trade {
    pub book: &'static str,
    #[serde(flatten)]
    pub sides: Sides,
    pub residual_count: i64,
    pub residual_fen: i64,
}

/// A kind of trade that both sides keep books of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Book {
    Rain,
    /// Tickets and coupons.
    Sales,
    Envelopes,
}

impl Book {
    pub const ALL: [Book; 3] = [Book::Rain, Book::Sales, Book::Envelopes];

    /// In JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The counters of count and money: at servers, and at machines.
    pub const fn counters(self) -> ([Key; 2], [Key; 2]) {
        match self {
            Book::Rain => ([names::PRIZES_WON, names::PAID_FEN], [names::PRIZES_RECEIVED, names::RECEIVED_FEN]),
            Book::Sales => ([names::UNITS_SOLD, names::EARNED_FEN], [names::ORDERS_PAID, names::SPENT_FEN]),
            Book::Envelopes => {
                ([names::SHARES_OPENED, names::OPENED_FEN], [names::SHARES_TOLD, names::SHARES_TOLD_FEN])
            }
        }
    }
}

impl Claims {
    pub fn sides(&self, book: Book) -> Sides {
        match book {
            Book::Rain => Sides {
                servers_count: self.won,
                servers_fen: self.paid_fen,
                users_count: self.prizes_received,
                users_fen: self.received_fen,
            },
            Book::Sales => self.sales,
            Book::Envelopes => self.envelopes,
        }
    }

    pub fn trades(&self) -> [Trade; 3] {
        Book::ALL.map(|book| {
            let sides = self.sides(book);
            let (residual_count, residual_fen) = (sides.residual_count(), sides.residual_fen());
            Trade { book: book.name(), sides, residual_count, residual_fen }
        })
    }
}

/// The books at the end of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// The Unix second; 0 before the first.
    pub second: u64,
    #[serde(flatten)]
    pub claims: Claims,
    /// Won less received: positive where users have not heard of wins yet, negative where they
    /// heard of ones that no ledger holds.
    pub residual_prizes: i64,
    /// Paid less received, fen.
    pub residual_fen: i64,
    /// For how many seconds in a row, up to this one, a residual of any book was not 0.
    pub unbalanced_seconds: u64,
    /// The same of sales alone.
    #[serde(skip_serializing_if = "is_nought")]
    pub sales_unbalanced_seconds: u64,
    /// The same of envelopes alone.
    #[serde(skip_serializing_if = "is_nought")]
    pub envelopes_unbalanced_seconds: u64,
    /// The same of rain alone.
    #[serde(skip_serializing_if = "is_nought")]
    pub rain_unbalanced_seconds: u64,
    /// The longest such row of the run.
    pub unbalanced_seconds_longest: u64,
}

impl Balance {
    /// Whether both sides of all books agree, to the prize and to the fen. A recording from before
    /// there was more than the rain's book has nought in the others.
    pub fn balanced(&self) -> bool {
        // As recorded: a reader of the recorded status must come to the same.
        let rain = self.residual_prizes == 0 && self.residual_fen == 0;
        rain && self.claims.sales.balanced() && self.claims.envelopes.balanced()
    }

    /// For how many seconds in a row, up to this one, a book did not balance.
    pub fn unbalanced_seconds_of(&self, book: Book) -> u64 {
        match book {
            Book::Rain => self.rain_unbalanced_seconds,
            Book::Sales => self.sales_unbalanced_seconds,
            Book::Envelopes => self.envelopes_unbalanced_seconds,
        }
    }

    /// The books one second on. Claims are totals, so a second that was skipped costs the row of
    /// seconds its length and nothing else.
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
        let row = |book: Book| match (self.unbalanced_seconds_of(book), claims.sides(book).balanced()) {
            (_, true) => 0,
            (0, false) => 1,
            (row, false) => row + second.saturating_sub(self.second),
        };
        next.rain_unbalanced_seconds = row(Book::Rain);
        next.sales_unbalanced_seconds = row(Book::Sales);
        next.envelopes_unbalanced_seconds = row(Book::Envelopes);
        next
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_nought(seconds: &u64) -> bool {
    *seconds == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims(won: i64, received: i64) -> Claims {
        let money = (won * 100, received * 100);
        Claims {
            issued: won,
            won,
            paid_fen: money.0,
            prizes_received: received,
            received_fen: money.1,
            ..Claims::default()
        }
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
    fn the_right_prizes_with_the_wrong_money_do_not_balance() {
        let wrong = Claims { paid_fen: 301, ..claims(3, 3) };
        let books = Balance::default().after(1, wrong);
        assert!(!books.balanced());
        assert_eq!((books.residual_prizes, books.residual_fen), (0, 1));
    }

    #[test]
    fn each_book_has_its_own_residual_and_all_must_balance() {
        let sold = Sides { servers_count: 4, servers_fen: 32_000, users_count: 3, users_fen: 24_000 };
        let mut books = Balance::default().after(10, Claims { sales: sold, ..claims(3, 3) });
        assert!(!books.balanced() && books.claims.sides(Book::Rain).balanced());
        assert_eq!((sold.residual_count(), sold.residual_fen()), (1, 8_000));
        books = books.after(12, Claims { sales: sold, ..claims(5, 4) });
        let rows = Book::ALL.map(|book| books.unbalanced_seconds_of(book));
        assert_eq!((rows, books.unbalanced_seconds), ([1, 3, 0], 3));
        let bought = Sides { users_count: 4, users_fen: 32_000, ..sold };
        let opened = Sides { users_count: 1, users_fen: 1, ..Sides::default() };
        books = books.after(13, Claims { sales: bought, envelopes: opened, ..claims(5, 5) });
        assert_eq!(Book::ALL.map(|book| books.unbalanced_seconds_of(book)), [0, 0, 1]);
        assert!(!books.balanced(), "a share that no ledger holds");
    }

    #[test]
    fn books_of_an_older_recording_read_as_they_were_written() {
        let old = r#"{"second":5,"issued":3,"won":3,"paid_fen":9,"prizes_received":3,"received_fen":9,"residual_prizes":0,"residual_fen":0,"unbalanced_seconds":0,"unbalanced_seconds_longest":2}"#;
        let books: Balance = serde_json::from_str(old).unwrap();
        assert!(books.balanced());
        let written: serde_json::Value = serde_json::to_value(books).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(old).unwrap());
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
