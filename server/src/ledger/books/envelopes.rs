//! Group envelopes: sent, opened, expired.

use std::sync::Arc;

use hongbao_proto::{EnvelopeId, Fen, UserId};

use super::{AccountId, Books, Due, Envelope, Kind, Opening, Store, Undo};
use crate::clock::UnixMs;
use crate::ledger::{LedgerError, OpenResult, SendResult};
use crate::limits;
use crate::market::envelope::{NewEnvelope, Offer, share};

impl Books {
    pub(super) fn send(
        &mut self,
        new: &NewEnvelope,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<SendResult, LedgerError> {
        let wallet = new.sender.map(AccountId::user);
        if let Some(earlier) = store.sent(new.sender, new.request)? {
            let (offer, recipients) = match self.envelopes.get(&earlier) {
                Some(envelope) => (Arc::clone(&envelope.offer), envelope.recipients.len()),
                None => store
                    .envelope(earlier)?
                    .map(|envelope| (Arc::clone(&envelope.offer), envelope.recipients.len()))
                    .ok_or_else(|| LedgerError::Corrupt(format!("envelope {earlier} is missing")))?,
            };
            return Ok(self.sent(offer, Arc::new([]), recipients, wallet));
        }
        match wallet {
            Some(wallet) if self.balance(wallet) < new.total => return Ok(SendResult::InsufficientFunds),
            None if !self.treasury_can_give(new.total.0.into()) => return Ok(SendResult::TooMuch),
            _ => {}
        }
        let recipients = new.recipients.len() as u64;
        let open_of_sender = new.sender.and_then(|sender| self.open_of.get(&sender)).copied().unwrap_or(0);
        if self.counters.totals.envelopes_open >= limits::ENVELOPES_OPEN_MAX as u64
            || self.counters.offers_open + recipients > limits::OFFERS_OPEN_MAX
            || open_of_sender >= limits::ENVELOPES_OPEN_PER_USER_MAX
        {
            return Ok(SendResult::TooManyEnvelopes);
        }
        let id =
            EnvelopeId::new(self.counters.next_envelope).map_err(|error| LedgerError::Corrupt(error.to_string()))?;
        self.counters.next_envelope += 1;
        let expires_at = now.saturating_add(new.lifetime_ms);
        let offer = Arc::new(Offer {
            envelope: id,
            sender: new.sender,
            room: new.room,
            shares: new.shares,
            mode: new.mode,
            greeting: Arc::from(&*new.greeting),
            expires_at,
        });
        let envelope = Envelope {
            offer: Arc::clone(&offer),
            request: new.request,
            total: new.total,
            seed: new.seed,
            recipients: Arc::clone(&new.recipients),
            acknowledged: vec![0; Envelope::words(new.recipients.len())].into(),
            opened: Vec::new(),
            left: new.total,
            closed: None,
        };
        store.put_envelope(&envelope, now)?;
        let ends = (wallet.unwrap_or(AccountId::TREASURY), AccountId::envelope(id));
        self.move_money(Kind::Send, ends, new.total, 0, new.sender.map(|_| new.request), now, store)?;
        self.undo.push(Undo::Sent(id));
        self.envelopes.insert(id, envelope);
        self.await_due(expires_at, Due::Envelope(id));
        for user in new.recipients.iter() {
            self.offer(*user, id);
        }
        self.count_open(new.sender, |open| open + 1);
        self.counters.offers_open += recipients;
        let totals = &mut self.counters.totals;
        totals.envelopes += 1;
        totals.envelopes_open += 1;
        totals.enclosed.0 += new.total.0;
        Ok(self.sent(offer, Arc::clone(&new.recipients), new.recipients.len(), wallet))
    }

    fn sent(&self, offer: Arc<Offer>, to: Arc<[UserId]>, recipients: usize, wallet: Option<AccountId>) -> SendResult {
        let balance = wallet.map_or(Fen::ZERO, |wallet| self.balance(wallet));
        SendResult::Sent { offer, to, recipients: u32::try_from(recipients).unwrap_or(u32::MAX), balance }
    }

    pub(super) fn open(
        &mut self,
        user: UserId,
        id: EnvelopeId,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<OpenResult, LedgerError> {
        let read;
        let envelope = match self.envelopes.get(&id) {
            Some(envelope) => envelope,
            None if id.get() < self.counters.next_envelope => match store.envelope(id)? {
                Some(envelope) => {
                    read = envelope;
                    &read
                }
                None => return Ok(OpenResult::NoSuchEnvelope),
            },
            None => return Ok(OpenResult::NoSuchEnvelope),
        };
        let Some(position) = envelope.position(user) else { return Ok(OpenResult::NoSuchEnvelope) };
        if let Some(number) = envelope.opened.iter().position(|opening| opening.user == user) {
            return Ok(opened(id, number, envelope.opened[number].amount));
        }
        if envelope.is_empty() {
            return Ok(OpenResult::Empty { envelope: id });
        }
        let expires_at = envelope.offer.expires_at;
        if envelope.closed.is_some() || now >= expires_at {
            return Ok(OpenResult::TooLate { at: expires_at });
        }

        let number = envelope.opened.len();
        let share_number = u32::try_from(number).map_err(|_| LedgerError::Corrupt("shares".to_owned()))?;
        let amount = share(&envelope.seed, envelope.offer.mode, envelope.left, share_number, envelope.offer.shares);
        let opening = Opening { user, amount, at: now };
        store.put_opening(id, share_number, &opening)?;
        let ends = (AccountId::envelope(id), AccountId::user(user));
        self.move_money(Kind::Open, ends, amount, share_number.into(), None, now, store)?;
        let envelope = self.live(id)?;
        let had_acknowledged = envelope.has_acknowledged(position);
        envelope.opened.push(opening);
        envelope.left.0 -= amount.0;
        envelope.set_acknowledged(position, true);
        let is_empty = envelope.is_empty();
        self.undo.push(Undo::Opened(id, position, had_acknowledged));
        self.withdraw_offer(user, id);
        self.counters.totals.opened += 1;
        self.counters.totals.opened_fen.0 += amount.0;
        self.counters.totals.enclosed.0 -= amount.0;
        if is_empty {
            store.close_envelope(id, now, Fen::ZERO)?;
            self.close(id, now, Fen::ZERO)?;
        }
        Ok(opened(id, number, amount))
    }

    /// Its time is over: what is left goes back.
    pub(super) fn close_expired(
        &mut self,
        id: EnvelopeId,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<Option<(EnvelopeId, Option<UserId>, Fen)>, LedgerError> {
        let envelope = self.live(id)?;
        let (sender, left) = (envelope.offer.sender, envelope.left);
        let to = sender.map_or(AccountId::REFUNDS, AccountId::user);
        if left > Fen::ZERO {
            self.move_money(Kind::Return, (AccountId::envelope(id), to), left, 0, None, now, store)?;
        }
        store.close_envelope(id, now, left)?;
        self.close(id, now, left)?;
        self.counters.totals.enclosed.0 -= left.0;
        Ok(Some((id, sender, left)))
    }

    /// An envelope can be opened no more. It stays in memory for a while: those who come late ask
    /// for it.
    fn close(&mut self, id: EnvelopeId, now: UnixMs, refunded: Fen) -> Result<(), LedgerError> {
        let envelope = self.live(id)?;
        envelope.closed = Some((now, refunded));
        let expires_at = envelope.offer.expires_at;
        let (sender, recipients) = (envelope.offer.sender, envelope.recipients.len());
        let unacknowledged: Vec<_> = envelope.unacknowledged().collect();
        self.undo.push(Undo::Closed(id));
        self.emptied.push_back(id);
        self.emptied_recipients += recipients;
        self.counters.offers_open -= recipients as u64;
        self.count_open(sender, |open| open.saturating_sub(1));
        self.no_longer_due(expires_at, Due::Envelope(id));
        for user in unacknowledged {
            self.withdraw_offer(user, id);
        }
        self.counters.totals.envelopes_open -= 1;
        Ok(())
    }

    /// Changes how many of a user's envelopes can be opened.
    fn count_open(&mut self, sender: Option<UserId>, change: impl FnOnce(u32) -> u32) {
        let Some(sender) = sender else { return };
        let before = self.open_of.get(&sender).copied().unwrap_or(0);
        self.undo.push(Undo::OpenOf(sender, before));
        self.set_open_of(sender, change(before));
    }

    pub(super) fn set_open_of(&mut self, sender: UserId, open: u32) {
        if open == 0 {
            self.open_of.remove(&sender);
        } else {
            self.open_of.insert(sender, open);
        }
    }

    fn live(&mut self, id: EnvelopeId) -> Result<&mut Envelope, LedgerError> {
        self.envelopes.get_mut(&id).ok_or_else(|| LedgerError::Corrupt(format!("envelope {id} is not in memory")))
    }
}

fn opened(envelope: EnvelopeId, number: usize, amount: Fen) -> OpenResult {
    OpenResult::Opened { envelope, share: u32::try_from(number).unwrap_or(u32::MAX), amount }
}
