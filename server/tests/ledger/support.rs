//! Values for the tests, and the plainest ledger there can be: lists of what happened, looked
//! through from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, RequestId, RoomId, Serial, UserId};
use hongbao_server::clock::UnixMs;
use hongbao_server::ledger::books::{AccountId, Entry, Kind};
use hongbao_server::ledger::{
    Acknowledged, Answer, Award, CancelResult, Claim, ClaimResult, DepositResult, EnvelopeView, Expired, Ledger, Means,
    Movement, OpenResult, Page, PayResult, Posting, PostingResult, Purpose, Question, Recall, Seen, SendResult,
    Statement, Totals, Win,
};
use hongbao_server::limits::{EXPIRE_STEP, RECALLED_WINS_MAX};
use hongbao_server::market::campaign::{Amounts, Campaign, CampaignKind, CampaignTerms, Goods, Sale, Seed, Settlement};
use hongbao_server::market::envelope::{Mode, NewEnvelope, Offer, split};
use hongbao_server::market::order::{Order, OrderState};

pub fn user(n: u64) -> UserId {
    UserId::new(n).unwrap()
}

pub fn request(n: u64) -> RequestId {
    RequestId::new(n).unwrap()
}

pub fn order_id(n: u64) -> OrderId {
    OrderId::new(n).unwrap()
}

pub fn envelope_id(n: u64) -> EnvelopeId {
    EnvelopeId::new(n).unwrap()
}

pub fn terms(total: u64, per_user_limit: Option<u32>) -> CampaignTerms {
    CampaignTerms {
        title: "rain".to_owned(),
        goods: Goods::Rain { rate_per_second: 1, amounts: Amounts { min: Fen(1), max: Fen(500) } },
        total,
        seed: Seed([3; 32]),
        starts_at: 0,
        ends_at: None,
        per_user_limit,
    }
}

/// Units that are held for five seconds; for nothing if the price is 0.
pub fn sale_terms(total: u64, per_user_limit: Option<u32>, price: u64) -> CampaignTerms {
    let sale = Sale {
        kind: CampaignKind::Ticket,
        price: Fen(price),
        face_value: Fen::ZERO,
        hold_ms: 5_000,
        valid_from: None,
        valid_until: None,
        fair_window_ms: 0,
    };
    CampaignTerms { title: "sale".to_owned(), goods: Goods::Sale(sale), ..terms(total, per_user_limit) }
}

pub fn claim_of(campaign: &Campaign, user_n: u64, request_n: u64, serial: u64) -> Claim {
    Claim {
        user: user(user_n),
        request: request(request_n),
        campaign: campaign.id,
        serial: Serial(serial),
        amount: campaign.terms.amount(Serial(serial)),
    }
}

pub fn claim(campaign: &Campaign, user_n: u64, request_n: u64, serial: u64) -> Posting {
    Posting::Claim(claim_of(campaign, user_n, request_n, serial))
}

pub fn acknowledge(user_n: u64, prizes: &[(CampaignId, u64)]) -> Posting {
    let prizes = prizes.iter().map(|(campaign, serial)| (*campaign, Serial(*serial))).collect();
    Posting::Acknowledge { user: user(user_n), seen: Box::new(Seen { prizes, ..Seen::default() }) }
}

pub fn pay(user_n: u64, order: u64, means: Means) -> Posting {
    Posting::Pay { user: user(user_n), order: order_id(order), means }
}

pub fn cancel(user_n: u64, order: u64) -> Posting {
    Posting::Cancel { user: user(user_n), order: order_id(order) }
}

pub fn open(user_n: u64, envelope: u64) -> Posting {
    Posting::Open { user: user(user_n), envelope: envelope_id(envelope) }
}

pub fn deposit(first: u64, count: u32, amount: u64, key: &str) -> Posting {
    Posting::Deposit { first: user(first), count, amount: Fen(amount), key: key.into() }
}

