//! A SET driven message by message, with a real ledger behind it and wires that only remember.

mod chat;
mod rains;
mod sales;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode, goodbye::Reason};
use hongbao_proto::{CampaignId, RequestId, Serial, UserId};
use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::admission::{Gate, LoginQueue, Rate};
use crate::clock::Now;
use crate::ends::End;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::task::{CampaignChange, LedgerTask};
use crate::ledger::writer::{self, LedgerHandle, ReplyTo};
use crate::ledger::{Answer, Ledger, Recall, Seen};
use crate::limits;
use crate::market::campaign::CampaignTerms;
use crate::market::stock::SalePhase;
use crate::set::broadcast::{Broadcast, Broadcasts};
use crate::set::directory::{ConnectionKey, Directory};
use crate::set::message::{ClientRequest, Control, LedgerRequest, Message, Offering, ReplyPermit, StockReport};
use crate::set::payments::Wallets;
use crate::set::room_requests::{QueuedRoomRequest, RoomShards};
use crate::set::tally::SetTally;
use crate::set::{Set, SetHandle, Shared};
use crate::transport::wire::{Wire, Written};

const SECOND: u64 = 1_000_000_000;

/// What a test sees of a connection.
#[derive(Debug, Default, Clone)]
struct Peer {
    bytes: Rc<RefCell<Vec<u8>>>,
    writes: Rc<Cell<usize>>,
    finished: Rc<Cell<bool>>,
    cut: Rc<Cell<bool>>,
    reads: Rc<Cell<bool>>,
    backlog: Rc<Cell<usize>>,
    /// Where the bytes of the last write lay.
    written_from: Rc<Cell<usize>>,
}

impl Wire for Peer {
    fn write(&mut self, frames: &[u8]) -> Written {
        self.writes.set(self.writes.get() + 1);
        self.written_from.set(frames.as_ptr().addr());
        if self.reads.get() {
            self.bytes.borrow_mut().extend_from_slice(frames);
            return Written::Sent;
        }
        let before = self.backlog.get();
        if before + frames.len() > limits::OUTBOX_BYTES_MAX {
            return Written::Overflow;
        }
        self.backlog.set(before + frames.len());
        Written::Queued { newly: before == 0 }
    }
    fn finish(&mut self) {
        self.finished.set(true);
    }
    fn cut(&mut self) {
        self.cut.set(true);
    }
    fn backlog(&mut self) -> usize {
        self.backlog.get()
    }
    fn peer(&self) -> Option<String> {
        None
    }

    fn number(&self) -> i32 {
        0
    }
}

impl Peer {
    fn take(&self) -> Vec<v1::ServerFrame> {
        let bytes = self.bytes.take();
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            frames.push(v1::ServerFrame::decode_length_delimited(&mut rest).unwrap());
        }
        frames
    }

    fn event(&self) -> Event {
        let mut frames = self.take();
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0).event.unwrap()
    }
}

struct Rig {
    sets: Vec<Set<Peer>>,
    inboxes: Vec<mpsc::Receiver<Message>>,
    stock_reports: mpsc::Receiver<StockReport>,
    offered: mpsc::Receiver<Offering>,
    shared: Arc<Shared>,
    now: Now,
    terms: Arc<CampaignTerms>,
    next_login: u64,
    broadcasts: Broadcasts,
    /// What a desk would be asked.
    room_shard: mpsc::Receiver<QueuedRoomRequest>,
}

fn terms() -> CampaignTerms {
    CampaignTerms { ends_at: None, per_user_limit: Some(2), ..CampaignTerms::example() }
}

fn request(id: u64) -> RequestId {
    RequestId::new(id).unwrap()
}

fn campaign() -> CampaignId {
    CampaignId::new(1).unwrap()
}

fn grab(id: u64) -> ClientRequest {
    ClientRequest::Grab { request: request(id), campaign: None }
}

impl Rig {
    /// Has the ledger make a campaign.
    fn create(&self, terms: CampaignTerms) -> CampaignId {
        let change = CampaignChange::Create(Box::new(terms));
        let task = |reply| LedgerTask::ChangeCampaign { change, now: 1_000, reply };
        self.shared.ledger.try_task(task).unwrap().blocking_recv().unwrap().unwrap().id
    }

    fn new(sets: u32) -> Self {
        Self::with(sets, None, None)
    }

    fn with(sets: u32, gate: Option<Gate>, logins: Option<LoginQueue>) -> Self {
        let mut ledger = SqliteLedger::open_in_memory().unwrap();
        ledger.create_campaign(terms(), 1_000).unwrap();
        let (ledger, _, _) = writer::spawn(Box::new(ledger), || 5_000);
        Self::over(sets, gate, logins, ledger)
    }

    fn over(sets: u32, gate: Option<Gate>, logins: Option<LoginQueue>, ledger: LedgerHandle<ReplyPermit>) -> Self {
        let (generator, stock_reports) = mpsc::channel(64);
        let (offerings, offered) = mpsc::channel(4);
        let (room_shards, mut shard) = RoomShards::open(1);
        let (handles, inboxes): (Vec<_>, Vec<_>) = (0..sets)
            .map(|_| {
                let (inbox, queue) = mpsc::channel(limits::SET_QUEUE_MAX);
                (SetHandle { inbox, tally: Arc::new(SetTally::default()) }, queue)
            })
            .unzip();
        let shared = Arc::new(Shared {
            traces: Arc::default(),
            directory: Directory::default(),
            gate,
            logins,
            connection_rate: Rate::new(100, 100),
            payments: Box::new(Wallets(ledger.clone())),
            ledger,
            generator,
            offerings,
            room_shards,
            sets: handles.into(),
            login_seconds: 10,
            idle_seconds: 600,
            end_at_expiry: true,
            barred: Default::default(),
        });
        let terms = Arc::new(terms());
        let mut rig = Self {
            sets: (0..sets).map(|index| Set::new(index, Arc::clone(&shared))).collect(),
            inboxes,
            stock_reports,
            offered,
            shared,
            now: Now { at: 100 * SECOND, wall: 5_000 },
            terms,
            next_login: 1,
            broadcasts: Broadcasts::default(),
            room_shard: shard.remove(0),
        };
        for set in 0..sets as usize {
            let phase = Control::Phase { campaign: campaign(), terms: Arc::clone(&rig.terms), phase: SalePhase::Open };
            rig.apply(set, Message::Control(phase));
        }
        rig
    }

