//! The node's stock keeper: issues each campaign's prizes into the SETs, takes back what nobody
//! there can take, and decides when a campaign opens, is sold out, or has ended.
//!
//! Once a second it asks every SET for its shelves' books. The question travels in the same queue
//! as the supplies, and the reply in the same queue as the returns; so, without stopping anything,
//! what a SET says it was ever supplied must equal what had been issued to it when it was asked, to
//! the unit ([`Conservation::residual`]).

mod pending;
pub mod sale;
pub mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use hongbao_proto::v1::{self, campaign_notice::State, server_frame::Event};
use hongbao_proto::{CampaignId, Serial};
use hongbao_telemetry::report::{Events, names::event};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::clock::UnixMs;
use crate::generator::pending::{Change, LedgerResult, PendingTasks};
use crate::generator::sale::SaleAllocator;
use crate::generator::source::{Pacer, Source};
use crate::ledger::LedgerError;
use crate::ledger::task::{CampaignChange, LedgerTask};
use crate::ledger::writer::LedgerHandle;
use crate::market::campaign::{Campaign, CampaignTerms, Goods, Seed};
use crate::market::lottery::{self, Entrant};
use crate::market::stock::{SalePhase, ShelfBooks};
use crate::set::SetHandle;
use crate::set::message::{Control, Message, ReplyPermit, StockReport};

/// How often due prizes are handed out while there is something to hand out.
const ISSUE_INTERVAL: Duration = Duration::from_millis(5);

/// How often the books are asked for, milliseconds.
const REPORT_INTERVAL_MS: u64 = 1_000;

/// Prizes handed out in one step: a step must not keep the main thread.
const ISSUE_STEP_MAX: u64 = 4_096;

/// Ended campaigns that SETs still know by name; a Grab for an older one finds no such campaign.
const ENDED_REMEMBERED: usize = 1_024;

/// Campaigns that have not ended at most.
pub const CAMPAIGNS_OPEN_MAX: usize = 64;

/// What operators ask of the generator.
#[derive(Debug)]
pub enum Command {
    /// Open a campaign.
    Create { terms: Box<CampaignTerms>, reply: Reply },
    /// End a campaign before its time.
    Stop { id: CampaignId, reply: Reply },
    /// Issue nothing more: the server is stopping.
    Halt,
}

/// Where an operator's answer goes. The asker may have given up, which nobody minds.
pub type Reply = oneshot::Sender<Result<Campaign, LedgerError>>;

/// Where a campaign's serials are, summed over the SETs at the moments at which each was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Conservation {
    /// Handed to SETs by this run of the server, again after a return included.
    pub issued: u64,
    /// Handed out for the first time by this run.
    pub issued_first: u64,
    /// Durably somebody's, through this run.
    pub claimed: u64,
    /// On the SETs' shelves.
    pub in_sets: u64,
    /// With the ledger.
    pub in_flight: u64,
    /// Given back by SETs.
    pub returned: u64,
    /// Issued since the SETs were asked.
    pub in_transit: u64,
    /// Refused by the ledger as somebody else's. Reads 0.
    pub void: u64,
    /// Serials unaccounted for. Reads 0.
    pub residual: u64,
}

/// The generator's view of a campaign.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct CampaignStatus {
    /// `scheduled`, `open`, `sold_out` or `ended`.
    pub state: &'static str,
    /// Whether what was left has been given back, and the seed published.
    pub settled: bool,
    /// Units that were somebody's, for good or until paid, when this run of the server began.
    pub won_before: u64,
    /// Not with any SET, not claimed.
    pub unissued: u64,
    /// Where the others are.
    pub conservation: Conservation,
}

/// The generator's latest word on every campaign, for anyone to read.
#[derive(Debug, Default)]
pub struct StockBoard {
    /// As of the last question to the SETs.
    statuses: Mutex<BTreeMap<CampaignId, CampaignStatus>>,
    issued_first: AtomicU64,
}

impl StockBoard {
    /// The status of one campaign.
    pub fn get(&self, id: CampaignId) -> Option<CampaignStatus> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Prizes of rains handed out for the first time by this run, up to this moment.
    pub fn issued_first(&self) -> u64 {
        self.issued_first.load(Ordering::Relaxed)
    }