/// An envelope for `recipients`, which can be opened for ten seconds. From nobody: from the house.
pub fn envelope(sender: Option<u64>, request_n: u64, total: u64, shares: u32, recipients: &[u64]) -> NewEnvelope {
    NewEnvelope {
        sender: sender.map(user),
        request: request(request_n),
        total: Fen(total),
        shares,
        mode: if request_n.is_multiple_of(2) { Mode::Random } else { Mode::Equal },
        seed: Seed([7; 32]),
        greeting: "恭喜发财".into(),
        recipients: recipients.iter().copied().map(user).collect(),
        room: request_n.is_multiple_of(3).then(|| RoomId::new(5).unwrap()),
        lifetime_ms: 10_000,
    }
}

pub fn send(envelope: NewEnvelope) -> Posting {
    Posting::Send(Box::new(envelope))
}

pub fn won(campaign: &Campaign, request_n: u64, serial: u64) -> Win {
    Win {
        campaign: campaign.id,
        serial: Serial(serial),
        amount: campaign.terms.amount(Serial(serial)),
        request: request(request_n),
    }
}

/// The order of a grab at `now`, as it stands until it is decided; free ones are.
pub fn ordered(campaign: &Campaign, id: u64, (user_n, request_n): (u64, u64), serial: u64, now: UnixMs) -> Order {
    let sale = campaign.terms.sale().unwrap();
    let free = sale.price == Fen::ZERO;
    Order {
        id: order_id(id),
        user: user(user_n),
        campaign: campaign.id,
        serial: Serial(serial),
        request: request(request_n),
        price: sale.price,
        state: if free { OrderState::Paid } else { OrderState::Reserved },
        reserved_at: now,
        pay_by: if free { now } else { now + sale.hold_ms },
        decided_at: free.then_some(now),
    }
}

pub fn recall(ledger: &mut impl Ledger, user_n: u64) -> Recall {
    match ledger.ask(user(user_n), &Question::Recall).unwrap() {
        Answer::Recall(recall) => recall,
        other => panic!("{other:?}"),
    }
}

pub fn first_answer(ledger: &mut impl Ledger, user_n: u64, request_n: u64) -> Option<Award> {
    match ledger.ask(user(user_n), &Question::FirstAnswer(request(request_n))).unwrap() {
        Answer::FirstAnswer(award) => award,
        other => panic!("{other:?}"),
    }
}

pub fn balance(ledger: &mut impl Ledger, user_n: u64) -> Fen {
    match ledger.ask(user(user_n), &Question::Statement { before: None, limit: 0 }).unwrap() {
        Answer::Statement(Statement { balance, .. }) => balance,
        other => panic!("{other:?}"),
    }
}

/// What a user is to be told of, until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Win(Win),
    Order(OrderId),
}

/// An envelope and what became of it.
#[derive(Debug, Clone)]
struct Sent {
    id: EnvelopeId,
    new: NewEnvelope,
    at: UnixMs,
    /// Have acknowledged or opened it.
    told: BTreeSet<UserId>,
    opened: Vec<(UserId, Fen, UnixMs)>,
    closed: Option<(UnixMs, Fen)>,
}

impl Sent {
    fn offer(&self) -> Arc<Offer> {
        Arc::new(Offer {
            envelope: self.id,
            sender: self.new.sender,
            room: self.new.room,
            shares: self.new.shares,
            mode: self.new.mode,
            greeting: Arc::from(&*self.new.greeting),
            expires_at: self.expires_at(),
        })
    }

    fn expires_at(&self) -> UnixMs {
        self.at + self.new.lifetime_ms
    }

    fn left(&self) -> Fen {
        Fen(self.new.total.0 - self.opened.iter().map(|(_, fen, _)| fen.0).sum::<u64>())
    }
}

