//! What comes from the server, frame by frame: pushes, the answers that every connection gets, and
//! wins, which go to the book, then to the journal, and only then back as an Acknowledge.

use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Acknowledge, Goodbye, Offers, PrizeId, Reminder, ServerFrame, Won};
use prost::Message;

use super::Crowd;
use crate::backoff;
use crate::clock::MILLISECOND;
use crate::ids;
use crate::limits::ACKNOWLEDGED_TOGETHER_MAX;
use crate::machine::labels::{EndReason, Violation};
use crate::machine::prizes::{Prize, Recorded};
use crate::machine::user::State;
use crate::machine::wire;
use hongbao_telemetry::journal::Row;

/// Something that its user has been told, and says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unacknowledged {
    Prize(PrizeId),
    /// An envelope from which nothing is to be had.
    Envelope(u64),
    /// An order, in the state in which it was told last.
    Order(u64),
}

impl Crowd {
    /// Bytes came for `user`: the rest of a frame, whole ones, the beginning of another.
    pub fn bytes(&mut self, user: u32, bytes: &[u8], now: u64) {
        let joined = self.partial_frames.remove(&user).map(|beginning| [&beginning, bytes].concat());
        match wire::cut(joined.as_deref().unwrap_or(bytes), |payload| self.frame(user, payload, now)) {
            Ok([]) => {}
            Ok(rest) => drop(self.partial_frames.insert(user, rest.to_vec())),
            Err(_) => self.broken_stream(user, now),
        }
    }

    /// One frame came for `user`.
    pub fn frame(&mut self, user: u32, payload: &[u8], now: u64) {
        if self.users[user as usize].state == State::Leaving {
            return;
        }
        let Ok(ServerFrame { request_id, event: Some(event) }) = ServerFrame::decode(payload) else {
            return self.broken_stream(user, now);
        };
        match request_id {
            0 => self.push(user, event, now),
            ids::LOGIN => self.login_answered(user, event, now),
            ids::PING => self.ping_answered(user, &event),
            ids::ACKNOWLEDGE => self.acknowledge_answered(user, &event),
            _ if ids::is_reaction(request_id) => self.act_answered(user, request_id, event, now),
            _ => self.request_answered(user, request_id, event, now),
        }
    }

    /// The stream of `user` cannot be read on.
    pub fn broken_stream(&mut self, user: u32, now: u64) {
        self.tally.counters.violation(Violation::Malformed);
        let pause = backoff::delay_ms(self.first + user, self.users[user as usize].attempts);
        self.leave(user, EndReason::Protocol, Some(pause), now);
    }

