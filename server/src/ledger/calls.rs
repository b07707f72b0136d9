//! What operators and the node's own parts ask of the ledger, each awaited until it is answered.

use hongbao_proto::UserId;
use tokio::sync::oneshot;

use super::task::{LedgerTask, TaskReply, TaskResult, mismatched, only, typed};
use super::writer::{LedgerHandle, ReplyTo, WriterRequest};
use super::{Answer, LedgerError, Posting, PostingResult, Question};
use crate::clock::UnixMs;

impl<T: ReplyTo> LedgerHandle<T> {
    /// See [`super::Ledger::ask`]; `A` is the question's answer.
    pub async fn ask<A: TryFrom<Answer>>(&self, user: UserId, question: Question) -> Result<A, LedgerError> {
        let answer = self.run(|reply| LedgerTask::Ask { user, question, reply }).await?;
        A::try_from(answer).map_err(|_| mismatched::<A>())
    }

    /// Posts what is no user's request; `R` is what becomes of postings of their kind.
    pub async fn post<R: TryFrom<PostingResult>>(
        &self,
        postings: Vec<Posting>,
        now: UnixMs,
    ) -> Result<Vec<R>, LedgerError> {
        typed(self.run(|reply| LedgerTask::Post { postings, now, reply }).await?)
    }

    /// As [`LedgerHandle::post`], of one.
    pub async fn post_one<R: TryFrom<PostingResult>>(&self, posting: Posting, now: UnixMs) -> Result<R, LedgerError> {
        only(self.run(|reply| LedgerTask::Post { postings: vec![posting], now, reply }).await?)
    }

    /// Queues a task, if there is room: where its result will be.
    pub fn try_task<R>(&self, task: impl FnOnce(TaskReply<R>) -> LedgerTask) -> Option<TaskResult<R>> {
        let place = self.try_reserve()?;
        let (reply, result) = oneshot::channel();
        place.send(WriterRequest::Task(task(reply)));
        Some(result)
    }

    /// Has a task done, and waits for its result.
    pub async fn run<R>(&self, task: impl FnOnce(TaskReply<R>) -> LedgerTask) -> Result<R, LedgerError> {
        let (reply, result) = oneshot::channel();
        self.send(WriterRequest::Task(task(reply))).await.map_err(|_| LedgerError::Stopped)?;
        result.await.map_err(|_| LedgerError::Stopped)?
    }
}
