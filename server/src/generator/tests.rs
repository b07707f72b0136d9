//! The stock keeper with SETs that only listen.

use std::collections::HashSet;

use tokio::sync::oneshot;

use super::*;
use crate::ledger::writer::WriterRequest;
use crate::market::campaign::CampaignTerms;
use crate::market::stock::ShelfBooks;

struct Rig {
    generator: Generator,
    sets: Box<[SetHandle]>,
    queues: Vec<mpsc::Receiver<Message>>,
    ledger: mpsc::Receiver<WriterRequest<ReplyPermit>>,
    now: UnixMs,
}

fn id() -> CampaignId {
    CampaignId::new(1).unwrap()
}

impl Rig {
    fn new(ledger_queue: usize) -> Self {
        Self::with(ledger_queue, false)
    }

    /// Two SETs with users, and an open rain; or two of which one prize each is left.
    fn with(ledger_queue: usize, one_left: bool) -> Self {
        let (sets, queues): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (inbox, queue) = mpsc::channel(64);
                (SetHandle { inbox, tally: Arc::default() }, queue)
            })
            .unzip();
        let sets: Box<[SetHandle]> = sets.into();
        sets.iter().for_each(|set| set.tally.online.set(1));
        let (ledger, requests) = LedgerHandle::open(ledger_queue);
        let campaign = Campaign {
            id: id(),
            created_at: 0,
            terms: CampaignTerms { ends_at: None, ..CampaignTerms::example() },
            stopped_at: None,
            settlement: None,
            won: 0,
            paid: hongbao_proto::Fen::ZERO,
            reserved: 0,
        };
        let (now, total) = (campaign.terms.starts_at, campaign.terms.total);
        let mut second = campaign.clone();
        second.id = CampaignId::new(2).unwrap();
        // Of each rain one prize is left.
        let claimed = |total: u64| (1..total).map(Serial).collect::<Vec<_>>();
        let campaigns = match one_left {
            true => vec![(campaign, claimed(total)), (second, claimed(total))],
            false => vec![(campaign, Vec::new())],
        };
        let generator = Generator::recover(sets.clone(), ledger, campaigns, false, now);
        Self { generator, sets, queues, ledger: requests, now }
    }

    /// A second later, in which users have shaken so often in each SET.
    fn second(&mut self, grabs: [u64; 2]) {
        self.now += 1_000;
        for (set, grabs) in self.sets.iter().zip(grabs) {
            set.tally.grabs.add(grabs);
        }
        self.generator.step(self.now);
    }

    /// A SET says that so many of its prizes are somebody's and the others are still there.
    fn report(&mut self, set: u32, claimed: u64) {
        let supplied = self.generator.campaigns[&id()].in_sets[set as usize].issued_when_asked;
        let books = ShelfBooks { supplied, on_shelf: supplied - claimed, claimed, ..ShelfBooks::default() };
        let round = self.generator.round;
        self.generator.on_report(StockReport::Books { set, round, books: vec![(id(), books)] });
    }

    /// Whether the SET has been asked for what it has.
    fn is_called_back(&mut self, set: usize) -> bool {
        let mut called = false;
        while let Ok(message) = self.queues[set].try_recv() {
            called |= matches!(message, Message::Control(Control::GiveBack { .. }));
        }
        called
    }
}

#[test]
fn untaken_prizes_are_recalled_for_users_who_shake_elsewhere() {
    let mut rig = Rig::new(4);
    rig.second([1, 1]);
    for claimed in 1..3 {
        // Here they are taken, there nobody may have more, or all want another rain.
        rig.report(0, claimed);
        rig.report(1, 0);
        rig.second([5, 5]);
    }
    assert!(!rig.is_called_back(0));
    assert!(rig.is_called_back(1));
}

#[test]
fn untaken_prizes_stay_while_nobody_shakes_elsewhere() {
    let mut rig = Rig::new(4);
    rig.second([1, 1]);
    for _ in 0..3 {
        rig.report(0, 0);
        rig.report(1, 0);
        rig.second([5, 0]);
    }
    assert!(!rig.is_called_back(0));
    assert!(rig.is_called_back(1));
}

#[test]
fn the_last_prizes_of_two_rains_that_wander_come_to_every_set() {
    let mut rig = Rig::with(4, true);
    let mut came = HashSet::new();
    for _ in 0..4 {
        rig.second([5, 5]);
        for (set, queue) in (0u32..).zip(&mut rig.queues) {
            while let Ok(message) = queue.try_recv() {
                if let Message::Control(Control::Supply { campaign, serials }) = message {
                    came.insert((campaign, set));
                    // Nobody there may have it.
                    rig.generator.on_report(StockReport::Returned { set, campaign, serials: serials.into() });
                }
            }
        }
    }
    assert_eq!(came.len(), 4, "{came:?}");
}

#[test]
fn a_request_the_ledger_has_no_room_for_is_refused_and_not_done() {
    let mut rig = Rig::new(1);
    let (reply, mut first) = oneshot::channel();
    rig.generator.run_command(Command::Change { change: CampaignChange::Stop(id()), reply }, rig.now);
    let (reply, mut second) = oneshot::channel();
    rig.generator.run_command(Command::Change { change: CampaignChange::Stop(id()), reply }, rig.now);
    assert!(matches!(second.try_recv(), Ok(Err(LedgerError::Unavailable(_)))));
    assert!(matches!(first.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    assert!(!rig.generator.serve_ledger(rig.now));
    assert!(
        matches!(
            rig.ledger.try_recv(),
            Ok(WriterRequest::Task(LedgerTask::ChangeCampaign { change: CampaignChange::Stop(_), .. }))
        ) && rig.ledger.try_recv().is_err()
    );
}