    fn apply(&mut self, set: usize, message: Message) {
        let batch = [message];
        self.sets[set].admit(&batch, &self.now);
        for message in batch {
            self.sets[set].apply(message, &self.now);
        }
        self.sets[set].flush(&self.now);
        assert_eq!(self.tally(set).broken_equations.get(), 0);
    }

    fn tally(&self, set: usize) -> Arc<SetTally> {
        Arc::clone(&self.shared.sets[set].tally)
    }

    fn send(&mut self, set: usize, key: ConnectionKey, request: ClientRequest) {
        self.apply(set, Message::Peer { key, request });
    }

    /// Waits until no SET owes an answer any more, applying what services reply.
    fn await_replies(&mut self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while (0..self.sets.len()).any(|set| self.tally(set).owed.get() > 0) {
            assert!(std::time::Instant::now() < deadline, "a service did not reply");
            for set in 0..self.sets.len() {
                while let Ok(message) = self.inboxes[set].try_recv() {
                    self.apply(set, message);
                }
            }
            std::thread::yield_now();
        }
    }

    fn connect(&mut self, set: usize) -> (ConnectionKey, Peer) {
        let peer = Peer::default();
        peer.reads.set(true);
        (self.sets[set].attach(peer.clone(), &self.now), peer)
    }

    fn login(&mut self, set: usize, user: u64) -> (ConnectionKey, Peer) {
        let (key, peer) = self.connect(set);
        let id = self.next_login;
        self.next_login += 1;
        self.send(
            set,
            key,
            ClientRequest::Login { request: request(id), user: UserId::new(user).unwrap(), expires_at: u64::MAX },
        );
        self.await_replies();
        (key, peer)
    }

    fn welcomed(&mut self, set: usize, user: u64) -> (ConnectionKey, Peer) {
        let (key, peer) = self.login(set, user);
        assert!(matches!(peer.event(), Event::Welcome(_)));
        (key, peer)
    }

    fn supply(&mut self, set: usize, serials: std::ops::Range<u64>) {
        let supply = Control::Supply { campaign: campaign(), serials: serials.map(Serial).collect() };
        self.apply(set, Message::Control(supply));
    }

    fn tick(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.at += SECOND;
            self.now.wall += 1_000;
            for set in 0..self.sets.len() {
                self.apply(set, Message::Control(Control::Tick));
            }
        }
    }

    /// Queues an announcement of SET 0, to be followed by its [`Progress`].
    fn announce(&mut self, frame: &Bytes) -> Arc<Broadcast> {
        let (broadcast, mut receipts) = self.broadcasts.begin(1, 0);
        let receipt = receipts.remove(0);
        self.apply(0, Message::Control(Control::Broadcast { frame: frame.clone(), receipt }));
        broadcast
    }

    /// One step of whatever is swept, and what it wrote.
    fn sweep(&mut self) {
        self.sets[0].work_in_bulk(&self.now);
        self.sets[0].flush(&self.now);
    }

    fn ended(&self, set: usize, end: End) -> u64 {
        self.tally(set).ends[end as usize].get()
    }
}

fn goodbye(frame: &v1::ServerFrame) -> Option<Reason> {
    match &frame.event {
        Some(Event::Goodbye(goodbye)) => Some(goodbye.reason()),
        _ => None,
    }
}

fn error_code(event: &Event) -> Option<ErrorCode> {
    match event {
        Event::Error(error) => Some(error.code()),
        _ => None,
    }
}

#[test]
fn a_grab_wins_what_the_shelf_has_and_gets_none_when_empty() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.send(0, key, grab(1));
    assert!(matches!(peer.event(), Event::NoneNow(_)));
    rig.supply(0, 4..5);
    rig.send(0, key, grab(2));
    assert!(peer.take().is_empty(), "a win is told before it is durable");
    rig.await_replies();
    let Event::Won(won) = peer.event() else { panic!() };
    assert_eq!((won.serial, won.amount_fen, won.won_by_request_id), (4, rig.terms.amount(Serial(4)).0, 2));
}

#[test]
fn a_repeat_gets_its_first_answer_on_an_old_or_new_connection() {
    let mut rig = Rig::new(2);
    let (key, peer) = rig.welcomed(0, 1);
    rig.supply(0, 0..3);
    rig.send(0, key, grab(7));
    rig.await_replies();
    let first = peer.event();
    // Sent again while stock is there, after an intermediate one that wins nothing new of it.
    rig.send(0, key, grab(7));
    rig.await_replies();
    assert_eq!(peer.event(), first);

    let (key, peer) = rig.login(1, 1);
    let frames = peer.take();
    assert!(matches!(frames[0].event, Some(Event::Welcome(v1::Welcome { unacknowledged: 1, .. }))));
    rig.supply(1, 10..12);
    rig.send(1, key, grab(7));
    rig.await_replies();
    assert_eq!(peer.event(), first);
}

#[test]
fn a_repeat_of_a_request_that_won_nothing_wins_nothing() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.send(0, key, grab(5));
    assert!(matches!(peer.event(), Event::NoneNow(_)));
    rig.supply(0, 0..1);
    rig.send(0, key, grab(5));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::NoneNow(_)));
    rig.send(0, key, grab(6));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(_)));
}

#[test]
fn a_repeat_whose_first_is_still_with_the_ledger_wins_once() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.supply(0, 0..5);
    rig.send(0, key, grab(1));
    rig.send(0, key, grab(1));
    rig.await_replies();
    let frames = peer.take();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0], frames[1]);
}

