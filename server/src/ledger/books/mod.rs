//! The books in memory: what becomes of a posting, decided without waiting for anything but a look
//! at older rows.
//!
//! [`Books`] keeps what decisions need often: campaigns, which units are somebody's, every account,
//! envelopes that can be opened, orders that wait, and what users have not acknowledged. Each
//! decision writes its rows through [`Store`] at once and remembers how to undo what it did here. A
//! batch ends with [`Books::keep`] once its rows are durable, or with [`Books::undo`] if they are
//! not: then nothing has happened.
//!
//! Accounts are the exception: their rows would be touched in random order, which costs more than
//! all else. They are written behind, a range of neighbours at a time
//! ([`Books::accounts_to_write`]), each with the number of the last entry that it contains; what is
//! missing is added up again from the entries when the ledger is opened ([`Books::replay`]).

mod claims;
mod entry;
mod envelopes;
mod orders;
mod undo;
mod units;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, RequestId, Serial, UserId};
use rustc_hash::FxHashMap;

use super::{
    Answer, Award, DepositResult, EnvelopeView, LedgerError, Movement, Page, Posting, PostingResult, Purpose, Question,
    Recall, Statement, Totals, Win,
};
use crate::clock::UnixMs;
pub use crate::ledger::books::entry::{AccountId, Entry, Kind, Owner};
use crate::ledger::books::undo::Undo;
pub use crate::ledger::books::units::{CHUNK_SERIALS, Units};
use crate::limits;
use crate::market::campaign::{Campaign, Seed, Settlement};
use crate::market::envelope::Offer;
use crate::market::order::Order;

/// Where the rows are. Reads see all that was written before, in the batch under way too.
pub trait Store {
    /// An entry by its number; `None`: archived, or never written.
    fn entry(&self, id: i64) -> Result<Option<Entry>, LedgerError>;
    fn order(&self, id: OrderId) -> Result<Option<Order>, LedgerError>;
    /// An envelope, with those who opened it.
    fn envelope(&self, id: EnvelopeId) -> Result<Option<Envelope>, LedgerError>;
    /// The envelope that this request of this sender made.
    fn sent(&self, sender: Option<UserId>, request: RequestId) -> Result<Option<EnvelopeId>, LedgerError>;
    /// Orders below `before`, newest first, at most `limit`.
    fn orders(&self, of: OrdersOf, before: Option<OrderId>, limit: u32) -> Result<Page<Order>, LedgerError>;
    /// The deposit of this key: first user, how many, how much to each.
    fn deposit(&self, key: &str) -> Result<Option<(UserId, u32, Fen)>, LedgerError>;

    /// Writes a new campaign, whose prizes add up to `fund`.
    fn put_campaign(&mut self, state: &CampaignState, fund: Fen) -> Result<(), LedgerError>;
    /// A campaign is settled: its units are forgotten.
    fn settle_campaign(&mut self, id: CampaignId, settlement: Settlement) -> Result<(), LedgerError>;
    fn put_entry(&mut self, entry: &Entry) -> Result<(), LedgerError>;
    /// Writes an order, over its earlier state.
    fn put_order(&mut self, order: &Order) -> Result<(), LedgerError>;
    /// Writes a new envelope.
    fn put_envelope(&mut self, envelope: &Envelope, sent_at: UnixMs) -> Result<(), LedgerError>;
    /// An envelope can be opened no more.
    fn close_envelope(&mut self, id: EnvelopeId, at: UnixMs, refunded: Fen) -> Result<(), LedgerError>;
    fn put_opening(&mut self, envelope: EnvelopeId, share: u32, opening: &Opening) -> Result<(), LedgerError>;
    /// Writes what a user must be told until it is acknowledged, by the entry that it came with.
    fn put_notice(&mut self, entry: i64) -> Result<(), LedgerError>;
    /// It is acknowledged, or no longer true.
    fn drop_notice(&mut self, entry: i64) -> Result<(), LedgerError>;
    /// Writes a deposit, whose entries follow one another from `first_entry` on.
    fn put_deposit(
        &mut self,
        key: &str,
        deposit: (UserId, u32, Fen),
        at: UnixMs,
        first_entry: i64,
    ) -> Result<(), LedgerError>;
}

