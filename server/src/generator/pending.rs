//! What the generator has asked of the ledger and has no result of yet.

use std::pin::Pin;
use std::task::{Context, Poll};

use hongbao_proto::CampaignId;

use crate::generator::Reply;
use crate::ledger::LedgerError;
use crate::ledger::task::TaskResult;
use crate::limits::GENERATOR_QUEUE_MAX;
use crate::market::campaign::Campaign;

/// What is being done to a campaign.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Create,
    Stop,
    Settle(CampaignId),
}

/// A change with the way to it, and the operator who asked for it, if one did.
#[derive(Debug)]
struct PendingChange {
    change: Change,
    result: TaskResult<Campaign>,
    reply: Option<Reply>,
}

#[derive(Debug)]
pub enum LedgerResult {
    Changed(Change, Box<Result<Campaign, LedgerError>>, Option<Reply>),
    /// Every campaign as it stands.
    Campaigns(Result<Vec<Campaign>, LedgerError>),
}

#[derive(Debug, Default)]
pub struct PendingTasks {
    /// At most [`GENERATOR_QUEUE_MAX`].
    changes: Vec<PendingChange>,
    campaigns: Option<TaskResult<Vec<Campaign>>>,
}

impl PendingTasks {
    pub fn has_room(&self) -> bool {
        self.changes.len() < GENERATOR_QUEUE_MAX
    }

    pub fn push(&mut self, change: Change, result: TaskResult<Campaign>, reply: Option<Reply>) {
        self.changes.push(PendingChange { change, result, reply });
    }

    pub fn awaits_campaigns(&self) -> bool {
        self.campaigns.is_some()
    }

    pub fn await_campaigns(&mut self, result: Option<TaskResult<Vec<Campaign>>>) {
        self.campaigns = result;
    }

    /// The next result, each once. A ledger that has ended is one too.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<LedgerResult> {
        for index in 0..self.changes.len() {
            if let Poll::Ready(result) = poll_task(&mut self.changes[index].result, context) {
                let PendingChange { change, reply, .. } = self.changes.remove(index);
                return Poll::Ready(LedgerResult::Changed(change, Box::new(result), reply));
            }
        }
        if let Some(campaigns) = &mut self.campaigns
            && let Poll::Ready(result) = poll_task(campaigns, context)
        {
            self.campaigns = None;
            return Poll::Ready(LedgerResult::Campaigns(result));
        }
        Poll::Pending
    }
}

fn poll_task<R>(result: &mut TaskResult<R>, context: &mut Context<'_>) -> Poll<Result<R, LedgerError>> {
    Pin::new(result).poll(context).map(|result| result.unwrap_or(Err(LedgerError::Stopped)))
}