/// The rules, said as plainly as they can be.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub campaigns: Vec<Campaign>,
    /// What moved, in order; numbered from 1.
    pub entries: Vec<Entry>,
    orders: Vec<Order>,
    envelopes: Vec<Sent>,
    /// By the number of the entry.
    notices: BTreeMap<i64, (UserId, About)>,
    deposits: BTreeMap<String, (UserId, u32, Fen)>,
}

impl Model {
    pub fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Campaign {
        let id = CampaignId::new(self.campaigns.len() as u64 + 1).unwrap();
        let fund = terms.total_amount();
        let campaign = Campaign {
            id,
            created_at: now,
            terms,
            stopped_at: None,
            settlement: None,
            won: 0,
            paid: Fen::ZERO,
            reserved: 0,
        };
        self.campaigns.push(campaign.clone());
        if fund > Fen::ZERO {
            self.put(now, Kind::Fund, (AccountId::TREASURY, AccountId::campaign(id)), fund, 0, None);
        }
        campaign
    }

    /// `None` while orders wait for their payment.
    pub fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Option<Campaign> {
        let campaign = self.campaign(id).unwrap().clone();
        if campaign.reserved > 0 {
            return None;
        }
        if campaign.settlement.is_none() {
            let left = Fen(u64::try_from(self.balance(AccountId::campaign(id))).unwrap());
            let (kind, to) = match campaign.terms.sale() {
                None => (Kind::Refund, AccountId::REFUNDS),
                Some(_) => (Kind::Bank, AccountId::PROCEEDS),
            };
            if left > Fen::ZERO {
                self.put(now, kind, (AccountId::campaign(id), to), left, 0, None);
            }
            self.campaign_mut(id).settlement = Some(Settlement { settled_at: now, refunded: left });
        }
        self.campaign(id).cloned()
    }

    pub fn post(&mut self, posting: &Posting, now: UnixMs) -> PostingResult {
        match posting {
            Posting::Claim(claim) => self.claim(claim, now).into(),
            Posting::Acknowledge { user, seen } => self.acknowledge(*user, seen).into(),
            Posting::Pay { user, order, means } => self.pay(*user, *order, *means, now).into(),
            Posting::Cancel { user, order } => self.cancel(*user, *order, now).into(),
            Posting::Send(new) => self.send(new, now).into(),
            Posting::Open { user, envelope } => self.open(*user, *envelope, now).into(),
            Posting::Expire => Box::new(self.expire(now)).into(),
            Posting::Deposit { first, count, amount, key } => self.deposit(*first, *count, *amount, key, now).into(),
        }
    }

    fn claim(&mut self, claim: &Claim, now: UnixMs) -> ClaimResult {
        if self.last_request(claim.user).is_some_and(|last| claim.request <= last) {
            return match self.first_answer(claim.user, claim.request) {
                Some(award) => ClaimResult::Repeated(award),
                None => ClaimResult::OutOfOrder,
            };
        }
        let Some(campaign) = self.campaign(claim.campaign) else {
            return ClaimResult::NoSuchCampaign;
        };
        if campaign.settlement.is_some() {
            return ClaimResult::Settled;
        }
        if claim.serial.0 >= campaign.terms.total {
            return ClaimResult::NoSuchSerial;
        }
        if claim.amount != campaign.terms.amount(claim.serial) {
            return ClaimResult::WrongAmount;
        }
        let holders = self.holders(claim.campaign);
        if holders.iter().any(|(_, serial)| *serial == claim.serial) {
            return ClaimResult::Taken;
        }
        let held = holders.iter().filter(|(owner, _)| *owner == claim.user).count();
        if let Some(limit) = campaign.terms.per_user_limit
            && held >= usize::try_from(limit).unwrap()
        {
            return ClaimResult::LimitReached { limit };
        }
        let campaign = campaign.clone();
        let ends = (AccountId::campaign(claim.campaign), AccountId::user(claim.user));
        if campaign.terms.sale().is_none() {
            let item = i64::try_from(claim.serial.0).unwrap();
            let entry = self.put(now, Kind::Win, ends, claim.amount, item, Some(claim.request));
            let win =
                Win { campaign: claim.campaign, serial: claim.serial, amount: claim.amount, request: claim.request };
            self.notices.insert(entry, (claim.user, About::Win(win)));
            let campaign = self.campaign_mut(claim.campaign);
            campaign.won += 1;
            campaign.paid.0 += claim.amount.0;
            return ClaimResult::Won(win);
        }
        let id = self.orders.len() as u64 + 1;
        let order = ordered(&campaign, id, (claim.user.get(), claim.request.get()), claim.serial.0, now);
        self.orders.push(order);
        let entry = self.put(now, Kind::Reserve, ends, Fen::ZERO, i64::try_from(id).unwrap(), Some(claim.request));
        self.notices.insert(entry, (claim.user, About::Order(order.id)));
        let campaign = self.campaign_mut(claim.campaign);
        match order.state {
            OrderState::Reserved => campaign.reserved += 1,
            _ => campaign.won += 1,
        }
        ClaimResult::Ordered(order)
    }

