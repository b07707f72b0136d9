//! What guests were told: their side of the books, each prize, share and order once, however often
//! it is told. As on a machine of the fleet, a row is in the journal before the guest hears of it,
//! so that nothing is acknowledged that the journal lacks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::io;
use std::path::Path;

use hongbao_proto::v1::order::State;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Order, ServerFrame, Won};
use strum::VariantArray;

use crate::limits::GUEST_ITEMS_MAX;
use hongbao_telemetry::journal::{Journal, Prize, Row, Share};
use hongbao_telemetry::report::names;
use hongbao_telemetry::report::{Key, Sample};

const SHAKES: Key = Key::new("guest_shakes", "Grabs of guests that were answered; outside of the schedule");
const VIOLATIONS_HELP: &str = "What no server may do, by kind";
const GUESTS_ONLINE: Key = Key::new("guests_online", "Guests who play at this moment");

/// Counts and their money.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    count: u64,
    fen: u64,
}

impl Sum {
    fn add(&mut self, fen: u64) {
        self.count += 1;
        self.fen += fen;
    }
}

/// What a server sends that contradicts what it has sent before; by its name in `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
enum Violation {
    PrizeToldToTwo,
    PrizeChanged,
    ShareToldToTwo,
    ShareChanged,
    OrderChanged,
}

#[derive(Debug, Clone, Copy)]
struct KnownOrder {
    user: u64,
    price: u64,
    state: State,
}

/// The book of all guests of a run.
#[derive(Debug)]
pub struct GuestBook {
    journal: Journal,
    items_max: usize,
    /// By (campaign, serial): user and fen.
    prizes: HashMap<(u32, u64), (u64, u64)>,
    /// By (envelope, share): user and fen.
    shares: HashMap<(u64, u32), (u64, u64)>,
    orders: HashMap<u64, KnownOrder>,
    won: Sum,
    opened: Sum,
    paid: Sum,
    shakes: u64,
    violations: [u64; Violation::VARIANTS.len()],
}

