//! The run: one thread, its own clock and queues, one seeded source of chance that decides what
//! happens next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fs, mem};

use bytes::BytesMut;
use hongbao_proto::token::{Audience, Secret, Signer, Verifier};
use hongbao_proto::v1::{self, client_frame::Request as ClientRequest, order::State};
use hongbao_proto::{Fen, UserId, frame};
use hongbao_server::clock::Now;
use hongbao_server::ends::End;
use hongbao_server::generator::Command;
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::task::{CampaignChange, LedgerTask};
use hongbao_server::ledger::{Answer, Award, Means, Posting, Question};
use hongbao_server::market::campaign::{Amounts, CampaignKind, CampaignTerms, Goods, Sale, Seed};
use hongbao_server::market::envelope::Mode;
use hongbao_server::services::envelope_runs::Terms;
use hongbao_server::set::message::{ClientRequest as Heard, Control, LedgerRequest, Message, ReturnWindow};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::model::Model;
use super::node::{Focus, Lazy, Node, Setup, set_wall};
use super::rng::Rng;
use super::trace::Trace;
use super::user::{Ask, Asked, Conn, Phase, User};
use super::watched::{Crash, Disk, Watch, compare, files, lock, log_of};
use super::wire::{Pipe, SimWire};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Rooms that users talk in.
const ROOMS: u64 = 3;

/// Connections that one user has at once at most.
const CONNECTIONS_MAX: usize = 3;

/// Campaigns that have not ended, at most: more would only share the users' attention.
const CAMPAIGNS_MAX: usize = 5;

/// What a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub steps: u64,
    /// Requests that clients sent.
    pub operations: u64,
    pub answers: u64,
    pub crashes: u64,
    pub stops: u64,
    pub full_disks: u64,
    /// Connections that ended with bytes on their way.
    pub drops: u64,
    pub connections: u64,
    pub wins: u64,
    pub orders: u64,
    pub envelopes: u64,
    pub shares: u64,
    pub acknowledged: u64,
    pub messages: u64,
    pub recovered: u64,
    pub commits: u64,
    pub failed_commits: u64,
    pub campaigns: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        for (sum, more) in [
            (&mut self.steps, other.steps),
            (&mut self.operations, other.operations),
            (&mut self.answers, other.answers),
            (&mut self.crashes, other.crashes),
            (&mut self.stops, other.stops),
            (&mut self.full_disks, other.full_disks),
            (&mut self.drops, other.drops),
            (&mut self.connections, other.connections),
            (&mut self.wins, other.wins),
            (&mut self.orders, other.orders),
            (&mut self.envelopes, other.envelopes),
            (&mut self.shares, other.shares),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.messages, other.messages),
            (&mut self.recovered, other.recovered),
            (&mut self.commits, other.commits),
            (&mut self.failed_commits, other.failed_commits),
            (&mut self.campaigns, other.campaigns),
        ] {
            *sum += more;
        }
    }

    pub fn faults(&self) -> u64 {
        self.crashes + self.full_disks + self.drops
    }
}

pub struct World {
    seed: u64,
    steps: u64,
    rng: Rng,
    setup: Setup,
    pub(crate) now: Now,
    /// The latest moment that the wall clock has shown.
    pub(crate) latest_wall: u64,
    ticked_at: u64,
    pub(crate) trace: Trace,
    verifier: Arc<Verifier>,
    pub(crate) users: Vec<User>,
    pub(crate) conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    pub(crate) watch: Arc<Mutex<Watch>>,
    node: Option<Node>,
    home: TempDir,
    /// How often the process has been started.
    lives: u64,
    /// Epochs of rooms by their first appearance.
    pub(crate) epochs: BTreeMap<u64, u64>,
    /// Where each message to a room was said, as told first.
    pub(crate) texts: BTreeMap<String, (u64, u64)>,
    next_text: u64,
    /// No faults and no new requests of chance.
    calm: bool,
    pub(crate) figures: Figures,
    failure: Option<String>,
}

