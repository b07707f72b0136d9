//! The real ledger with the plainest one beside it, which is told the same and asked the same; and
//! with faults.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hongbao_proto::{CampaignId, EnvelopeId, OrderId, RequestId, Serial, UserId};
use hongbao_server::clock::UnixMs;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{
    Answer, EnvelopeView, Ledger, LedgerError, Page, Posting, PostingResult, Question, Recall, Totals,
};
use hongbao_server::market::campaign::{Campaign, CampaignTerms};
use hongbao_server::market::order::Order;

use super::model::Model;

/// What happens to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies before it.
    Before,
    /// The process dies with the commit durable, and nobody told.
    After,
    /// The host dies while the log is being written: up to so many 256ths of what is new in it have
    /// reached the disk.
    Torn(u8),
}

/// The state of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Good,
    /// The file may not grow: batches fail in the middle.
    Full,
    /// Nothing can be written.
    Dead,
}

/// What outlives the process: the model, and what is to go wrong.
pub struct Watch {
    pub model: Model,
    pub crash: Option<Crash>,
    /// The process is dead: all that is left is to open the files.
    pub crashed: bool,
    /// After [`Crash::Torn`]: the model and the files as they were before the commit, and how much
    /// of it is there.
    pub torn: Option<(Model, [Vec<u8>; 2], u8)>,
    pub disk: Disk,
    pub path: PathBuf,
    pub differences: Vec<String>,
    /// What users were to be told at logins, and have not heard yet, oldest first.
    pub recalls: BTreeMap<UserId, Vec<Recall>>,
    /// Whose the postings are that the writer holds and has not brought to the ledger, in their
    /// order.
    pub held: VecDeque<Option<UserId>>,
    pub commits: u64,
    pub failed: u64,
}

impl Watch {
    pub fn new(path: PathBuf) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            model: Model::default(),
            crash: None,
            crashed: false,
            torn: None,
            disk: Disk::Good,
            path,
            differences: Vec::new(),
            recalls: BTreeMap::new(),
            held: VecDeque::new(),
            commits: 0,
            failed: 0,
        }))
    }

    fn differ(&mut self, what: String) {
        self.differences.push(what);
    }
}

pub fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file and its log, as they are now.
pub fn files(path: &Path) -> [Vec<u8>; 2] {
    // There is no log before the first commit.
    [path.to_path_buf(), log_of(path)].map(|path| fs::read(path).unwrap_or_default())
}

pub fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

pub struct Watched {
    inner: SqliteLedger,
    disk: Disk,
    watch: Arc<Mutex<Watch>>,
}

fn dead() -> LedgerError {
    LedgerError::Unavailable("simulated".to_owned())
}

impl Watched {
    pub fn new(inner: SqliteLedger, watch: Arc<Mutex<Watch>>) -> Self {
        Self { inner, disk: Disk::Good, watch }
    }

    /// Brings the file's limit up to date; an error while nothing works at all.
    fn try_disk(&mut self) -> Result<(), LedgerError> {
        let (disk, crashed) = {
            let watch = lock(&self.watch);
            (watch.disk, watch.crashed)
        };
        if self.disk != disk && disk != Disk::Dead {
            // SQLite takes the present size where that is above the limit.
            self.inner.limit_pages(if disk == Disk::Full { 1 } else { u32::MAX - 1 })?;
            self.disk = disk;
        }
        if crashed || disk == Disk::Dead { Err(dead()) } else { Ok(()) }
    }

    /// Whether a failure is one of ours.
    fn may_fail(&self) -> bool {
        let watch = lock(&self.watch);
        watch.disk != Disk::Good || watch.crashed
    }

    fn unexpected(&self, what: &str, error: &LedgerError) {
        if !self.may_fail() {
            lock(&self.watch).differ(format!("{what} failed on a good disk: {error}"));
        }
    }
}

impl Ledger for Watched {
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<PostingResult>, LedgerError> {
        {
            // Calls post for themselves, when the writer holds nothing.
            let held = &mut lock(&self.watch).held;
            held.drain(..postings.len().min(held.len()));
        }
        if let Err(error) = self.try_disk() {
            lock(&self.watch).failed += 1;
            return Err(error);
        }
        let crash = lock(&self.watch).crash.take();
        let before = match crash {
            Some(Crash::Before) => {
                lock(&self.watch).crashed = true;
                return Err(dead());
            }
            Some(Crash::Torn(share)) => {
                let watch = lock(&self.watch);
                Some((watch.model.clone(), files(&watch.path), share))
            }
            _ => None,
        };
        let result = self.inner.post(postings, now);
        let watch = &mut *lock(&self.watch);
        match &result {
            Ok(outcomes) => {
                watch.commits += 1;
                for (posting, outcome) in postings.iter().zip(outcomes) {
                    let expected = watch.model.post(posting, now);
                    if expected != *outcome {
                        watch.differ(format!("{posting:?}: the ledger says {outcome:?}, the model {expected:?}"));
                    }
                }
            }
            Err(error) => {
                watch.failed += 1;
                if watch.disk == Disk::Good {
                    watch.differ(format!("a commit failed on a good disk: {error}; {postings:?}"));
                }
            }
        }
        if crash.is_some() {
            watch.crashed = true;
            watch.torn = before;
            return Err(dead());
        }
        result
    }