    fn acknowledge(&mut self, user: UserId, seen: &Seen) -> Acknowledged {
        let before = self.notices.len();
        self.notices.retain(|_, (owner, about)| {
            *owner != user
                || match about {
                    About::Win(win) => !seen.prizes.contains(&(win.campaign, win.serial)),
                    About::Order(order) => !seen.orders.contains(order),
                }
        });
        let mut count = before - self.notices.len();
        for id in &seen.envelopes {
            let Some(sent) = self.envelopes.iter_mut().find(|sent| sent.id == *id) else { continue };
            if sent.closed.is_none() && sent.new.recipients.contains(&user) && sent.told.insert(user) {
                count += 1;
            }
        }
        Acknowledged { count: u32::try_from(count).unwrap() }
    }

    fn pay(&mut self, user: UserId, id: OrderId, means: Means, now: UnixMs) -> PayResult {
        let Some(order) = self.order(id).filter(|order| order.user == user) else { return PayResult::NoSuchOrder };
        match order.state {
            OrderState::Paid => return PayResult::Paid(order),
            OrderState::Cancelled | OrderState::Expired => {
                return PayResult::TooLate { at: order.decided_at.unwrap() };
            }
            OrderState::Reserved if now >= order.pay_by => return PayResult::TooLate { at: order.pay_by },
            OrderState::Reserved => {}
        }
        let till = AccountId::campaign(order.campaign);
        let (kind, from) = match means {
            Means::Wallet if self.wallet(user) < order.price => return PayResult::InsufficientFunds,
            Means::Wallet => (Kind::Pay, AccountId::user(user)),
            Means::Outside => (Kind::PayOutside, AccountId::TREASURY),
        };
        let entry = self.put(now, kind, (from, till), order.price, i64::try_from(id.get()).unwrap(), None);
        self.forget(id);
        self.notices.insert(entry, (user, About::Order(id)));
        let campaign = self.campaign_mut(order.campaign);
        campaign.reserved -= 1;
        campaign.won += 1;
        campaign.paid.0 += order.price.0;
        PayResult::Paid(self.decide(id, OrderState::Paid, now))
    }

    fn cancel(&mut self, user: UserId, id: OrderId, now: UnixMs) -> CancelResult {
        let Some(order) = self.order(id).filter(|order| order.user == user) else { return CancelResult::NoSuchOrder };
        match order.state {
            OrderState::Paid => CancelResult::Paid,
            OrderState::Cancelled | OrderState::Expired => CancelResult::Over(order),
            OrderState::Reserved => {
                self.release(&order, now);
                CancelResult::Cancelled(self.decide(id, OrderState::Cancelled, now))
            }
        }
    }