#[test]
fn the_limit_per_user_holds_and_frees_the_prize_for_the_next() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.supply(0, 0..3);
    for id in 1..=3 {
        rig.send(0, key, grab(id));
    }
    rig.await_replies();
    let frames = peer.take();
    assert!(matches!(frames[2].event, Some(Event::LimitReached(v1::LimitReached { limit: 2 }))), "{frames:?}");
    let (key, peer) = rig.welcomed(0, 2);
    rig.send(0, key, grab(1));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(v1::Won { serial: 2, .. })));
}

#[test]
fn an_unheard_win_is_repeated_at_login_until_acknowledged() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.supply(0, 0..1);
    rig.send(0, key, grab(1));
    rig.send(0, key, ClientRequest::Gone(End::Reset));
    rig.await_replies();
    assert!(peer.take().is_empty());
    assert_eq!(rig.tally(0).undelivered.get(), 1);

    for _ in 0..2 {
        let (_, peer) = rig.login(0, 1);
        let frames = peer.take();
        let Some(Event::Reminder(reminder)) = &frames[1].event else { panic!("{frames:?}") };
        assert_eq!((reminder.wins.len(), reminder.wins[0].serial), (1, 0));
    }
    let (key, peer) = rig.login(0, 1);
    peer.take();
    let seen = Seen { prizes: Box::new([(campaign(), Serial(0))]), ..Seen::default() };
    let wanted = LedgerRequest::Acknowledge(Box::new(seen));
    rig.send(0, key, ClientRequest::Ledger { request: request(9), wanted });
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Acknowledged(v1::Acknowledged { count: 1 })));
    rig.welcomed(0, 1);
}

#[test]
fn a_newer_login_replaces_the_older_connection_with_a_reason() {
    let mut rig = Rig::new(2);
    let (_, first) = rig.welcomed(0, 1);
    let (_, second) = rig.welcomed(0, 1);
    assert_eq!(goodbye(&first.take()[0]), Some(Reason::Replaced));
    assert!(first.finished.get());
    let (third_seat, _) = rig.welcomed(1, 1);
    assert_eq!(goodbye(&second.take()[0]), Some(Reason::Replaced));
    assert_eq!(rig.ended(0, End::Replaced), 2);
    assert_eq!(
        rig.shared.directory.find(UserId::new(1).unwrap()).map(|address| (address.set, address.key)),
        Some((1, third_seat))
    );
    assert_eq!((rig.tally(0).online.get(), rig.tally(1).online.get()), (0, 1));
}

#[test]
fn the_newest_of_three_logins_waits_for_the_oldest_too() {
    for middle_goes_first in [false, true] {
        let mut rig = Rig::new(3);
        let (old, _) = rig.welcomed(0, 1);
        rig.supply(0, 0..1);
        let login = |rig: &mut Rig, set: usize, id: u64| {
            let (key, peer) = rig.connect(set);
            rig.send(
                set,
                key,
                ClientRequest::Login { request: request(id), user: UserId::new(1).unwrap(), expires_at: u64::MAX },
            );
            (key, peer)
        };
        let (middle, _) = login(&mut rig, 1, 50);
        if middle_goes_first {
            rig.send(1, middle, ClientRequest::Gone(End::Closed));
        }
        let (_, newest) = login(&mut rig, 2, 51);
        // The middle SET hears first. The oldest connection still lives, and wins.
        while let Ok(message) = rig.inboxes[1].try_recv() {
            rig.apply(1, message);
        }
        rig.send(0, old, grab(9));
        rig.await_replies();
        let frames = newest.take();
        assert!(
            matches!(frames[0].event, Some(Event::Welcome(v1::Welcome { unacknowledged: 1, .. }))),
            "{middle_goes_first}: {frames:?}"
        );
        assert_eq!(rig.shared.directory.find(UserId::new(1).unwrap()).map(|address| address.set), Some(2));
        assert_eq!((0..3).map(|set| rig.tally(set).online.get()).collect::<Vec<_>>(), [0, 0, 1]);
    }
}

#[test]
fn what_a_replaced_connection_had_queued_wins_nothing() {
    let mut rig = Rig::new(1);
    let (old, _) = rig.welcomed(0, 1);
    rig.supply(0, 0..1);
    rig.welcomed(0, 1);
    rig.send(0, old, grab(1));
    assert_eq!(rig.tally(0).stale.get(), 1);
    assert_eq!(rig.tally(0).grabs.get(), 0);
}

#[test]
fn a_late_reply_never_reaches_the_stranger_in_the_same_slot() {
    let mut rig = Rig::new(1);
    let (old, _) = rig.welcomed(0, 1);
    rig.supply(0, 0..1);
    rig.send(0, old, grab(1));
    rig.send(0, old, ClientRequest::Gone(End::Reset));
    let (stranger, peer) = rig.connect(0);
    assert_eq!(stranger.slot, old.slot);
    rig.await_replies();
    assert!(peer.take().is_empty());
}

#[test]
fn what_comes_behind_logins_is_bounded_over_the_set() {
    let mut rig = Rig::new(1);
    let crowd = limits::SET_EARLY_REQUESTS_MAX.div_ceil(limits::EARLY_REQUESTS_MAX) as u64 + 1;
    let peers: Vec<_> = (1..=crowd).map(|_| rig.connect(0)).collect();
    let mut overloaded = 0;
    for (user, (key, peer)) in (1..).zip(&peers) {
        let user = UserId::new(user).unwrap();
        rig.send(0, *key, ClientRequest::Login { request: request(1), user, expires_at: u64::MAX });
        for id in 0..limits::EARLY_REQUESTS_MAX as u64 {
            rig.send(0, *key, ClientRequest::Ping { request: request(2 + id) });
        }
        overloaded += peer.take().len();
    }
    assert_eq!(overloaded, limits::EARLY_REQUESTS_MAX, "the last one's");
    // Some go before their answer; the others get theirs, and all room is there again.
    rig.send(0, peers[0].0, ClientRequest::Gone(End::Reset));
    rig.await_replies();
    let pongs = |peer: &Peer| peer.take().iter().filter(|frame| matches!(frame.event, Some(Event::Pong(_)))).count();
    assert_eq!(pongs(&peers[1].1), limits::EARLY_REQUESTS_MAX);
    assert_eq!((rig.sets[0].early_count, rig.sets[0].early.len()), (0, 0));
}

