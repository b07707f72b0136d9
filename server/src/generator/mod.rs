//! The node's stock keeper: issues each campaign's prizes into the SETs, takes back what nobody
//! there can take, and decides when a campaign opens, is sold out, or has ended.
//!
//! Once a second it asks every SET for its shelves' books. The question travels in the same queue
//! as the supplies, and the reply in the same queue as the returns; so, without stopping anything,
//! what a SET says it was ever supplied must equal what had been issued to it when it was asked, to
//! the unit ([`Conservation::residual`]).

mod campaign;
pub mod conservation;
mod draw;
pub mod sale;
pub mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hongbao_proto::v1::{self, campaign_notice::State, server_frame::Event};
use hongbao_proto::{CampaignId, Serial};
use hongbao_telemetry::report::{Events, names::event};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::UnixMs;
use crate::generator::campaign::{ActiveCampaign, Demand, Supply};
pub use crate::generator::conservation::{CampaignStatus, Conservation, StockBoard};
use crate::generator::draw::Round;
use crate::ledger::task::{CampaignChange, LedgerTask, TaskReply};
use crate::ledger::writer::LedgerHandle;
use crate::ledger::{Ledger, LedgerError};
use crate::limits::GENERATOR_QUEUE_MAX;
use crate::market::campaign::{Campaign, Goods};
use crate::market::stock::SalePhase;
use crate::set::message::{Control, Message, ReplyPermit, StockReport};
use crate::set::{SetHandle, delivery};

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

/// What operators ask of the generator. Whoever asked may have given up, which nobody minds.
#[derive(Debug)]
pub enum Command {
    Change {
        change: CampaignChange,
        reply: TaskReply<Campaign>,
    },
    /// Issue nothing more: the server is stopping.
    Halt,
}

/// What is being done to a campaign.
#[derive(Debug, Clone, Copy)]
enum Change {
    Create,
    Stop,
    Settle(CampaignId),
}

/// What comes back from the ledger.
enum LedgerResult {
    /// With the operator who asked for it, if one did.
    Changed(Change, Box<Result<Campaign, LedgerError>>, Option<TaskReply<Campaign>>),
    /// Every campaign as it stands.
    Campaigns(Result<Vec<Campaign>, LedgerError>),
}

/// Every campaign, with its claimed serials where some may still be issued: what
/// [`Generator::recover`] begins with.
pub fn unfinished(ledger: &mut dyn Ledger) -> Result<Vec<(Campaign, Vec<Serial>)>, LedgerError> {
    let campaigns = ledger.campaigns()?;
    campaigns
        .into_iter()
        .map(|campaign| {
            let claimed = if campaign.settlement.is_none() { ledger.claimed_serials(campaign.id)? } else { Vec::new() };
            Ok((campaign, claimed))
        })
        .collect()
}

