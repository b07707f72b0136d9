//! `kill -9` under everything that users can do: what each was told is what the books say, and the
//! books know of nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::order::State;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode, send_envelope};
use serde_json::json;

use hongbao_testing::client::{grab, login};
use hongbao_testing::{Client, Heard, PATIENCE, Server, eventually, until, user_token};

const USERS: u64 = 12;
const KILLS: u64 = 8;
const DEPOSIT: u64 = 1_000_000;
const LOGIN: u64 = u64::MAX >> 1;

/// What a user knows, because it was told.
#[derive(Debug, Default)]
struct Known {
    /// (campaign, serial) → amount.
    wins: BTreeMap<(u32, u64), u64>,
    /// The last word on each order.
    orders: BTreeMap<u64, v1::Order>,
    /// Envelope → (share, amount).
    shares: BTreeMap<u64, (u32, u64)>,
    /// Envelope → total.
    sent: BTreeMap<u64, u64>,
}

/// One who does a bit of everything, whatever happens to the server; what was not answered is sent
/// again under its id.
struct User<'a> {
    id: u64,
    rain: u32,
    sale: u32,
    server: &'a Mutex<SocketAddr>,
    over: &'a AtomicBool,
    answered: &'a AtomicU64,
    dice: u64,
    next_request: u64,
    /// Offered, and not opened yet.
    offered: Vec<u64>,
    /// To be acknowledged.
    unseen: v1::Acknowledge,
    known: Known,
}