#[test]
fn who_has_closed_its_side_is_kept_for_what_it_is_owed() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    peer.take();
    rig.supply(0, 0..1);
    rig.send(0, key, grab(1));
    rig.send(0, key, ClientRequest::Gone(End::Closed));
    assert_eq!(rig.ended(0, End::Closed), 0);
    rig.await_replies();
    assert!(matches!(peer.take().as_slice(), [v1::ServerFrame { event: Some(Event::Won(_)), .. }]));
    assert_eq!(rig.ended(0, End::Closed), 1);
    // Nobody waits for one who is owed nothing,
    let (idle, _) = rig.welcomed(0, 2);
    rig.send(0, idle, ClientRequest::Gone(End::Closed));
    assert_eq!(rig.ended(0, End::Closed), 2);
    // nor for ever for an answer,
    let (waiting, _) = rig.welcomed(0, 3);
    rig.supply(0, 1..2);
    rig.send(0, waiting, grab(1));
    rig.send(0, waiting, ClientRequest::Gone(End::Closed));
    rig.tick(u64::from(limits::HALF_CLOSED_SECONDS_MAX) - 1);
    assert_eq!(rig.ended(0, End::Closed), 2);
    rig.tick(1);
    assert_eq!(rig.ended(0, End::Closed), 3);
    let undelivered = rig.tally(0).undelivered.get();
    rig.await_replies();
    assert_eq!(rig.tally(0).undelivered.get(), undelivered + 1);
    // nor for one who reads slowly, even where it has read all in the end.
    let (slow, reader) = rig.welcomed(0, 4);
    reader.reads.set(false);
    rig.sets[0].apply(Message::Peer { key: slow, request: ClientRequest::Ping { request: request(9) } }, &rig.now);
    rig.send(0, slow, ClientRequest::Gone(End::Closed));
    reader.backlog.set(0);
    rig.tick(u64::from(limits::HALF_CLOSED_SECONDS_MAX));
    assert_eq!(rig.ended(0, End::Closed), 4);
}

#[test]
fn anything_before_login_is_an_error_and_ends_the_connection() {
    let mut rig = Rig::new(1);
    for request in [grab(1), ClientRequest::Ping { request: request(2) }] {
        let (key, peer) = rig.connect(0);
        rig.send(0, key, request);
        let frames = peer.take();
        assert_eq!(error_code(frames[0].event.as_ref().unwrap()), Some(ErrorCode::NotLoggedIn));
        assert_eq!(goodbye(&frames[1]), Some(Reason::Protocol));
        assert!(peer.finished.get());
    }
    assert_eq!(rig.ended(0, End::Protocol), 2);
}

#[test]
fn a_second_login_is_an_error_and_the_connection_goes_on() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.send(0, key, ClientRequest::Login { request: request(8), user: UserId::new(2).unwrap(), expires_at: u64::MAX });
    assert_eq!(error_code(&peer.event()), Some(ErrorCode::AlreadyLoggedIn));
    rig.send(0, key, ClientRequest::Ping { request: request(9) });
    assert!(matches!(peer.event(), Event::Pong(_)));
}

#[test]
fn each_deadline_ends_its_connection_with_its_reason() {
    let mut rig = Rig::new(1);
    let (_, silent) = rig.connect(0);
    let (half, stalled) = rig.welcomed(0, 1);
    let (_, idle) = rig.welcomed(0, 2);
    rig.send(0, half, ClientRequest::Partial);
    rig.tick(9);
    assert!(silent.take().is_empty() && stalled.take().is_empty());
    rig.tick(2);
    assert_eq!(goodbye(&silent.take()[0]), Some(Reason::LoginTimeout));
    assert_eq!(goodbye(&stalled.take()[0]), Some(Reason::Stalled));
    rig.tick(2);
    assert!(silent.cut.get() && stalled.cut.get(), "whoever does not close after our goodbye is cut");
    assert!(idle.take().is_empty());
    rig.tick(600);
    assert_eq!(goodbye(&idle.take()[0]), Some(Reason::Idle));
}

#[test]
fn a_frame_finished_in_time_is_forgiven_its_slow_start() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.send(0, key, ClientRequest::Partial);
    rig.tick(9);
    rig.send(0, key, ClientRequest::Ping { request: request(1) });
    rig.send(0, key, ClientRequest::Partial);
    rig.tick(5);
    assert!(matches!(peer.event(), Event::Pong(_)));
    rig.tick(6);
    assert_eq!(goodbye(&peer.take()[0]), Some(Reason::Stalled));
}

#[test]
fn a_peer_that_does_not_read_is_cut_and_nobody_notices() {
    let mut rig = Rig::new(1);
    let (_, reader) = rig.welcomed(0, 1);
    let (_, slow) = rig.welcomed(0, 2);
    let (_, slower) = rig.welcomed(0, 3);
    slow.reads.set(false);
    slower.reads.set(false);
    let frame = Bytes::from(vec![0u8; 1_000]);
    let announcements = limits::OUTBOX_BYTES_MAX / frame.len() + 1;
    slower.backlog.set(1);
    for _ in 0..announcements {
        rig.apply(0, Message::Control(Control::Announce(frame.clone())));
        rig.sets[0].work_in_bulk(&rig.now);
    }
    assert!(slow.cut.get() && slower.cut.get());
    assert_eq!(rig.ended(0, End::Slow), 2);
    assert_eq!(reader.bytes.borrow().len(), announcements * frame.len());

    let (_, late) = rig.welcomed(0, 4);
    late.reads.set(false);
    rig.apply(0, Message::Control(Control::Announce(frame)));
    rig.sets[0].work_in_bulk(&rig.now);
    rig.tick(u64::from(limits::SLOW_SECONDS_MAX) - 1);
    assert!(!late.cut.get());
    rig.tick(1);
    assert!(late.cut.get());
}