impl World {
    /// A run of so many steps before its quiet end.
    pub fn new(seed: u64, steps: u64) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::draw(&mut rng);
        let secret = Secret::from_text("a secret of 32 bytes, for simulations only").expect("long enough");
        let signer = Signer::new(&secret);
        let today = hongbao_server::clock::wall() / 1_000;
        let users = (1..=rng.within(2, 9))
            .map(|id| {
                let id = UserId::new(id).expect("small");
                User::new(id, signer.sign_user(id, today, 86_400).expect("a key of ours"))
            })
            .collect();
        // In memory where that is possible: what is durable is decided here, not by the host's
        // disk.
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for the ledger");
        let now = Now { at: 100 * SECOND, wall: 1_700_000_000_000 };
        set_wall(now.wall);
        let mut world = Self {
            seed,
            steps,
            rng,
            now,
            latest_wall: now.wall,
            ticked_at: now.at,
            trace: Trace::new(),
            verifier: Arc::new(Verifier::hs256(&secret, Audience::User)),
            users,
            conns: BTreeMap::new(),
            next_conn: 0,
            watch: Watch::new(home.path().join("ledger-0.db")),
            node: None,
            home,
            lives: 0,
            epochs: BTreeMap::new(),
            texts: BTreeMap::new(),
            next_text: 0,
            calm: false,
            figures: Figures::default(),
            failure: None,
            setup,
        };
        let what = format!("seed {seed}: {} users, {:?}", world.users.len(), world.setup);
        world.trace.note(what);
        world.open();
        world
    }

    /// Runs to the end. What went wrong, if anything did.
    pub fn run(&mut self) -> Result<(), String> {
        self.deposit(2_000);
        while self.trace.step < self.steps && self.failure.is_none() {
            self.step();
        }
        if self.failure.is_none() {
            self.finish();
        }
        let (commits, failed) = {
            let watch = lock(&self.watch);
            (watch.commits, watch.failed)
        };
        self.figures.steps = self.trace.step;
        self.figures.commits = commits;
        self.figures.failed_commits = failed;
        match self.failure.take() {
            None => Ok(()),
            Some(failure) => Err(self.report(&failure)),
        }
    }

    pub fn figures(&self) -> Figures {
        self.figures
    }

    pub fn hash(&self) -> u64 {
        self.trace.hash()
    }

    /// All that is needed to see it again.
    pub fn report(&self, failure: &str) -> String {
        let Self { seed, steps, trace, .. } = self;
        let again = format!("HONGBAO_SIM_SEED={seed} HONGBAO_SIM_STEPS={steps} cargo nextest run");
        format!(
            "{}\nseed {seed}, step {}: {failure}\nagain: {again} -p hongbao-server --test server nothing_is_lost --no-capture",
            trace.last(),
            trace.step,
        )
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("there is a node between any two steps")
    }

    // ---- Steps

    fn step(&mut self) {
        self.trace.step += 1;
        let choice = self.rng.below(100);
        let who = match choice {
            0..22 => Lazy::Sets,
            22..32 => Lazy::Ledger,
            32..37 => Lazy::Generator,
            37..40 => Lazy::Offers,
            40..43 => Lazy::RoomShards,
            54..66 => Lazy::Clients,
            _ => Lazy::Nobody,
        };
        let rests = who != Lazy::Nobody && who == self.setup.lazy && !self.rng.one_in(8);
        match choice {
            _ if rests => {}
            0..22 => self.serve_some_set(),
            22..32 => self.serve_ledger(),
            32..37 => self.serve_generator(),
            37..40 => self.serve_offers(),
            40..43 => self.serve_some_room_shard(),
            43 => drop(self.serve_envelope_run()),
            44..54 => self.carry_up(),
            54..66 => self.carry_down(),
            66..94 => self.act(),
            94..98 => self.pass_time(),
            98 => self.operate(),
            _ => self.misfortune(),
        }
        self.check();
        if self.trace.step.is_multiple_of(1_500) {
            self.settle();
        }
    }

    fn check(&mut self) {
        let broken = self.node().broken();
        let difference = lock(&self.watch).differences.pop();
        if let Some(what) = difference.or(broken) {
            self.fail(what);
        }
    }

    fn serve_some_set(&mut self) {
        let index = self.rng.index(self.setup.sets as usize);
        let max = usize::try_from(self.rng.within(1, 24)).unwrap_or(1);
        self.serve_set(index, max);
    }

    fn serve_set(&mut self, index: usize, max: usize) -> bool {
        let now = self.now;
        let seed = Seed(self.rng.bytes());
        // The seeds of envelopes come from the system: here from ours.
        let see = |message: &mut Message| {
            if let Message::Peer { request: Heard::Ledger { wanted: LedgerRequest::Send(new), request }, .. } = message
            {
                new.seed = seed;
                new.seed.0[0] ^= request.get().to_le_bytes()[0];
            }
        };
        let Some(taken) = self.node().serve_set(index, max, &now, see) else { return false };
        self.trace.note(format!("SET {index} takes {taken} messages"));
        true
    }

    fn serve_ledger(&mut self) {
        let max = usize::try_from(self.rng.within(1, 24)).unwrap_or(1);
        if !self.calm && self.rng.one_in(60 * self.setup.calm) {
            let crash = match self.rng.below(4) {
                0 => Crash::Before,
                1 => Crash::After,
                _ => Crash::Torn(self.rng.next().to_le_bytes()[0]),
            };
            lock(&self.watch).crash = Some(crash);
        }
        self.serve_ledger_with(max);
        lock(&self.watch).crash = None;
    }

    fn serve_ledger_with(&mut self, max: usize) -> bool {
        let crash = lock(&self.watch).crash;
        let watch = Arc::clone(&self.watch);
        let taken = self.node().serve_ledger(max, |user| lock(&watch).held.push_back(user));
        if let Some(taken) = taken {
            self.trace.note(format!("the ledger takes {taken} requests"));
        }
        if lock(&self.watch).crashed {
            self.crash(&format!("{crash:?}"));
        }
        taken.is_some()
    }

    fn serve_generator(&mut self) {
        match self.rng.below(3) {
            0 => {
                self.serve_command();
            }
            1 => {
                self.serve_report();
            }
            _ => self.step_generator(),
        }
    }

    fn step_generator(&mut self) {
        let now = self.now.wall;
        self.node().generator.step(now);
        self.trace.note("the generator issues".to_owned());
    }

    fn serve_command(&mut self) -> bool {
        let now = self.now;
        let served = self.node().serve_command(&now).is_some();
        if served {
            self.trace.note("the generator obeys".to_owned());
        }
        served
    }

    fn serve_report(&mut self) -> bool {
        match self.node().serve_report() {
            Some(report) => {
                self.trace.note(format!("the generator hears: {report}"));
                true
            }
            None => false,
        }
    }

    fn serve_offers(&mut self) {
        let expire = self.rng.one_in(2);
        if let Some(what) = self.node().serve_offers(expire) {
            self.trace.note(what.to_owned());
        }
    }

    fn serve_envelope_run(&mut self) -> bool {
        let choice = self.rng.index(64);
        let served = self.node().serve_envelope_run(choice);
        if served {
            self.trace.note("a run of envelopes goes on".to_owned());
        }
        served
    }

    fn serve_some_room_shard(&mut self) {
        let index = self.rng.index(self.setup.room_shards);
        if self.node().serve_room_shard(index).is_some() {
            self.trace.note(format!("room shard {index} works"));
        }
    }

    fn pass_time(&mut self) {
        if self.rng.one_in(60) {
            // Somebody sets the wall clock back.
            let ms = self.rng.within(1, 1_500);
            self.now.wall -= ms;
            set_wall(self.now.wall);
            return self.trace.note(format!("the wall clock is set back by {ms} ms"));
        }
        let ms = match self.rng.below(24) {
            0 => self.rng.within(1_000, 3_000),
            1 => self.rng.within(1, 90) * 1_000,
            2..10 => self.rng.within(50, 400),
            _ => self.rng.within(1, 30),
        };
        self.advance(ms);
    }

    fn advance(&mut self, ms: u64) {
        self.now.at += ms * MS;
        self.now.wall += ms;
        self.latest_wall = self.latest_wall.max(self.now.wall);
        set_wall(self.now.wall);
        self.trace.note(format!("{ms} ms pass"));
        if self.now.at >= self.ticked_at + SECOND {
            self.ticked_at = self.now.at;
            self.node().tick();
        }
    }

    // ---- The network

    fn some_conn(&mut self) -> Option<u64> {
        let index = self.rng.index(self.conns.len());
        self.conns.keys().nth(index).copied()
    }

    fn with_conn(&mut self, id: u64, act: impl FnOnce(&mut Self, &mut Conn) -> bool) -> bool {
        let Some(mut conn) = self.conns.remove(&id) else { return false };
        let stays = act(self, &mut conn);
        if stays {
            self.conns.insert(id, conn);
        }
        stays
    }

    fn carry_up(&mut self) {
        let Some(id) = self.some_conn() else { return };
        let max = match self.rng.below(4) {
            0 => self.rng.within(1, 12),
            _ => 4_096,
        };
        self.up(id, usize::try_from(max).unwrap_or(1));
    }

    /// The server's reader reads. Whether anything was done.
    fn up(&mut self, id: u64, max: usize) -> bool {
        let mut did = false;
        self.with_conn(id, |world, conn| {
            let intake = &world.node.as_ref().expect("a node").sets[conn.set].intake;
            if conn.blocked {
                conn.blocked = intake.take(conn.key, &mut conn.reader, &[]).is_err();
                if conn.blocked {
                    return true;
                }
                did = true;
            }
            if !conn.up.is_empty() && !conn.pipe.is_cut() {
                let bytes: Vec<u8> = conn.up.drain(..max.min(conn.up.len())).collect();
                conn.blocked = intake.take(conn.key, &mut conn.reader, &bytes).is_err();
                did = true;
                let what = format!("connection {id} ({} bytes) is read, blocked: {}", bytes.len(), conn.blocked);
                world.trace.note(what);
                return true;
            }
            if conn.closed || conn.pipe.is_cut() {
                let end = if conn.closed { End::Reset } else { End::Closed };
                let gone = Message::Peer { key: conn.key, request: Heard::Gone(end) };
                if intake.inbox.try_send(gone).is_ok() {
                    world.trace.note(format!("connection {id} is gone"));
                    did = true;
                    return false;
                }
            }
            true
        });
        did
    }

    fn carry_down(&mut self) {
        let Some(id) = self.some_conn() else { return };
        let max = if self.rng.one_in(4) { self.rng.within(1, 40) } else { 64 * 1_024 };
        self.down(id, usize::try_from(max).unwrap_or(1));
    }

    /// The client reads. Whether anything was done.
    fn down(&mut self, id: u64, max: usize) -> bool {
        let mut did = false;
        self.with_conn(id, |world, conn| {
            if conn.closed || conn.stalled {
                return true;
            }
            let bytes = conn.pipe.read(max);
            if !bytes.is_empty() {
                did = true;
                world.trace.note(format!("connection {id} reads {} bytes", bytes.len()));
                world.take_in(conn, &bytes);
            }
            if conn.pipe.is_over() {
                did = true;
                world.close(conn);
            }
            true
        });
        did
    }

    /// The client closes; what was on its way down is lost.
    fn close(&mut self, conn: &mut Conn) {
        conn.closed = true;
        conn.pipe.go_deaf();
        let unheard = conn.asked.values().flatten().filter_map(|asked| match asked.what {
            Ask::Leave(room) => Some(room),
            _ => None,
        });
        self.users[conn.user].left.extend(unheard);
        conn.asked.clear();
    }

    // ---- Users

    fn act(&mut self) {
        let index = self.rng.index(self.users.len());
        let mine: Vec<u64> =
            self.conns.iter().filter(|(_, conn)| conn.user == index && conn.is_live()).map(|(id, _)| *id).collect();
        if mine.is_empty() || (mine.len() < CONNECTIONS_MAX && self.rng.one_in(40)) {
            self.connect(index);
            return;
        }
        let Some(id) = self.rng.pick(&mine).copied() else { return };
        match self.rng.below(120) {
            0 => {
                self.with_conn(id, |world, conn| {
                    // Some of what was on its way up is lost as well.
                    let kept = world.rng.index(conn.up.len() + 1);
                    if kept < conn.up.len() || !conn.pipe.is_dry() || conn.owed() > 0 {
                        world.figures.drops += 1;
                    }
                    conn.up.truncate(kept);
                    world.trace.note(format!("connection {id} of user {} is dropped", world.users[conn.user].id));
                    world.close(conn);
                    true
                });
            }
            1 => {
                self.with_conn(id, |_, conn| {
                    conn.stalled = !conn.stalled;
                    true
                });
            }
            _ => self.say_something(id),
        }
    }

    fn connect(&mut self, user: usize) -> u64 {
        let set = self.rng.index(self.setup.sets as usize);
        let window = *self.rng.pick(&[600, 16 * 1_024, 64 * 1_024]).unwrap_or(&600);
        let pipe = Pipe::new(window);
        let now = self.now;
        let key = self.node().sets[set].set.attach(SimWire(std::rc::Rc::clone(&pipe)), &now);
        let id = self.next_conn;
        self.next_conn += 1;
        self.figures.connections += 1;
        self.trace.note(format!("user {} connects: connection {id} in SET {set}", self.users[user].id));
        self.conns.insert(id, Conn::new(user, set, key, pipe));
        id
    }

    fn login(&mut self, id: u64) {
        let step = self.trace.step;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.login_at = step;
        conn.appointment = None;
        conn.phase = Phase::LoggingIn;
        let token = self.users[conn.user].token.clone();
        self.ask(id, ClientRequest::Login(v1::Login { token }), Ask::Login);
    }

    /// Sends a request under a new id.
    fn ask(&mut self, id: u64, request: ClientRequest, what: Ask) {
        let Some(conn) = self.conns.get(&id) else { return };
        let request_id = self.users[conn.user].request();
        self.ask_as(id, request_id, Some(request), what);
    }

    fn ask_as(&mut self, id: u64, request_id: u64, request: Option<ClientRequest>, what: Ask) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let user = &self.users[conn.user];
        self.trace.note(format!("user {} on connection {id} asks {request_id}: {what:?}", user.id));
        let first = if matches!(what, Ask::Grab(_)) { user.told.get(&request_id).copied() } else { None };
        let asked = Asked { what, online: conn.phase == Phase::Online, first };
        conn.asked.entry(request_id).or_default().push_back(asked);
        let mut bytes = BytesMut::new();
        frame::append(&v1::ClientFrame { request_id, request }, &mut bytes);
        conn.up.extend_from_slice(&bytes);
        self.figures.operations += 1;
    }

    fn say_something(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (index, phase) = (conn.user, conn.phase);
        match phase {
            Phase::Fresh if !self.rng.one_in(200) => return self.login(id),
            // Whoever does not wait for the welcome is told so, and harms nobody but itself.
            Phase::LoggingIn if !self.rng.one_in(100) => return,
            _ => {}
        }
        let campaigns = lock(&self.watch).model.campaigns.len() as u64;
        let (orders, envelopes) = lock(&self.watch).model.counts();
        let someone = self.rng.within(1, self.users.len() as u64);
        let room = self.rng.within(1, ROOMS);
        let user = &self.users[index];
        let mine = |rng: &mut Rng, known: Vec<u64>, all: u64| {
            if rng.one_in(6) { rng.within(1, all + 1) } else { rng.pick(&known).copied().unwrap_or(1) }
        };
        let choice = match self.setup.focus {
            Focus::Envelopes if self.rng.one_in(2) => self.rng.within(42, 58),
            Focus::Chat if self.rng.one_in(2) => self.rng.within(76, 92),
            Focus::Orders if self.rng.one_in(2) => self.rng.within(59, 70),
            _ => self.rng.below(100),
        };
        match choice {
            0..36 => {
                // Mostly of those that are not over.
                let campaign = if self.rng.one_in(4) {
                    0
                } else {
                    u32::try_from(self.rng.within(campaigns.saturating_sub(4).max(1), campaigns + 1)).unwrap_or(1)
                };
                self.grab(id, campaign);
            }
            36..42 => {
                let back = self.rng.index(user.grabs.len());
                if let Some((request, campaign)) = self.users[index].grabs.get(back).copied() {
                    let grab = ClientRequest::Grab(v1::Grab { campaign_id: campaign });
                    self.ask_as(id, request, Some(grab), Ask::Grab(campaign));
                }
            }
            42..48 => self.acknowledge(id, true),
            48..54 => {
                let known = user.offers.iter().rev().take(8).copied().collect();
                let envelope_id = mine(&mut self.rng, known, envelopes);
                self.ask(id, ClientRequest::Open(v1::Open { envelope_id }), Ask::Open(envelope_id));
            }
            54..59 => self.send_envelope(id),
            59..66 => {
                let known = reserved(&user.orders);
                let order_id = mine(&mut self.rng, known, orders);
                self.ask(id, ClientRequest::Pay(v1::Pay { order_id }), Ask::Pay(order_id));
            }
            66..71 => {
                // Also what was given back before.
                let mut known: Vec<u64> = user.orders.keys().rev().take(4).copied().collect();
                known.extend(
                    user.orders.iter().filter(|(_, state)| **state == i32::from(State::Cancelled)).map(|(id, _)| *id),
                );
                let order_id = mine(&mut self.rng, known, orders);
                self.ask(id, ClientRequest::Cancel(v1::Cancel { order_id }), Ask::Cancel(order_id));
            }
            71 => self.ask(id, ClientRequest::Orders(v1::Orders { before_order_id: 0, limit: 0 }), Ask::Orders),
            72..74 => {
                self.ask(id, ClientRequest::Statement(v1::Statement { before_entry_id: 0, limit: 64 }), Ask::Statement);
            }
            74..76 => {
                let known = user.offers.iter().rev().take(8).copied().collect();
                let envelope_id = mine(&mut self.rng, known, envelopes);
                let inspect = ClientRequest::InspectEnvelope(v1::InspectEnvelope { envelope_id });
                self.ask(id, inspect, Ask::Inspect(envelope_id));
            }
            76..80 => {
                let text = self.text(index);
                self.ask(id, ClientRequest::Chat(v1::Chat { user_id: someone, room_id: 0, text }), Ask::ChatTo);
            }
            80..86 => {
                let text = self.text(index);
                let chat = v1::Chat { user_id: 0, room_id: room, text: text.clone() };
                self.ask(id, ClientRequest::Chat(chat), Ask::ChatIn { room, text });
            }
            86..91 => self.join(id, room),
            91 => self.visit(id, room, v1::room::Action::Leave, Ask::Leave(room)),
            92 => self.visit(id, room, v1::room::Action::Look, Ask::Look(room)),
            93..97 => self.ask(id, ClientRequest::Ping(v1::Ping {}), Ask::Ping),
            97 => self.login_again(id),
            _ => self.misbehave(id),
        }
    }

    fn grab(&mut self, id: u64, campaign: u32) {
        let Some(conn) = self.conns.get(&id) else { return };
        let user = &mut self.users[conn.user];
        let request = user.request();
        user.grabs.push_back((request, campaign));
        if user.grabs.len() > 24 {
            user.grabs.pop_front();
        }
        self.ask_as(id, request, Some(ClientRequest::Grab(v1::Grab { campaign_id: campaign })), Ask::Grab(campaign));
    }

    fn text(&mut self, user: usize) -> String {
        self.next_text += 1;
        format!("{}:{}:{}", self.users[user].id, self.next_text, "恭喜发财".repeat(self.rng.index(12)))
    }

    fn acknowledge(&mut self, id: u64, some: bool) {
        let Some(conn) = self.conns.get(&id) else { return };
        let user = &self.users[conn.user];
        let rng = &mut self.rng;
        let mut wins: Vec<_> = user.wins.iter().copied().take(20).collect();
        let mut orders: Vec<u64> = user.orders.keys().rev().copied().take(20).collect();
        let unseen = user.offers.iter().filter(|envelope| !user.seen_envelopes.contains_key(envelope));
        let mut envelopes: Vec<u64> = unseen.copied().take(20).collect();
        if some {
            wins.retain(|_| rng.one_in(2));
            orders.retain(|_| rng.one_in(2));
            envelopes.retain(|_| rng.one_in(2));
        }
        let mut acknowledge = v1::Acknowledge {
            prizes: wins
                .iter()
                .map(|(campaign_id, serial)| v1::PrizeId { campaign_id: *campaign_id, serial: *serial })
                .collect(),
            envelope_ids: envelopes.clone(),
            order_ids: orders.clone(),
        };
        // Somebody else's, or nobody's.
        acknowledge.order_ids.push(rng.within(1, 40));
        self.ask(id, ClientRequest::Acknowledge(acknowledge), Ask::Acknowledge { wins, orders, envelopes });
    }

    fn send_envelope(&mut self, id: u64) {
        let shares = u32::try_from(self.rng.within(1, 5)).unwrap_or(1);
        let room_id = if self.rng.one_in(4) { self.rng.within(1, ROOMS) } else { 0 };
        let mut user_ids: Vec<u64> = (1..=self.users.len() as u64).filter(|_| self.rng.one_in(2)).collect();
        if room_id != 0 {
            user_ids.clear();
        } else if user_ids.is_empty() {
            user_ids.push(1);
        }
        let send = v1::SendEnvelope {
            total_fen: self.rng.within(u64::from(shares), 300),
            shares,
            mode: if self.rng.one_in(2) { 1 } else { 2 },
            greeting: "恭喜".to_owned(),
            user_ids,
            room_id,
            lifetime_seconds: u32::try_from(self.rng.within(1, 60)).unwrap_or(1),
        };
        self.ask(id, ClientRequest::SendEnvelope(send), Ask::Send);
    }

    fn join(&mut self, id: u64, room: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (epoch, offset) = match self.users[conn.user].rooms.get(&room).copied() {
            Some(seen) if !self.rng.one_in(3) => seen,
            _ => (0, 0),
        };
        // The server's number of the epoch.
        let real = self.epochs.iter().find(|(_, number)| **number == epoch).map_or(0, |(real, _)| *real);
        let request = v1::Room { room_id: room, action: v1::room::Action::Join.into(), epoch: real, offset };
        self.ask(id, ClientRequest::Room(request), Ask::Join { room, epoch, offset });
    }

    fn visit(&mut self, id: u64, room: u64, action: v1::room::Action, what: Ask) {
        self.ask(id, ClientRequest::Room(v1::Room { room_id: room, action: action.into(), epoch: 0, offset: 0 }), what);
    }

    fn login_again(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.phase == Phase::Online {
            let token = self.users[conn.user].token.clone();
            self.ask(id, ClientRequest::Login(v1::Login { token }), Ask::Hostile);
        }
    }

    /// What no honest client says.
    fn misbehave(&mut self, id: u64) {
        let choice = self.rng.below(8);
        let zero = 0;
        match choice {
            0 => self.ask_as(id, zero, Some(ClientRequest::Ping(v1::Ping {})), Ask::Hostile),
            1 => self.ask_as(id, u64::MAX, Some(ClientRequest::Ping(v1::Ping {})), Ask::Hostile),
            2 => {
                let Some(conn) = self.conns.get(&id) else { return };
                let request = self.users[conn.user].request();
                self.ask_as(id, request, None, Ask::Hostile);
            }
            3 => self.ask(id, ClientRequest::Pay(v1::Pay { order_id: 0 }), Ask::Hostile),
            4 => self.ask(id, ClientRequest::Acknowledge(v1::Acknowledge::default()), Ask::Hostile),
            5 => self.ask(id, ClientRequest::Open(v1::Open { envelope_id: u64::MAX }), Ask::Hostile),
            6 => {
                let send = v1::SendEnvelope {
                    total_fen: u64::MAX,
                    shares: 1,
                    mode: 1,
                    user_ids: vec![1],
                    ..Default::default()
                };
                self.ask(id, ClientRequest::SendEnvelope(send), Ask::Hostile);
            }
            _ => {
                // Ends the connection.
                let garbage = self.rng.bytes();
                if let Some(conn) = self.conns.get_mut(&id)
                    && self.rng.one_in(8)
                {
                    self.trace.note(format!("connection {id} sends garbage"));
                    conn.up.extend_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
                    conn.up.extend_from_slice(&garbage);
                    let asked = Asked { what: Ask::Hostile, online: true, first: None };
                    conn.asked.entry(0).or_default().push_back(asked);
                }
            }
        }
    }

    // ---- Operators

    fn operate(&mut self) {
        match self.rng.below(13) {
            0..5 => self.create(),
            11 => self.begin_envelope_run(),
            5 => {
                let campaigns = lock(&self.watch).model.campaigns.len() as u64;
                if campaigns > 0 && self.rng.one_in(4) {
                    let number = self.rng.within(1, campaigns);
                    if let Ok(id) = hongbao_proto::CampaignId::new(number) {
                        let (reply, _) = oneshot::channel();
                        let change = CampaignChange::Stop(id);
                        self.command(Command::Change { change, reply }, format!("stop campaign {id}"));
                    }
                }
            }
            6..9 => {
                let amount = self.rng.within(1, 3_000);
                self.deposit(amount);
            }
            9 => {
                let (orders, _) = lock(&self.watch).model.counts();
                let number = self.rng.within(1, orders + 1);
                let owner = lock(&self.watch).model.owner(number).and_then(|user| UserId::new(user).ok());
                if let (Some(user), Ok(order)) = (owner, hongbao_proto::OrderId::new(number)) {
                    let posting = Posting::Pay { user, order, means: Means::Outside };
                    self.post(posting, format!("order {order} is paid outside"));
                }
            }
            10 => {
                let frame = v1::ServerFrame {
                    request_id: 0,
                    event: Some(v1::server_frame::Event::Announcement(v1::Announcement {
                        text: "新年好".to_owned()
                    })),
                };
                let mut bytes = BytesMut::new();
                frame::append(&frame, &mut bytes);
                let frame = bytes.freeze();
                self.trace.note("an announcement".to_owned());
                for set in &self.node().shared.sets {
                    set.inbox.try_send(Message::Control(Control::Announce(frame.clone()))).ok();
                }
            }
            _ => {
                let Some(id) = self.some_conn() else { return };
                let conn = &self.conns[&id];
                let (set, key, user) = (conn.set, conn.key, self.users[conn.user].id);
                self.trace.note(format!("user {user} is kicked off connection {id}"));
                self.node().sets[set].intake.inbox.try_send(Message::Control(Control::Kick { key, user })).ok();
            }
        }
    }

    fn command(&mut self, command: Command, what: String) {
        let sent = self.node().commands.try_send(command).is_ok();
        self.trace.note(format!("an operator: {what} ({sent})"));
    }

    /// Has the ledger write something on its own, as the operators' surface does.
    fn post(&mut self, posting: Posting, what: String) -> bool {
        let now = self.now.wall;
        let task = |reply| LedgerTask::Post { postings: vec![posting], now, reply };
        let sent = self.node().handle.try_task(task).is_some();
        self.trace.note(format!("an operator: {what} ({sent})"));
        sent
    }

    fn deposit(&mut self, amount: u64) -> bool {
        let count = u32::try_from(self.users.len()).unwrap_or(1);
        let key = format!("{}-{}", self.trace.step, amount).into();
        let posting = Posting::Deposit { first: self.users[0].id, count, amount: Fen(amount), key };
        self.post(posting, format!("{amount} fen to everybody"))
    }

    fn begin_envelope_run(&mut self) {
        let (rng, users) = (&mut self.rng, self.users.len() as u64);
        let recipients = u32::try_from(rng.within(1, users)).unwrap_or(1);
        let shares = u32::try_from(rng.within(1, 4)).unwrap_or(1);
        let terms = Terms {
            count: rng.within(1, 6),
            rate_per_second: u32::try_from(rng.within(1, 50)).unwrap_or(1),
            recipients,
            shares,
            mode: if rng.one_in(2) { Mode::Random } else { Mode::Equal },
            first_user: self.users[0].id,
            users,
            totals: Amounts { min: Fen(shares.into()), max: Fen(u64::from(shares) + 200) },
            lifetime_ms: rng.within(1_000, 30_000),
            greeting: "恭喜".into(),
        };
        let seed = Seed(rng.bytes());
        self.trace.note(format!("an operator sends {terms:?}"));
        self.node().begin_envelope_run(terms, seed);
    }

    fn create(&mut self) {
        let open = lock(&self.watch).model.campaigns.iter().filter(|campaign| campaign.settlement.is_none()).count();
        if open >= CAMPAIGNS_MAX {
            return;
        }
        let rng = &mut self.rng;
        let total = rng.within(1, 40);
        let least = total.div_ceil(self.users.len() as u64);
        let starts_at = self.now.wall + rng.below(3_000);
        let goods = if rng.one_in(2) {
            let min = rng.within(1, 50);
            let amounts = Amounts { min: Fen(min), max: Fen(min + rng.below(200)) };
            Goods::Rain { rate_per_second: u32::try_from(rng.within(2, 200)).unwrap_or(2), amounts }
        } else {
            Goods::Sale(Sale {
                kind: CampaignKind::Ticket,
                price: Fen(if rng.one_in(4) { 0 } else { rng.within(1, 500) }),
                face_value: Fen::ZERO,
                hold_ms: rng.within(1_000, 20_000),
                valid_from: None,
                valid_until: None,
                fair_window_ms: if rng.one_in(3) { u32::try_from(rng.within(100, 3_000)).unwrap_or(100) } else { 0 },
            })
        };
        let terms = CampaignTerms {
            title: "simulated".to_owned(),
            goods,
            total,
            seed: Seed(rng.bytes()),
            starts_at,
            ends_at: rng.one_in(5).then(|| starts_at + rng.within(500, 60_000)),
            per_user_limit: rng.one_in(2).then(|| u32::try_from(least + rng.below(3)).unwrap_or(1)),
        };
        let what = format!("create {terms:?}");
        let (reply, _) = oneshot::channel();
        self.figures.campaigns += 1;
        let change = CampaignChange::Create(Box::new(terms));
        self.command(Command::Change { change, reply }, what);
    }

    // ---- Faults

    fn misfortune(&mut self) {
        let disk = lock(&self.watch).disk;
        match self.rng.below(12) {
            0 if self.rng.one_in(self.setup.calm) => self.crash("killed"),
            1 if self.rng.one_in(self.setup.calm) => self.stop(),
            2..6 if disk == Disk::Good => {
                let disk = if self.rng.one_in(3) { Disk::Dead } else { Disk::Full };
                self.figures.full_disks += 1;
                self.trace.note(format!("the disk is {disk:?}"));
                lock(&self.watch).disk = disk;
            }
            6.. if disk != Disk::Good => {
                self.trace.note("the disk is good again".to_owned());
                lock(&self.watch).disk = Disk::Good;
                self.node().ledger.probe();
            }
            _ => {}
        }
    }

    /// Stops in order, as `Node::stop` does, and starts again.
    fn stop(&mut self) {
        self.settle();
        self.trace.note("an orderly stop".to_owned());
        self.figures.stops += 1;
        self.calm = true;
        for _ in 0..100 {
            if self.node().commands.try_send(Command::Halt).is_ok() {
                break;
            }
            self.rounds(1);
        }
        for index in 0..self.setup.sets as usize {
            for _ in 0..100 {
                let farewell = Control::Farewell(ReturnWindow { from_ms: 1_000, until_ms: 3_000 });
                if self.node().sets[index].intake.inbox.try_send(Message::Control(farewell)).is_ok() {
                    break;
                }
                self.rounds(1);
            }
        }
        for _ in 0..10 {
            self.rounds(20);
            if self.conns.is_empty() {
                break;
            }
        }
        if !self.conns.is_empty() {
            let left: Vec<_> = self.conns.values().collect();
            let what = format!("4 s after the farewell there are connections: {left:?}");
            self.fail(what);
        }
        for set in &self.node().shared.sets.clone() {
            let (connections, owed) = (set.tally.connections.get(), set.tally.owed.get());
            if connections + owed > 0 {
                self.fail(format!("a SET stops with {connections} connections and {owed} answers owed"));
            }
        }
        self.node().fold();
        self.calm = false;
        self.die();
    }

    /// The process dies as it is; what is durable is found by another one.
    fn crash(&mut self, how: &str) {
        self.figures.crashes += 1;
        self.trace.note(format!("crash: {how}"));
        // What has reached the clients' side before is read there, by some.
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            if self.rng.one_in(2) {
                self.down(id, usize::MAX);
            }
        }
        self.conns.clear();
        self.die();
    }

    /// Whatever is in memory goes; another process finds the files as they are.
    fn die(&mut self) {
        let next = self.home.path().join(format!("ledger-{}.db", self.lives + 1));
        let (path, torn) = {
            let mut watch = lock(&self.watch);
            (mem::replace(&mut watch.path, next.clone()), watch.torn.take())
        };
        let [file, log] = files(&path);
        let mut other = None;
        let (file, log) = match torn {
            // The log's pages have begun to go into the file: all of the commit was there.
            Some((_, [old_file, _], _)) if old_file != file => (file, log),
            Some((before, [_, old_log], share)) => {
                other = Some(before);
                (file, tear(&old_log, &log, share))
            }
            None => (file, log),
        };
        // The dead process's queues and connections go, and what it does on the way out goes into
        // files that nobody looks at.
        self.node = None;
        for (path, bytes) in [(next.clone(), &file), (log_of(&next), &log)] {
            if let Err(error) = fs::write(&path, bytes) {
                self.fail(format!("{}: {error}", path.display()));
            }
        }
        for path in [path.clone(), log_of(&path)] {
            // Gone with the last connection, mostly.
            fs::remove_file(path).ok();
        }
        self.lives += 1;
        self.advance_only();
        {
            let mut watch = lock(&self.watch);
            watch.crashed = false;
            watch.crash = None;
            watch.disk = Disk::Good;
            watch.recalls.clear();
            watch.held.clear();
        }
        self.open_as(other);
    }

    /// Somebody starts the process again after a while.
    fn advance_only(&mut self) {
        let ms = if self.rng.one_in(3) { self.rng.within(1, 30_000) } else { self.rng.within(1, 200) };
        self.now.at += ms * MS;
        // A run names its envelopes by the moment: a process that begins before an earlier one
        // did would repeat it.
        self.now.wall = self.now.wall.max(self.latest_wall) + ms;
        self.latest_wall = self.now.wall;
        self.ticked_at = self.now.at;
        set_wall(self.now.wall);
        self.trace.note(format!("started again after {ms} ms"));
    }

    fn open(&mut self) {
        self.open_as(None);
    }

    /// Opens the node; its books are the model's, or those of `other`, where the last commit may be
    /// missing.
    fn open_as(&mut self, other: Option<Model>) {
        let path: PathBuf = lock(&self.watch).path.clone();
        let users: Vec<UserId> = self.users.iter().map(|user| user.id).collect();
        let watch = Arc::clone(&self.watch);
        let check = move |ledger: &mut SqliteLedger| {
            let mut watch = lock(&watch);
            let mut differences = compare(ledger, &watch.model, &users);
            if let Some(other) = other
                && !differences.is_empty()
            {
                let others = compare(ledger, &other, &users);
                if others.is_empty() {
                    watch.model = other;
                    differences.clear();
                }
            }
            watch.differences.extend(differences);
        };
        match Node::open(&self.setup, &path, &self.watch, &self.verifier, &self.now, check) {
            Ok(node) => self.node = Some(node),
            Err(error) => {
                let what = format!("the ledger cannot be opened after a crash: {error}");
                // There is no node to go on with.
                panic!("{}", self.report(&what));
            }
        }
    }

    // ---- The end

    /// One round in which everybody gets a turn and everything is good. Whether anybody had
    /// something to do.
    fn round(&mut self) -> bool {
        self.advance(20);
        let mut busy = false;
        let mut ids: Vec<u64> = self.conns.keys().copied().collect();
        // Nobody is always the last one to find a full queue.
        let first = self.rng.index(ids.len());
        ids.rotate_left(first);
        for id in &ids {
            let conn = &self.conns[id];
            if conn.is_live() && conn.phase == Phase::Fresh && conn.appointment.is_some_and(|at| at <= self.now.wall) {
                self.login(*id);
            }
            busy |= self.up(*id, usize::MAX);
        }
        // In turns, so that everybody finds room in the ledger's queue now and then, however small
        // it is.
        let sets = self.setup.sets as usize;
        for _ in 0..4 * sets {
            let (index, max) = (self.rng.index(sets), self.rng.within(1, 4));
            busy |= self.serve_set(index, usize::try_from(max).unwrap_or(1));
            busy |= self.serve_ledger_with(64);
        }
        for index in 0..sets {
            busy |= self.serve_set(index, 64);
        }
        busy |= self.serve_ledger_with(64);
        while self.serve_report() {}
        while self.serve_command() {}
        self.step_generator();
        for expire in [false, false, true] {
            self.node().serve_offers(expire);
        }
        self.serve_envelope_run();
        for index in 0..self.node().room_shards() {
            while self.node().serve_room_shard(index).is_some() {
                busy = true;
            }
        }
        for id in &ids {
            busy |= self.down(*id, usize::MAX);
        }
        self.check();
        busy
    }

    fn rounds(&mut self, count: u64) {
        for _ in 0..count {
            if self.failure.is_some() {
                return;
            }
            self.trace.step += 1;
            self.round();
        }
    }

    fn owes(&mut self) -> Option<String> {
        for (index, set) in self.node().shared.sets.iter().enumerate() {
            let owed = set.tally.owed.get();
            if owed > 0 {
                return Some(format!("SET {index} owes {owed} answers"));
            }
        }
        self.conns.iter().find(|(_, conn)| conn.is_live() && conn.owed() > 0).map(|(id, conn)| {
            format!("connection {id} of user {} waits for answers: {:?}", self.users[conn.user].id, conn.asked)
        })
    }

    /// No more faults: everything that is owed is answered, in bounded time.
    fn settle(&mut self) {
        self.trace.note("calm".to_owned());
        self.calm = true;
        lock(&self.watch).disk = Disk::Good;
        self.node().ledger.probe();
        for conn in self.conns.values_mut() {
            conn.stalled = false;
        }
        for _ in 0..10 {
            self.rounds(60);
            if self.failure.is_some() || self.owes().is_none() {
                break;
            }
        }
        if let Some(what) = self.owes() {
            self.fail(format!("after 12 s without faults: {what}"));
        }
        self.calm = false;
    }

    /// A connection of the user that is logged in, if there is one.
    fn online(&self, user: usize) -> Option<u64> {
        let online = |conn: &&Conn| conn.user == user && conn.is_live() && conn.phase == Phase::Online;
        self.conns.iter().find(|(_, conn)| online(conn)).map(|(id, _)| *id)
    }

    fn bring_in(&mut self) {
        for user in 0..self.users.len() {
            if self.online(user).is_some() {
                continue;
            }
            let live = self.conns.iter().find(|(_, conn)| conn.user == user && conn.is_live());
            match live.map(|(id, conn)| (*id, conn.phase)) {
                None => {
                    let id = self.connect(user);
                    self.login(id);
                }
                Some((id, Phase::Fresh)) if self.conns[&id].appointment.is_none() => self.login(id),
                Some(_) => {}
            }
        }
    }

    /// Campaigns of which something can be had now or later.
    fn open_campaigns(&self) -> Vec<u32> {
        let watch = lock(&self.watch);
        let now = self.now.wall;
        let campaigns = watch.model.campaigns.iter().filter(|campaign| {
            campaign.stopped_at.is_none()
                && campaign.settlement.is_none()
                && campaign.terms.ends_at.is_none_or(|end| now < end)
                && campaign.won < campaign.terms.total
        });
        campaigns.map(|campaign| campaign.id.get()).collect()
    }

    /// Everything is sold, settled, seen; and the books are right.
    fn finish(&mut self) {
        self.settle();
        self.calm = true;
        self.sell_out();
        self.wait_for_settlements();
        self.see_everything();
        self.settle();
        if self.failure.is_some() {
            return;
        }
        let path = lock(&self.watch).path.clone();
        self.conns.clear();
        self.node = None;
        self.judge(&path);
    }

    /// With enough demand and money every unit is sold.
    fn sell_out(&mut self) {
        self.trace.note("everybody buys".to_owned());
        for _ in 0..20 {
            if self.deposit(1_000_000) {
                break;
            }
            self.rounds(1);
        }
        for round in 0..500u64 {
            let open = self.open_campaigns();
            if open.is_empty() || self.failure.is_some() {
                return;
            }
            self.trace.step += 1;
            if round % 40 == 39 {
                // Holds are over, and connections that fell silent.
                self.advance(25_000);
                for user in &mut self.users {
                    user.limited.clear();
                }
            }
            self.bring_in();
            for user in 0..self.users.len() {
                let Some(id) = self.online(user) else { continue };
                if self.conns[&id].owed() > 0 {
                    continue;
                }
                // Few at once and another one first each time: the smallest queue has room for what
                // is wanted now and then.
                let mut wishes: Vec<Wish> = reserved(&self.users[user].orders).into_iter().map(Wish::Pay).collect();
                let limited = &self.users[user].limited;
                wishes.extend(open.iter().copied().filter(|campaign| !limited.contains(campaign)).map(Wish::Grab));
                let first = self.rng.index(wishes.len());
                wishes.rotate_left(first);
                for wish in wishes.into_iter().take(3) {
                    match wish {
                        Wish::Pay(order_id) => {
                            self.ask(id, ClientRequest::Pay(v1::Pay { order_id }), Ask::Pay(order_id))
                        }
                        Wish::Grab(campaign) => self.grab(id, campaign),
                    }
                }
            }
            self.rounds(6);
        }
        let open = self.open_campaigns();
        let left: Vec<_> = {
            let watch = lock(&self.watch);
            let campaigns = watch.model.campaigns.iter().filter(|campaign| open.contains(&campaign.id.get()));
            campaigns.map(|campaign| (campaign.id, campaign.won, campaign.reserved, campaign.terms.clone())).collect()
        };
        let board: Vec<_> =
            left.iter().map(|(id, ..)| self.node.as_ref().and_then(|node| node.board.get(*id))).collect();
        if !left.is_empty() {
            self.fail(format!("stranded, with everybody buying: {left:?}; the generator says {board:?}"));
        }
    }

    fn wait_for_settlements(&mut self) {
        self.trace.note("campaigns are settled".to_owned());
        let unsettled = |world: &Self| {
            let watch = lock(&world.watch);
            let campaigns = watch.model.campaigns.iter().filter(|campaign| campaign.settlement.is_none());
            campaigns.map(|campaign| campaign.id.get()).collect::<Vec<_>>()
        };
        for _ in 0..20 {
            if unsettled(self).is_empty() || self.failure.is_some() {
                return;
            }
            self.advance(8_000);
            self.rounds(110);
        }
        let left = unsettled(self);
        if !left.is_empty() {
            let board: Vec<_> = left
                .iter()
                .filter_map(|id| hongbao_proto::CampaignId::new((*id).into()).ok())
                .map(|id| self.node.as_ref().and_then(|node| node.board.get(id)))
                .collect();
            self.fail(format!("never settled: campaigns {left:?}, {board:?}"));
        }
    }

    /// What is acknowledged is never told again, and everything that is told can be acknowledged.
    fn see_everything(&mut self) {
        self.trace.note("everything is acknowledged".to_owned());
        // Beyond the last envelope's lifetime.
        self.advance(61_000);
        self.rounds(80);
        let mut last = String::new();
        for _ in 0..200 {
            self.bring_in();
            self.rounds(30);
            let mut left = None;
            for user in 0..self.users.len() {
                left = self.see(user).or(left);
            }
            self.rounds(30);
            let Some(left) = left else { break };
            if self.failure.is_some() {
                return;
            }
            last = left;
        }
        if !last.is_empty() {
            let unseen = (0..self.users.len()).find_map(|user| self.see(user));
            if unseen.is_some() {
                return self.fail(format!("told again and again: {last}"));
            }
        }
        let runs = self.node().runs.all();
        for run in runs {
            if !run.finished || run.opened_fen + run.refunded_fen != run.sent_fen {
                return self.fail(format!("a run of envelopes, with everything expired: {run:?}"));
            }
        }
        // Whoever logs in now is told nothing.
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            self.with_conn(id, |world, conn| {
                world.close(conn);
                true
            });
        }
        self.rounds(20);
        self.bring_in();
        self.rounds(60);
    }

    /// Takes a user a step further towards having acknowledged everything; what is left of it.
    fn see(&mut self, user: usize) -> Option<String> {
        let id = self.users[user].id;
        let Answer::Recall(recall) = lock(&self.watch).model.ask(id, &Question::Recall) else { return None };
        if recall.unacknowledged.is_empty() && recall.offers.is_empty() {
            return None;
        }
        let left = format!("user {id} has not acknowledged {recall:?}");
        let Some(conn) = self.online(user) else { return Some(left) };
        let knows = recall.unacknowledged.iter().all(|award| match award {
            Award::Win(win) => self.users[user].wins.contains(&(win.campaign.get(), win.serial.0)),
            Award::Order(order) => self.users[user].orders.contains_key(&order.id.get()),
        });
        if self.conns[&conn].owed() > 0 {
            return Some(left);
        }
        if knows {
            let orders = recall.unacknowledged.iter().filter_map(|award| match award {
                Award::Win(_) => None,
                Award::Order(order) => Some(order.id.get()),
            });
            let orders: Vec<u64> = orders.take(20).collect();
            if !orders.is_empty() {
                let acknowledge = v1::Acknowledge { order_ids: orders.clone(), ..Default::default() };
                let what = Ask::Acknowledge { wins: Vec::new(), orders, envelopes: Vec::new() };
                self.ask(conn, ClientRequest::Acknowledge(acknowledge), what);
            }
            self.acknowledge(conn, false);
        } else {
            // It hears of it at its next login.
            self.with_conn(conn, |world, conn| {
                world.close(conn);
                true
            });
        }
        Some(left)
    }

    /// The file, by the audit and by its own rows.
    fn judge(&mut self, path: &std::path::Path) {
        let users: Vec<UserId> = self.users.iter().map(|user| user.id).collect();
        match SqliteLedger::open(path) {
            Ok(mut ledger) => {
                let mut watch = lock(&self.watch);
                let differences = compare(&mut ledger, &watch.model, &users);
                watch.differences.extend(differences);
            }
            Err(error) => self.fail(format!("the ledger cannot be opened at the end: {error}")),
        }
        match audit(path) {
            Ok(report) if report.is_balanced() => {}
            Ok(report) => self.fail(format!("{report}")),
            Err(error) => self.fail(format!("no audit: {error}")),
        }
        if let Err(error) = self.sums(path) {
            self.fail(format!("the rows cannot be read: {error}"));
        }
        let difference = lock(&self.watch).differences.pop();
        if let Some(what) = difference {
            self.fail(what);
        }
    }

    /// What holds of any good ledger, said in SQL.
    fn sums(&mut self, path: &std::path::Path) -> Result<(), rusqlite::Error> {
        let rows = rusqlite::Connection::open(path)?;
        let counts = [
            ("units won twice", "SELECT count(*) - count(DISTINCT debit || '/' || item) FROM entries WHERE kind = 2"),
            (
                "requests of a user that got two things",
                "SELECT count(*) - count(DISTINCT credit || '/' || request) FROM entries WHERE kind IN (2, 4)",
            ),
            (
                "units held twice",
                "SELECT count(*) - count(DISTINCT campaign || '/' || serial) FROM orders WHERE state IN (1, 2)",
            ),
            (
                "wallets below 0",
                "SELECT count(*) FROM (SELECT u, sum(a) AS b FROM (
                   SELECT credit AS u, amount_fen AS a FROM entries UNION ALL SELECT debit, -amount_fen FROM entries)
                 GROUP BY u) WHERE u > 0 AND b < 0",
            ),
            (
                "envelopes of which not exactly the total came out",
                "SELECT count(*) FROM (SELECT sum(CASE WHEN kind = 8 THEN amount_fen ELSE 0 END) AS sent,
                   sum(CASE WHEN kind = 8 THEN 0 ELSE amount_fen END) AS out
                 FROM (SELECT kind, amount_fen, CASE WHEN kind = 8 THEN credit ELSE debit END AS e
                   FROM entries WHERE kind IN (8, 9, 10)) GROUP BY e) WHERE sent <> out",
            ),
        ];
        for (what, sql) in counts {
            let count: i64 = rows.query_row(sql, [], |row| row.get(0))?;
            if count != 0 {
                self.fail(format!("{count} {what}"));
            }
        }
        Ok(())
    }
}

/// What a buyer wants next.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Pay(u64),
    Grab(u32),
}

/// Orders that wait for their payment, as far as their user knows.
fn reserved(orders: &BTreeMap<u64, i32>) -> Vec<u64> {
    let waiting = orders.iter().filter(|(_, state)| **state == i32::from(State::Reserved));
    waiting.map(|(id, _)| *id).collect()
}

/// The log with the first so many 256ths of what is new in it, and the rest as it was.
fn tear(old: &[u8], new: &[u8], share: u8) -> Vec<u8> {
    let begin = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let written = begin + (new.len() - begin) * usize::from(share) / 256;
    let mut torn = new[..written].to_vec();
    torn.extend_from_slice(old.get(written..).unwrap_or_default());
    torn
}
