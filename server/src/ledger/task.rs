//! What operators and the node's own parts ask of the ledger: a closed list, each with the way back
//! of its own answer. Only what stands here runs on the ledger's thread.

use hongbao_proto::{CampaignId, EnvelopeId, OrderId, UserId};
use tokio::sync::oneshot;

use super::{Answer, EnvelopeView, Expired, Ledger, LedgerError, Page, Posting, PostingResult, Question, facts};
use crate::clock::UnixMs;
use crate::market::campaign::{Campaign, CampaignTerms};
use crate::market::order::Order;

/// Where the result of a task goes. The asker may have given up, which nobody minds.
pub type TaskReply<R> = oneshot::Sender<Result<R, LedgerError>>;

/// Where it is awaited; an error says that the ledger has ended without it.
pub type TaskResult<R> = oneshot::Receiver<Result<R, LedgerError>>;

/// A task for the ledger's thread, done once all that was queued before is durable. It holds up
/// everybody.
#[derive(Debug)]
pub enum LedgerTask {
    /// See [`CampaignChange`]; the campaign as it stands then.
    ChangeCampaign { change: CampaignChange, now: UnixMs, reply: TaskReply<Campaign> },
    /// See [`Ledger::campaigns`].
    Campaigns { reply: TaskReply<Vec<Campaign>> },
    /// See [`Ledger::orders_of`].
    OrdersOf { campaign: CampaignId, before: Option<OrderId>, limit: u32, reply: TaskReply<Page<Order>> },
    /// See [`Ledger::envelope`]; one for each, in order.
    Envelopes { ids: Vec<EnvelopeId>, reply: TaskReply<Vec<Option<EnvelopeView>>> },
    /// See [`Ledger::ask`].
    Ask { user: UserId, question: Question, reply: TaskReply<Answer> },
    /// See [`Ledger::post`].
    Post { postings: Vec<Posting>, now: UnixMs, reply: TaskReply<Vec<PostingResult>> },
    /// Posts [`Posting::Expire`] if anything is due.
    ExpireDue { now: UnixMs, reply: TaskReply<Box<Expired>> },
    /// Shows that the thread works: see [`super::writer::LedgerCounts::tasks`].
    Ping,
}

#[derive(Debug)]
pub enum CampaignChange {
    /// See [`Ledger::create_campaign`].
    Create(Box<CampaignTerms>),
    /// See [`Ledger::stop_campaign`].
    Stop(CampaignId),
    /// See [`Ledger::settle_campaign`].
    Settle(CampaignId),
}

impl LedgerTask {
    pub(super) fn run(self, ledger: &mut dyn Ledger) {
        match self {
            LedgerTask::ChangeCampaign { change, now, reply } => {
                let changed = match change {
                    CampaignChange::Create(terms) => ledger.create_campaign(*terms, now),
                    CampaignChange::Stop(id) => ledger.stop_campaign(id, now),
                    CampaignChange::Settle(id) => ledger.settle_campaign(id, now),
                };
                reply.send(changed).ok();
            }
            LedgerTask::Campaigns { reply } => drop(reply.send(ledger.campaigns())),
            LedgerTask::OrdersOf { campaign, before, limit, reply } => {
                reply.send(ledger.orders_of(campaign, before, limit)).ok();
            }
            LedgerTask::Envelopes { ids, reply } => {
                reply.send(ids.into_iter().map(|id| ledger.envelope(id)).collect()).ok();
            }
            LedgerTask::Ask { user, question, reply } => drop(reply.send(ledger.ask(user, &question))),
            LedgerTask::Post { postings, now, reply } => drop(reply.send(facts::post(ledger, &postings, now))),
            LedgerTask::ExpireDue { now, reply } => drop(reply.send(expire_due(ledger, now))),
            LedgerTask::Ping => {}
        }
    }
}

fn expire_due(ledger: &mut dyn Ledger, now: UnixMs) -> Result<Box<Expired>, LedgerError> {
    match ledger.next_due() {
        Some(due) if due <= now => only(facts::post(ledger, &[Posting::Expire], now)?),
        next_due => Ok(Box::new(Expired { next_due, ..Expired::default() })),
    }
}

/// The results of postings of one kind, as those of that kind.
pub(super) fn typed<R: TryFrom<PostingResult>>(results: Vec<PostingResult>) -> Result<Vec<R>, LedgerError> {
    results.into_iter().map(|result| R::try_from(result).map_err(|_| mismatched::<R>())).collect()
}

pub(super) fn only<R: TryFrom<PostingResult>>(results: Vec<PostingResult>) -> Result<R, LedgerError> {
    typed(results)?.pop().ok_or_else(mismatched::<R>)
}

/// A reply of another kind than the request is never seen, and never passed over in silence.
pub fn log_mismatch(expected: &'static str) {
    tracing::error!(event = "ledger_mismatched", expected, "the ledger's reply is of another kind than the request");
}

pub(super) fn mismatched<R>() -> LedgerError {
    log_mismatch(std::any::type_name::<R>());
    LedgerError::Mismatched
}
