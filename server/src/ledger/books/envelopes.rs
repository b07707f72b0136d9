//! Group envelopes: sent, opened, expired.

use std::sync::Arc;

use hongbao_proto::{EnvelopeId, Fen, UserId};

use super::undo::replace;
use super::{AccountId, Batch, Books, Due, Envelope, Kind, Opening, Store, Undo};
use crate::ledger::{LedgerError, OpenResult, SendResult};
use crate::limits;
use crate::market::envelope::{NewEnvelope, Offer, share};

impl<S: Store> Batch<'_, S> {
    pub(super) fn send(&mut self, new: &NewEnvelope) -> Result<SendResult, LedgerError> {
        let wallet = new.sender.map(AccountId::user);
        if let Some(earlier) = self.store.sent(new.sender, new.request)? {
            let envelope = self.books.find_envelope(earlier, self.store)?;
            let envelope = envelope.ok_or_else(|| LedgerError::Corrupt(format!("envelope {earlier} is missing")))?;
            return Ok(self.sent(&envelope, Arc::new([]), wallet));
        }
        match wallet {
            Some(wallet) if self.books.balance(wallet) < new.total => return Ok(SendResult::InsufficientFunds),
            None if !self.books.treasury_can_give(new.total.0.into()) => return Ok(SendResult::TooMuch),
            _ => {}
        }
        let recipients = new.recipients.len() as u64;
        let counters = &mut self.books.counters;
        let open_of_sender = new.sender.and_then(|sender| self.books.open_of.get(&sender)).copied().unwrap_or(0);
        if counters.totals.envelopes_open >= limits::ENVELOPES_OPEN_MAX as u64
            || counters.offers_open + recipients > limits::OFFERS_OPEN_MAX
            || open_of_sender >= limits::ENVELOPES_OPEN_PER_USER_MAX
        {
            return Ok(SendResult::TooManyEnvelopes);
        }
        let id = EnvelopeId::new(counters.next_envelope).map_err(|error| LedgerError::Corrupt(error.to_string()))?;
        counters.next_envelope += 1;
        let expires_at = self.now.saturating_add(new.lifetime_ms);
        let offer = Offer {
            envelope: id,
            sender: new.sender,
            room: new.room,
            shares: new.shares,
            mode: new.mode,
            greeting: Arc::from(&*new.greeting),
            expires_at,
        };
        let envelope = Envelope {
            offer: Arc::new(offer),
            request: new.request,
            total: new.total,
            seed: new.seed,
            recipients: Arc::clone(&new.recipients),
            acknowledged: vec![0; Envelope::words(new.recipients.len())].into(),
            opened: Vec::new(),
            left: new.total,
            closed: None,
        };
        self.store.put_envelope(&envelope, self.now)?;
        let ends = (wallet.unwrap_or(AccountId::TREASURY), AccountId::envelope(id));
        self.move_money(Kind::Send, ends, new.total, 0, new.sender.map(|_| new.request))?;
        let sent = self.sent(&envelope, Arc::clone(&new.recipients), wallet);
        let books = &mut *self.books;
        books.undo.push(Undo::Sent(id));
        books.envelopes.insert(id, envelope);
        books.await_due(expires_at, Due::Envelope(id));
        for user in new.recipients.iter() {
            books.offer(*user, id);
        }
        books.count_open(new.sender, |open| open + 1);
        books.counters.offers_open += recipients;
        let totals = &mut books.counters.totals;
        totals.envelopes += 1;
        totals.envelopes_open += 1;
        totals.enclosed.0 += new.total.0;
        Ok(sent)
    }

    fn sent(&self, envelope: &Envelope, to: Arc<[UserId]>, wallet: Option<AccountId>) -> SendResult {
        let balance = wallet.map_or(Fen::ZERO, |wallet| self.books.balance(wallet));
        let recipients = u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX);
        SendResult::Sent { offer: Arc::clone(&envelope.offer), to, recipients, balance }
    }

    pub(super) fn open(&mut self, user: UserId, id: EnvelopeId) -> Result<OpenResult, LedgerError> {
        let Some(envelope) = self.books.find_envelope(id, self.store)? else { return Ok(OpenResult::NoSuchEnvelope) };
        let Some(position) = envelope.position(user) else { return Ok(OpenResult::NoSuchEnvelope) };
        if let Some(number) = envelope.opened.iter().position(|opening| opening.user == user) {
            return Ok(opened(id, number, envelope.opened[number].amount));
        }
        if envelope.is_empty() {
            return Ok(OpenResult::Empty { envelope: id });
        }
        let expires_at = envelope.offer.expires_at;
        if envelope.closed.is_some() || self.now >= expires_at {
            return Ok(OpenResult::TooLate { at: expires_at });
        }

        let number = envelope.opened.len();
        let share_number = u32::try_from(number).map_err(|_| LedgerError::Corrupt("shares".to_owned()))?;
        let amount = share(&envelope.seed, envelope.offer.mode, envelope.left, share_number, envelope.offer.shares);
        let opening = Opening { user, amount, at: self.now };
        self.store.put_opening(id, share_number, &opening)?;
        let ends = (AccountId::envelope(id), AccountId::user(user));
        self.move_money(Kind::Open, ends, amount, share_number.into(), None)?;
        let envelope = self.books.live(id)?;
        let had_acknowledged = envelope.has_acknowledged(position);
        envelope.opened.push(opening);
        envelope.left.0 -= amount.0;
        envelope.set_acknowledged(position, true);
        let is_empty = envelope.is_empty();
        self.books.undo.push(Undo::Opened(id, position, had_acknowledged));
        self.books.withdraw_offer(user, id);
        let totals = &mut self.books.counters.totals;
        totals.opened += 1;
        totals.opened_fen.0 += amount.0;
        totals.enclosed.0 -= amount.0;
        if is_empty {
            self.close(id, Fen::ZERO)?;
        }
        Ok(opened(id, number, amount))
    }

    /// Its time is over: what is left goes back.
    pub(super) fn close_expired(&mut self, id: EnvelopeId) -> Result<(EnvelopeId, Option<UserId>, Fen), LedgerError> {
        let envelope = self.books.live(id)?;
        let (sender, left) = (envelope.offer.sender, envelope.left);
        if left > Fen::ZERO {
            let to = sender.map_or(AccountId::REFUNDS, AccountId::user);
            self.move_money(Kind::Return, (AccountId::envelope(id), to), left, 0, None)?;
        }
        self.close(id, left)?;
        self.books.counters.totals.enclosed.0 -= left.0;
        Ok((id, sender, left))
    }

    /// An envelope can be opened no more. It stays in memory for a while: those who come late ask
    /// for it.
    fn close(&mut self, id: EnvelopeId, refunded: Fen) -> Result<(), LedgerError> {
        self.store.close_envelope(id, self.now, refunded)?;
        let envelope = self.books.live(id)?;
        envelope.closed = Some((self.now, refunded));
        let expires_at = envelope.offer.expires_at;
        let (sender, recipients) = (envelope.offer.sender, envelope.recipients.len());
        let unacknowledged: Vec<_> = envelope.unacknowledged().collect();
        let books = &mut *self.books;
        books.undo.push(Undo::Closed(id));
        books.emptied.push_back(id);
        books.emptied_recipients += recipients;
        books.counters.offers_open -= recipients as u64;
        books.count_open(sender, |open| open.saturating_sub(1));
        books.no_longer_due(expires_at, Due::Envelope(id));
        for user in unacknowledged {
            books.withdraw_offer(user, id);
        }
        books.counters.totals.envelopes_open -= 1;
        Ok(())
    }
}

impl Books {
    /// Changes how many of a user's envelopes can be opened.
    fn count_open(&mut self, sender: Option<UserId>, change: impl FnOnce(u32) -> u32) {
        let Some(sender) = sender else { return };
        let before = self.open_of.get(&sender).copied();
        self.undo.push(Undo::OpenOf(sender, before));
        let open = change(before.unwrap_or(0));
        replace(&mut self.open_of, sender, (open > 0).then_some(open));
    }

    fn live(&mut self, id: EnvelopeId) -> Result<&mut Envelope, LedgerError> {
        self.envelopes.get_mut(&id).ok_or_else(|| LedgerError::Corrupt(format!("envelope {id} is not in memory")))
    }
}

fn opened(envelope: EnvelopeId, number: usize, amount: Fen) -> OpenResult {
    OpenResult::Opened { envelope, share: u32::try_from(number).unwrap_or(u32::MAX), amount }
}