/// Whose orders.
#[derive(Debug, Clone, Copy)]
pub enum OrdersOf {
    User(UserId),
    Campaign(CampaignId),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Fen. Below 0 for the treasury only.
    pub balance: i64,
    /// The last entry that it contains; the end of a user's chain.
    pub last_entry: i64,
    /// The highest request among a user's claims that got something; 0: none did.
    pub last_claim: u64,
}

impl Account {
    /// Takes an entry in, if it is not in already.
    fn take(&mut self, entry: &Entry, as_debit: bool) {
        if entry.id <= self.last_entry {
            return;
        }
        self.balance += if as_debit { -entry.amount } else { entry.amount };
        self.last_entry = entry.id;
        if matches!(entry.kind, Kind::Win | Kind::Reserve) && !as_debit {
            self.last_claim = self.last_claim.max(entry.request.map_or(0, RequestId::get));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignState {
    pub campaign: Campaign,
    /// No entry of it has a lower number.
    pub first_entry: i64,
    /// Which units are somebody's; forgotten once the campaign is settled.
    pub units: Units,
}

/// A share that somebody opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    pub user: UserId,
    pub amount: Fen,
    pub at: UnixMs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub offer: Arc<Offer>,
    pub request: RequestId,
    pub total: Fen,
    /// Draws the shares.
    pub seed: Seed,
    /// Who may open it, ascending.
    pub recipients: Arc<[UserId]>,
    /// A bit for each recipient: has acknowledged the offer, or opened it.
    pub acknowledged: Box<[u64]>,
    /// Who did, in order.
    pub opened: Vec<Opening>,
    pub left: Fen,
    /// Since when it cannot be opened any more, and what was left then.
    pub closed: Option<(UnixMs, Fen)>,
}

impl Envelope {
    /// Words for a bit for each of so many recipients.
    pub fn words(recipients: usize) -> usize {
        recipients.div_ceil(64)
    }

    fn position(&self, user: UserId) -> Option<usize> {
        self.recipients.binary_search(&user).ok()
    }

    fn has_acknowledged(&self, position: usize) -> bool {
        self.acknowledged[position / 64] >> (position % 64) & 1 == 1
    }

    fn set_acknowledged(&mut self, position: usize, acknowledged: bool) {
        let bit = 1 << (position % 64);
        let word = &mut self.acknowledged[position / 64];
        *word = if acknowledged { *word | bit } else { *word & !bit };
    }

    /// Those who have neither opened nor acknowledged it.
    fn unacknowledged(&self) -> impl Iterator<Item = UserId> + '_ {
        self.recipients
            .iter()
            .enumerate()
            .filter(|(position, _)| !self.has_acknowledged(*position))
            .map(|(_, user)| *user)
    }

    fn is_empty(&self) -> bool {
        self.opened.len() >= self.offer.shares as usize
    }

    /// As its sender may see it.
    pub fn view(&self) -> EnvelopeView {
        EnvelopeView {
            offer: Arc::clone(&self.offer),
            total: self.total,
            opened: self.opened.iter().map(|opening| (opening.user, opening.amount, opening.at)).collect(),
            is_over: self.closed.is_some(),
            refunded: self.closed.map(|(_, refunded)| refunded).filter(|refunded| *refunded > Fen::ZERO),
        }
    }

    /// As `user` may see it: who got what is for those who took part, and for all recipients once
    /// it is over.
    fn view_of(&self, user: UserId) -> Option<EnvelopeView> {
        let is_sender = self.offer.sender == Some(user);
        if !is_sender && self.position(user).is_none() {
            return None;
        }
        let mut view = self.view();
        let has_opened = self.opened.iter().any(|opening| opening.user == user);
        if !is_sender && !view.is_over && !has_opened {
            view.opened.clear();
        }
        Some(view)
    }
}

/// Something that a user must be told until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unacknowledged {
    pub entry: i64,
    pub about: About,
}

/// What a [`Unacknowledged`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Win(Win),
    Order(OrderId),
}

/// Something that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Order(OrderId),
    Envelope(EnvelopeId),
}

/// What a batch has changed of rows that are written once, at its end.
#[derive(Debug, Default)]
pub struct DirtySet {
    /// Campaigns whose sums have changed.
    pub campaigns: BTreeSet<CampaignId>,
    /// Chunks of units, by campaign and number.
    pub chunks: BTreeSet<(CampaignId, u64)>,
    pub acknowledged: BTreeSet<EnvelopeId>,
}