impl User<'_> {
    /// The next number of a sequence of its own (xorshift), below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn run(mut self) -> (u64, Known) {
        let mut pending: Option<(u64, Request)> = None;
        loop {
            let address = *self.server.lock().unwrap();
            let Ok(mut client) = Client::try_connect(address) else {
                std::thread::park_timeout(Duration::from_millis(5));
                continue;
            };
            if self.come_in(&mut client) && self.serve(&mut client, &mut pending) {
                return (self.id, self.known);
            }
        }
    }

    /// Whether it was let in.
    fn come_in(&mut self, client: &mut Client) -> bool {
        client.send(LOGIN, login(&user_token(self.id)));
        loop {
            match client.hear(PATIENCE) {
                Heard::Silence => panic!("user {} got no answer", self.id),
                Heard::End => return false,
                Heard::Frame(frame) if frame.request_id == LOGIN => {
                    return matches!(frame.event, Some(Event::Welcome(_)));
                }
                Heard::Frame(frame) => self.push(frame.event.unwrap()),
            }
        }
    }

    /// `true`: the end of the test; `false`: the connection has ended.
    fn serve(&mut self, client: &mut Client, pending: &mut Option<(u64, Request)>) -> bool {
        loop {
            if pending.is_none() {
                if self.over.load(Ordering::Relaxed) {
                    return true;
                }
                let request = self.choose();
                *pending = Some((self.next_request, request));
                self.next_request += 1;
            }
            let Some((id, request)) = pending.clone() else { unreachable!("just filled") };
            client.send(id, request.clone());
            let answer = loop {
                match client.hear(PATIENCE) {
                    Heard::Silence => panic!("user {} got no answer to {request:?}", self.id),
                    Heard::End => return false,
                    Heard::Frame(frame) if frame.request_id == id => break frame.event.unwrap(),
                    Heard::Frame(frame) => {
                        assert_eq!(frame.request_id, 0, "{frame:?}");
                        self.push(frame.event.unwrap());
                    }
                }
            };
            if self.learn(&request, answer) {
                self.answered.fetch_add(1, Ordering::Relaxed);
                *pending = None;
            } else {
                // Nothing was decided: sent again.
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
    }

    fn choose(&mut self) -> Request {
        let seen = self.unseen.prizes.len() + self.unseen.envelope_ids.len() + self.unseen.order_ids.len();
        if seen > 20 {
            return Request::Acknowledge(std::mem::take(&mut self.unseen));
        }
        match self.roll(10) {
            0..=3 => grab(self.rain),
            4 => grab(self.sale),
            5 => {
                let user_ids = (1..=3).map(|_| self.roll(USERS) + 1).collect::<std::collections::BTreeSet<_>>();
                Request::SendEnvelope(v1::SendEnvelope {
                    total_fen: 10 + self.roll(100),
                    shares: 2,
                    mode: send_envelope::Mode::Random.into(),
                    user_ids: user_ids.into_iter().collect(),
                    lifetime_seconds: 1 + u32::try_from(self.roll(2)).unwrap(),
                    ..Default::default()
                })
            }
            6 | 7 => match self.offered.pop() {
                Some(envelope_id) => Request::Open(v1::Open { envelope_id }),
                None => grab(self.rain),
            },
            _ => {
                let open = self.known.orders.values().find(|order| order.state() == State::Reserved);
                match (open.map(|order| order.order_id), self.roll(3)) {
                    (Some(order_id), 0) => Request::Cancel(v1::Cancel { order_id }),
                    (Some(order_id), _) => Request::Pay(v1::Pay { order_id }),
                    (None, _) => Request::Statement(v1::Statement::default()),
                }
            }
        }
    }

    /// Whether this settles the request.
    fn learn(&mut self, request: &Request, answer: Event) -> bool {
        match (request, answer) {
            (Request::Grab(_), Event::Won(won)) => self.won(&won),
            (_, Event::Order(order)) => self.order(order),
            (Request::Open(open), Event::Opened(opened)) => {
                assert_eq!(opened.envelope_id, open.envelope_id);
                let share = (opened.share, opened.amount_fen);
                let before = self.known.shares.insert(open.envelope_id, share);
                assert!(before.is_none_or(|before| before == share), "{before:?} and then {share:?}");
            }
            (Request::SendEnvelope(send), Event::EnvelopeSent(sent)) => {
                let before = self.known.sent.insert(sent.envelope_id, send.total_fen);
                assert_eq!(before, None, "two requests made envelope {}", sent.envelope_id);
            }
            (Request::Pay(pay), Event::TooLate(_)) => {
                // Its hold is over; the sweep may not have come by yet.
                let order = self.known.orders.get_mut(&pay.order_id).unwrap();
                order.set_state(State::Expired);
            }
            (Request::Statement(_), Event::StatementPage(_))
            | (Request::Acknowledge(_), Event::Acknowledged(_))
            | (Request::Open(_), Event::EnvelopeEmpty(_) | Event::TooLate(_))
            | (Request::Grab(_), Event::NoneNow(_) | Event::LimitReached(_) | Event::SoldOut(_)) => {}
            (_, Event::Overloaded(_)) => return false,
            (Request::Cancel(cancel), Event::Error(error)) if error.code() == ErrorCode::OrderPaid => {
                // Paid by the request before, whose answer was lost; it was sent again then. So
                // this cannot be.
                panic!("order {} was paid unheard", cancel.order_id);
            }
            // Not told to every SET yet after a restart.
            (Request::Grab(_), Event::TooEarly(_)) => return false,
            (_, Event::Error(error))
                if matches!(error.code(), ErrorCode::NoSuchCampaign | ErrorCode::LedgerUnavailable) =>
            {
                return false;
            }
            (request, other) => panic!("user {}: {request:?} was answered {other:?}", self.id),
        }
        true
    }

    fn push(&mut self, event: Event) {
        match event {
            Event::Reminder(reminder) => {
                reminder.wins.iter().for_each(|won| self.won(won));
                reminder.orders.into_iter().for_each(|order| self.order(order));
            }
            Event::Offers(offers) => {
                for offer in offers.offers {
                    // Told at the login and, a moment later, as it was sent: it may have been
                    // opened in between.
                    let is_opened = self.known.shares.contains_key(&offer.envelope_id);
                    if !is_opened && !self.offered.contains(&offer.envelope_id) {
                        self.offered.push(offer.envelope_id);
                    }
                }
            }
            Event::CampaignNotice(_) | Event::Goodbye(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn won(&mut self, won: &v1::Won) {
        let prize = (won.campaign_id, won.serial);
        let before = self.known.wins.insert(prize, won.amount_fen);
        assert!(before.is_none_or(|before| before == won.amount_fen), "{prize:?} is worth two amounts");
        self.unseen.prizes.push(v1::PrizeId { campaign_id: prize.0, serial: prize.1 });
    }

    fn order(&mut self, order: v1::Order) {
        if let Some(before) = self.known.orders.get(&order.order_id) {
            let forward = before.state() == order.state() || before.state() == State::Reserved;
            assert!(forward, "{before:?} became {order:?}");
            assert_eq!((before.serial, before.price_fen), (order.serial, order.price_fen));
        }
        self.unseen.order_ids.push(order.order_id);
        self.known.orders.insert(order.order_id, order);
    }
}

#[test]
fn kills_under_all_that_users_do_leave_true_books() {
    let mut server = Server::start();
    server.deposit(1, USERS, DEPOSIT, "wallets");
    let rain = server.rain(1_000_000, 300, &json!({"min_fen": 1, "max_fen": 1_000}));
    let sale =
        server.sale(&json!({"kind": "ticket", "total": 400, "price_fen": 50, "hold_ms": 1_000, "per_user_limit": 60}));
    let (address, over, answered) = (Mutex::new(server.listen), AtomicBool::new(false), AtomicU64::new(0));
    let known: BTreeMap<u64, Known> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=USERS)
            .map(|id| {
                let user = User {
                    id,
                    rain,
                    sale,
                    server: &address,
                    over: &over,
                    answered: &answered,
                    dice: 0x9E37_79B9_7F4A_7C15 ^ (id << 32 | id),
                    next_request: 1,
                    offered: Vec::new(),
                    unseen: v1::Acknowledge::default(),
                    known: Known::default(),
                };
                scope.spawn(|| user.run())
            })
            .collect();
        for kill in 1..=KILLS {
            until("some more to be done", || answered.load(Ordering::Relaxed) >= kill * 400);
            server.kill();
            server.start_again();
            *address.lock().unwrap() = server.listen;
        }
        until("the last stretch", || answered.load(Ordering::Relaxed) >= (KILLS + 1) * 400);
        over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    until("what was left to expire", || {
        let ledger = &server.stats()["ledger"];
        ledger["envelopes_open"] == 0 && ledger["reserved"] == 0
    });
    server.check_books();
    let path = server.ledger();
    server.stop_and_audit();

    let ledger = eventually("the ledger to be readable", || rusqlite::Connection::open(&path).ok());
    let rows = |sql: &str| -> Vec<[u64; 4]> {
        let mut statement = ledger.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            let number = |column| row.get(column).map(i64::cast_unsigned);
            Ok([number(0)?, number(1)?, number(2)?, number(3)?])
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    let all = |of: fn(&Known) -> Vec<[u64; 3]>| -> Vec<[u64; 4]> {
        let mut all: Vec<_> =
            known.iter().flat_map(|(user, known)| of(known).into_iter().map(|[a, b, c]| [*user, a, b, c])).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(
        rows("SELECT user, campaign, serial, amount_fen FROM wins ORDER BY 1, 2, 3"),
        all(|known| known.wins.iter().map(|((campaign, serial), fen)| [u64::from(*campaign), *serial, *fen]).collect())
    );
    assert_eq!(
        rows("SELECT user, envelope, share, amount_fen FROM openings ORDER BY 1, 2"),
        all(|known| known.shares.iter().map(|(envelope, (share, fen))| [*envelope, u64::from(*share), *fen]).collect())
    );
    assert_eq!(
        rows("SELECT sender, id, total, 0 FROM envelopes ORDER BY 1, 2"),
        all(|known| known.sent.iter().map(|(envelope, total)| [*envelope, *total, 0]).collect())
    );
    // What was still held when its user left has expired since.
    let told = all(|known| {
        let held = |state| if state == State::Reserved { State::Expired } else { state };
        known.orders.values().map(|order| [order.order_id, order.serial, held(order.state()) as u64]).collect()
    });
    assert_eq!(rows("SELECT user, id, serial, state FROM orders ORDER BY 1, 2"), told);
    let sums = (
        known.values().map(|known| known.wins.len()).sum::<usize>(),
        known.values().map(|known| known.shares.len()).sum::<usize>(),
        told.len(),
    );
    assert!(sums.0 > 50 && sums.1 > 50 && sums.2 > 50, "too little happened to say anything: {sums:?}");
}
