//! What the ledger answers, and what it still knows after it was closed.

use hongbao_proto::{CampaignId, Fen, Serial};
use hongbao_server::campaign::{Campaign, Settlement};
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{Claim, Ledger, LedgerError, Outcome, Posting, Recall, Refusal, Totals};
use hongbao_server::limits::RECALLED_WINS_MAX;
use proptest::prelude::*;

use super::support::{Model, acknowledge, claim, claim_of, request, terms, user, won};

#[test]
fn a_claim_is_won_once_and_a_repeated_request_gets_its_first_answer() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(10, None), 5).unwrap();
    let first = Outcome::Won(won(&rain, 100, 0));
    let again = Outcome::Repeated(won(&rain, 100, 0));

    // In one batch, and in a later one; the serial offered with the repeat stays free.
    let batch = [claim(&rain, 1, 100, 0), claim(&rain, 1, 100, 1), claim(&rain, 2, 100, 0)];
    assert_eq!(ledger.post(&batch, 6).unwrap(), [first, again, Outcome::Taken]);
    assert_eq!(ledger.post(&batch, 7).unwrap(), [again, again, Outcome::Taken]);
    assert_eq!(ledger.claimed_serials(rain.id).unwrap(), [Serial(0)]);
    assert_eq!(ledger.first_answer(user(1), request(100)).unwrap(), Some(won(&rain, 100, 0)));
    assert_eq!(ledger.first_answer(user(2), request(100)).unwrap(), None);
}

#[test]
fn a_limit_holds_inside_one_batch_and_a_repeat_at_the_limit_still_gets_its_answer() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(10, Some(2)), 5).unwrap();
    let batch: Vec<Posting> = (0..4).map(|n| claim(&rain, 1, 10 + n, n)).collect();
    let limit = Outcome::LimitReached { limit: 2 };
    let (zero, one) = (won(&rain, 10, 0), won(&rain, 11, 1));
    assert_eq!(ledger.post(&batch, 6).unwrap(), [Outcome::Won(zero), Outcome::Won(one), limit, limit]);
    let later = [claim(&rain, 1, 10, 5), claim(&rain, 1, 12, 5), claim(&rain, 1, 13, 1), claim(&rain, 2, 12, 5)];
    let expected = [Outcome::Repeated(zero), limit, Outcome::Taken, Outcome::Won(won(&rain, 12, 5))];
    assert_eq!(ledger.post(&later, 7).unwrap(), expected);
}

#[test]
fn one_impossible_claim_does_not_fail_the_others_of_its_batch() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(3, None), 5).unwrap();
    let over = ledger.create_campaign(terms(3, None), 5).unwrap();
    ledger.post(&[claim(&over, 7, 70, 0)], 5).unwrap();
    ledger.settle_campaign(over.id, 6).unwrap();
    let unknown = Campaign { id: CampaignId::new(99).unwrap(), ..rain.clone() };
    let dear = Posting::Claim(Claim { amount: Fen(501), ..claim_of(&rain, 1, 3, 1) });
    let batch = [
        claim(&unknown, 1, 1, 0),
        claim(&rain, 1, 2, 3),
        claim(&rain, 1, 2, u64::MAX),
        dear,
        claim(&over, 1, 4, 1),
        claim(&over, 7, 70, 1),
        acknowledge(1, &[(rain.id, u64::MAX)]),
        claim(&rain, 1, 5, 2),
    ];
    let expected = [
        Outcome::Refused(Refusal::NoSuchCampaign),
        Outcome::Refused(Refusal::NoSuchSerial),
        Outcome::Refused(Refusal::NoSuchSerial),
        Outcome::Refused(Refusal::WrongAmount),
        Outcome::Refused(Refusal::Settled),
        Outcome::Repeated(won(&over, 70, 0)),
        Outcome::Acknowledged { count: 0 },
        Outcome::Won(won(&rain, 5, 2)),
    ];
    assert_eq!(ledger.post(&batch, 7).unwrap(), expected);
}

#[test]
fn wins_are_recalled_oldest_first_until_their_user_acknowledges_them() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let many = u64::try_from(RECALLED_WINS_MAX).unwrap() + 10;
    let rain = ledger.create_campaign(terms(many, None), 5).unwrap();
    // Request ids run backwards: what is oldest is for the books to say, not for the client.
    let batch: Vec<Posting> = (0..many).map(|n| claim(&rain, 1, 1_000 - n, n)).collect();
    ledger.post(&batch, 6).unwrap();
    let told: Vec<u64> = ledger.recall(user(1)).unwrap().unacknowledged.iter().map(|win| win.serial.0).collect();
    assert_eq!(told, (0..many - 10).collect::<Vec<u64>>());

    let mine = [(rain.id, 0), (rain.id, 0), (rain.id, 1), (rain.id, many)];
    let outcomes = ledger.post(&[acknowledge(2, &mine), acknowledge(1, &mine), acknowledge(1, &mine)], 7).unwrap();
    assert_eq!(outcomes, [0, 2, 2].map(|count| Outcome::Acknowledged { count }));
    let recall = ledger.recall(user(1)).unwrap();
    assert_eq!((recall.unacknowledged[0].serial, recall.last_request), (Serial(2), Some(request(1_000))));
    assert_eq!(ledger.recall(user(2)).unwrap(), Recall::default());
}