/// Numbers that only grow, and sums: put back as one when a batch is undone.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    next_entry: i64,
    next_order: u64,
    next_envelope: u64,
    /// Recipients of envelopes that can be opened.
    offers_open: u64,
    totals: Totals,
}

/// What was read of a ledger's file.
#[derive(Debug, Default)]
pub struct Restored {
    pub campaigns: BTreeMap<CampaignId, CampaignState>,
    /// All accounts, each as of its last entry.
    pub accounts: FxHashMap<AccountId, Account>,
    /// Envelopes that can still be opened.
    pub envelopes: Vec<Envelope>,
    /// Orders that wait for their payment.
    pub orders: Vec<Order>,
    /// What was not acknowledged, each user's ascending by entry. There may be millions.
    pub notices: FxHashMap<UserId, Vec<Unacknowledged>>,
    /// Shares that were opened, and their money.
    pub opened: (u64, Fen),
    /// The highest number of an entry.
    pub last_entry: i64,
    /// The highest number of an order.
    pub last_order: u64,
    /// The highest number of an envelope.
    pub last_envelope: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Books {
    campaigns: BTreeMap<CampaignId, CampaignState>,
    accounts: FxHashMap<AccountId, Account>,
    /// Those that can be opened, and the latest that cannot.
    envelopes: FxHashMap<EnvelopeId, Envelope>,
    /// Those of `envelopes` that cannot, the oldest first.
    emptied: VecDeque<EnvelopeId>,
    emptied_recipients: usize,
    /// How many of a user's envelopes can be opened.
    open_of: FxHashMap<UserId, u32>,
    orders: FxHashMap<OrderId, Order>,
    due: BTreeSet<(UnixMs, Due)>,
    notices: FxHashMap<UserId, Vec<Unacknowledged>>,
    /// Ascending.
    offers: FxHashMap<UserId, Vec<EnvelopeId>>,
    /// Units that a user holds of a campaign with a limit; counted when first asked for.
    held: FxHashMap<(CampaignId, UserId), u32>,
    counters: Counters,
    before: Counters,
    undo: Vec<Undo>,
    dirty: DirtySet,
    write_behind: WriteBehind,
}

/// Which accounts' rows are older than the accounts.
#[derive(Debug, Default)]
struct WriteBehind {
    /// Those whose rows are.
    dirty: BTreeSet<AccountId>,
    /// The sweep goes through them in ascending order; this one was written last.
    cursor: Option<AccountId>,
    /// What entries there were when the sweep began.
    sweep_began_at: i64,
}

/// A range of accounts to be written with a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CheckpointRange {
    /// In ascending order.
    pub accounts: Vec<(AccountId, Account)>,
    /// With these written, every account contains all entries below this number.
    pub complete_from: Option<i64>,
}

impl Books {
    /// The books that a file says.
    pub fn restore(restored: Restored) -> Self {
        let mut books = Self {
            campaigns: restored.campaigns,
            accounts: restored.accounts,
            notices: restored.notices,
            counters: Counters {
                next_entry: restored.last_entry + 1,
                next_order: restored.last_order + 1,
                next_envelope: restored.last_envelope + 1,
                offers_open: 0,
                totals: Totals {
                    envelopes: restored.last_envelope,
                    opened: restored.opened.0,
                    opened_fen: restored.opened.1,
                    ..Totals::default()
                },
            },
            ..Self::default()
        };
        let totals = &mut books.counters.totals;
        for state in books.campaigns.values() {
            let Campaign { terms, won, paid, reserved, .. } = &state.campaign;
            let (count, money) = match terms.sale() {
                None => (&mut totals.won, &mut totals.paid),
                Some(_) => (&mut totals.sold, &mut totals.earned),
            };
            *count += won;
            money.0 += paid.0;
            totals.reserved += reserved;
        }
        for mut envelope in restored.envelopes {
            let id = envelope.offer.envelope;
            // The row of the bits is not written for an opening: that has a row of its own.
            for position in
                envelope.opened.iter().filter_map(|opening| envelope.position(opening.user)).collect::<Vec<_>>()
            {
                envelope.set_acknowledged(position, true);
            }
            totals.envelopes_open += 1;
            books.counters.offers_open += envelope.recipients.len() as u64;
            if let Some(sender) = envelope.offer.sender {
                *books.open_of.entry(sender).or_default() += 1;
            }
            totals.enclosed.0 += envelope.left.0;
            books.due.insert((envelope.offer.expires_at, Due::Envelope(id)));
            for user in envelope.unacknowledged() {
                books.offers.entry(user).or_default().push(id);
            }
            books.envelopes.insert(id, envelope);
        }
        for offers in books.offers.values_mut() {
            offers.sort_unstable();
        }
        for order in restored.orders {
            books.due.insert((order.pay_by, Due::Order(order.id)));
            books.orders.insert(order.id, order);
        }
        books.write_behind.sweep_began_at = books.counters.next_entry;
        books.before = books.counters;
        books
    }