#[test]
fn announcements_beyond_the_bound_are_dropped_and_counted() {
    let mut rig = Rig::new(1);
    for _ in 0..limits::ANNOUNCEMENTS_PENDING_MAX + 3 {
        rig.apply(0, Message::Control(Control::Announce(Bytes::from_static(b"x"))));
    }
    assert_eq!(rig.tally(0).announcements_dropped.get(), 3);
}

#[test]
fn announcements_beyond_the_bound_are_dropped_by_connection() {
    let mut rig = Rig::new(1);
    let (_, first) = rig.welcomed(0, 1);
    let (_, second) = rig.welcomed(0, 2);
    let text = "x".repeat(limits::ANNOUNCEMENTS_PENDING_BYTES_MAX / 3);
    let sent: Vec<_> = (0..4).map(|_| rig.announce(&announcement(&text))).collect();
    rig.sweep();
    let progress: Vec<_> = sent.iter().map(|sent| (sent.view().reached, sent.view().dropped)).collect();
    assert_eq!(progress, [(2, 0), (2, 0), (0, 2), (0, 2)]);
    assert!(sent.iter().all(|sent| sent.view().finished_at_ms.is_some()));
    assert_eq!((texts(&first.take()).len(), texts(&second.take()).len()), (2, 2));
    assert_eq!((rig.tally(0).announced.get(), rig.tally(0).announcements_dropped.get()), (4, 2));
    // There is room again.
    rig.announce(&announcement(&text));
    rig.sweep();
    assert_eq!(texts(&first.take()).len(), 1);
}

fn announcement(text: &str) -> Bytes {
    let event = Some(Event::Announcement(v1::Announcement { text: text.to_owned() }));
    v1::ServerFrame { request_id: 0, event }.encode_length_delimited_to_vec().into()
}