impl GuestBook {
    /// Begins the journal at `path`, whose folder is made if needed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self::new(Journal::create(Some(path))?, GUEST_ITEMS_MAX))
    }

    fn new(journal: Journal, items_max: usize) -> Self {
        Self {
            journal,
            items_max,
            prizes: HashMap::new(),
            shares: HashMap::new(),
            orders: HashMap::new(),
            won: Sum::default(),
            opened: Sum::default(),
            paid: Sum::default(),
            shakes: 0,
            violations: Default::default(),
        }
    }

    /// Whether there is no room for what another guest could win.
    pub fn is_full(&self) -> bool {
        self.prizes.len() + self.shares.len() + self.orders.len() >= self.items_max
    }

    /// `user` is about to be told this. Afterwards it is in the journal.
    ///
    /// # Errors
    /// If the journal cannot be written; then the user must not be told. What is missing there is
    /// written with the next success.
    pub fn receive(&mut self, user: u64, frame: &ServerFrame, at_ms: u64) -> io::Result<()> {
        let request = frame.request_id;
        match &frame.event {
            Some(Event::Won(won)) => self.prize(user, won, at_ms),
            Some(Event::Order(order)) => self.order(user, request, order, at_ms),
            Some(Event::OrderList(list)) => {
                for order in &list.orders {
                    self.order(user, 0, order, at_ms);
                }
            }
            Some(Event::Opened(opened)) => {
                let share = Share { envelope: opened.envelope_id, number: opened.share, amount: opened.amount_fen };
                self.share(user, request, share, at_ms);
            }
            Some(Event::Reminder(reminder)) => {
                for won in &reminder.wins {
                    self.prize(user, won, at_ms);
                }
                for order in &reminder.orders {
                    self.order(user, 0, order, at_ms);
                }
            }
            _ => {}
        }
        self.journal.flush()
    }

    /// A guest's Grab was answered.
    pub fn shaken(&mut self) {
        self.shakes += 1;
    }

    fn prize(&mut self, user: u64, won: &Won, at_ms: u64) {
        let prize = Prize { campaign: won.campaign_id, serial: won.serial, amount: won.amount_fen };
        let noted = note(&mut self.prizes, (prize.campaign, prize.serial), user, prize.amount);
        if self.is_new(noted, Violation::PrizeToldToTwo, Violation::PrizeChanged) {
            self.won.add(prize.amount);
            self.journal.append(user, won.won_by_request_id, Row::Win(prize), at_ms);
        }
    }

    fn share(&mut self, user: u64, request: u64, share: Share, at_ms: u64) {
        let noted = note(&mut self.shares, (share.envelope, share.number), user, share.amount);
        if self.is_new(noted, Violation::ShareToldToTwo, Violation::ShareChanged) {
            self.opened.add(share.amount);
            self.journal.append(user, request, Row::Share(share), at_ms);
        }
    }

    fn is_new(&mut self, noted: Noted, to_two: Violation, changed: Violation) -> bool {
        match noted {
            Noted::New => return true,
            Noted::Again => {}
            Noted::ToAnother => self.count(to_two),
            Noted::Changed => self.count(changed),
        }
        false
    }

    fn count(&mut self, violation: Violation) {
        self.violations[violation as usize] += 1;
    }

    fn order(&mut self, user: u64, request: u64, order: &Order, at_ms: u64) {
        let (id, price, state) = (order.order_id, order.price_fen, order.state());
        let known = match self.orders.entry(id) {
            Entry::Vacant(vacant) => {
                let row = Row::Order { order: id, campaign: order.campaign_id, serial: order.serial, price };
                self.journal.append(user, order.grabbed_by_request_id, row, at_ms);
                vacant.insert(KnownOrder { user, price, state: State::Reserved })
            }
            Entry::Occupied(known) => known.into_mut(),
        };
        if (known.user, known.price) != (user, price) {
            return self.count(Violation::OrderChanged);
        }
        if known.state == state {
            return;
        }
        if known.state != State::Reserved {
            // An older page of orders may come after a newer word.
            if state != State::Reserved {
                self.count(Violation::OrderChanged);
            }
            return;
        }
        known.state = state;
        match state {
            State::Paid => {
                self.paid.add(price);
                if price > 0 {
                    self.journal.append(user, request, Row::Paid { order: id, price }, at_ms);
                }
            }
            State::Cancelled => self.journal.append(user, request, Row::Cancelled { order: id }, at_ms),
            State::Unspecified | State::Reserved | State::Expired => {}
        }
    }

    /// The book as a machine of the fleet reports its own; `online`: guests at this moment.
    pub fn sample(&self, online: usize) -> Sample {
        let mut counters = vec![
            (names::PRIZES_RECEIVED, self.won.count),
            (names::RECEIVED_FEN, self.won.fen),
            (names::SHARES_TOLD, self.opened.count),
            (names::SHARES_TOLD_FEN, self.opened.fen),
            (names::ORDERS_PAID, self.paid.count),
            (names::SPENT_FEN, self.paid.fen),
            (SHAKES, self.shakes),
        ];
        for &kind in Violation::VARIANTS {
            let key = Key::labelled("violations", "kind", kind.into(), VIOLATIONS_HELP);
            counters.push((key, self.violations[kind as usize]));
        }
        let gauges = vec![(GUESTS_ONLINE, i64::try_from(online).unwrap_or(i64::MAX))];
        Sample { counters, gauges, ..Sample::default() }
    }
}

enum Noted {
    New,
    Again,
    ToAnother,
    Changed,
}

fn note<K: Eq + Hash>(known: &mut HashMap<K, (u64, u64)>, key: K, user: u64, fen: u64) -> Noted {
    match known.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert((user, fen));
            Noted::New
        }
        Entry::Occupied(before) => match *before.get() {
            (owner, _) if owner != user => Noted::ToAnother,
            (_, amount) if amount != fen => Noted::Changed,
            _ => Noted::Again,
        },
    }
}

#[cfg(test)]
mod tests {
    use hongbao_proto::v1::{Opened, OrderList, Reminder};