    pub(super) fn push(&mut self, user: u32, event: Event, now: u64) {
        match event {
            Event::Goodbye(goodbye) => self.goodbye(user, &goodbye, now),
            Event::Reminder(Reminder { wins, orders }) => {
                for won in wins {
                    self.record_win(user, won.won_by_request_id, &won, now);
                }
                for order in orders {
                    self.record_order(user, 0, &order, now);
                }
            }
            Event::Offers(Offers { offers }) => self.offered(user, &offers, now),
            Event::ChatMessage(message) => {
                self.tally.counters.check(self.chats.receive(user, self.user_id(user), &message));
            }
            // What we did wrong in the server's eyes; a Goodbye follows.
            Event::Error(error) => self.tally.counters.error(error.code),
            Event::Announcement(announcement) => self.announcements.receive(user, &announcement.text, now),
            Event::CampaignNotice(_) => {}
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    pub(super) fn goodbye(&mut self, user: u32, goodbye: &Goodbye, now: u64) {
        let end = EndReason::from(goodbye.reason());
        self.leave(user, end, goodbye.return_after_ms.map(u64::from), now);
    }

    pub(super) fn login_answered(&mut self, user: u32, event: Event, now: u64) {
        if self.users[user as usize].state != State::LoggingIn {
            return self.tally.counters.violation(Violation::WrongKind);
        }
        match event {
            Event::Welcome(welcome) => {
                if welcome.idle_timeout_ms > 0 {
                    self.ping_after_ms = self.ping_after_ms.min(welcome.idle_timeout_ms / 2);
                }
                self.welcome(user, now);
            }
            Event::Overloaded(overloaded) => {
                self.wait(user, overloaded.retry_after_ms, now);
            }
            // A Goodbye follows and decides.
            Event::Error(error) => self.tally.counters.error(error.code),
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    pub(super) fn welcome(&mut self, user: u32, now: u64) {
        self.enter(user, State::Online, self.millis(now));
        self.census.online += 1;
        let one = &mut self.users[user as usize];
        one.attempts = 0;
        self.tally.counters.logins += 1;
        if std::mem::replace(&mut one.known, true) {
            self.tally.counters.totals.reconnects += 1;
        }
        let held = self.storms.came_back(user, now);
        for unsettled in self.outstanding.write_again(user) {
            self.ask(user, unsettled.request, now);
            if unsettled.written {
                self.tally.counters.totals.resent += 1;
            } else if let (Some(segment), Some(due)) =
                (self.schedule.segment_of(unsettled.request), self.schedule.due(unsettled.request))
            {
                self.tally.sent(segment, due, now, self.operation(unsettled.request), held);
            }
        }
        self.act_again(user, now);
    }

    pub(super) fn ping_answered(&mut self, user: u32, event: &Event) {
        let asked = std::mem::replace(&mut self.users[user as usize].pinged, false);
        match event {
            Event::Pong(_) | Event::Overloaded(_) if asked => {}
            Event::Error(error) if asked => self.tally.counters.error(error.code),
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    pub(super) fn acknowledge_answered(&mut self, user: u32, event: &Event) {
        let one = &mut self.users[user as usize];
        if one.acknowledges == 0 {
            return self.tally.counters.violation(Violation::DuplicateAnswer);
        }
        one.acknowledges -= 1;
        self.acknowledges_under_way -= 1;
        match event {
            // One that the server did not take is told again at the next login.
            Event::Acknowledged(_) | Event::Overloaded(_) => {}
            Event::Error(error) => self.tally.counters.error(error.code),
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    pub(super) fn record_win(&mut self, user: u32, request_id: u64, won: &Won, now: u64) {
        let prize = Prize { campaign: won.campaign_id, serial: won.serial, amount: won.amount_fen };
        if prize.amount == 0 {
            self.tally.counters.violation(Violation::AmountZero);
        }
        match self.prizes.record(user, prize) {
            Recorded::New => self.journal.append(self.user_id(user), request_id, Row::Win(prize), now / MILLISECOND),
            Recorded::Again => {}
            Recorded::ToAnother => return self.tally.counters.violation(Violation::PrizeToldToTwo),
            Recorded::Changed => return self.tally.counters.violation(Violation::PrizeChanged),
        }
        self.acknowledge_later(
            user,
            Unacknowledged::Prize(PrizeId { campaign_id: won.campaign_id, serial: won.serial }),
        );
    }

    /// `user` is to acknowledge this, once the journal is written out.
    pub(super) fn acknowledge_later(&mut self, user: u32, item: Unacknowledged) {
        self.acknowledges_under_way += 1;
        self.unacknowledged.push((user, item));
    }

    /// Writes the journal out, and only then acknowledges what it holds.
    pub(super) fn acknowledge(&mut self, now: u64) -> std::io::Result<()> {
        self.journal.flush()?;
        let mut seen = std::mem::take(&mut self.unacknowledged);
        self.acknowledges_under_way -= seen.len() as u64;
        seen.sort_by_key(|(user, _)| *user);
        for of_user in seen.chunk_by(|(one, _), (other, _)| one == other) {
            for together in of_user.chunks(ACKNOWLEDGED_TOGETHER_MAX) {
                self.acknowledge_together(together[0].0, together, now);
            }
        }
        Ok(())
    }

    fn acknowledge_together(&mut self, user: u32, seen: &[(u32, Unacknowledged)], now: u64) {
        let one = &mut self.users[user as usize];
        if one.acknowledges == u16::MAX || one.state != State::Online {
            // It will be told again at the next login.
            return;
        }
        one.acknowledges += 1;
        self.acknowledges_under_way += 1;
        self.tally.counters.totals.acknowledges += 1;
        let mut acknowledge = Acknowledge::default();
        for (_, seen) in seen {
            match seen {
                Unacknowledged::Prize(prize) => acknowledge.prizes.push(*prize),
                Unacknowledged::Envelope(envelope) => acknowledge.envelope_ids.push(*envelope),
                Unacknowledged::Order(order) => acknowledge.order_ids.push(*order),
            }
        }
        self.write(user, &wire::frame(ids::ACKNOWLEDGE, Request::Acknowledge(acknowledge)), now);
    }

    /// Writes out what the journal still holds.
    pub fn flush_journal(&mut self) -> std::io::Result<()> {
        self.journal.flush()
    }
}