fn texts(frames: &[v1::ServerFrame]) -> Vec<&str> {
    frames
        .iter()
        .filter_map(|frame| match &frame.event {
            Some(Event::Announcement(announcement)) => Some(announcement.text.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn announcements_that_wait_leave_in_one_write_in_their_order() {
    let mut rig = Rig::new(1);
    let peers: Vec<_> = (1..=3).map(|user| rig.welcomed(0, user).1).collect();
    let (_, stranger) = rig.connect(0);
    let before: Vec<_> = peers.iter().map(|peer| peer.writes.get()).collect();
    let sent: Vec<_> = ["one", "two", "three"].iter().map(|text| rig.announce(&announcement(text))).collect();
    assert!(sent.iter().all(|sent| sent.view().finished_at_ms.is_none()));
    rig.sweep();
    for (peer, before) in peers.iter().zip(before) {
        assert_eq!(peer.writes.get(), before + 1);
        assert_eq!(texts(&peer.take()), ["one", "two", "three"]);
    }
    assert!(stranger.take().is_empty(), "announcements are for users");
    for sent in sent {
        let progress = sent.view();
        assert_eq!((progress.reached, progress.dropped, progress.sets_dropped), (3, 0, 0));
        assert!(progress.finished_at_ms.is_some());
    }
    assert_eq!(rig.tally(0).announced.get(), 9);
    assert!(!rig.sets[0].has_bulk_work());
}

#[test]
fn an_announcement_is_written_from_bytes_that_all_sets_share() {
    let mut rig = Rig::new(1);
    let (_, peer) = rig.welcomed(0, 1);
    let frame = announcement("everybody");
    rig.announce(&frame);
    rig.sweep();
    assert_eq!(peer.written_from.get(), frame.as_ptr().addr());
}

#[test]
fn an_answer_and_an_announcement_leave_in_that_order_at_once() {
    let mut rig = Rig::new(1);
    let (asking, busy) = rig.welcomed(0, 1);
    let (_, quiet) = rig.welcomed(0, 2);
    let sent = rig.announce(&announcement("news"));
    let before = (busy.writes.get(), quiet.writes.get());
    rig.sets[0].apply(Message::Peer { key: asking, request: ClientRequest::Ping { request: request(5) } }, &rig.now);
    rig.sets[0].work_in_bulk(&rig.now);
    assert_eq!(sent.view().finished_at_ms, None, "one write has yet to come");
    rig.sets[0].flush(&rig.now);
    assert!(sent.view().finished_at_ms.is_some());
    assert_eq!((busy.writes.get(), quiet.writes.get()), (before.0 + 1, before.1 + 1));
    let frames = busy.take();
    assert!(matches!(frames[0].event, Some(Event::Pong(_))), "{frames:?}");
    assert_eq!(texts(&frames), ["news"]);
    assert_eq!(texts(&quiet.take()), ["news"]);
}

#[test]
fn a_slow_peer_gets_its_announcement_after_the_answer() {
    let mut rig = Rig::new(1);
    let (key, slow) = rig.welcomed(0, 1);
    slow.backlog.set(1);
    let sent = rig.announce(&announcement("news"));
    rig.sets[0].apply(Message::Peer { key, request: ClientRequest::Ping { request: request(5) } }, &rig.now);
    rig.sweep();
    let frames = slow.take();
    assert!(matches!(frames[0].event, Some(Event::Pong(_))), "{frames:?}");
    assert_eq!(texts(&frames), ["news"]);
    assert_eq!(sent.view().reached, 1);
}

#[test]
fn a_connection_cut_at_its_announcement_counts_as_not_reached() {
    let mut rig = Rig::new(1);
    let (_, reader) = rig.welcomed(0, 1);
    let (_, full) = rig.welcomed(0, 2);
    full.reads.set(false);
    full.backlog.set(limits::OUTBOX_BYTES_MAX);
    let sent = rig.announce(&announcement("news"));
    rig.sweep();
    assert_eq!((sent.view().reached, sent.view().dropped), (1, 1));
    assert!(full.cut.get() && !reader.cut.get());
}

#[test]
fn a_round_carries_what_waited_and_reaches_newcomers_once() {
    let mut rig = Rig::new(1);
    let users = limits::SWEEP_STEP as u64 + 44;
    let mut peers: Vec<_> = (1..=users).map(|user| rig.welcomed(0, user)).collect();
    let first = rig.announce(&announcement("first"));
    rig.sweep();
    let second = rig.announce(&announcement("second"));
    let third = rig.announce(&announcement("third"));
    // One newcomer sits where the round has been already, the other where it has yet to go.
    let (leaving, _) = peers.swap_remove(3);
    rig.send(0, leaving, ClientRequest::Gone(End::Closed));
    let (passed_seat, passed) = rig.welcomed(0, users + 1);
    let (ahead_seat, ahead) = rig.welcomed(0, users + 2);
    assert_eq!((passed_seat.slot as usize, ahead_seat.slot as u64), (3, users));
    while rig.sets[0].has_bulk_work() {
        rig.sweep();
    }
    for (_, peer) in &peers {
        assert_eq!(texts(&peer.take()), ["first", "second", "third"]);
    }
    assert_eq!(texts(&passed.take()), ["second", "third"]);
    assert_eq!(texts(&ahead.take()), ["first", "second", "third"]);
    let reached = [first, second, third].map(|sent| sent.view().reached);
    assert_eq!(reached, [users + 1, users + 1, users + 1]);
    assert_eq!(rig.tally(0).announced.get(), 3 * (users + 1));
}

#[test]
fn connections_that_end_together_are_closed_by_slices() {
    let mut rig = Rig::new(1);
    let users = 2 * limits::CLOSE_STEP as u64 + 3;
    let peers: Vec<_> = (1..=users).map(|user| rig.welcomed(0, user)).collect();
    let (stays, peer) = rig.welcomed(0, users + 1);
    for (key, _) in &peers {
        rig.send(0, *key, ClientRequest::Gone(End::Reset));
    }
    assert_eq!((rig.tally(0).online.get(), rig.tally(0).connections.get()), (1, users + 1));
    let mut left = Vec::new();
    while rig.sets[0].has_bulk_work() {
        // Whoever stays is served meanwhile.
        rig.send(0, stays, grab(left.len() as u64 + 1));
        rig.sweep();
        assert!(matches!(peer.event(), Event::NoneNow(_)));
        left.push(rig.tally(0).connections.get());
    }
    let step = limits::CLOSE_STEP as u64;
    assert_eq!(left, [users + 1 - step, users + 1 - 2 * step, 1]);
}

#[test]
fn a_farewell_comes_after_what_was_announced_before_it() {
    let mut rig = Rig::new(1);
    let (_, peer) = rig.welcomed(0, 1);
    rig.announce(&announcement("last words"));
    let window = crate::set::message::ReturnWindow { from_ms: 1, until_ms: 1 };
    rig.apply(0, Message::Control(Control::Farewell(window)));
    let late = rig.announce(&announcement("too late"));
    while rig.sets[0].has_bulk_work() {
        rig.sweep();
    }
    let frames = peer.take();
    assert_eq!(texts(&frames), ["last words"]);
    assert_eq!(goodbye(&frames[1]), Some(Reason::Draining));
    assert_eq!(late.view().reached, 0);
    assert!(late.view().finished_at_ms.is_some());
}

#[test]
fn requests_above_the_connections_rate_are_answered_overloaded() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    for id in 1..=150 {
        rig.send(0, key, ClientRequest::Ping { request: request(id) });
    }
    let frames = peer.take();
    assert_eq!(frames.len(), 150);
    let overloaded = frames.iter().filter(|frame| matches!(frame.event, Some(Event::Overloaded(_)))).count();
    // The login was one of the hundred that the burst forgives.
    assert_eq!(overloaded, 51);
}

#[test]
fn grabs_above_the_nodes_rate_are_overloaded_and_repeatable() {
    let mut rig = Rig::with(1, Some(Gate::new(Rate::new(10, 1))), None);
    let (key, peer) = rig.welcomed(0, 1);
    rig.supply(0, 0..2);
    rig.send(0, key, grab(1));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(_)));
    rig.send(0, key, grab(2));
    let Event::Overloaded(overloaded) = peer.event() else { panic!() };
    assert!(overloaded.retry_after_ms > 0);
    rig.now.at += SECOND;
    rig.send(0, key, grab(2));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(_)));
}

/// A SET whose node takes `per_second` logins, one at a time.
fn rig_with_a_line(per_second: u32) -> Rig {
    Rig::with(1, None, Some(LoginQueue::new(Rate::new(per_second, 1), SECOND, 60 * SECOND)))
}