    use super::*;

    fn value(book: &GuestBook, name: &str) -> u64 {
        book.sample(0).counters.iter().find(|(key, _)| key.column() == name).unwrap().1
    }

    fn frame(request_id: u64, event: Event) -> ServerFrame {
        ServerFrame { request_id, event: Some(event) }
    }

    fn won(serial: u64, amount_fen: u64) -> Won {
        Won { campaign_id: 1, serial, amount_fen, won_by_request_id: 7 }
    }

    fn order(state: State) -> Order {
        Order {
            order_id: 5,
            campaign_id: 2,
            serial: 3,
            state: state.into(),
            price_fen: 800,
            grabbed_by_request_id: 9,
            ..Order::default()
        }
    }

    fn told(frames: Vec<(u64, ServerFrame)>) -> (GuestBook, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journals/guests.csv");
        let mut book = GuestBook::create(&path).unwrap();
        for (user, frame) in frames {
            book.receive(user, &frame, 4).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap();
        (book, text.split_once('\n').unwrap().1.to_owned())
    }

    #[test]
    fn a_prize_that_is_told_again_is_no_new_one() {
        let reminder = Reminder { wins: vec![won(1, 50), won(2, 30)], orders: Vec::new() };
        let (book, journal) = told(vec![
            (11, frame(7, Event::Won(won(1, 50)))),
            (11, frame(0, Event::Reminder(reminder.clone()))),
            (11, frame(0, Event::Reminder(reminder))),
        ]);
        assert_eq!((value(&book, "prizes_received"), value(&book, "received_fen")), (2, 80));
        assert_eq!(journal, "win,11,7,1/1,50,4\nwin,11,7,1/2,30,4\n");
    }

    #[test]
    fn an_order_counts_once_paid_and_a_share_once_opened() {
        let opened = Opened { envelope_id: 6, share: 0, amount_fen: 20 };
        let page = OrderList { orders: vec![order(State::Reserved)], more: false };
        let (book, journal) = told(vec![
            (11, frame(9, Event::Order(order(State::Reserved)))),
            (11, frame(10, Event::Order(order(State::Paid)))),
            (11, frame(10, Event::Order(order(State::Paid)))),
            (11, frame(12, Event::OrderList(page))),
            (11, frame(13, Event::Opened(opened))),
            (11, frame(14, Event::Opened(opened))),
        ]);
        assert_eq!((value(&book, "orders_paid"), value(&book, "spent_fen")), (1, 800));
        assert_eq!((value(&book, "shares_opened"), value(&book, "opened_fen")), (1, 20));
        assert_eq!(journal, "order,11,9,5/2/3,800,4\npaid,11,10,5,800,4\nshare,11,13,6/0,20,4\n");
        assert_eq!(value(&book, "violations_order_changed"), 0);
    }

    #[test]
    fn words_that_contradict_earlier_ones_count_and_add_nothing() {
        let (book, _) = told(vec![
            (11, frame(7, Event::Won(won(1, 50)))),
            (12, frame(7, Event::Won(won(1, 50)))),
            (11, frame(7, Event::Won(won(1, 51)))),
            (11, frame(9, Event::Order(order(State::Cancelled)))),
            (11, frame(9, Event::Order(order(State::Paid)))),
        ]);
        assert_eq!((value(&book, "prizes_received"), value(&book, "orders_paid")), (1, 0));
        let kinds = ["prize_told_to_two", "prize_changed", "order_changed"];
        assert_eq!(kinds.map(|kind| value(&book, &format!("violations_{kind}"))), [1, 1, 1]);
    }

    #[test]
    fn a_full_book_reports_it_and_one_that_cannot_begin_is_an_error() {
        let mut book = GuestBook::new(Journal::create(Some(Path::new("/dev/null"))).unwrap(), 1);
        assert!(!book.is_full());
        book.receive(11, &frame(7, Event::Won(won(1, 50))), 4).unwrap();
        assert!(book.is_full());
        assert!(GuestBook::create(Path::new("/proc/nowhere/guests.csv")).is_err());
    }
}
