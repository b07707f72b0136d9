//! What comes from the server: answers, which settle what is owed; pushes; and wins, which go to the book, then to the
//! journal, and only then back as an Acknowledge.

use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Acknowledge, Goodbye, PrizeId, Reminder, ServerFrame, Won};
use prost::Message;

use super::Crowd;
use crate::backoff;
use crate::ids;
use crate::machine::labels::{End, Outcome, Violation};
use crate::machine::owed::Settled;
use crate::machine::prizes::{Prize, Told};
use crate::machine::user::State;
use crate::machine::wire;

impl Crowd {
    /// Bytes came for `user`: the rest of a frame, whole ones, the beginning of another.
    pub fn bytes(&mut self, user: u32, bytes: &[u8], now: u64) {
        let mut partial = self.partials.take(&mut self.users[user as usize].partial);
        match wire::cut(&mut partial, bytes, |payload| self.frame(user, payload, now)) {
            Ok(()) => self.users[user as usize].partial = self.partials.keep(partial),
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
            _ => self.grab_answered(user, request_id, event, now),
        }
    }

    /// The stream of `user` cannot be read on.
    pub fn broken_stream(&mut self, user: u32, now: u64) {
        self.tally.counters.violation(Violation::Malformed);
        let pause = backoff::delay_ms(self.first + user, self.users[user as usize].attempts);
        self.leave(user, End::Protocol, Some(pause), now);
    }

    pub(super) fn grab_answered(&mut self, user: u32, request_id: u64, event: Event, now: u64) {
        let counters = &mut self.tally.counters;
        let Some((request, due)) = self
            .tag
            .and_then(|tag| tag.request_of(request_id))
            .and_then(|request| Some((request, self.schedule.due(request)?)))
        else {
            return counters.violation(Violation::UnknownRequest);
        };
        let outcome = match &event {
            Event::Won(_) => Outcome::Won,
            Event::NoneNow(_) => Outcome::NoneNow,
            Event::SoldOut(_) => Outcome::SoldOut,
            Event::Overloaded(_) => Outcome::Overloaded,
            Event::LimitReached(_) => Outcome::LimitReached,
            Event::TooEarly(_) => Outcome::TooEarly,
            Event::TooLate(_) => Outcome::TooLate,
            Event::Error(error) => {
                counters.error(error.code);
                Outcome::Error
            }
            _ => return counters.violation(Violation::WrongKind),
        };
        match self.owed.settle(user, request) {
            Settled::InTime => {}
            Settled::Late => counters.answered_late += 1,
            Settled::Nothing => {
                // Ours, and sent by now: then it was answered before.
                let spread = self.turns.spread();
                let asked = due <= now && spread.user_of(request).checked_sub(self.first) == Some(user);
                counters.violation(if asked { Violation::DuplicateAnswer } else { Violation::UnknownRequest });
                return;
            }
        }
        let Some(segment) = self.schedule.segment_of(request) else { return };
        let held = self.storms.answered(user, due, now);
        self.tally.answered(segment, due, now, outcome, held);
        if let Event::Won(won) = event {
            self.told(user, request_id, &won, now);
        }
    }

    pub(super) fn push(&mut self, user: u32, event: Event, now: u64) {
        match event {
            Event::Goodbye(goodbye) => self.goodbye(user, &goodbye, now),
            Event::Reminder(Reminder { wins, .. }) => {
                for won in wins {
                    self.told(user, won.won_by_request_id, &won, now);
                }
            }
            // What we did wrong in the server's eyes; a Goodbye follows.
            Event::Error(error) => self.tally.counters.error(error.code),
            Event::Announcement(announcement) => self.heard.tell(user, &announcement.text, now),
            Event::CampaignNotice(_) => {}
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    pub(super) fn goodbye(&mut self, user: u32, goodbye: &Goodbye, now: u64) {
        let end = End::from(goodbye.reason());
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
            self.tally.counters.reconnects += 1;
        }
        let held = self.storms.came_back(user, now);
        for unsettled in self.owed.write_again(user) {
            self.grab(user, unsettled.request, now);
            if unsettled.written {
                self.tally.counters.resent += 1;
            } else if let (Some(segment), Some(due)) =
                (self.schedule.segment_of(unsettled.request), self.schedule.due(unsettled.request))
            {
                self.tally.sent(segment, due, now, held);
            }
        }
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

    pub(super) fn told(&mut self, user: u32, request_id: u64, won: &Won, now: u64) {
        let prize = Prize { campaign: won.campaign_id, serial: won.serial, amount: won.amount_fen };
        match self.prizes.tell(user, prize) {
            Told::New => self.journal.append(self.user_id(user), request_id, prize, now / 1_000_000),
            Told::Again => {}
            Told::ToAnother => return self.tally.counters.violation(Violation::PrizeToldToTwo),
            Told::Changed => return self.tally.counters.violation(Violation::PrizeChanged),
        }
        self.acknowledges_under_way += 1;
        self.unacknowledged.push((user, PrizeId { campaign_id: won.campaign_id, serial: won.serial }));
    }

    /// Writes the journal out, and only then acknowledges what it holds.
    pub(super) fn acknowledge(&mut self, now: u64) -> std::io::Result<()> {
        self.journal.flush()?;
        for (user, prize) in std::mem::take(&mut self.unacknowledged) {
            let one = &mut self.users[user as usize];
            let room = one.acknowledges < u16::MAX && one.state == State::Online;
            if !room {
                // It will be told again at the next login.
                self.acknowledges_under_way -= 1;
                continue;
            }
            one.acknowledges += 1;
            self.tally.counters.acknowledges += 1;
            let request = Request::Acknowledge(Acknowledge { prizes: vec![prize], ..Default::default() });
            self.write(user, &wire::frame(ids::ACKNOWLEDGE, request), now);
        }
        Ok(())
    }

    /// Writes out what the journal still holds.
    pub fn flush_journal(&mut self) -> std::io::Result<()> {
        self.journal.flush()
    }
}