/// Sends a Login as `user` and returns how long it is to wait, milliseconds; `None`: it was let in.
fn asks(rig: &mut Rig, key: ConnectionKey, peer: &Peer, user: u64) -> Option<u32> {
    rig.send(
        0,
        key,
        ClientRequest::Login { request: request(user), user: UserId::new(user).unwrap(), expires_at: u64::MAX },
    );
    rig.await_replies();
    match peer.event() {
        Event::Welcome(_) => None,
        Event::Overloaded(overloaded) => Some(overloaded.retry_after_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_above_the_nodes_rate_is_let_in_at_its_moment() {
    let mut rig = rig_with_a_line(10);
    let peers: Vec<_> = (0..4).map(|_| rig.connect(0)).collect();
    let ask = |rig: &mut Rig, index: usize| asks(rig, peers[index].0, &peers[index].1, index as u64 + 1);
    assert_eq!((0..4).map(|index| ask(&mut rig, index)).collect::<Vec<_>>(), [None, Some(100), Some(200), Some(300)]);
    // Impatience changes nothing.
    rig.now.at += SECOND / 20;
    assert_eq!((ask(&mut rig, 3), ask(&mut rig, 3)), (Some(250), Some(250)));
    rig.now.at += SECOND / 20;
    assert_eq!((ask(&mut rig, 1), ask(&mut rig, 2)), (None, Some(100)));
    // Late, together, and behind them a stranger who has to queue up.
    rig.now.at += SECOND / 5;
    let (stranger, peer) = rig.connect(0);
    assert_eq!(asks(&mut rig, stranger, &peer, 9), Some(100));
    assert_eq!((ask(&mut rig, 2), ask(&mut rig, 3)), (None, None));
    assert_eq!(rig.tally(0).logins_deferred.get(), 7);
    assert_eq!(rig.tally(0).online.get(), 4);
}

#[test]
fn who_waits_for_its_retry_slot_is_kept_and_who_misses_cut() {
    let mut rig = rig_with_a_line(1);
    let peers: Vec<_> = (1..=32).map(|user| (user, rig.connect(0))).collect();
    for (user, (key, peer)) in &peers {
        asks(&mut rig, *key, peer, *user);
    }
    let (user, (polite, peer)) = &peers[30];
    let (_, (_, rude)) = &peers[31];
    rig.tick(29);
    assert!(rig.ended(0, End::LoginTimeout) > 0, "those whose moment has long passed");
    assert_eq!(asks(&mut rig, *polite, peer, *user), Some(1_000), "still the same moment");
    rig.tick(1);
    assert_eq!(asks(&mut rig, *polite, peer, *user), None);
    rig.tick(10);
    assert!(rude.take().is_empty(), "31 seconds, and as long as any login may take");
    rig.tick(11);
    assert_eq!(goodbye(&rude.take()[0]), Some(Reason::LoginTimeout));
    assert!(peer.take().is_empty());
}

#[test]
fn a_crowd_at_the_door_holds_up_nobody_who_is_in() {
    let mut rig = rig_with_a_line(1);
    let (user, peer) = rig.welcomed(0, 1);
    let crowd: Vec<_> = (0..200).map(|_| rig.connect(0)).collect();
    let logins = crowd.iter().zip(2..).map(|((key, _), id)| Message::Peer {
        key: *key,
        request: ClientRequest::Login { request: request(id), user: UserId::new(id).unwrap(), expires_at: u64::MAX },
    });
    for message in logins.collect::<Vec<_>>() {
        rig.sets[0].apply(message, &rig.now);
    }
    rig.send(0, user, grab(1));
    assert!(matches!(peer.event(), Event::NoneNow(_)));
    assert_eq!(rig.tally(0).owed.get(), 0, "the refused ask nothing of the ledger");
    let told: Vec<_> = crowd
        .iter()
        .map(|(_, peer)| match peer.event() {
            Event::Overloaded(overloaded) => overloaded.retry_after_ms,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(told.iter().take(60).zip(1..).all(|(told, place)| *told == place * 1_000), "{told:?}");
    assert!(told.iter().skip(60).all(|told| (30_000..=60_000).contains(told)), "{told:?}");
}

#[test]
fn a_request_that_met_a_full_queue_is_answered_overloaded() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.sets[0].refuse(key, 77, &rig.now);
    rig.sets[0].flush(&rig.now);
    let frame = peer.take().remove(0);
    assert_eq!(frame.request_id, 77);
    assert!(matches!(frame.event, Some(Event::Overloaded(_))));
    assert_eq!(rig.tally(0).broken_equations.get(), 0);
}

#[test]
fn a_grab_without_a_reply_permit_is_overloaded_its_prize_stays() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    rig.supply(0, 0..1);
    let inbox = rig.shared.sets[0].inbox.clone();
    while inbox.try_send(Message::Control(Control::Tick)).is_ok() {}
    rig.send(0, key, grab(1));
    assert!(matches!(peer.event(), Event::Overloaded(_)));
    while rig.inboxes[0].try_recv().is_ok() {}
    rig.send(0, key, grab(1));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Won(v1::Won { serial: 0, .. })));
}

/// The ledger's thread has ended: first with a login, then with a claim in its queue.
#[test]
fn what_a_service_drops_is_answered_overloaded_and_undone() {
    let login = || ClientRequest::Login { request: request(1), user: UserId::new(1).unwrap(), expires_at: u64::MAX };
    let (ledger, requests) = LedgerHandle::open(8);
    let mut rig = Rig::over(1, None, None, ledger);
    let (key, peer) = rig.connect(0);
    rig.send(0, key, login());
    assert!(peer.take().is_empty());
    drop(requests);
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Overloaded(_)));
    assert_eq!(rig.shared.directory.find(UserId::new(1).unwrap()), None);
    rig.send(0, key, login());
    assert!(matches!(peer.event(), Event::Overloaded(_)), "not that it is logged in already");

    let (ledger, mut requests) = LedgerHandle::open(8);
    let mut rig = Rig::over(1, None, None, ledger);
    let (key, peer) = rig.connect(0);
    rig.send(0, key, login());
    let Ok(writer::WriterRequest::Ask { reply_to, .. }) = requests.try_recv() else { panic!() };
    reply_to.deliver(writer::Reply::Answered(Ok(Answer::Recall(Recall::default()))));
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Welcome(_)));
    rig.supply(0, 4..5);
    rig.send(0, key, grab(7));
    assert_eq!(rig.tally(0).stock.get(), 0);
    drop(requests);
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Overloaded(_)));
    assert_eq!(rig.tally(0).stock.get(), 1, "the unit is back on its shelf");
    assert_eq!(rig.sets[0].session(key).unwrap().last_grab, 6, "the same Grab may be sent again");
}

