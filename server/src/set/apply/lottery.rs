//! Grabs of a sale's opening window wait for the draw: who is served does not depend on who came
//! first.

use hongbao_proto::{CampaignId, RequestId, Serial, UserId};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::clock::Now;
use crate::market::lottery::Entrant;
use crate::market::stock::Taken;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::message::StockReport;
use crate::transport::wire::Wire;

/// Those who wait for a draw here: at most one Grab of each connection's user.
#[derive(Debug, Default)]
pub(in crate::set) struct Lottery {
    waiting: Vec<Waiting>,
    users: FxHashSet<UserId>,
    /// Whether the generator has asked for the list, and not got it yet.
    unreported: bool,
}

#[derive(Debug)]
struct Waiting {
    key: ConnectionKey,
    entrant: Entrant,
}

impl<W: Wire> Set<W> {
    /// Takes a Grab into the lottery; its answer is owed until the draw. A second Grab of the same user
    /// finds nothing for now.
    pub(super) fn enter_lottery(&mut self, key: ConnectionKey, user: UserId, request: RequestId, campaign: CampaignId) {
        let lottery = self.lotteries.entry(campaign).or_default();
        if !lottery.users.insert(user) {
            return self.not_taken(key, request, Taken::NoneNow);
        }
        lottery.waiting.push(Waiting { key, entrant: Entrant { user, request } });
        self.owed += 1;
    }

    /// The window is over: the generator wants to know who came in it. From now on a Grab finds
    /// what is on the shelf.
    pub(super) fn close_lottery(&mut self, campaign: CampaignId) {
        self.stock.end_lottery(campaign);
        self.lotteries.entry(campaign).or_default().unreported = true;
        self.report_lotteries();
    }

    /// Hands over what the generator has had no room for so far.
    pub(super) fn report_lotteries(&mut self) {
        for (campaign, lottery) in self.lotteries.iter_mut().filter(|(_, lottery)| lottery.unreported) {
            let entrants = lottery.waiting.iter().map(|waiting| waiting.entrant).collect();
            let report = StockReport::Lottery { set: self.index, campaign: *campaign, entrants };
            lottery.unreported = self.shared.generator.try_send(report).is_err();
        }
    }

    /// The draw: a unit for each winner, in this order, and an answer for all others.
    pub(super) fn drawn(&mut self, campaign: CampaignId, winners: &[(Entrant, Serial)], now: &Now) {
        let serials: Vec<Serial> = winners.iter().map(|(_, serial)| *serial).collect();
        let shelved = self.stock.supply(campaign, &serials);
        debug_assert!(shelved, "a draw of an unannounced campaign");
        let lottery = self.lotteries.remove(&campaign).unwrap_or_default();
        let mut keys: FxHashMap<Entrant, ConnectionKey> =
            lottery.waiting.iter().map(|waiting| (waiting.entrant, waiting.key)).collect();
        for (entrant, _) in winners {
            // Whoever is not here any more was answered when the lottery was dissolved; the unit is for
            // the next one.
            if let Some(key) = keys.remove(entrant) {
                self.owed -= 1;
                self.take_and_claim(key, entrant.user, entrant.request, Some(campaign), now);
            }
        }
        let mut losers: Vec<_> =
            lottery.waiting.into_iter().filter(|waiting| keys.contains_key(&waiting.entrant)).collect();
        let taken = self.stock.closed(Some(campaign), now.wall).unwrap_or(Taken::NoneNow);
        for Waiting { key, entrant } in losers.drain(..) {
            self.owed -= 1;
            self.not_taken(key, entrant.request, taken);
        }
    }

    /// There will be no draw: the sale is over. Everybody is answered why.
    pub(super) fn dissolve_lottery(&mut self, campaign: CampaignId, now: &Now) {
        let Some(taken) = self.stock.closed(Some(campaign), now.wall) else { return };
        for Waiting { key, entrant } in self.lotteries.remove(&campaign).unwrap_or_default().waiting {
            self.owed -= 1;
            self.not_taken(key, entrant.request, taken);
        }
    }

    /// The server is stopping: nobody waits for a draw.
    pub(super) fn dissolve_lotteries(&mut self) {
        for (_, lottery) in std::mem::take(&mut self.lotteries) {
            for Waiting { key, entrant } in lottery.waiting {
                self.owed -= 1;
                // Nothing was decided: the same id may be sent again.
                if let Some(session) = self.session(key)
                    && session.last_grab == entrant.request.get()
                {
                    session.last_grab -= 1;
                }
                self.overloaded(key, entrant.request.get());
            }
        }
    }
}