    fn send(&mut self, new: &NewEnvelope, now: UnixMs) -> SendResult {
        let earlier =
            self.envelopes.iter().find(|sent| sent.new.sender == new.sender && sent.new.request == new.request);
        let wallet = |model: &Self| new.sender.map_or(Fen::ZERO, |sender| model.wallet(sender));
        if let Some(sent) = earlier {
            let recipients = u32::try_from(sent.new.recipients.len()).unwrap();
            return SendResult::Sent { offer: sent.offer(), to: [].into(), recipients, balance: wallet(self) };
        }
        if new.sender.is_some() && wallet(self) < new.total {
            return SendResult::InsufficientFunds;
        }
        let id = envelope_id(self.envelopes.len() as u64 + 1);
        let sent = Sent { id, new: new.clone(), at: now, told: BTreeSet::new(), opened: Vec::new(), closed: None };
        let offer = sent.offer();
        self.envelopes.push(sent);
        let from = new.sender.map_or(AccountId::TREASURY, AccountId::user);
        let request = new.sender.map(|_| new.request);
        self.put(now, Kind::Send, (from, AccountId::envelope(id)), new.total, 0, request);
        let recipients = u32::try_from(new.recipients.len()).unwrap();
        SendResult::Sent { offer, to: Arc::clone(&new.recipients), recipients, balance: wallet(self) }
    }

    fn open(&mut self, user: UserId, id: EnvelopeId, now: UnixMs) -> OpenResult {
        let Some(sent) = self.envelopes.iter_mut().find(|sent| sent.id == id) else {
            return OpenResult::NoSuchEnvelope;
        };
        if !sent.new.recipients.contains(&user) {
            return OpenResult::NoSuchEnvelope;
        }
        if let Some(share) = sent.opened.iter().position(|(opener, ..)| *opener == user) {
            return OpenResult::Opened {
                envelope: id,
                share: u32::try_from(share).unwrap(),
                amount: sent.opened[share].1,
            };
        }
        let share = sent.opened.len();
        let shares: Vec<Fen> = split(&sent.new.seed, sent.new.mode, sent.new.total, sent.new.shares).collect();
        let Some(amount) = shares.get(share).copied() else { return OpenResult::Empty { envelope: id } };
        if sent.closed.is_some() || now >= sent.expires_at() {
            return OpenResult::TooLate { at: sent.expires_at() };
        }
        sent.opened.push((user, amount, now));
        sent.told.insert(user);
        if sent.opened.len() == shares.len() {
            sent.closed = Some((now, Fen::ZERO));
        }
        let ends = (AccountId::envelope(id), AccountId::user(user));
        self.put(now, Kind::Open, ends, amount, i64::try_from(share).unwrap(), None);
        OpenResult::Opened { envelope: id, share: u32::try_from(share).unwrap(), amount }
    }

    fn expire(&mut self, now: UnixMs) -> Expired {
        let mut expired = Expired::default();
        for _ in 0..EXPIRE_STEP {
            let Some((_, what)) = self.due().into_iter().next().filter(|(at, _)| *at <= now) else { break };
            match what {
                Due::Order(id) => {
                    let order = self.order(id).unwrap();
                    let entry = self.release(&order, now);
                    self.notices.insert(entry, (order.user, About::Order(id)));
                    expired.orders.push(self.decide(id, OrderState::Expired, now));
                }
                Due::Envelope(id) => {
                    let sent = self.envelopes.iter_mut().find(|sent| sent.id == id).unwrap();
                    let (sender, left) = (sent.new.sender, sent.left());
                    sent.closed = Some((now, left));
                    let to = sender.map_or(AccountId::REFUNDS, AccountId::user);
                    self.put(now, Kind::Return, (AccountId::envelope(id), to), left, 0, None);
                    expired.envelopes.push((id, sender, left));
                }
            }
        }
        expired.next_due = self.next_due();
        expired
    }