    /// Takes in an entry that the accounts' rows may not contain yet. Only between
    /// [`Books::restore`] and the first batch.
    pub fn replay(&mut self, entry: &Entry) {
        for (account, as_debit) in [(entry.debit, true), (entry.credit, false)] {
            let known = self.accounts.entry(account).or_default();
            if entry.id > known.last_entry {
                known.take(entry, as_debit);
                self.write_behind.dirty.insert(account);
            }
        }
    }

    // ---- Batches

    /// The rows of all that was posted are durable.
    pub fn keep(&mut self) {
        self.undo.clear();
        self.dirty = DirtySet::default();
        self.before = self.counters;
        while self.emptied.len() > limits::ENVELOPES_EMPTY_KEPT
            || self.emptied_recipients > limits::EMPTY_RECIPIENTS_KEPT
        {
            let Some(oldest) = self.emptied.pop_front() else { break };
            let recipients = self.envelopes.remove(&oldest).map_or(0, |envelope| envelope.recipients.len());
            self.emptied_recipients -= recipients;
        }
    }

    /// They are not: nothing of it has happened.
    pub fn undo(&mut self) {
        while let Some(step) = self.undo.pop() {
            self.revert(step);
        }
        self.dirty = DirtySet::default();
        self.counters = self.before;
    }

    /// What this batch has changed of rows that are written at its end.
    pub fn dirty(&self) -> &DirtySet {
        &self.dirty
    }

    /// Numbers of entries posted since the last [`Books::keep`].
    pub fn entries_posted(&self) -> i64 {
        self.counters.next_entry - self.before.next_entry
    }

    /// The next range of accounts to be written, at most `max`; [`Books::accounts_written`] once
    /// it is durable.
    pub fn accounts_to_write(&self, max: usize) -> CheckpointRange {
        let from = self.write_behind.cursor.map_or(AccountId(i64::MIN), |last| AccountId(last.0 + 1));
        let mut rest = self.write_behind.dirty.range(from..);
        let accounts = rest.by_ref().take(max).filter_map(|id| Some((*id, *self.accounts.get(id)?))).collect();
        CheckpointRange { accounts, complete_from: rest.next().is_none().then_some(self.write_behind.sweep_began_at) }
    }

    /// The range is durable, with the batch that it was written with.
    pub fn accounts_written(&mut self, range: &CheckpointRange) {
        for (id, _) in &range.accounts {
            self.write_behind.dirty.remove(id);
        }
        if range.complete_from.is_some() {
            self.write_behind.cursor = None;
            self.write_behind.sweep_began_at = self.counters.next_entry;
        } else if let Some((last, _)) = range.accounts.last() {
            self.write_behind.cursor = Some(*last);
        }
    }

    /// How many accounts' rows are behind.
    pub fn accounts_behind(&self) -> usize {
        self.write_behind.dirty.len()
    }

    // ---- Questions

    pub fn campaigns(&self) -> &BTreeMap<CampaignId, CampaignState> {
        &self.campaigns
    }

    pub fn totals(&self) -> Totals {
        self.counters.totals
    }

    /// An account, empty if it was never used.
    pub fn account(&self, id: AccountId) -> Account {
        self.accounts.get(&id).copied().unwrap_or_default()
    }

    /// What is in an account that never falls below 0.
    pub fn balance(&self, id: AccountId) -> Fen {
        Fen(u64::try_from(self.account(id).balance).unwrap_or(0))
    }

    /// An envelope that is in memory: any that can be opened.
    pub fn envelope(&self, id: EnvelopeId) -> Option<&Envelope> {
        self.envelopes.get(&id)
    }

