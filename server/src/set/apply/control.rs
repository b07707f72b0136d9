//! What the generator, operators and the clock want of a SET.

use hongbao_proto::{CampaignId, UserId};

use crate::clock::Now;
use crate::ends::End;
use crate::limits;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::message::{Control, SessionInfo, StockReport};
use crate::set::session::SessionState;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(in crate::set) fn control(&mut self, control: Control, now: &Now) {
        match control {
            Control::Supply { campaign, serials } => {
                let shelved = self.stock.supply(campaign, &serials);
                // The generator announces a campaign before it supplies it, in the same queue.
                debug_assert!(shelved, "supply of an unannounced campaign");
            }
            Control::Phase { campaign, terms, phase } => {
                self.stock.set_phase(campaign, &terms, phase);
                self.dissolve_lottery(campaign, now);
                self.return_stock();
            }
            Control::Draw { campaign } => self.close_lottery(campaign),
            Control::Drawn { campaign, winners } => self.drawn(campaign, &winners, now),
            Control::GiveBack { campaign } => self.give_back(campaign),
            Control::Report { round } => {
                self.return_stock();
                let report = StockReport::Books { set: self.index, round, books: self.stock.books().collect() };
                // A full queue: the generator asks again in a second.
                self.shared.generator.try_send(report).ok();
            }
            Control::Displace { key, newer } => {
                self.dismiss(key, End::Replaced, None, now);
                self.succeed(key, newer);
            }
            Control::Bar { user, ms } => {
                if !self.shared.barred.bar(user, now.at.saturating_add(ms * 1_000_000), now.at) {
                    tracing::warn!(event = "user_not_barred", %user, "as many users are kept out as may be");
                }
            }
            Control::Kick { key, user } => {
                if self.live(key).is_some_and(|session| session.user == Some(user)) {
                    let return_after_ms = self.shared.barred.wait_ms(user, now.at);
                    self.dismiss(key, End::Kicked, return_after_ms, now);
                }
            }
            Control::Announce(frame) => self.announce(frame, None),
            Control::Broadcast { frame, receipt } => self.announce(frame, Some(receipt)),
            Control::Deliver(delivery) => self.deliver(delivery, now),
            Control::Farewell(window) => {
                self.dissolve_lotteries();
                self.farewell(window);
            }
            Control::List { from_slot, limit, reply } => {
                // The asker may have given up.
                reply.send(self.list(from_slot as usize, limit, now)).ok();
            }
            Control::Tick => self.tick(now),
            Control::Stop => self.stopped = true,
        }
    }

    fn tick(&mut self, now: &Now) {
        let second = now.seconds();
        while let Some(key) = self.unwelcome.pop_due(second) {
            let login_seconds = self.shared.login_seconds;
            let Some(session) = self.live(key).filter(|session| session.state == SessionState::Fresh) else { continue };
            // Who holds a retry slot has as long from then on. Looked at again after one
            // login time, and not when that is over, so that the queue stays sorted.
            if session.retry_slot().is_some_and(|retry_slot| second < retry_slot.second() + login_seconds) {
                self.unwelcome.push(second + login_seconds, key);
            } else {
                self.dismiss(key, End::LoginTimeout, None, now);
            }
        }
        while let Some(key) = self.partial.pop_due(second) {
            let began = second.saturating_sub(limits::FRAME_SECONDS_MAX);
            if self.live(key).is_some_and(|session| session.partial_since != 0 && session.partial_since <= began.max(1))
            {
                self.dismiss(key, End::Stalled, None, now);
            }
        }
        while let Some(key) = self.slow.pop_due(second) {
            let became = second.saturating_sub(limits::SLOW_SECONDS_MAX);
            if self.session(key).is_some_and(|session| session.slow_since <= became && session.wire.backlog() > 0) {
                self.end(key, End::Slow, None, now);
            }
        }
        while let Some(key) = self.leaving.pop_due(second) {
            if let Some(session) = self.session(key) {
                session.wire.cut();
            }
        }
        while let Some(key) = self.closing.pop_due(second) {
            self.gone(key, End::Closed);
        }
        self.sweep_idle(now);
        self.return_stock();
        self.pass_on();
        self.report_lotteries();
    }

    fn sweep_idle(&mut self, now: &Now) {
        let slots = self.slots();
        for _ in 0..limits::IDLE_SWEEP_STEP.min(slots) {
            self.idle_cursor = (self.idle_cursor + 1) % slots;
            let Some(session) = self.sessions.get(self.idle_cursor) else { continue };
            let silent = now.seconds().saturating_sub(session.heard_at);
            let end = if silent >= self.shared.idle_seconds {
                End::Idle
            } else if session.expires_at <= now.seconds() {
                End::TokenExpired
            } else {
                continue;
            };
            if session.state == SessionState::Online {
                let slot = u32::try_from(self.idle_cursor).unwrap_or(u32::MAX);
                self.dismiss(ConnectionKey { slot, generation: session.generation }, end, None, now);
            }
        }
    }

    /// Gives stock that nobody here can take back to the generator.
    fn return_stock(&mut self) {
        let deserted = self.tally.online.get() == 0;
        let campaigns: Vec<_> = self.stock.withdrawable(deserted).collect();
        for campaign in campaigns {
            self.give_back(campaign);
        }
    }

    /// Empties a shelf. What the generator has no room for stays.
    fn give_back(&mut self, campaign: CampaignId) {
        loop {
            let serials = self.stock.withdraw(campaign, limits::RETURN_BATCH_MAX);
            if serials.is_empty() {
                return;
            }
            let returned = StockReport::Returned { set: self.index, campaign, serials };
            if let Err(refused) = self.shared.generator.try_send(returned) {
                if let StockReport::Returned { serials, .. } = refused.into_inner() {
                    self.stock.undo_withdraw(campaign, serials);
                }
                return;
            }
        }
    }

    fn list(&mut self, from_slot: usize, limit: usize, now: &Now) -> Vec<SessionInfo> {
        (from_slot..self.slots())
            .filter_map(|slot| {
                let session = self.sessions.get_mut(slot)?;
                Some(SessionInfo {
                    set: self.index,
                    slot: u32::try_from(slot).unwrap_or(u32::MAX),
                    user: session.user.map(UserId::get),
                    state: session.state.label(),
                    peer: session.wire.peer(),
                    silent_seconds: now.seconds().saturating_sub(session.heard_at),
                    outbox_bytes: session.wire.backlog(),
                })
            })
            .take(limit)
            .collect()
    }
}