    /// Sums over all campaigns.
    pub fn total(&self) -> Conservation {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.values().map(|status| status.conservation).fold(Conservation::default(), |sum, one| Conservation {
            issued: sum.issued + one.issued,
            issued_first: sum.issued_first + one.issued_first,
            claimed: sum.claimed + one.claimed,
            in_sets: sum.in_sets + one.in_sets,
            in_flight: sum.in_flight + one.in_flight,
            returned: sum.returned + one.returned,
            in_transit: sum.in_transit + one.in_transit,
            void: sum.void + one.void,
            residual: sum.residual + one.residual,
        })
    }
}

/// One SET's side of a campaign, as the generator sees it.
#[derive(Debug, Clone, Copy, Default)]
struct SetStock {
    /// The phase that it was told last.
    told: Option<SalePhase>,
    issued: u64,
    /// `issued` when the SET was asked last.
    issued_when_asked: u64,
    returned: u64,
    books: ShelfBooks,
    /// `books.claimed` a question earlier.
    claimed_before: u64,
    /// The round of `books`.
    round: u64,
    residual: u64,
}

/// Whether a SET's users shake.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    /// Grabs ever, as of the last question.
    grabs: u64,
    /// Whether there were any between the last two questions.
    shaking: bool,
}

/// What decides when units are handed out, and where.
#[derive(Debug)]
enum Supply {
    Rain(Pacer),
    Sale(SaleAllocator),
}

/// The draw of a sale's opening window.
#[derive(Debug)]
struct Draw {
    /// When the window is over.
    at: UnixMs,
    /// By SET.
    rounds: Vec<Round>,
}

/// How far the draw has come in one SET.
#[derive(Debug, Default)]
enum Round {
    /// It is to be asked who came.
    #[default]
    ToAsk,
    /// It was.
    Asked,
    /// It has said so.
    Reported(Vec<Entrant>),
    /// It is to be told who is served.
    ToTell(Box<[(Entrant, Serial)]>),
    /// It was.
    Told,
}

impl Draw {
    /// Draws once every SET has reported: who is served, by SET, with a unit each while there are
    /// any.
    fn draw(&mut self, seed: &Seed, source: &mut Source, issued_first: &mut u64) {
        let all = self.rounds.iter().all(|round| matches!(round, Round::Reported(_)));
        if !all || self.rounds.is_empty() {
            return;
        }
        let mut entrants = Vec::new();
        for (set, round) in self.rounds.iter_mut().enumerate() {
            if let Round::Reported(some) = std::mem::take(round) {
                entrants.extend(some.into_iter().map(|entrant| (entrant, set)));
            }
        }
        let mut served = HashSet::new();
        let mut winners: Vec<Vec<(Entrant, Serial)>> = vec![Vec::new(); self.rounds.len()];
        for (entrant, set) in lottery::draw(seed, entrants) {
            // Whoever has come on two connections takes part once.
            if !served.insert(entrant.user) {
                continue;
            }
            let Some((serial, first)) = source.take() else { break };
            *issued_first += u64::from(first);
            winners[set].push((entrant, serial));
        }
        for (round, winners) in self.rounds.iter_mut().zip(winners) {
            *round = Round::ToTell(winners.into());
        }
    }
}

#[derive(Debug)]
struct ActiveCampaign {
    terms: Arc<CampaignTerms>,
    won_before: u64,
    phase: SalePhase,
    /// The round in which every SET will have heard of the end.
    ended_in_round: u64,
    settling: bool,
    settled: bool,
    supply: Supply,
    /// The draw of its opening window, where it has one that is not over.
    draw: Option<Draw>,
    source: Source,
    /// The SET, of those that are supplied, that had a prize of this rain last. Each rain has its
    /// turns to itself: with common ones, two rains of which the last prizes wander may keep each
    /// other from ever coming to the SET where they are wanted.
    turn: usize,
    issued_first: u64,
    accounts: Vec<SetStock>,
}