    /// An envelope, in memory or not.
    pub fn find_envelope(&self, id: EnvelopeId, store: &impl Store) -> Result<Option<Cow<'_, Envelope>>, LedgerError> {
        Ok(match self.envelopes.get(&id) {
            Some(envelope) => Some(Cow::Borrowed(envelope)),
            None if id.get() < self.counters.next_envelope => store.envelope(id)?.map(Cow::Owned),
            None => None,
        })
    }

    fn find_order(&self, id: OrderId, store: &impl Store) -> Result<Option<Order>, LedgerError> {
        match self.orders.get(&id) {
            Some(order) => Ok(Some(*order)),
            None if id.get() < self.counters.next_order => store.order(id),
            None => Ok(None),
        }
    }

    /// When something expires next.
    pub fn next_due(&self) -> Option<UnixMs> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The answer to a user's question.
    pub fn ask(&self, user: UserId, question: Question, store: &impl Store) -> Result<Answer, LedgerError> {
        Ok(match question {
            Question::Recall => Answer::Recall(self.recall(user, store)?),
            Question::FirstAnswer(request) => Answer::FirstAnswer(self.first_answer(user, request, store)?),
            Question::Orders { before, limit } => Answer::Orders(store.orders(OrdersOf::User(user), before, limit)?),
            Question::Statement { before, limit } => {
                let balance = self.balance(AccountId::user(user));
                Answer::Statement(Statement { balance, movements: self.movements(user, before, limit, store)? })
            }
            Question::Envelope(id) => {
                let envelope = self.find_envelope(id, store)?;
                Answer::Envelope(envelope.and_then(|envelope| envelope.view_of(user)).map(Box::new))
            }
        })
    }

    /// What a user must be told at login.
    fn recall(&self, user: UserId, store: &impl Store) -> Result<Recall, LedgerError> {
        let last_claim = self.account(AccountId::user(user)).last_claim;
        let mut recall = Recall { last_request: RequestId::new(last_claim).ok(), ..Recall::default() };
        for notice in self.notices.get(&user).into_iter().flatten().take(limits::RECALLED_WINS_MAX) {
            recall.unacknowledged.push(match notice.about {
                About::Win(win) => Award::Win(win),
                About::Order(id) => Award::Order(self.known_order(id, store)?),
            });
        }
        let offers = self.offers.get(&user).into_iter().flatten().take(limits::RECALLED_WINS_MAX);
        recall.offers =
            offers.filter_map(|id| self.envelopes.get(id)).map(|envelope| Arc::clone(&envelope.offer)).collect();
        Ok(recall)
    }

    /// What a Grab of a user got.
    fn first_answer(&self, user: UserId, request: RequestId, store: &impl Store) -> Result<Option<Award>, LedgerError> {
        if request.get() > self.account(AccountId::user(user)).last_claim {
            return Ok(None);
        }
        for entry in self.chain(user, store).take(limits::WALK_MAX as usize) {
            let entry = entry?;
            if !matches!(entry.kind, Kind::Win | Kind::Reserve) {
                continue;
            }
            match entry.request {
                Some(earlier) if earlier == request => return self.award(&entry, store).map(Some),
                // They increase.
                Some(earlier) if earlier < request => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    fn award(&self, entry: &Entry, store: &impl Store) -> Result<Award, LedgerError> {
        match (win_of(entry), entry.kind) {
            (Some(win), Kind::Win) => Ok(Award::Win(win)),
            (_, Kind::Reserve) => Ok(Award::Order(self.known_order(order_id(entry.item)?, store)?)),
            _ => Err(LedgerError::Corrupt(format!("entry {} is no award", entry.id))),
        }
    }

    /// What went through a user's wallet before entry `before`, newest first.
    fn movements(
        &self,
        user: UserId,
        before: Option<i64>,
        limit: u32,
        store: &impl Store,
    ) -> Result<Page<Movement>, LedgerError> {
        let mut page = Page::default();
        // Who turns a page names the last entry of the one before: what is newer need not be gone
        // through again.
        let named = before.map(|before| store.entry(before)).transpose()?.flatten();
        let own = named.filter(|entry| entry.user_account() == Some(AccountId::user(user)));
        let chain = match own {
            Some(entry) => Chain { next: entry.previous, store },
            None => self.chain(user, store),
        };
        for entry in chain {
            let entry = entry?;
            if before.is_some_and(|before| entry.id >= before) || entry.amount == 0 {
                continue;
            }
            if page.items.len() >= limit as usize {
                page.more = true;
                break;
            }
            page.items.push(movement(&entry)?);
        }
        Ok(page)
    }

    /// A user's entries, newest first, as far as they are not archived.
    fn chain<'a, S: Store>(&self, user: UserId, store: &'a S) -> Chain<'a, S> {
        Chain { next: self.account(AccountId::user(user)).last_entry, store }
    }

    fn known_order(&self, id: OrderId, store: &impl Store) -> Result<Order, LedgerError> {
        self.find_order(id, store)?.ok_or_else(|| LedgerError::Corrupt(format!("order {id} is missing")))
    }

    // ---- Changes, each with its undoing

    fn treasury_can_give(&self, sum: u128) -> bool {
        let balance = self.account(AccountId::TREASURY).balance;
        i64::try_from(sum).is_ok_and(|sum| balance.checked_sub(sum).is_some())
    }

    fn offer(&mut self, user: UserId, envelope: EnvelopeId) {
        self.undo.push(Undo::Offered(user, envelope));
        self.offers.entry(user).or_default().push(envelope);
    }

    fn withdraw_offer(&mut self, user: UserId, envelope: EnvelopeId) {
        let Some(offers) = self.offers.get_mut(&user) else { return };
        if let Ok(position) = offers.binary_search(&envelope) {
            offers.remove(position);
            if offers.is_empty() {
                self.offers.remove(&user);
            }
            self.undo.push(Undo::Withdrawn(user, envelope));
        }
    }

    fn await_due(&mut self, at: UnixMs, what: Due) {
        if self.due.insert((at, what)) {
            self.undo.push(Undo::Awaited(at, what));
        }
    }

    fn no_longer_due(&mut self, at: UnixMs, what: Due) {
        if self.due.remove(&(at, what)) {
            self.undo.push(Undo::NoLongerDue(at, what));
        }
    }
}