/// See the module.
pub struct Generator {
    sets: Box<[SetHandle]>,
    ledger: LedgerHandle<ReplyPermit>,
    /// What was asked of the ledger: at most [`GENERATOR_QUEUE_MAX`] changes, and a look.
    pending: FuturesUnordered<BoxFuture<'static, LedgerResult>>,
    /// Whether the look is among them.
    awaits_campaigns: bool,
    /// Where the status of every campaign can be read.
    pub board: Arc<StockBoard>,
    campaigns: BTreeMap<CampaignId, ActiveCampaign>,
    round: u64,
    asked_at: UnixMs,
    demand: Vec<Demand>,
    halted: bool,
    /// Whether users are told of openings and ends.
    notify: bool,
    /// Where the beginnings and ends of campaigns are reported.
    pub events: Events,
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
            pending: FuturesUnordered::new(),
            awaits_campaigns: false,
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
            generator.add(&campaign, &claimed, now);
        }
        generator.forget_old();
        // Before anybody is connected: no Grab may find its campaign unknown.
        generator.advance_phases(now);
        generator.send_phases();
        generator.publish();
        generator
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
                    Some(command) => self.run_command(command, clock()),
                    None => return,
                },
                report = reports.recv() => match report {
                    Some(report) => self.on_report(report),
                    None => return,
                },
                Some(result) = self.pending.next() => self.on_ledger_result(result, clock()),
                _ = interval.tick() => self.step(clock()),
            }
        }
    }

    /// Everything that depends on the time.
    pub fn step(&mut self, now: UnixMs) {
        self.advance_phases(now);
        self.send_phases();
        if !self.halted {
            self.draw(now);
            self.issue(now);
        }
        if now >= self.asked_at + REPORT_INTERVAL_MS {
            self.asked_at = now;
            self.request_reports();
        }
    }

    /// Does what a command says, or has it done.
    pub fn run_command(&mut self, command: Command, now: UnixMs) {
        match command {
            Command::Change { change, reply } => {
                let open = self.campaigns.values().filter(|active| !active.settled).count();
                if matches!(change, CampaignChange::Create(_)) && open >= CAMPAIGNS_OPEN_MAX {
                    let why = format!(
                        "{open} campaigns have not ended; at most {CAMPAIGNS_OPEN_MAX} may run at once: stop one first"
                    );
                    reply.send(Err(LedgerError::BadTerms(why))).ok();
                } else {
                    // Where there is no room for it, the asker is told.
                    self.change(change, Some(reply), now);
                }
            }
            Command::Halt => self.halted = true,
        }
    }

    /// Takes in the next result of the ledger's, if there is one. Whether there was.
    pub fn serve_ledger(&mut self, now: UnixMs) -> bool {
        let result = self.pending.next().now_or_never().flatten();
        result.map(|result| self.on_ledger_result(result, now)).is_some()
    }

    fn on_ledger_result(&mut self, result: LedgerResult, now: UnixMs) {
        let reply = match result {
            LedgerResult::Changed(change, result, reply) => {
                match &*result {
                    Ok(campaign) => self.changed(change, campaign, now),
                    Err(error) => self.not_changed(change, error),
                }
                reply.map(|reply| (reply, *result))
            }
            LedgerResult::Campaigns(campaigns) => {
                self.awaits_campaigns = false;
                // Errors are the ledger's to report; the next second asks again.
                for campaign in campaigns.unwrap_or_default() {
                    let active = self.campaigns.get_mut(&campaign.id);
                    if let Some(Supply::Sale(sale)) = active.map(|active| &mut active.supply) {
                        sale.sold = campaign.won;
                        sale.reserved = campaign.reserved;
                    }
                }
                None
            }
        };
        self.advance_phases(now);
        self.send_phases();
        self.publish();
        if let Some((reply, result)) = reply {
            reply.send(result).ok();
        }
    }

    fn changed(&mut self, change: Change, campaign: &Campaign, now: UnixMs) {
        match change {
            Change::Create => {
                self.add(campaign, &[], now);
                self.notify(campaign.id, State::Scheduled);
                self.report_begin(campaign, now);
                self.forget_old();
            }
            Change::Stop => self.end(campaign.id, SalePhase::Ended { at: campaign.stopped_at.unwrap_or(now) }, now),
            Change::Settle(id) => {
                let Some(active) = self.campaigns.get_mut(&id) else { return };
                active.settled = true;
                let state = if active.phase == SalePhase::SoldOut { State::SoldOut } else { State::Ended };
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
            | LedgerError::Refused(_)
            | LedgerError::Corrupt(_)
            | LedgerError::Mismatched => {
                tracing::error!(event = "campaign_failed", %error, "the ledger failed to change a campaign");
            }
        }
        // Tried again later.
        if let Change::Settle(id) = change
            && let Some(active) = self.campaigns.get_mut(&id)
        {
            active.settling = false;
        }
    }

    /// Has the ledger change a campaign. Without room there or here nothing is done, the asker is
    /// told so, and `false` returned.
    fn change(&mut self, change: CampaignChange, reply: Option<TaskReply<Campaign>>, now: UnixMs) -> bool {
        let kind = match &change {
            CampaignChange::Create(_) => Change::Create,
            CampaignChange::Stop(_) => Change::Stop,
            CampaignChange::Settle(id) => Change::Settle(*id),
        };
        let task = |reply| LedgerTask::ChangeCampaign { change, now, reply };
        let has_room = self.pending.len() < GENERATOR_QUEUE_MAX;
        let Some(result) = has_room.then(|| self.ledger.try_task(task)).flatten() else {
            if let Some(reply) = reply {
                let why = "too much waits for the ledger, or for the stock keeper; nothing was done; try again";
                reply.send(Err(LedgerError::Unavailable(why.to_owned()))).ok();
            }
            return false;
        };
        self.pending.push(Box::pin(async move {
            LedgerResult::Changed(kind, Box::new(result.await.unwrap_or(Err(LedgerError::Stopped))), reply)
        }));
        true
    }

    fn add(&mut self, campaign: &Campaign, claimed: &[Serial], now: UnixMs) {
        let active = ActiveCampaign::new(campaign, claimed, self.sets.len(), self.round, now);
        self.campaigns.insert(campaign.id, active);
    }

    fn forget_old(&mut self) {
        let settled: Vec<_> = self.campaigns.iter().filter(|(_, active)| active.settled).map(|(id, _)| *id).collect();
        for id in settled.iter().take(settled.len().saturating_sub(ENDED_REMEMBERED)) {
            self.campaigns.remove(id);
        }
    }

    fn advance_phases(&mut self, now: UnixMs) {
        let next = self.campaigns.iter().filter_map(|(id, active)| Some((*id, active.next_phase(now)?)));
        for (id, phase) in next.collect::<Vec<_>>() {
            match self.campaigns.get_mut(&id) {
                Some(active) if phase == SalePhase::Open => {
                    active.phase = phase;
                    // The first to grab should find something, wherever they are.
                    active.supply.request(inhabited(&self.sets));
                    self.notify(id, State::Open);
                }
                _ => self.end(id, phase, now),
            }
        }
        self.settle_ended(now);
    }

    fn report_begin(&self, campaign: &Campaign, now: UnixMs) {
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
        if let Some(active) = self.campaigns.get_mut(&id)
            && matches!(active.phase, SalePhase::Scheduled | SalePhase::Open)
        {
            active.phase = phase;
            active.ended_in_round = round;
            let how = if phase == SalePhase::SoldOut { "is sold out" } else { "has ended" };
            self.events.push(now, event::CAMPAIGN, format!("campaign {id} {how}"));
        }
    }

    /// Settles ended campaigns of which no SET holds anything any more.
    fn settle_ended(&mut self, now: UnixMs) {
        let ready = self.campaigns.iter().filter(|(_, active)| active.can_be_settled()).map(|(id, _)| *id);
        for id in ready.collect::<Vec<_>>() {
            let settling = self.change(CampaignChange::Settle(id), None, now);
            if let Some(active) = self.campaigns.get_mut(&id) {
                active.settling = settling;
            }
        }
    }

    /// Brings every SET up to date. One whose queue is full gets it at the next step; until then
    /// it is not supplied.
    fn send_phases(&mut self) {
        for (&campaign, active) in &mut self.campaigns {
            for (set, stock) in self.sets.iter().zip(&mut active.in_sets) {
                if stock.phase_sent != Some(active.phase) {
                    let terms = Arc::clone(&active.terms);
                    let control = Control::Phase { campaign, terms, phase: active.phase };
                    if set.inbox.try_send(Message::Control(control)).is_ok() {
                        stock.phase_sent = Some(active.phase);
                    }
                }
            }
        }
    }

    /// Takes the draws of opening windows further. A draw of 100,000 takes about 30 ms of this
    /// thread, once.
    fn draw(&mut self, now: UnixMs) {
        for (&campaign, active) in self.campaigns.iter_mut().filter(|(_, active)| active.phase == SalePhase::Open) {
            let Some(draw) = active.draw.as_mut().filter(|draw| now >= draw.at) else { continue };
            draw.draw(&active.terms.seed, &mut active.source, &mut active.issued_first);
            for ((set, round), stock) in self.sets.iter().zip(&mut draw.rounds).zip(&mut active.in_sets) {
                // A SET without room is asked, or gets its winners, at the next step.
                match round {
                    Round::ToAsk
                        if stock.phase_sent == Some(SalePhase::Open)
                            && set.inbox.try_send(Message::Control(Control::Draw { campaign })).is_ok() =>
                    {
                        *round = Round::Asked;
                    }
                    Round::Drawn(winners) => {
                        if let Ok(permit) = set.inbox.try_reserve() {
                            stock.issued += winners.len() as u64;
                            let winners = std::mem::take(winners);
                            permit.send(Message::Control(Control::Drawn { campaign, winners }));
                            *round = Round::Sent;
                        }
                    }
                    _ => {}
                }
            }
            if draw.rounds.iter().all(|round| matches!(round, Round::Sent)) {
                active.draw = None;
                active.supply.request(inhabited(&self.sets));
            }
        }
    }

    /// Hands out what is due: prizes of a rain round-robin over the SETs where somebody shakes, or,
    /// while nobody does, where somebody could; units of a sale to the SETs that ask.
    fn issue(&mut self, now: UnixMs) {
        let mut inhabited: Vec<usize> = inhabited(&self.sets).collect();
        let users_in = inhabited.len();
        if inhabited.iter().any(|index| self.demand[*index].shaking) {
            inhabited.retain(|index| self.demand[*index].shaking);
        }
        for (&campaign, active) in self.campaigns.iter_mut().filter(|(_, active)| active.phase == SalePhase::Open) {
            let remaining = active.source.remaining();
            let parcels: Vec<(usize, u64)> = match &mut active.supply {
                Supply::Rain(rain) => {
                    let due = rain.due(now).min(ISSUE_STEP_MAX).min(remaining);
                    if due == 0 {
                        continue;
                    }
                    let mut parcels: Vec<_> = inhabited.iter().map(|index| (*index, 0)).collect();
                    for _ in 0..if parcels.is_empty() { 0 } else { due } {
                        active.turn = (active.turn + 1) % parcels.len();
                        parcels[active.turn].1 += 1;
                    }
                    parcels
                }
                Supply::Sale(_) if active.draw.is_some() => continue,
                Supply::Sale(sale) => {
                    if sale.recalls(remaining, now) {
                        for (index, set) in self.sets.iter().enumerate().filter(|(index, _)| sale.may_spare(*index)) {
                            let stock = &active.in_sets[index];
                            if stock.issued > stock.returned + stock.books.claimed {
                                // Without room the SET is asked again while somebody waits.
                                set.inbox.try_send(Message::Control(Control::GiveBack { campaign })).ok();
                            }
                        }
                    }
                    sale.parcels(remaining, users_in)
                }
            };
            let (wanted, mut issued) = (parcels.iter().map(|(_, count)| count).sum::<u64>(), 0);
            for (index, count) in parcels.into_iter().filter(|(_, count)| *count > 0) {
                if let Some(first) = active.hand_out(campaign, index, count, &self.sets[index]) {
                    issued += count;
                    match &mut active.supply {
                        Supply::Rain(_) => {
                            self.board.issued_first.fetch_add(first, Ordering::Relaxed);
                        }
                        Supply::Sale(sale) => sale.served(index),
                    }
                }
            }
            if let Supply::Rain(rain) = &mut active.supply {
                rain.issue(issued);
                // Nobody was there to take the rest, or no queue had room.
                if issued < wanted || inhabited.is_empty() {
                    rain.cap_backlog(now);
                }
            }
        }
    }

    /// Asks every SET for its books, and looks where Grabs come from.
    fn request_reports(&mut self) {
        self.round += 1;
        for (set, demand) in self.sets.iter().zip(&mut self.demand) {
            let grabs = set.tally.grabs.get();
            *demand = Demand { grabs, shaking: grabs != demand.grabs };
        }
        for (index, set) in self.sets.iter().enumerate() {
            // Without room the SET is asked again in a second.
            if set.inbox.try_send(Message::Control(Control::Report { round: self.round })).is_ok() {
                for active in self.campaigns.values_mut() {
                    active.in_sets[index].issued_when_asked = active.in_sets[index].issued;
                }
            }
        }
        self.redistribute();
        self.request_sales();
        self.publish();
    }

    /// Asks the ledger how far each sale has come: whether a unit is paid, no SET knows for
    /// another.
    fn request_sales(&mut self) {
        let is_sale = |active: &ActiveCampaign| !active.settled && matches!(active.supply, Supply::Sale(_));
        // Without room the next second asks again.
        if !self.awaits_campaigns
            && self.campaigns.values().any(is_sale)
            && let Some(result) = self.ledger.try_task(|reply| LedgerTask::Campaigns { reply })
        {
            self.awaits_campaigns = true;
            self.pending
                .push(Box::pin(async { LedgerResult::Campaigns(result.await.unwrap_or(Err(LedgerError::Stopped))) }));
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
            .filter(|(_, active)| active.phase == SalePhase::Open && matches!(active.supply, Supply::Rain(_)));
        for (&campaign, active) in rains {
            for ((set, demand), stock) in self.sets.iter().zip(&self.demand).zip(&mut active.in_sets) {
                let lies_idle = stock.books.claimed == stock.claimed_before && stock.books.in_flight == 0;
                stock.claimed_before = stock.books.claimed;
                let wanted_elsewhere = shaking > usize::from(demand.shaking);
                if stock.books.on_shelf > 0 && wanted_elsewhere && (lies_idle || !demand.shaking) {
                    // Without room the SET is busy after all, or gets it in a second.
                    set.inbox.try_send(Message::Control(Control::GiveBack { campaign })).ok();
                }
            }
        }
    }

    /// Takes in what a SET reports.
    pub fn on_report(&mut self, report: StockReport) {
        match report {
            StockReport::Returned { set, campaign, serials } => {
                if let Some(active) = self.campaigns.get_mut(&campaign) {
                    active.in_sets[set as usize].returned += serials.len() as u64;
                    active.source.put_back(serials.into_iter().map(|serial| (serial, false)));
                }
            }
            StockReport::Released { campaign, serials } => {
                if let Some(active) = self.campaigns.get_mut(&campaign) {
                    active.source.put_back(serials.into_iter().map(|serial| (serial, false)));
                }
            }
            StockReport::Lottery { set, campaign, entrants } => {
                let draw = self.campaigns.get_mut(&campaign).and_then(|active| active.draw.as_mut());
                if let Some(round) = draw.and_then(|draw| draw.rounds.get_mut(set as usize)) {
                    *round = Round::Reported(entrants);
                }
            }
            StockReport::Wanted { set, campaign } => {
                if let Some(Supply::Sale(sale)) = self.campaigns.get_mut(&campaign).map(|active| &mut active.supply) {
                    sale.request(set as usize);
                }
            }
            StockReport::Books { set, round, books } => {
                if round != self.round {
                    return;
                }
                for (campaign, books) in books {
                    let Some(active) = self.campaigns.get_mut(&campaign) else { continue };
                    let stock = &mut active.in_sets[set as usize];
                    let unbalanced = u64::try_from(books.balance().unsigned_abs()).unwrap_or(u64::MAX);
                    stock.residual = unbalanced
                        + stock.issued_when_asked.abs_diff(books.supplied)
                        + stock.returned.abs_diff(books.returned);
                    stock.books = books;
                    stock.round = round;
                    if stock.residual != 0 {
                        tracing::error!(event = "prizes_unaccounted", set, %campaign, residual = stock.residual, ?books, issued = stock.issued_when_asked, returned = stock.returned, "prizes are unaccounted for");
                    }
                }
            }
        }
    }

    fn publish(&self) {
        let statuses = self.campaigns.iter().map(|(id, active)| (*id, active.status())).collect();
        self.board.publish(statuses);
    }

    /// Tells users what became of a campaign; the seed once nothing more can be won.
    fn notify(&self, id: CampaignId, state: State) {
        let Some(active) = self.campaigns.get(&id).filter(|_| self.notify) else { return };
        let seed = if active.settled { active.terms.seed.0.to_vec() } else { Vec::new() };
        let notice = v1::CampaignNotice {
            campaign_id: id.get(),
            state: state.into(),
            seed_sha256: active.terms.seed.sha256().to_vec().into(),
            seed: seed.into(),
        };
        let frame = delivery::encode(Event::CampaignNotice(notice));
        for set in &self.sets {
            // A courtesy: whoever misses it finds the same in the public list of campaigns.
            set.inbox.try_send(Message::Control(Control::Announce(frame.clone()))).ok();
        }
    }
}

/// SETs with users.
fn inhabited(sets: &[SetHandle]) -> impl Iterator<Item = usize> {
    (0..sets.len()).filter(|index| sets[*index].tally.online.get() > 0)
}