#[test]
fn stock_wanted_elsewhere_or_by_nobody_returns_to_the_generator() {
    let mut rig = Rig::new(1);
    let (key, _) = rig.welcomed(0, 1);
    rig.send(0, key, grab(1));
    rig.supply(0, 0..3);
    rig.tick(1);
    assert!(rig.stock_reports.try_recv().is_err(), "somebody may still take them");
    rig.apply(0, Message::Control(Control::GiveBack { campaign: campaign() }));
    let Ok(StockReport::Returned { set: 0, serials, .. }) = rig.stock_reports.try_recv() else { panic!() };
    assert_eq!(serials.len(), 3);
    rig.supply(0, 3..6);
    rig.send(0, key, ClientRequest::Gone(End::Closed));
    rig.tick(1);
    let Ok(StockReport::Returned { set: 0, serials, .. }) = rig.stock_reports.try_recv() else { panic!() };
    assert_eq!(serials.len(), 3);

    rig.welcomed(0, 1);
    rig.supply(0, 5..6);
    let ended =
        Control::Phase { campaign: campaign(), terms: Arc::clone(&rig.terms), phase: SalePhase::Ended { at: 1 } };
    rig.apply(0, Message::Control(ended));
    assert!(matches!(rig.stock_reports.try_recv(), Ok(StockReport::Returned { .. })));
}

#[test]
fn frames_of_one_connection_in_one_batch_leave_in_one_write() {
    let mut rig = Rig::new(1);
    let (key, peer) = rig.welcomed(0, 1);
    let (other, _) = rig.welcomed(0, 2);
    let before = peer.writes.get();
    for id in 1..=10 {
        for key in [key, other] {
            let message = Message::Peer { key, request: ClientRequest::Ping { request: request(id) } };
            rig.sets[0].apply(message, &rig.now);
        }
    }
    rig.sets[0].flush(&rig.now);
    assert_eq!(peer.writes.get(), before + 1);
    assert_eq!(peer.take().iter().map(|frame| frame.request_id).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_farewell_reaches_all_with_moments_spread_over_the_window() {
    let mut rig = Rig::new(1);
    let peers: Vec<_> = (1..=600).map(|user| rig.welcomed(0, user).1).collect();
    let window = crate::set::message::ReturnWindow { from_ms: 1_000, until_ms: 2_000 };
    rig.apply(0, Message::Control(Control::Farewell(window)));
    while rig.sets[0].has_bulk_work() {
        rig.sets[0].work_in_bulk(&rig.now);
        rig.sets[0].flush(&rig.now);
    }
    let mut moments = Vec::new();
    for peer in &peers {
        let frames = peer.take();
        assert_eq!(goodbye(&frames[0]), Some(Reason::Draining));
        let Some(Event::Goodbye(goodbye)) = &frames[0].event else { panic!() };
        moments.push(goodbye.return_after_ms.unwrap());
        assert!(peer.finished.get());
    }
    assert!(moments.iter().all(|moment| (1_000..=2_000).contains(moment)));
    let early = moments.iter().filter(|moment| **moment < 1_500).count();
    assert!((200..400).contains(&early), "{early} of 600 in the first half");
    assert_eq!(rig.tally(0).online.get(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Login(u64),
    Grab(usize),
    Repeat(usize),
    Ping(usize),
    Gone(usize),
    Supply(u8),
    Tick,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1u64..6).prop_map(Step::Login),
        6 => (0usize..8).prop_map(Step::Grab),
        2 => (0usize..8).prop_map(Step::Repeat),
        1 => (0usize..8).prop_map(Step::Ping),
        1 => (0usize..8).prop_map(Step::Gone),
        2 => (1u8..4).prop_map(Step::Supply),
        1 => Just(Step::Tick),
        2 => Just(Step::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever users do, every request on a connection that lives is answered exactly once, no
    /// prize is won twice, and the SETs' equations hold after every message (`Rig::apply` checks
    /// them).
    #[test]
    fn every_request_is_answered_once_and_no_prize_is_won_twice(steps in prop::collection::vec(step(), 1..80)) {
        let mut rig = Rig::new(2);
        let mut keys: Vec<(usize, ConnectionKey, Peer, HashMap<u64, i32>)> = Vec::new();
        let (mut next_id, mut next_serial) = (1_000u64, 0u64);
        let mut winners: HashMap<u64, u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Login(user) => {
                    let set = (user % 2) as usize;
                    let (key, peer) = rig.login(set, user);
                    keys.push((set, key, peer, HashMap::from([(rig.next_login - 1, 1)])));
                }
                Step::Grab(index) | Step::Repeat(index) | Step::Ping(index) if !keys.is_empty() => {
                    let at = index % keys.len();
                    if !matches!(step, Step::Repeat(_)) {
                        next_id += 1;
                    }
                    let request = if matches!(step, Step::Ping(_)) { ClientRequest::Ping { request: request(next_id) } } else { grab(next_id) };
                    let (set, key, ..) = keys[at];
                    *keys[at].3.entry(next_id).or_default() += 1;
                    rig.send(set, key, request);
                }
                Step::Gone(index) if !keys.is_empty() => {
                    let at = index % keys.len();
                    let (set, key, ..) = keys.swap_remove(at);
                    rig.send(set, key, ClientRequest::Gone(End::Closed));
                }
                Step::Supply(count) => {
                    for set in 0..2 {
                        rig.supply(set, next_serial..next_serial + u64::from(count));
                        next_serial += u64::from(count);
                    }
                }
                Step::Tick => rig.tick(1),
                Step::Settle => rig.await_replies(),
                _ => {}
            }
        }
        rig.await_replies();
        for (_, _, peer, mut expected) in keys {
            let replaced = peer.finished.get();
            for frame in peer.take() {
                if let Some(Event::Won(won)) = &frame.event {
                    let request = *winners.entry(won.serial).or_insert(won.won_by_request_id);
                    prop_assert_eq!(request, won.won_by_request_id, "prize {} was won by two requests", won.serial);
                    prop_assert_eq!(frame.request_id, won.won_by_request_id);
                }
                if frame.request_id != 0 {
                    *expected.entry(frame.request_id).or_default() -= 1;
                }
            }
            // A replaced connection may have sent what nobody reads any more.
            prop_assert!(expected.values().all(|owed| *owed == 0 || (replaced && *owed > 0)), "{:?}", expected);
        }
    }
}