#[test]
fn a_settled_campaign_gives_back_what_is_left_and_stopping_or_settling_twice_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(10, None), 5).unwrap();
    let dry = ledger.create_campaign(terms(1, None), 5).unwrap();
    ledger.post(&[claim(&rain, 1, 1, 4), claim(&dry, 1, 2, 0)], 6).unwrap();
    assert_eq!(ledger.stop_campaign(rain.id, 7).unwrap().stopped_at, Some(7));
    assert_eq!(ledger.stop_campaign(rain.id, 8).unwrap().stopped_at, Some(7));
    let refunded = rain.terms.total_amount().checked_sub(rain.terms.amount(Serial(4))).unwrap();
    for now in [9, 10] {
        let settled = ledger.settle_campaign(rain.id, now).unwrap();
        assert_eq!(settled.settlement, Some(Settlement { settled_at: 9, refunded }));
    }
    let settled = ledger.settle_campaign(dry.id, 9).unwrap();
    assert_eq!(settled.settlement, Some(Settlement { settled_at: 9, refunded: Fen::ZERO }));
    let nobody = CampaignId::new(9).unwrap();
    assert!(matches!(ledger.stop_campaign(nobody, 9), Err(LedgerError::NoSuchCampaign(id)) if id == nobody));
    assert!(matches!(ledger.settle_campaign(nobody, 9), Err(LedgerError::NoSuchCampaign(_))));
    assert!(matches!(ledger.claimed_serials(nobody), Err(LedgerError::NoSuchCampaign(_))));
    let report = audit(&path).unwrap();
    assert!(report.is_balanced(), "{report}");
    assert_eq!(report.refunded_fen, i128::from(refunded.0));
}

#[test]
fn bad_terms_are_refused_and_so_is_more_money_than_the_books_can_hold() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    assert!(matches!(ledger.create_campaign(terms(0, None), 5), Err(LedgerError::BadTerms(_))));
    let mut vast = terms(1, None);
    vast.amounts.min = Fen(u64::MAX / 2);
    vast.amounts.max = vast.amounts.min;
    let first = ledger.create_campaign(vast.clone(), 5).unwrap();
    let refusal = ledger.create_campaign(vast, 5).unwrap_err();
    assert!(matches!(&refusal, LedgerError::BadTerms(why) if why.contains("together")), "{refusal}");
    assert_eq!(ledger.campaigns().unwrap().len(), 1);
    assert_eq!(ledger.post(&[claim(&first, 1, 1, 0)], 6).unwrap(), [Outcome::Won(won(&first, 1, 0))]);
}

#[derive(Debug, Clone)]
enum Step {
    Claim { user: u64, request: u64, campaign: usize, serial: u64 },
    Acknowledge { user: u64, prizes: Vec<(usize, u64)> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..5u64, 1..12u64, 0..3usize, 0..14u64)
            .prop_map(|(user, request, campaign, serial)| Step::Claim { user, request, campaign, serial }),
        1 => (1..5u64, prop::collection::vec((0..3usize, 0..14u64), 0..6))
            .prop_map(|(user, prizes)| Step::Acknowledge { user, prizes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn batches_answer_as_one_posting_at_a_time_would_and_a_reopened_ledger_knows_the_same(
        batches in prop::collection::vec(prop::collection::vec(step(), 0..24), 1..6),
        settle_before in 0..8usize,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let mut ledger = SqliteLedger::open(&path).unwrap();
        let mut model = Model::default();
        for (total, limit) in [(12, None), (12, Some(2)), (5, Some(1))] {
            model.campaigns.push(ledger.create_campaign(terms(total, limit), 1).unwrap());
        }
        for (n, batch) in batches.iter().enumerate() {
            if n == settle_before {
                model.campaigns[0] = ledger.settle_campaign(model.campaigns[0].id, 2).unwrap();
            }
            let postings: Vec<Posting> = batch.iter().map(|step| match step {
                Step::Claim { user, request, campaign, serial } => claim(&model.campaigns[*campaign], *user, *request, *serial),
                Step::Acknowledge { user, prizes } => {
                    let prizes: Vec<_> = prizes.iter().map(|(c, serial)| (model.campaigns[*c].id, *serial)).collect();
                    acknowledge(*user, &prizes)
                }
            }).collect();
            let expected: Vec<Outcome> = postings.iter().map(|posting| model.post(posting)).collect();
            prop_assert_eq!(ledger.post(&postings, 3).unwrap(), expected);
        }
        for round in 0..2 {
            for n in 1..6 {
                prop_assert_eq!(ledger.recall(user(n)).unwrap(), model.recall(user(n)));
                for r in 1..12 {
                    prop_assert_eq!(ledger.first_answer(user(n), request(r)).unwrap(), model.first_answer(user(n), request(r)));
                }
            }
            let paid = Fen(model.wins.iter().map(|(_, win, _)| win.amount.0).sum());
            prop_assert_eq!(ledger.totals().unwrap(), Totals { won: model.wins.len() as u64, paid });
            for campaign in ledger.campaigns().unwrap() {
                let mut serials: Vec<Serial> =
                    model.wins.iter().filter(|(_, win, _)| win.campaign == campaign.id).map(|(_, win, _)| win.serial).collect();
                serials.sort();
                prop_assert_eq!(campaign.won, serials.len() as u64);
                prop_assert_eq!(ledger.claimed_serials(campaign.id).unwrap(), serials);
            }
            let campaigns = ledger.campaigns().unwrap();
            let report = audit(&path).unwrap();
            prop_assert!(report.is_balanced(), "{}", report);
            prop_assert_eq!(report.wins, model.wins.len() as u64);
            if round == 0 {
                drop(ledger);
                ledger = SqliteLedger::open(&path).unwrap();
                prop_assert_eq!(ledger.campaigns().unwrap(), campaigns);
            }
        }
    }
}
