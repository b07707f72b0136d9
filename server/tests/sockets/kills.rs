//! `kill -9` under load: what anyone was told is in the ledger, once, and what nobody won is issued
//! again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hongbao_proto::v1::server_frame::Event;
use serde_json::json;

use hongbao_testing::client::{grab, login};
use hongbao_testing::{Client, Heard, PATIENCE, Server, eventually, until, user_token};

const KILLS: u64 = 10;
const TOTAL: u64 = 5_000;
const USERS: u64 = 16;

/// Serial, with the user, the request and the amount.
type Wins = BTreeMap<u64, (u64, u64, u64)>;

/// A user who shakes until everything is sold out, whatever happens to the server; an unanswered
/// request is sent again.
struct Shaker<'a> {
    user: u64,
    campaign: u32,
    server: &'a Mutex<SocketAddr>,
    next_id: u64,
    told: Wins,
}

impl Shaker<'_> {
    fn run(mut self) -> Wins {
        loop {
            let address = *self.server.lock().unwrap();
            let Ok(client) = Client::try_connect(address) else {
                std::thread::park_timeout(Duration::from_millis(5));
                continue;
            };
            if self.shake(client) {
                return self.told;
            }
        }
    }

    /// `true` when there is nothing left; `false` when the connection has ended.
    fn shake(&mut self, mut client: Client) -> bool {
        client.send(u64::MAX >> 1, login(&user_token(self.user)));
        let mut welcome = false;
        loop {
            match client.hear(PATIENCE) {
                Heard::Silence => panic!("user {} got no answer", self.user),
                Heard::End => return false,
                Heard::Frame(frame) => match frame.event.unwrap() {
                    // A win that was to be told when the server died is told now, to the request
                    // sent again.
                    Event::Welcome(_) => welcome = true,
                    Event::Won(won) => {
                        assert_eq!((frame.request_id, won.won_by_request_id), (self.next_id, self.next_id));
                        let before = self.told.insert(won.serial, (self.user, self.next_id, won.amount_fen));
                        assert_eq!(before, None, "prize {} told twice", won.serial);
                        self.next_id += 1;
                    }
                    Event::NoneNow(_) => {
                        self.next_id += 1;
                        std::thread::park_timeout(Duration::from_millis(2));
                    }
                    Event::SoldOut(_) => return true,
                    // Not told to every SET yet: decided nothing, and is sent again.
                    Event::Error(_) => std::thread::park_timeout(Duration::from_millis(2)),
                    Event::Reminder(_) | Event::CampaignNotice(_) => continue,
                    other => panic!("{other:?}"),
                },
            }
            if welcome {
                client.send(self.next_id, grab(self.campaign));
            }
        }
    }
}

#[test]
fn ten_kills_under_load_lose_nothing_and_pay_nothing_twice() {
    let mut server = Server::start();
    let campaign = server.rain(TOTAL, 100_000, &json!({"min_fen": 1, "max_fen": 1_000}));
    let address = Mutex::new(server.listen);
    let mut told = Wins::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=USERS)
            .map(|user| {
                let shaker = Shaker { user, campaign, server: &address, next_id: 1, told: Wins::new() };
                scope.spawn(|| shaker.run())
            })
            .collect();
        for kill in 1..=KILLS {
            // Some way into the next stretch of wins; where exactly is left to the clock.
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
            let moment = (kill - 1) * TOTAL / (KILLS + 2) + u64::from(nanos) / 1_000 % (TOTAL / (KILLS + 2));
            until("the moment to kill the server", || server.stats()["ledger"]["won"].as_u64().unwrap() >= moment);
            server.kill();
            server.start_again();
            *address.lock().unwrap() = server.listen;
        }
        for thread in threads {
            for (serial, win) in thread.join().unwrap() {
                assert_eq!(told.insert(serial, win), None, "prize {serial} told to two users");
            }
        }
    });
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (0..TOTAL).collect::<Vec<_>>());
    until("the campaign to be settled", || server.campaign(campaign)["settled"] == true);
    server.check_books();
    let books = server.campaign(campaign);
    let paid: u64 = told.values().map(|(_, _, amount)| amount).sum();
    assert_eq!((&books["won"], &books["paid_fen"]), (&json!(TOTAL), &json!(paid)));

    // The ledger holds what was told, to the letter.
    let path = server.ledger();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    let ledger = eventually("the ledger to be readable", || rusqlite::Connection::open(&path).ok());
    let mut statement = ledger.prepare("SELECT serial, user, request, amount_fen FROM wins").unwrap();
    let number = |row: &rusqlite::Row<'_>, column| row.get(column).map(i64::cast_unsigned);
    let rows =
        statement.query_map([], |row| Ok((number(row, 0)?, (number(row, 1)?, number(row, 2)?, number(row, 3)?))));
    let recorded: Wins = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(recorded, told);
    server.audit(&[]);
}