/// A batch under way: postings that are decided at one moment, and where their rows go.
pub struct Batch<'b, S> {
    pub books: &'b mut Books,
    pub store: &'b mut S,
    pub now: UnixMs,
}

impl<S: Store> Batch<'_, S> {
    pub fn post(&mut self, posting: &Posting) -> Result<PostingResult, LedgerError> {
        Ok(match posting {
            Posting::Claim(claim) => self.claim(claim)?.into(),
            Posting::Acknowledge { user, seen } => self.acknowledge(*user, seen)?.into(),
            Posting::Pay { user, order, means } => self.pay(*user, *order, *means)?.into(),
            Posting::Cancel { user, order } => self.cancel(*user, *order)?.into(),
            Posting::Send(envelope) => self.send(envelope)?.into(),
            Posting::Open { user, envelope } => self.open(*user, *envelope)?.into(),
            Posting::Expire => Box::new(self.expire()?).into(),
            Posting::Deposit { first, count, amount, key } => self.deposit((*first, *count, *amount), key)?.into(),
        })
    }

    fn deposit(&mut self, deposit: (UserId, u32, Fen), key: &str) -> Result<DepositResult, LedgerError> {
        if let Some(earlier) = self.store.deposit(key)? {
            return Ok(if earlier == deposit { DepositResult::Deposited } else { DepositResult::KeyUsed });
        }
        let (first, count, amount) = deposit;
        let last = first.get().checked_add(count.into()).and_then(|end| UserId::new(end - 1).ok());
        let sum = u128::from(count) * u128::from(amount.0);
        let (Some(last), true) = (last, self.books.treasury_can_give(sum)) else {
            return Ok(DepositResult::TooMuch);
        };
        self.store.put_deposit(key, deposit, self.now, self.books.counters.next_entry)?;
        for user in first.get()..=last.get() {
            let user = UserId::new(user).map_err(|error| LedgerError::Corrupt(error.to_string()))?;
            self.move_money(Kind::Deposit, (AccountId::TREASURY, AccountId::user(user)), amount, 0, None)?;
        }
        Ok(DepositResult::Deposited)
    }

    /// Writes an entry and brings both accounts up to it.
    fn move_money(
        &mut self,
        kind: Kind,
        (debit, credit): (AccountId, AccountId),
        amount: Fen,
        item: i64,
        request: Option<RequestId>,
    ) -> Result<i64, LedgerError> {
        let books = &mut *self.books;
        let id = books.counters.next_entry;
        let amount = i64::try_from(amount.0).map_err(|_| LedgerError::Corrupt(format!("{} fen at once", amount.0)))?;
        let mut entry = Entry { id, at: self.now, kind, debit, credit, amount, item, request, previous: 0 };
        if let Some(user) = entry.user_account() {
            entry.previous = books.account(user).last_entry;
        }
        self.store.put_entry(&entry)?;
        books.counters.next_entry += 1;
        for (account, as_debit) in [(debit, true), (credit, false)] {
            books.undo.push(Undo::Account(account, books.accounts.get(&account).copied()));
            let known = books.accounts.entry(account).or_default();
            known.take(&entry, as_debit);
            if known.balance < 0 && account != AccountId::TREASURY {
                return Err(LedgerError::Corrupt(format!("account {} would fall below 0", account.0)));
            }
            books.write_behind.dirty.insert(account);
        }
        Ok(id)
    }

    fn notify(&mut self, user: UserId, notice: Unacknowledged) -> Result<(), LedgerError> {
        if let About::Order(order) = notice.about {
            self.forget_notices_of(user, order)?;
        }
        self.store.put_notice(notice.entry)?;
        self.books.undo.push(Undo::Notified(user));
        self.books.notices.entry(user).or_default().push(notice);
        Ok(())
    }

    /// Drops what a user was to be told of an order.
    fn forget_notices_of(&mut self, user: UserId, order: OrderId) -> Result<u32, LedgerError> {
        self.forget_notices(user, |notice| notice.about == About::Order(order))
    }

    fn forget_notices(&mut self, user: UserId, is_meant: impl Fn(&Unacknowledged) -> bool) -> Result<u32, LedgerError> {
        let books = &mut *self.books;
        let Some(notices) = books.notices.get_mut(&user).filter(|notices| notices.iter().any(&is_meant)) else {
            return Ok(0);
        };
        books.undo.push(Undo::Notices(user, notices.clone()));
        let mut count = 0;
        for notice in notices.extract_if(.., |notice| is_meant(notice)) {
            self.store.drop_notice(notice.entry)?;
            count += 1;
        }
        if notices.is_empty() {
            books.notices.remove(&user);
        }
        Ok(count)
    }
}