impl ActiveCampaign {
    fn conservation(&self) -> Conservation {
        let mut books = ShelfBooks::default();
        let mut sum = Conservation { issued_first: self.issued_first, ..Conservation::default() };
        for account in &self.accounts {
            books.add(&account.books);
            sum.issued += account.issued;
            sum.in_transit += account.issued - account.books.supplied.min(account.issued);
            sum.residual += account.residual;
        }
        sum.claimed = books.claimed;
        sum.in_sets = books.on_shelf;
        sum.in_flight = books.in_flight;
        sum.returned = books.returned;
        sum.void = books.void;
        sum
    }

    fn status(&self) -> CampaignStatus {
        CampaignStatus {
            state: label(self.phase),
            settled: self.settled,
            won_before: self.won_before,
            unissued: self.source.remaining(),
            conservation: self.conservation(),
        }
    }

    /// Hands so many units to a SET. How many of them for the first time; `None`, and nothing done,
    /// where its queue had no room.
    fn hand_out(&mut self, campaign: CampaignId, index: usize, count: u64, set: &SetHandle) -> Option<u64> {
        let parcel: Vec<(Serial, bool)> = (0..count).map_while(|_| self.source.take()).collect();
        let serials: Box<[Serial]> = parcel.iter().map(|(serial, _)| *serial).collect();
        let supply = Message::Control(Control::Supply { campaign, serials });
        let account = &mut self.accounts[index];
        if account.told != Some(SalePhase::Open) || set.inbox.try_send(supply).is_err() {
            self.source.undo_take(parcel);
            return None;
        }
        account.issued += parcel.len() as u64;
        let first = parcel.iter().filter(|(_, first)| *first).count() as u64;
        self.issued_first += first;
        Some(first)
    }

    /// Whether every unit is durably somebody's. Those that wait for their payment may come back.
    fn is_sold_out(&self) -> bool {
        match &self.supply {
            Supply::Rain(_) => self.won_before + self.conservation().claimed >= self.terms.total,
            Supply::Sale(counter) => counter.sold >= self.terms.total,
        }
    }

    /// Whether no SET holds anything any more, as reported after all of them heard of the end.
    fn is_empty_handed(&self) -> bool {
        self.accounts.iter().all(|account| {
            account.round > self.ended_in_round
                && account.books.on_shelf == 0
                && account.books.in_flight == 0
                && account.residual == 0
        })
    }
}

/// See the module.
pub struct Generator {
    sets: Box<[SetHandle]>,
    ledger: LedgerHandle<ReplyPermit>,
    /// What comes back from the ledger.
    pending: PendingTasks,
    board: Arc<StockBoard>,
    campaigns: BTreeMap<CampaignId, ActiveCampaign>,
    round: u64,
    asked_at: UnixMs,
    /// By SET.
    demand: Vec<Demand>,
    halted: bool,
    /// Whether users are told of openings and ends.
    notify: bool,
    events: Events,
}

impl Generator {
    /// A generator that knows what an earlier run left: `campaigns` with the claimed serials of
    /// each that is not settled.
    pub fn recover(
        sets: Box<[SetHandle]>,
        ledger: LedgerHandle<ReplyPermit>,
        campaigns: Vec<(Campaign, Vec<Serial>)>,
        notify: bool,
        now: UnixMs,
    ) -> Self {
        let demand = vec![Demand::default(); sets.len()];
        let mut generator = Self {
            sets,
            ledger,
            pending: PendingTasks::default(),
            board: Arc::default(),
            campaigns: BTreeMap::new(),
            round: 0,
            asked_at: 0,
            demand,
            halted: false,
            notify,
            events: Events::default(),
        };
        for (campaign, claimed) in campaigns {
            generator.adopt(&campaign, &claimed, now);
        }
        generator.forget_old();
        // Before anybody is connected: no Grab may find its campaign unknown.
        generator.advance_phases(now);
        generator.tell_phases();
        generator.publish();
        generator
    }