    fn ask(&mut self, user: UserId, question: &Question) -> Result<Answer, LedgerError> {
        if lock(&self.watch).crashed {
            return Err(dead());
        }
        let answer = self.inner.ask(user, question)?;
        let watch = &mut *lock(&self.watch);
        if watch.held.contains(&Some(user)) {
            watch.differ(format!("user {user}: {question:?} comes ahead of what the user has posted before"));
        }
        let expected = watch.model.ask(user, question);
        if expected != answer {
            watch.differ(format!("user {user}: {question:?}: the ledger says {answer:?}, the model {expected:?}"));
        }
        if let Answer::Recall(recall) = &answer {
            watch.recalls.entry(user).or_default().push(recall.clone());
        }
        Ok(answer)
    }

    fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Result<Campaign, LedgerError> {
        self.try_disk()?;
        let campaign = self.inner.create_campaign(terms.clone(), now);
        match &campaign {
            Ok(campaign) => {
                let watch = &mut *lock(&self.watch);
                let expected = watch.model.create_campaign(terms, now);
                if expected != *campaign {
                    watch.differ(format!("created {campaign:?}, not {expected:?}"));
                }
            }
            Err(error) => self.unexpected("creating a campaign", error),
        }
        campaign
    }

    fn stop_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        self.try_disk()?;
        let campaign = self.inner.stop_campaign(id, now);
        match &campaign {
            Ok(_) => {
                let watch = &mut *lock(&self.watch);
                if let Some(known) = watch.model.campaigns.iter_mut().find(|known| known.id == id) {
                    known.stopped_at.get_or_insert(now);
                }
            }
            Err(error) => self.unexpected("stopping a campaign", error),
        }
        campaign
    }

    fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        self.try_disk()?;
        let campaign = self.inner.settle_campaign(id, now);
        if campaign.is_err() && self.may_fail() {
            return campaign;
        }
        let watch = &mut *lock(&self.watch);
        let expected = watch.model.settle_campaign(id, now);
        if expected.as_ref() != campaign.as_ref().ok() {
            watch.differ(format!("settled {campaign:?}, not {expected:?}"));
        }
        campaign
    }

    fn campaigns(&mut self) -> Result<Vec<Campaign>, LedgerError> {
        let campaigns = self.inner.campaigns()?;
        let watch = &mut *lock(&self.watch);
        if !watch.crashed && campaigns != watch.model.campaigns {
            let expected = format!("{:?}", watch.model.campaigns);
            watch.differ(format!("campaigns {campaigns:?}, not {expected}"));
        }
        Ok(campaigns)
    }

    fn claimed_serials(&mut self, id: CampaignId) -> Result<Vec<Serial>, LedgerError> {
        self.inner.claimed_serials(id)
    }

    fn next_due(&mut self) -> Option<UnixMs> {
        let due = self.inner.next_due();
        let watch = &mut *lock(&self.watch);
        let expected = watch.model.next_due();
        if !watch.crashed && due != expected {
            watch.differ(format!("next due {due:?}, not {expected:?}"));
        }
        due
    }

    fn envelope(&mut self, id: EnvelopeId) -> Result<Option<EnvelopeView>, LedgerError> {
        self.inner.envelope(id)
    }

    fn orders_of(&mut self, id: CampaignId, before: Option<OrderId>, limit: u32) -> Result<Page<Order>, LedgerError> {
        self.inner.orders_of(id, before, limit)
    }

    fn totals(&mut self) -> Result<Totals, LedgerError> {
        self.inner.totals()
    }

    fn probe(&mut self, now: UnixMs) -> Result<(), LedgerError> {
        self.try_disk()?;
        self.inner.probe(now)
    }

    fn checkpoint(&mut self, until: Option<Instant>) -> Result<bool, LedgerError> {
        self.inner.checkpoint(until)
    }
}

/// Everything that can be asked, asked of both: what they say differently.
pub fn compare(ledger: &mut SqliteLedger, model: &Model, users: &[UserId]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut check = |what: &str, found: String, expected: String| {
        if found != expected {
            differences.push(format!("{what}: the ledger says {found}, the model {expected}"));
        }
    };
    check("totals", format!("{:?}", ledger.totals().ok()), format!("{:?}", Some(model.totals())));
    check("campaigns", format!("{:?}", ledger.campaigns().ok()), format!("{:?}", Some(&model.campaigns)));
    check("due", format!("{:?}", ledger.next_due()), format!("{:?}", model.next_due()));
    for campaign in &model.campaigns {
        let (found, expected) = (ledger.claimed_serials(campaign.id).ok(), model.claimed_serials(campaign.id));
        let what = format!("claimed serials of {}", campaign.id);
        check(&what, format!("{found:?}"), format!("{:?}", Some(expected)));
        let (found, expected) = (ledger.orders_of(campaign.id, None, 64).ok(), model.orders_of(campaign.id, None, 64));
        check(&format!("orders of {}", campaign.id), format!("{found:?}"), format!("{:?}", Some(expected)));
    }
    let (_, envelopes) = model.counts();
    for user in users {
        let mut questions = vec![
            Question::Recall,
            Question::Orders { before: None, limit: 64 },
            Question::Statement { before: None, limit: 64 },
        ];
        let last = model.last_request(*user).map_or(0, RequestId::get);
        questions.extend(
            (last.saturating_sub(8)..=last).filter_map(|id| RequestId::new(id).ok()).map(Question::FirstAnswer),
        );
        let oldest = envelopes.saturating_sub(16).max(1);
        questions.extend((oldest..=envelopes).filter_map(|id| EnvelopeId::new(id).ok()).map(Question::Envelope));
        for question in questions {
            let (found, expected) = (ledger.ask(*user, &question).ok(), model.ask(*user, &question));
            check(&format!("user {user}: {question:?}"), format!("{found:?}"), format!("{:?}", Some(expected)));
        }
    }
    differences
}