/// Entries of a user, each naming the one before it.
struct Chain<'a, S> {
    next: i64,
    store: &'a S,
}

impl<S: Store> Iterator for Chain<'_, S> {
    type Item = Result<Entry, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == 0 {
            return None;
        }
        match self.store.entry(self.next) {
            Ok(entry) => {
                self.next = entry.as_ref().map_or(0, |entry| entry.previous);
                entry.map(Ok)
            }
            Err(error) => {
                self.next = 0;
                Some(Err(error))
            }
        }
    }
}

/// The prize of an entry of kind [`Kind::Win`].
pub fn win_of(entry: &Entry) -> Option<Win> {
    let Owner::Campaign(campaign) = entry.debit.owner() else { return None };
    Some(Win {
        campaign,
        serial: Serial(u64::try_from(entry.item).ok()?),
        amount: Fen(u64::try_from(entry.amount).ok()?),
        request: entry.request?,
    })
}

/// The order that an entry's item names.
pub fn order_id(item: i64) -> Result<OrderId, LedgerError> {
    u64::try_from(item)
        .ok()
        .and_then(|id| OrderId::new(id).ok())
        .ok_or_else(|| LedgerError::Corrupt(format!("{item} is no order")))
}

fn movement(entry: &Entry) -> Result<Movement, LedgerError> {
    let purpose = match (entry.kind, entry.debit.owner(), entry.credit.owner()) {
        (Kind::Win, ..) => win_of(entry).map(|win| Purpose::Win(win.campaign, win.serial)),
        (Kind::Open, Owner::Envelope(envelope), _) => Some(Purpose::Open(envelope)),
        (Kind::Send, _, Owner::Envelope(envelope)) => Some(Purpose::Send(envelope)),
        (Kind::Return, Owner::Envelope(envelope), _) => Some(Purpose::Return(envelope)),
        (Kind::Pay, ..) => Some(Purpose::Pay(order_id(entry.item)?)),
        (Kind::Deposit, ..) => Some(Purpose::Deposit),
        _ => None,
    };
    let purpose = purpose.ok_or_else(|| LedgerError::Corrupt(format!("entry {} moves no user's money", entry.id)))?;
    let amount = if entry.debit.is_user() { -entry.amount } else { entry.amount };
    Ok(Movement { entry: entry.id, at: entry.at, purpose, amount })
}