    fn deposit(&mut self, first: UserId, count: u32, amount: Fen, key: &str, now: UnixMs) -> DepositResult {
        let this = (first, count, amount);
        if let Some(earlier) = self.deposits.get(key) {
            return if *earlier == this { DepositResult::Deposited } else { DepositResult::KeyUsed };
        }
        self.deposits.insert(key.to_owned(), this);
        for n in 0..u64::from(count) {
            let wallet = AccountId::user(user(first.get() + n));
            self.put(now, Kind::Deposit, (AccountId::TREASURY, wallet), amount, 0, None);
        }
        DepositResult::Deposited
    }

    // ---- What is written with a posting

    fn put(
        &mut self,
        at: UnixMs,
        kind: Kind,
        (debit, credit): (AccountId, AccountId),
        amount: Fen,
        item: i64,
        request: Option<RequestId>,
    ) -> i64 {
        let user = [debit, credit].into_iter().find(|account| account.is_user());
        let previous = user
            .and_then(|user| self.entries.iter().rfind(|entry| entry.debit == user || entry.credit == user))
            .map_or(0, |entry| entry.id);
        let id = self.entries.len() as i64 + 1;
        let amount = i64::try_from(amount.0).unwrap();
        self.entries.push(Entry { id, at, kind, debit, credit, amount, item, request, previous });
        id
    }

    fn release(&mut self, order: &Order, now: UnixMs) -> i64 {
        let ends = (AccountId::user(order.user), AccountId::campaign(order.campaign));
        self.forget(order.id);
        self.campaign_mut(order.campaign).reserved -= 1;
        self.put(now, Kind::Release, ends, Fen::ZERO, i64::try_from(order.id.get()).unwrap(), None)
    }

    fn decide(&mut self, id: OrderId, state: OrderState, now: UnixMs) -> Order {
        let order = self.orders.iter_mut().find(|order| order.id == id).unwrap();
        order.state = state;
        order.decided_at = Some(now);
        *order
    }

    fn forget(&mut self, id: OrderId) {
        self.notices.retain(|_, (_, about)| *about != About::Order(id));
    }

    // ---- What can be asked

    pub fn balance(&self, account: AccountId) -> i64 {
        let sum = |of: fn(&Entry) -> AccountId| -> i64 {
            self.entries.iter().filter(|entry| of(entry) == account).map(|entry| entry.amount).sum()
        };
        sum(|entry| entry.credit) - sum(|entry| entry.debit)
    }

    fn wallet(&self, user: UserId) -> Fen {
        Fen(u64::try_from(self.balance(AccountId::user(user))).expect("no wallet is in debt"))
    }

    pub fn campaign(&self, id: CampaignId) -> Option<&Campaign> {
        self.campaigns.iter().find(|campaign| campaign.id == id)
    }

    fn campaign_mut(&mut self, id: CampaignId) -> &mut Campaign {
        self.campaigns.iter_mut().find(|campaign| campaign.id == id).unwrap()
    }

    fn order(&self, id: OrderId) -> Option<Order> {
        self.orders.iter().find(|order| order.id == id).copied()
    }

