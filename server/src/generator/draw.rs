//! The draw of a sale's opening window: whoever came in it is served by lot.

use std::collections::HashSet;

use hongbao_proto::Serial;

use crate::clock::UnixMs;
use crate::generator::source::Source;
use crate::market::campaign::Seed;
use crate::market::lottery::{self, Entrant};

/// The draw of a sale's opening window.
#[derive(Debug)]
pub(super) struct Draw {
    /// When the window is over.
    pub(super) at: UnixMs,
    pub(super) rounds: Vec<Round>,
}

/// How far the draw has come in one SET.
#[derive(Debug, Default)]
pub(super) enum Round {
    #[default]
    ToAsk,
    Asked,
    Reported(Vec<Entrant>),
    /// It is to get whom it serves.
    Drawn(Box<[(Entrant, Serial)]>),
    Sent,
}

impl Draw {
    /// Draws once every SET has reported: who is served, by SET, with a unit each while there are
    /// any.
    pub(super) fn draw(&mut self, seed: &Seed, source: &mut Source, issued_first: &mut u64) {
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
            *round = Round::Drawn(winners.into());
        }
    }
}
