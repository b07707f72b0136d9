//! Values for the tests, and the plainest ledger there can be: a list of wins, one posting at a time.

use hongbao_proto::{CampaignId, Fen, RequestId, Serial, UserId};
use hongbao_server::campaign::{Amounts, Campaign, CampaignKind, CampaignTerms, Seed};
use hongbao_server::ledger::{Claim, Outcome, Posting, Recall, Refusal, Win};
use hongbao_server::limits::RECALLED_WINS_MAX;

pub fn user(n: u64) -> UserId {
    UserId::new(n).unwrap()
}

pub fn request(n: u64) -> RequestId {
    RequestId::new(n).unwrap()
}

pub fn terms(total: u64, per_user_limit: Option<u32>) -> CampaignTerms {
    CampaignTerms {
        title: "rain".to_owned(),
        kind: CampaignKind::Rain,
        total,
        rate_per_second: 1,
        amounts: Amounts { min: Fen(1), max: Fen(500) },
        seed: Seed([3; 32]),
        starts_at: 0,
        ends_at: None,
        per_user_limit,
    }
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
    Posting::Acknowledge {
        user: user(user_n),
        prizes: prizes.iter().map(|(campaign, serial)| (*campaign, Serial(*serial))).collect(),
    }
}

pub fn won(campaign: &Campaign, request_n: u64, serial: u64) -> Win {
    Win {
        campaign: campaign.id,
        serial: Serial(serial),
        amount: campaign.terms.amount(Serial(serial)),
        request: request(request_n),
    }
}

/// The rules, said as plainly as they can be.
#[derive(Default)]
pub struct Model {
    pub campaigns: Vec<Campaign>,
    /// (whose, what, seen)
    pub wins: Vec<(UserId, Win, bool)>,
}

impl Model {
    pub fn post(&mut self, posting: &Posting) -> Outcome {
        match posting {
            Posting::Claim(claim) => self.claim(claim),
            Posting::Acknowledge { user, prizes } => {
                let mut count = 0;
                for (owner, win, seen) in &mut self.wins {
                    if owner == user && prizes.contains(&(win.campaign, win.serial)) {
                        *seen = true;
                        count += 1;
                    }
                }
                Outcome::Acknowledged { count }
            }
        }
    }

    fn claim(&mut self, claim: &Claim) -> Outcome {
        if let Some(win) = self.first_answer(claim.user, claim.request) {
            return Outcome::Repeated(win);
        }
        let Some(campaign) = self.campaigns.iter().find(|campaign| campaign.id == claim.campaign) else {
            return Outcome::Refused(Refusal::NoSuchCampaign);
        };
        if campaign.settlement.is_some() {
            return Outcome::Refused(Refusal::Settled);
        }
        if claim.serial.0 >= campaign.terms.total {
            return Outcome::Refused(Refusal::NoSuchSerial);
        }
        if claim.amount != campaign.terms.amount(claim.serial) {
            return Outcome::Refused(Refusal::WrongAmount);
        }
        let of_campaign = || self.wins.iter().filter(|(_, win, _)| win.campaign == claim.campaign);
        if of_campaign().any(|(_, win, _)| win.serial == claim.serial) {
            return Outcome::Taken;
        }
        let held = of_campaign().filter(|(owner, ..)| *owner == claim.user).count();
        if let Some(limit) = campaign.terms.per_user_limit
            && held >= usize::try_from(limit).unwrap()
        {
            return Outcome::LimitReached { limit };
        }
        let win = Win { campaign: claim.campaign, serial: claim.serial, amount: claim.amount, request: claim.request };
        self.wins.push((claim.user, win, false));
        Outcome::Won(win)
    }

    pub fn first_answer(&self, user: UserId, request: RequestId) -> Option<Win> {
        self.wins.iter().find(|(owner, win, _)| *owner == user && win.request == request).map(|(_, win, _)| *win)
    }

    pub fn recall(&self, user: UserId) -> Recall {
        let mine = || self.wins.iter().filter(|(owner, ..)| *owner == user);
        Recall {
            unacknowledged: mine().filter(|(.., seen)| !seen).map(|(_, win, _)| *win).take(RECALLED_WINS_MAX).collect(),
            last_request: mine().map(|(_, win, _)| win.request).max(),
        }
    }
}