    fn wins(&self) -> impl Iterator<Item = (UserId, Win)> + '_ {
        self.entries.iter().filter(|entry| entry.kind == Kind::Win).map(|entry| {
            let win = Win {
                campaign: CampaignId::new(entry.debit.0.unsigned_abs()).unwrap(),
                serial: Serial(u64::try_from(entry.item).unwrap()),
                amount: Fen(u64::try_from(entry.amount).unwrap()),
                request: entry.request.unwrap(),
            };
            (user(u64::try_from(entry.credit.0).unwrap()), win)
        })
    }

    pub fn wins_count(&self) -> u64 {
        self.wins().count() as u64
    }

    fn holders(&self, id: CampaignId) -> Vec<(UserId, Serial)> {
        let wins = self.wins().filter(|(_, win)| win.campaign == id).map(|(user, win)| (user, win.serial));
        let live =
            |order: &&Order| order.campaign == id && matches!(order.state, OrderState::Reserved | OrderState::Paid);
        wins.chain(self.orders.iter().filter(live).map(|order| (order.user, order.serial))).collect()
    }

    pub fn claimed_serials(&self, id: CampaignId) -> Vec<Serial> {
        if self.campaign(id).unwrap().settlement.is_some() {
            return Vec::new();
        }
        let mut serials: Vec<Serial> = self.holders(id).into_iter().map(|(_, serial)| serial).collect();
        serials.sort_unstable();
        serials
    }

    pub fn last_request(&self, user: UserId) -> Option<RequestId> {
        let wins = self.wins().filter(|(owner, _)| *owner == user).map(|(_, win)| win.request);
        let orders = self.orders.iter().filter(|order| order.user == user).map(|order| order.request);
        wins.chain(orders).max()
    }

    fn first_answer(&self, user: UserId, request: RequestId) -> Option<Award> {
        let win = self.wins().find(|(owner, win)| *owner == user && win.request == request);
        let order = || self.orders.iter().find(|order| order.user == user && order.request == request);
        win.map(|(_, win)| Award::Win(win)).or_else(|| order().map(|order| Award::Order(*order)))
    }

    fn due(&self) -> BTreeSet<(UnixMs, Due)> {
        let orders = self.orders.iter().filter(|order| order.state == OrderState::Reserved);
        let envelopes = self.envelopes.iter().filter(|sent| sent.closed.is_none());
        let orders = orders.map(|order| (order.pay_by, Due::Order(order.id)));
        orders.chain(envelopes.map(|sent| (sent.expires_at(), Due::Envelope(sent.id)))).collect()
    }

    pub fn next_due(&self) -> Option<UnixMs> {
        self.due().first().map(|(at, _)| *at)
    }

    pub fn ask(&self, user: UserId, question: &Question) -> Answer {
        match *question {
            Question::Recall => Answer::Recall(self.recall(user)),
            Question::FirstAnswer(request) => Answer::FirstAnswer(self.first_answer(user, request)),
            Question::Orders { before, limit } => {
                Answer::Orders(self.page_of_orders(|order| order.user == user, before, limit))
            }
            Question::Statement { before, limit } => {
                let wallet = AccountId::user(user);
                let mine = self.entries.iter().rev().filter(|entry| {
                    (entry.debit == wallet || entry.credit == wallet)
                        && entry.amount != 0
                        && before.is_none_or(|before| entry.id < before)
                });
                let movements = page(mine.map(movement), limit);
                Answer::Statement(Statement { balance: self.wallet(user), movements })
            }
            Question::Envelope(id) => Answer::Envelope(self.view(user, id)),
        }
    }

    fn recall(&self, user: UserId) -> Recall {
        let notices = self.notices.values().filter(|(owner, _)| *owner == user);
        let unacknowledged = notices.map(|(_, about)| match about {
            About::Win(win) => Award::Win(*win),
            About::Order(id) => Award::Order(self.order(*id).unwrap()),
        });
        let waits =
            |sent: &&Sent| sent.closed.is_none() && sent.new.recipients.contains(&user) && !sent.told.contains(&user);
        Recall {
            unacknowledged: unacknowledged.take(RECALLED_WINS_MAX).collect(),
            offers: self.envelopes.iter().filter(waits).map(Sent::offer).take(RECALLED_WINS_MAX).collect(),
            last_request: self.last_request(user),
        }
    }

    fn view(&self, user: UserId, id: EnvelopeId) -> Option<Box<EnvelopeView>> {
        let sent = self.envelopes.iter().find(|sent| sent.id == id)?;
        let is_sender = sent.new.sender == Some(user);
        if !is_sender && !sent.new.recipients.contains(&user) {
            return None;
        }
        let mut view = self.envelope(id)?;
        let has_opened = sent.opened.iter().any(|(opener, ..)| *opener == user);
        if !is_sender && !has_opened && sent.closed.is_none() {
            view.opened.clear();
        }
        Some(Box::new(view))
    }

    /// As its sender sees it.
    pub fn envelope(&self, id: EnvelopeId) -> Option<EnvelopeView> {
        let sent = self.envelopes.iter().find(|sent| sent.id == id)?;
        Some(EnvelopeView {
            offer: sent.offer(),
            total: sent.new.total,
            opened: sent.opened.clone(),
            is_over: sent.closed.is_some(),
            refunded: sent.closed.map(|(_, fen)| fen).filter(|fen| *fen > Fen::ZERO),
        })
    }

    fn page_of_orders(&self, is_meant: impl Fn(&Order) -> bool, before: Option<OrderId>, limit: u32) -> Page<Order> {
        let orders = self.orders.iter().rev().filter(|order| is_meant(order));
        page(orders.filter(|order| before.is_none_or(|before| order.id < before)).copied(), limit)
    }

    pub fn orders_of(&self, id: CampaignId, before: Option<OrderId>, limit: u32) -> Page<Order> {
        self.page_of_orders(|order| order.campaign == id, before, limit)
    }

    pub fn totals(&self) -> Totals {
        let money = |orders: &dyn Fn(&&Order) -> bool| -> u64 {
            self.orders.iter().filter(orders).map(|order| order.price.0).sum()
        };
        let is_paid = |order: &&Order| order.state == OrderState::Paid;
        let live = || self.envelopes.iter().filter(|sent| sent.closed.is_none());
        Totals {
            won: self.wins_count(),
            paid: Fen(self.wins().map(|(_, win)| win.amount.0).sum()),
            sold: self.orders.iter().filter(is_paid).count() as u64,
            earned: Fen(money(&is_paid)),
            envelopes: self.envelopes.len() as u64,
            opened: self.envelopes.iter().map(|sent| sent.opened.len() as u64).sum(),
            opened_fen: Fen(self.envelopes.iter().flat_map(|sent| &sent.opened).map(|(_, fen, _)| fen.0).sum()),
            reserved: self.orders.iter().filter(|order| order.state == OrderState::Reserved).count() as u64,
            envelopes_open: live().count() as u64,
            enclosed: Fen(live().map(|sent| sent.left().0).sum()),
        }
    }

    /// Whose the order is.
    pub fn owner(&self, order: u64) -> Option<u64> {
        self.orders.iter().find(|known| known.id.get() == order).map(|order| order.user.get())
    }

    /// Orders and envelopes so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.orders.len() as u64, self.envelopes.len() as u64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Order(OrderId),
    Envelope(EnvelopeId),
}

fn page<T>(all: impl Iterator<Item = T>, limit: u32) -> Page<T> {
    let limit = usize::try_from(limit).unwrap();
    let mut items: Vec<T> = all.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}

fn movement(entry: &Entry) -> Movement {
    let order = || order_id(u64::try_from(entry.item).unwrap());
    let envelope = |account: AccountId| envelope_id(account.0.unsigned_abs() - (1 << 41));
    let purpose = match entry.kind {
        Kind::Win => Purpose::Win(
            CampaignId::new(entry.debit.0.unsigned_abs()).unwrap(),
            Serial(u64::try_from(entry.item).unwrap()),
        ),
        Kind::Open => Purpose::Open(envelope(entry.debit)),
        Kind::Send => Purpose::Send(envelope(entry.credit)),
        Kind::Return => Purpose::Return(envelope(entry.debit)),
        Kind::Pay => Purpose::Pay(order()),
        Kind::Deposit => Purpose::Deposit,
        other => panic!("{other:?} moves no user's money"),
    };
    let amount = if entry.debit.is_user() { -entry.amount } else { entry.amount };
    Movement { entry: entry.id, at: entry.at, purpose, amount }
}
