//! What services reply.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, Serial};

use super::{Set, won};
use crate::ledger::Outcome;
use crate::ledger::writer::{Reply, Unavailable};
use crate::shard::directory::{Address, Seat};
use crate::shard::message::{Errand, Now};
use crate::shard::session::Phase;
use crate::shard::tally::Answer;
use crate::shard::wire::Wire;
use crate::stock::Taken;

impl<W: Wire> Set<W> {
    pub(super) fn reply(&mut self, seat: Seat, errand: Errand, reply: Reply, now: &Now) {
        self.owed -= 1;
        match (errand, reply) {
            (Errand::Claim { request, campaign, serial }, Reply::Posted(result)) => {
                match result {
                    Ok(Outcome::Won(_)) => self.stock.claimed(campaign),
                    Ok(Outcome::Taken | Outcome::Refused(_)) => self.void(campaign, serial, &result),
                    Ok(_) | Err(_) => self.stock.put_back(campaign, serial),
                }
                match result {
                    Ok(Outcome::Won(win) | Outcome::Repeated(win)) => {
                        self.answer(seat, request.get(), Answer::Won, Event::Won(won(win)))
                    }
                    Ok(Outcome::LimitReached { limit }) => {
                        self.answer(
                            seat,
                            request.get(),
                            Answer::LimitReached,
                            Event::LimitReached(v1::LimitReached { limit }),
                        );
                    }
                    Ok(Outcome::Taken | Outcome::Refused(_) | Outcome::Acknowledged { .. }) => {
                        self.not_taken(seat, request, Taken::NoneNow)
                    }
                    Err(_) => {
                        // Nothing was decided: the same id may be sent again.
                        if let Some(session) = self.session(seat)
                            && session.last_grab == request.get()
                        {
                            session.last_grab -= 1;
                        }
                        self.error(seat, request.get(), ErrorCode::LedgerUnavailable);
                    }
                }
            }
            (Errand::FirstAnswer { request, .. }, Reply::FirstAnswer(Ok(Some(win)))) => {
                self.answer(seat, request.get(), Answer::Won, Event::Won(won(win)));
            }
            (Errand::FirstAnswer { request, campaign }, Reply::FirstAnswer(Ok(None))) => {
                let taken = self.stock.closed(campaign, now.wall).unwrap_or(Taken::NoneNow);
                self.not_taken(seat, request, taken);
            }
            (Errand::Acknowledge { request }, Reply::Posted(Ok(Outcome::Acknowledged { count }))) => {
                self.answer(seat, request.get(), Answer::Acknowledged, Event::Acknowledged(v1::Acknowledged { count }));
            }
            (Errand::Recall { request }, Reply::Recalled(Ok(recall))) => match self.live(seat) {
                Some(_) => self.welcome(seat, request, &recall, now),
                None => self.answer_gone_as(Answer::Welcome),
            },
            (Errand::Recall { request }, _) => {
                let user = self.live(seat).and_then(|session| {
                    session.phase = Phase::Fresh;
                    session.user.take()
                });
                if let Some(user) = user {
                    self.shared.directory.leave(user, Address { set: self.index, seat });
                    self.unwelcome.push(now.seconds() + self.shared.login_seconds, seat);
                }
                self.error(seat, request.get(), ErrorCode::LedgerUnavailable);
            }
            (
                Errand::FirstAnswer { request, .. } | Errand::Acknowledge { request } | Errand::Claim { request, .. },
                _,
            ) => {
                self.error(seat, request.get(), ErrorCode::LedgerUnavailable);
            }
        }
    }

    /// The ledger would not have it: the stock keeper has erred, and the serial must not be offered again.
    fn void(&mut self, campaign: CampaignId, serial: Serial, result: &Result<Outcome, Unavailable>) {
        tracing::error!(set = self.index, %campaign, %serial, ?result, "the ledger refused a prize of ours; dropped");
        self.stock.void(campaign);
    }
}