    /// Tells there what becomes of campaigns from now on.
    #[must_use]
    pub fn telling(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Where the status of every campaign can be read.
    pub fn board(&self) -> Arc<StockBoard> {
        Arc::clone(&self.board)
    }

    /// Issues until the queues are closed.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut reports: mpsc::Receiver<StockReport>,
        clock: fn() -> UnixMs,
    ) {
        let mut interval = tokio::time::interval(ISSUE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command, clock()),
                    None => return,
                },
                report = reports.recv() => match report {
                    Some(report) => self.hear(report),
                    None => return,
                },
                result = poll_fn(|context| self.pending.poll(context)) => self.on_ledger_result(result, clock()),
                _ = interval.tick() => self.step(clock()),
            }
        }
    }

    /// Everything that depends on the time.
    pub fn step(&mut self, now: UnixMs) {
        self.advance_phases(now);
        self.tell_phases();
        if !self.halted {
            self.draw(now);
            self.issue(now);
        }
        if now >= self.asked_at + REPORT_INTERVAL_MS {
            self.asked_at = now;
            self.ask();
        }
    }

    /// Does what a command says, or has it done.
    pub fn obey(&mut self, command: Command, now: UnixMs) {
        match command {
            Command::Create { terms, reply } => {
                let open = self.campaigns.values().filter(|running| !running.settled).count();
                if open >= CAMPAIGNS_OPEN_MAX {
                    let why = format!(
                        "{open} campaigns have not ended; at most {CAMPAIGNS_OPEN_MAX} may run at once: stop one first"
                    );
                    reply.send(Err(LedgerError::BadTerms(why))).ok();
                    return;
                }
                // Where there is no room for it, the asker is told.
                self.change(Change::Create, CampaignChange::Create(terms), Some(reply), now);
            }
            Command::Stop { id, reply } => {
                self.change(Change::Stop, CampaignChange::Stop(id), Some(reply), now);
            }
            Command::Halt => self.halted = true,
        }
    }

    /// Takes in the next result of the ledger's, if there is one. Whether there was.
    pub fn serve_ledger(&mut self, now: UnixMs) -> bool {
        match self.pending.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => {
                self.on_ledger_result(result, now);
                true
            }
            Poll::Pending => false,
        }
    }

    fn on_ledger_result(&mut self, result: LedgerResult, now: UnixMs) {
        let reply = match result {
            LedgerResult::Changed(change, Ok(campaign), reply) => {
                self.changed(change, &campaign, now);
                reply.map(|reply| (reply, Ok(campaign)))
            }
            LedgerResult::Changed(change, Err(error), reply) => {
                self.not_changed(change, &error);
                reply.map(|reply| (reply, Err(error)))
            }
            LedgerResult::Campaigns(campaigns) => {
                // Errors are the ledger's to report; the next second asks again.
                for campaign in campaigns.unwrap_or_default() {
                    let running = self.campaigns.get_mut(&campaign.id);
                    if let Some(Supply::Sale(counter)) = running.map(|running| &mut running.supply) {
                        counter.sold = campaign.won;
                        counter.reserved = campaign.reserved;
                    }
                }
                None
            }
        };
        self.advance_phases(now);
        self.tell_phases();
        self.publish();
        if let Some((reply, result)) = reply {
            reply.send(result).ok();
        }
    }

    fn changed(&mut self, change: Change, campaign: &Campaign, now: UnixMs) {
        match change {
            Change::Create => {
                self.adopt(campaign, &[], now);
                self.notify(campaign.id, State::Scheduled);
                self.tell_begin(campaign, now);
                self.forget_old();
            }
            Change::Stop => self.end(campaign.id, SalePhase::Ended { at: campaign.stopped_at.unwrap_or(now) }, now),
            Change::Settle(id) => {
                let Some(running) = self.campaigns.get_mut(&id) else { return };
                running.settled = true;
                let state = if running.phase == SalePhase::SoldOut { State::SoldOut } else { State::Ended };
                self.notify(id, state);
            }
        }
    }

    fn not_changed(&mut self, change: Change, error: &LedgerError) {
        match error {
            // The operator's mistake, who is told of it.
            LedgerError::NoSuchCampaign(_) | LedgerError::BadTerms(_) => {
                tracing::info!(event = "campaign_refused", %error, "the change of a campaign cannot be made");
            }
            // At a stop.
            LedgerError::Stopped => {}
            LedgerError::Unavailable(_)
            | LedgerError::TooNew { .. }
            | LedgerError::TooOld { .. }
            | LedgerError::InUse { .. }
            | LedgerError::Foreign { .. }
            | LedgerError::Corrupt(_)
            | LedgerError::Mismatched => {
                tracing::error!(event = "campaign_failed", %error, "the ledger failed to change a campaign");
            }
        }
        match change {
            Change::Create | Change::Stop => {}
            // Tried again later.
            Change::Settle(id) => {
                if let Some(running) = self.campaigns.get_mut(&id) {
                    running.settling = false;
                }
            }
        }
    }

    /// Has the ledger change a campaign. Without room there or here nothing is done, the asker is
    /// told so, and `false` returned.
    fn change(&mut self, change: Change, task: CampaignChange, reply: Option<Reply>, now: UnixMs) -> bool {
        let room = self.pending.has_room();
        let task = |reply| LedgerTask::ChangeCampaign { change: task, now, reply };
        match room.then(|| self.ledger.try_task(task)).flatten() {
            Some(result) => self.pending.push(change, result, reply),
            None => {
                if let Some(reply) = reply {
                    let why = "too much waits for the ledger, or for the stock keeper; nothing was done; try again";
                    reply.send(Err(LedgerError::Unavailable(why.to_owned()))).ok();
                }
                return false;
            }
        }
        true
    }

    fn adopt(&mut self, campaign: &Campaign, claimed: &[Serial], now: UnixMs) {
        let terms = Arc::new(campaign.terms.clone());
        let phase = match (campaign.settlement, campaign.stopped_at) {
            _ if campaign.won == terms.total => SalePhase::SoldOut,
            (_, Some(at)) => SalePhase::Ended { at },
            (Some(settlement), None) => SalePhase::Ended { at: terms.ends_at.unwrap_or(settlement.settled_at) },
            (None, None) => SalePhase::Scheduled,
        };
        let running = ActiveCampaign {
            won_before: campaign.won + campaign.reserved,
            phase,
            ended_in_round: self.round,
            settling: false,
            settled: campaign.settlement.is_some(),
            supply: match &terms.goods {
                Goods::Rain { rate_per_second, .. } => {
                    Supply::Rain(Pacer::new(*rate_per_second, terms.starts_at.max(now)))
                }
                Goods::Sale(_) => Supply::Sale(SaleAllocator::new(campaign.won, campaign.reserved)),
            },
            draw: terms.sale().filter(|sale| sale.fair_window_ms > 0).map(|sale| Draw {
                at: terms.starts_at.saturating_add(sale.fair_window_ms.into()),
                rounds: (0..self.sets.len()).map(|_| Round::ToAsk).collect(),
            }),
            source: Source::recover(terms.total, claimed),
            // Not all at the same SET.
            turn: campaign.id.get() as usize,
            issued_first: 0,
            accounts: vec![SetStock::default(); self.sets.len()],
            terms,
        };
        self.campaigns.insert(campaign.id, running);
    }

    fn forget_old(&mut self) {
        let settled: Vec<_> = self.campaigns.iter().filter(|(_, running)| running.settled).map(|(id, _)| *id).collect();
        for id in settled.iter().take(settled.len().saturating_sub(ENDED_REMEMBERED)) {
            self.campaigns.remove(id);
        }
    }

    fn advance_phases(&mut self, now: UnixMs) {
        let mut changes = Vec::new();
        for (id, running) in &mut self.campaigns {
            match running.phase {
                SalePhase::Scheduled | SalePhase::Open if running.terms.ends_at.is_some_and(|end| now >= end) => {
                    changes.push((*id, SalePhase::Ended { at: running.terms.ends_at.unwrap_or(now) }));
                }
                SalePhase::Scheduled if now >= running.terms.starts_at => changes.push((*id, SalePhase::Open)),
                SalePhase::Open if running.is_sold_out() => changes.push((*id, SalePhase::SoldOut)),
                _ => {}
            }
        }
        for (id, phase) in changes {
            if phase == SalePhase::Open {
                if let Some(running) = self.campaigns.get_mut(&id) {
                    running.phase = phase;
                    if let Supply::Sale(counter) = &mut running.supply {
                        // The first to grab should find something, wherever they are.
                        let inhabited = self.sets.iter().enumerate().filter(|(_, set)| set.tally.online.get() > 0);
                        inhabited.for_each(|(index, _)| counter.ask(index));
                    }
                }
                self.notify(id, State::Open);
            } else {
                self.end(id, phase, now);
            }
        }
        self.settle(now);
    }

    fn tell_begin(&self, campaign: &Campaign, now: UnixMs) {
        let Campaign { id, terms, .. } = campaign;
        let what = match &terms.goods {
            Goods::Rain { rate_per_second, .. } => {
                format!("rain of {} prizes, {rate_per_second} a second", terms.total)
            }
            Goods::Sale(sale) => format!("sale of {} units at {} fen", terms.total, sale.price.0),
        };
        let text = format!("campaign {id}: {what} {:?}", terms.title);
        self.events.push(terms.starts_at.max(now), event::CAMPAIGN, text);
    }

    fn end(&mut self, id: CampaignId, phase: SalePhase, now: UnixMs) {
        let round = self.round;
        if let Some(running) = self.campaigns.get_mut(&id)
            && matches!(running.phase, SalePhase::Scheduled | SalePhase::Open)
        {
            running.phase = phase;
            running.ended_in_round = round;
            let how = if phase == SalePhase::SoldOut { "is sold out" } else { "has ended" };
            self.events.push(now, event::CAMPAIGN, format!("campaign {id} {how}"));
        }
    }

    /// Settles ended campaigns of which no SET holds anything any more.
    fn settle(&mut self, now: UnixMs) {
        let mut ready = Vec::new();
        for (id, running) in &mut self.campaigns {
            let over = matches!(running.phase, SalePhase::SoldOut | SalePhase::Ended { .. });
            let unpaid = matches!(&running.supply, Supply::Sale(counter) if counter.reserved > 0);
            if over && !unpaid && !running.settled && !running.settling && running.is_empty_handed() {
                running.settling = true;
                ready.push(*id);
            }
        }
        for id in ready {
            let change = CampaignChange::Settle(id);
            if !self.change(Change::Settle(id), change, None, now)
                && let Some(running) = self.campaigns.get_mut(&id)
            {
                running.settling = false;
            }
        }
    }

    /// Brings every SET up to date. One whose queue is full hears it at the next step; until then
    /// it is not supplied.
    fn tell_phases(&mut self) {
        for (&campaign, running) in &mut self.campaigns {
            for (set, account) in self.sets.iter().zip(&mut running.accounts) {
                if account.told != Some(running.phase) {
                    let terms = Arc::clone(&running.terms);
                    let control = Control::Phase { campaign, terms, phase: running.phase };
                    if set.inbox.try_send(Message::Control(control)).is_ok() {
                        account.told = Some(running.phase);
                    }
                }
            }
        }
    }

    /// Takes the draws of opening windows further. A draw of 100,000 takes about 30 ms of this
    /// thread, once.
    fn draw(&mut self, now: UnixMs) {
        for (&campaign, running) in self.campaigns.iter_mut().filter(|(_, running)| running.phase == SalePhase::Open) {
            let Some(draw) = running.draw.as_mut().filter(|draw| now >= draw.at) else { continue };
            draw.draw(&running.terms.seed, &mut running.source, &mut running.issued_first);
            for ((set, round), account) in self.sets.iter().zip(&mut draw.rounds).zip(&mut running.accounts) {
                // A SET without room is asked, or told, at the next step.
                match round {
                    Round::ToAsk
                        if account.told == Some(SalePhase::Open)
                            && set.inbox.try_send(Message::Control(Control::Draw { campaign })).is_ok() =>
                    {
                        *round = Round::Asked;
                    }
                    Round::ToTell(winners) => {
                        let count = winners.len() as u64;
                        if let Ok(permit) = set.inbox.try_reserve() {
                            let winners = std::mem::take(winners);
                            permit.send(Message::Control(Control::Drawn { campaign, winners }));
                            account.issued += count;
                            *round = Round::Told;
                        }
                    }
                    _ => {}
                }
            }
            if draw.rounds.iter().all(|round| matches!(round, Round::Told)) {
                running.draw = None;
                if let Supply::Sale(counter) = &mut running.supply {
                    let inhabited = self.sets.iter().enumerate().filter(|(_, set)| set.tally.online.get() > 0);
                    inhabited.for_each(|(index, _)| counter.ask(index));
                }
            }
        }
    }

    /// Hands out what is due: prizes of a rain round-robin over the SETs where somebody shakes, or,
    /// while nobody does, where somebody could; units of a sale to the SETs that ask.
    fn issue(&mut self, now: UnixMs) {
        let mut inhabited: Vec<usize> =
            (0..self.sets.len()).filter(|index| self.sets[*index].tally.online.get() > 0).collect();
        let users_in = inhabited.len();
        if inhabited.iter().any(|index| self.demand[*index].shaking) {
            inhabited.retain(|index| self.demand[*index].shaking);
        }
        for (&campaign, running) in self.campaigns.iter_mut().filter(|(_, running)| running.phase == SalePhase::Open) {
            let remaining = running.source.remaining();
            let parcels: Vec<(usize, u64)> = match &mut running.supply {
                Supply::Rain(rain) => {
                    let due = rain.due(now).min(ISSUE_STEP_MAX).min(remaining);
                    if due == 0 {
                        continue;
                    }
                    let mut parcels: Vec<_> = inhabited.iter().map(|index| (*index, 0)).collect();
                    for _ in 0..if parcels.is_empty() { 0 } else { due } {
                        running.turn = (running.turn + 1) % parcels.len();
                        parcels[running.turn].1 += 1;
                    }
                    parcels
                }
                Supply::Sale(_) if running.draw.is_some() => continue,
                Supply::Sale(counter) => {
                    if counter.recalls(remaining, now) {
                        for (index, set) in self.sets.iter().enumerate().filter(|(index, _)| counter.may_spare(*index))
                        {
                            let account = &running.accounts[index];
                            let may_hold = account.issued > account.returned + account.books.claimed;
                            if may_hold {
                                // Without room the SET is asked again while somebody waits.
                                set.inbox.try_send(Message::Control(Control::GiveBack { campaign })).ok();
                            }
                        }
                    }
                    counter.parcels(remaining, users_in)
                }
            };
            let (wanted, mut issued) = (parcels.iter().map(|(_, count)| count).sum::<u64>(), 0);
            for (index, count) in parcels.into_iter().filter(|(_, count)| *count > 0) {
                let first = running.hand_out(campaign, index, count, &self.sets[index]);
                if let Some(first) = first {
                    issued += count;
                    match &mut running.supply {
                        Supply::Rain(_) => {
                            self.board.issued_first.fetch_add(first, Ordering::Relaxed);
                        }
                        Supply::Sale(counter) => counter.served(index),
                    }
                }
            }
            if let Supply::Rain(rain) = &mut running.supply {
                rain.issue(issued);
                // Nobody was there to take the rest, or no queue had room.
                if issued < wanted || inhabited.is_empty() {
                    rain.forgive(now);
                }
            }
        }
    }

    /// Asks every SET for its books, and looks where Grabs come from.
    fn ask(&mut self) {
        self.round += 1;
        for (set, demand) in self.sets.iter().zip(&mut self.demand) {
            let grabs = set.tally.grabs.get();
            *demand = Demand { grabs, shaking: grabs != demand.grabs };
        }
        for (index, set) in self.sets.iter().enumerate() {
            // Without room the SET is asked again in a second.
            if set.inbox.try_send(Message::Control(Control::Report { round: self.round })).is_ok() {
                for running in self.campaigns.values_mut() {
                    running.accounts[index].issued_when_asked = running.accounts[index].issued;
                }
            }
        }
        self.redistribute();
        self.ask_ledger();
        self.publish();
    }

    /// Asks the ledger how far each sale has come: whether a unit is paid, no SET knows for
    /// another.
    fn ask_ledger(&mut self) {
        let is_sale = |running: &ActiveCampaign| !running.settled && matches!(running.supply, Supply::Sale(_));
        if !self.campaigns.values().any(is_sale) {
            return;
        }
        // Without room the next second asks again.
        if !self.pending.awaits_campaigns() {
            self.pending.await_campaigns(self.ledger.try_task(|reply| LedgerTask::Campaigns { reply }));
        }
    }

    /// Takes back what lies where nobody takes it, while somebody shakes elsewhere: they must not
    /// be told that there is nothing.
    ///
    /// Where users shake and yet nothing of a rain is taken, they shake for another one, or hold as
    /// much of this one as they may.
    fn redistribute(&mut self) {
        let shaking = self.demand.iter().filter(|demand| demand.shaking).count();
        if shaking == 0 {
            return;
        }
        let rains = self
            .campaigns
            .iter_mut()
            .filter(|(_, running)| running.phase == SalePhase::Open && matches!(running.supply, Supply::Rain(_)));
        for (&campaign, running) in rains {
            for ((set, demand), account) in self.sets.iter().zip(&self.demand).zip(&mut running.accounts) {
                let lies_idle = account.books.claimed == account.claimed_before && account.books.in_flight == 0;
                account.claimed_before = account.books.claimed;
                let wanted_elsewhere = shaking > usize::from(demand.shaking);
                if account.books.on_shelf > 0 && wanted_elsewhere && (lies_idle || !demand.shaking) {
                    // Without room the SET is busy after all, or hears it in a second.
                    set.inbox.try_send(Message::Control(Control::GiveBack { campaign })).ok();
                }
            }
        }
    }

    /// Takes in what a SET reports.
    pub fn hear(&mut self, report: StockReport) {
        match report {
            StockReport::Returned { set, campaign, serials } => {
                if let Some(running) = self.campaigns.get_mut(&campaign) {
                    running.accounts[set as usize].returned += serials.len() as u64;
                    running.source.put_back(serials);
                }
            }
            StockReport::Released { campaign, serials } => {
                if let Some(running) = self.campaigns.get_mut(&campaign) {
                    running.source.put_back(serials);
                }
            }
            StockReport::Lottery { set, campaign, entrants } => {
                let draw = self.campaigns.get_mut(&campaign).and_then(|running| running.draw.as_mut());
                if let Some(round) = draw.and_then(|draw| draw.rounds.get_mut(set as usize)) {
                    *round = Round::Reported(entrants);
                }
            }
            StockReport::Wanted { set, campaign } => {
                if let Some(Supply::Sale(counter)) =
                    self.campaigns.get_mut(&campaign).map(|running| &mut running.supply)
                {
                    counter.ask(set as usize);
                }
            }
            StockReport::Books { set, round, books } => {
                if round != self.round {
                    return;
                }
                for (campaign, books) in books {
                    let Some(running) = self.campaigns.get_mut(&campaign) else { continue };
                    let account = &mut running.accounts[set as usize];
                    let unbalanced = u64::try_from(books.balance().unsigned_abs()).unwrap_or(u64::MAX);
                    account.residual = unbalanced
                        + account.issued_when_asked.abs_diff(books.supplied)
                        + account.returned.abs_diff(books.returned);
                    account.books = books;
                    account.round = round;
                    if account.residual != 0 {
                        tracing::error!(event = "prizes_unaccounted", set, %campaign, residual = account.residual, ?books, issued = account.issued_when_asked, returned = account.returned, "prizes are unaccounted for");
                    }
                }
            }
        }
    }

    fn publish(&self) {
        let statuses = self.campaigns.iter().map(|(id, running)| (*id, running.status())).collect();
        *self.board.statuses.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }

    /// Tells users what became of a campaign; the seed once nothing more can be won.
    fn notify(&self, id: CampaignId, state: State) {
        let Some(running) = self.campaigns.get(&id).filter(|_| self.notify) else { return };
        let seed = if running.settled { running.terms.seed.0.to_vec() } else { Vec::new() };
        let notice = v1::CampaignNotice {
            campaign_id: id.get(),
            state: state.into(),
            seed_sha256: running.terms.seed.sha256().to_vec().into(),
            seed: seed.into(),
        };
        let mut frame = BytesMut::new();
        hongbao_proto::frame::append(
            &v1::ServerFrame { request_id: 0, event: Some(Event::CampaignNotice(notice)) },
            &mut frame,
        );
        let frame = frame.freeze();
        for set in &self.sets {
            // A courtesy: whoever misses it finds the same in the public list of campaigns.
            set.inbox.try_send(Message::Control(Control::Announce(frame.clone()))).ok();
        }
    }
}

fn label(phase: SalePhase) -> &'static str {
    match phase {
        SalePhase::Scheduled => "scheduled",
        SalePhase::Open => "open",
        SalePhase::SoldOut => "sold_out",
        SalePhase::Ended { .. } => "ended",
    }
}
