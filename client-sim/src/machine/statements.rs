//! Statements of users' wallets, page by page, held against what the users were told: the balance
//! is the sum of all movements, and everything that a user knows it won, opened or paid is among
//! them, with the same amount.

use hongbao_proto::v1::{StatementPage, movement::Kind};
use rustc_hash::FxHashMap;

use crate::limits::STATEMENT_PAGES_MAX;
use crate::machine::labels::Violation;

/// A movement that a user knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// Won in a rain: campaign and serial.
    Win(u32, u64),
    Share(u64),
    Paid(u64),
}

/// A statement that is being read.
#[derive(Debug, Default)]
struct Reading {
    balance: Option<u64>,
    sum: i128,
    pages: u32,
    /// What must be found yet, and its amount.
    known: FxHashMap<Item, i128>,
    contradicted: bool,
}

/// What the next page, or the last one, adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// There is more, before this movement.
    More(u64),
    /// All of it was read, and is right.
    Right,
    Wrong(Violation),
    TooLong,
}

/// Statements that users of a machine are reading.
#[derive(Debug, Default)]
pub struct Statements {
    reading: FxHashMap<u32, Reading>,
    /// Read to their end and found right.
    pub right: u64,
}

impl Statements {
    /// `user` begins to read, and knows of these movements. Fen; above 0: came in.
    pub fn begin(&mut self, user: u32, known: FxHashMap<Item, i128>) {
        self.reading.insert(user, Reading { known, ..Reading::default() });
    }

    /// A page came, newest movements first.
    pub fn page(&mut self, user: u32, page: &StatementPage) -> Read {
        let Some(reading) = self.reading.get_mut(&user) else { return Read::Right };
        // What moves after the first page is not on the later ones.
        reading.balance.get_or_insert(page.balance_fen);
        reading.pages += 1;
        for movement in &page.movements {
            let amount = i128::from(movement.amount_fen);
            reading.sum += amount;
            let item = match movement.kind() {
                Kind::Win => Item::Win(movement.campaign_id, movement.serial),
                Kind::Open => Item::Share(movement.envelope_id),
                Kind::Pay => Item::Paid(movement.order_id),
                _ => continue,
            };
            if reading.known.remove(&item).is_some_and(|known| known != amount) {
                reading.contradicted = true;
            }
        }
        if let Some(last) = page.movements.last().filter(|_| page.more) {
            if reading.pages < STATEMENT_PAGES_MAX {
                return Read::More(last.entry_id);
            }
            self.reading.remove(&user);
            return Read::TooLong;
        }
        let Some(read) = self.reading.remove(&user) else { return Read::Right };
        if read.balance.map(i128::from) != Some(read.sum) {
            return Read::Wrong(Violation::BalanceUntrue);
        }
        if read.contradicted || !read.known.is_empty() {
            return Read::Wrong(Violation::StatementContradicts);
        }
        self.right += 1;
        Read::Right
    }
}

#[cfg(test)]
mod tests {
    use hongbao_proto::v1::Movement;

    use super::*;

    fn movement(entry_id: u64, kind: Kind, item: u64, amount_fen: i64) -> Movement {
        let mut one = Movement { entry_id, amount_fen, ..Movement::default() };
        one.set_kind(kind);
        match kind {
            Kind::Win => (one.campaign_id, one.serial) = (1, item),
            Kind::Open => one.envelope_id = item,
            Kind::Pay => one.order_id = item,
            _ => {}
        }
        one
    }

    fn pages() -> [StatementPage; 2] {
        let newest = vec![movement(9, Kind::Pay, 7, -300), movement(8, Kind::Open, 5, 40)];
        let oldest = vec![movement(4, Kind::Win, 2, 60), movement(3, Kind::Deposit, 0, 1_000)];
        [
            StatementPage { balance_fen: 800, movements: newest, more: true },
            // Something came in between.
            StatementPage { balance_fen: 900, movements: oldest, more: false },
        ]
    }

    fn read(known: &[(Item, i128)], pages: [StatementPage; 2]) -> [Read; 2] {
        let mut statements = Statements::default();
        statements.begin(0, known.iter().copied().collect());
        pages.map(|page| statements.page(0, &page))
    }

    const KNOWN: [(Item, i128); 3] = [(Item::Paid(7), -300), (Item::Share(5), 40), (Item::Win(1, 2), 60)];

    #[test]
    fn a_statement_that_adds_up_and_misses_nothing_known_is_right() {
        assert_eq!(read(&KNOWN, pages()), [Read::More(8), Read::Right]);
        assert_eq!(read(&KNOWN[..1], pages())[1], Read::Right, "more than is known");
    }

    #[test]
    fn one_that_does_not_add_up_or_says_something_else_is_found_out() {
        let mut wrong = pages();
        wrong[0].balance_fen = 801;
        assert_eq!(read(&KNOWN, wrong)[1], Read::Wrong(Violation::BalanceUntrue));
        let contradicts = Read::Wrong(Violation::StatementContradicts);
        assert_eq!(read(&[(Item::Share(5), 41)], pages())[1], contradicts);
        assert_eq!(read(&[(Item::Share(6), 40)], pages())[1], contradicts, "it is missing");
    }

    #[test]
    fn one_that_never_ends_is_given_up() {
        let mut statements = Statements::default();
        statements.begin(0, FxHashMap::default());
        let page = StatementPage { balance_fen: 0, movements: vec![movement(9, Kind::Deposit, 0, 0)], more: true };
        let reads: Vec<_> = (0..STATEMENT_PAGES_MAX).map(|_| statements.page(0, &page)).collect();
        assert!(reads[..reads.len() - 1].iter().all(|read| *read == Read::More(9)));
        assert_eq!(reads.last(), Some(&Read::TooLong));
    }
}
