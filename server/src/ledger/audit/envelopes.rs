//! Envelopes beside their entries and the shares that were opened, each drawn again from the seed.

use std::collections::HashSet;

use hongbao_proto::UserId;
use rusqlite::Row;

use super::{Audit, Checked};
use crate::ledger::audit::campaigns::draw;
use crate::ledger::audit::entries::{COLUMNS, EntryRow};
use crate::ledger::audit::stream::{Keyed, Stream};
use crate::ledger::books::{AccountId, Kind};
use crate::ledger::schema::code;

/// The account of envelope `n` is this less `n`.
const ACCOUNTS: i64 = -(1 << 41);

/// A row of `envelopes`, with those of `open_envelopes` and `closings`.
#[derive(Debug)]
struct EnvelopeRow {
    id: i64,
    sent_at: i64,
    sender: i64,
    request: i64,
    total: i64,
    shares: i64,
    mode: i64,
    seed: Vec<u8>,
    expires_at: i64,
    recipients: Vec<u8>,
    told: Option<Vec<u8>>,
    closed: Option<(i64, i64)>,
}

impl Keyed for EnvelopeRow {
    fn key(&self) -> i64 {
        self.id
    }
}

impl EnvelopeRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (at, refunded): (Option<i64>, Option<i64>) = (row.get(11)?, row.get(12)?);
        Ok(Self {
            id: row.get(0)?,
            sent_at: row.get(1)?,
            sender: row.get(2)?,
            request: row.get(3)?,
            total: row.get(4)?,
            shares: row.get(5)?,
            mode: row.get(6)?,
            seed: row.get(7)?,
            expires_at: row.get(8)?,
            recipients: row.get(9)?,
            told: row.get(10)?,
            closed: at.zip(refunded),
        })
    }
}

#[derive(Debug)]
struct Opening {
    envelope: i64,
    share: i64,
    user: i64,
    amount: i64,
    at: i64,
}

impl Keyed for Opening {
    fn key(&self) -> i64 {
        self.envelope
    }
}

impl Opening {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { envelope: row.get(0)?, share: row.get(1)?, user: row.get(2)?, amount: row.get(3)?, at: row.get(4)? })
    }
}

struct Step(i64, EntryRow);

impl Keyed for Step {
    fn key(&self) -> i64 {
        self.0
    }
}

impl Step {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let entry = EntryRow::read(row)?;
        let account = if entry.kind == Kind::Send.code() { entry.credit } else { entry.debit };
        Ok(Self(ACCOUNTS.wrapping_sub(account), entry))
    }
}

/// All shares, in the order of opening. Random: uniform over 1 ..= twice the mean of what is left,
/// as drawn from the seed and the number of the share, but at least a fen is left for each later
/// one; the last one is the rest. Equal: what is left, divided by the shares left, rounded up.
fn shares(envelope: &EnvelopeRow) -> Vec<i64> {
    let mut left = envelope.total;
    let mut shares = Vec::new();
    for number in 0..envelope.shares {
        let after = envelope.shares - number - 1;
        let share = if after == 0 {
            left
        } else if envelope.mode == code::EQUAL {
            (left + after) / (after + 1)
        } else {
            let max = (left / (after + 1)).saturating_mul(2).min(left - after);
            i64::try_from(draw(&envelope.seed, number.unsigned_abs(), 1, max)).unwrap_or(i64::MAX)
        };
        left -= share;
        shares.push(share);
    }
    shares
}

impl Audit<'_> {
    pub(super) fn envelopes(&mut self) -> Checked {
        let mut envelopes = self.connection.prepare(
            "SELECT id, sent_at, sender, request, total, shares, mode, seed, expires_at, recipients, told, closings.at_ms,
             refunded FROM envelopes NOT INDEXED LEFT JOIN open_envelopes ON open_envelopes.envelope = id
             LEFT JOIN closings ON closings.envelope = id ORDER BY +id",
        )?;
        let mut openings = self.connection.prepare(
            "SELECT envelope, share, user, amount_fen, at_ms FROM openings NOT INDEXED ORDER BY +envelope, +share",
        )?;
        let mut steps = self.connection.prepare(&format!(
            "SELECT {COLUMNS} FROM entries NOT INDEXED WHERE kind IN (8, 9, 10)
             ORDER BY CASE WHEN kind = 8 THEN credit ELSE debit END DESC, id",
        ))?;
        let mut envelopes = Stream::new(envelopes.query([])?, EnvelopeRow::read)?;
        let mut openings = Stream::new(openings.query([])?, Opening::read)?;
        let mut steps = Stream::new(steps.query([])?, Step::read)?;
        while let Some(id) = [envelopes.key(), openings.key(), steps.key()].into_iter().flatten().min() {
            let (rows, openings, steps) = (envelopes.take(id)?, openings.take(id)?, steps.take(id)?);
            let place = format_args!("envelope {id}");
            if rows.len() > 1 {
                self.report.find("unique", place, "is there more than once");
            }
            match rows.first() {
                Some(envelope) => self.envelope(envelope, &openings, &steps),
                None => {
                    let entries: Vec<i64> = steps.iter().map(|step| step.1.id).collect();
                    let opened = openings.len();
                    self.report.find(
                        "envelope",
                        place,
                        format_args!("does not exist; {opened} openings and entries {entries:?} are of it"),
                    );
                }
            }
        }
        let mut repeats = self.connection.prepare(
            "SELECT sender, request, count(*) FROM envelopes NOT INDEXED GROUP BY +sender, +request HAVING count(*) > 1",
        )?;
        let mut rows = repeats.query([])?;
        while let Some(row) = rows.next()? {
            let (sender, request, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let place = format_args!("user {sender} request {request}");
            self.report.find("unique", place, format_args!("has sent {count} envelopes"));
        }
        Ok(())
    }

    fn envelope(&mut self, envelope: &EnvelopeRow, openings: &[Opening], steps: &[Step]) {
        self.report.envelopes += 1;
        let drawn = shares(envelope);
        let mut wrong = Wrong::default();
        wrong.unless(drawn.iter().all(|share| *share >= 1) && drawn.iter().sum::<i64>() == envelope.total, || {
            format!("its shares {drawn:?} are not at least a fen each, or not {} together", envelope.total)
        });
        wrong.unless(
            [code::RANDOM, code::EQUAL].contains(&envelope.mode)
                && envelope.request > 0
                && envelope.expires_at > envelope.sent_at,
            || format!("mode {}, request {}, expires at {}", envelope.mode, envelope.request, envelope.expires_at),
        );
        let (recipients, rest) = envelope.recipients.as_chunks::<8>();
        let recipients: Vec<u64> = recipients.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        wrong.unless(
            rest.is_empty()
                && recipients.is_sorted_by(|a, b| a < b)
                && recipients.iter().all(|user| UserId::new(*user).is_ok()),
            || "its recipients are not ascending users".to_owned(),
        );
        let mut openers = HashSet::new();
        for (n, opening) in (0..).zip(openings) {
            let share = opening.share;
            wrong.unless(share == n, || format!("share {share} was opened where {n} was next"));
            let amount = usize::try_from(share).ok().and_then(|share| drawn.get(share));
            wrong.unless(amount == Some(&opening.amount), || {
                format!("share {share} of {} fen was drawn as {amount:?}", opening.amount)
            });
            let is_theirs = u64::try_from(opening.user).is_ok_and(|user| recipients.binary_search(&user).is_ok());
            wrong.unless(is_theirs, || format!("share {share} was opened by user {}, no recipient", opening.user));
            wrong.unless(openers.insert(opening.user), || format!("user {} has opened two shares", opening.user));
            wrong.unless(opening.at < envelope.expires_at, || {
                format!("share {share} was opened at {}; it expired at {}", opening.at, envelope.expires_at)
            });
        }

        let opened: i128 = openings.iter().map(|opening| i128::from(opening.amount)).sum();
        let left = i128::from(envelope.total) - opened;
        let is_empty = openings.len() as u64 == envelope.shares.unsigned_abs();
        match (envelope.closed, &envelope.told) {
            (Some(_), Some(_)) | (None, None) => {
                wrong.unless(false, || "must be either open or closed".to_owned());
            }
            (None, Some(told)) => {
                wrong.unless(!is_empty, || "all its shares are opened, and it is open".to_owned());
                let bits = recipients.len();
                let words = bits.div_ceil(64);
                let beyond = told
                    .iter()
                    .enumerate()
                    .any(|(byte, value)| (0..8).any(|bit| byte * 8 + bit >= bits && value >> bit & 1 == 1));
                wrong.unless(told.len() == words * 8 && !beyond, || {
                    format!("{} bytes of bits for {bits} recipients", told.len())
                });
            }
            (Some((at, refunded)), None) => {
                let last = openings.last().map(|opening| opening.at);
                let fits = if is_empty { last == Some(at) } else { at >= envelope.expires_at };
                wrong.unless(i128::from(refunded) == left && fits, || {
                    format!(
                        "closed at {at} with {refunded} fen given back; {left} were left, it expired at {}",
                        envelope.expires_at
                    )
                });
            }
        }
        let inside = self.accounts.get(&(ACCOUNTS - envelope.id)).map_or(0, |account| account.balance);
        let should = if envelope.closed.is_some() { 0 } else { left };
        wrong.unless(inside == should, || format!("its account holds {inside} fen; {should} should be left"));
        self.check_steps(envelope, openings, steps, &mut wrong);
        for what in wrong.0 {
            self.report.find("envelope", format_args!("envelope {}", envelope.id), what);
        }
    }

    /// The entries are the sending, the openings in their order, and the return of the rest; the
    /// first of them may be archived.
    fn check_steps(&self, envelope: &EnvelopeRow, openings: &[Opening], steps: &[Step], wrong: &mut Wrong) {
        let account = ACCOUNTS - envelope.id;
        let wallet = |user: i64, house: AccountId| if user == 0 { house.0 } else { user };
        // (kind, at, debit, credit, amount, item, request)
        let mut expected = vec![(
            Kind::Send,
            envelope.sent_at,
            wallet(envelope.sender, AccountId::TREASURY),
            account,
            envelope.total,
            0,
            (envelope.sender != 0).then_some(envelope.request),
        )];
        for opening in openings {
            expected.push((Kind::Open, opening.at, account, opening.user, opening.amount, opening.share, None));
        }
        if let Some((at, refunded)) = envelope.closed.filter(|(_, refunded)| *refunded != 0) {
            let to = wallet(envelope.sender, AccountId::REFUNDS);
            expected.push((Kind::Return, at, account, to, refunded, 0, None));
        }
        let cut = expected.len().saturating_sub(steps.len());
        if cut > 0 && (envelope.id > self.progress.archived_envelopes || steps.is_empty()) {
            let (there, should) = (steps.len(), expected.len());
            wrong.unless(false, || format!("has {there} entries; {should} should be there"));
            return;
        }
        wrong.unless(steps.len() <= expected.len(), || {
            format!("has {} entries; {} should be there", steps.len(), expected.len())
        });
        for (Step(_, entry), (kind, at, debit, credit, amount, item, request)) in steps.iter().zip(&expected[cut..]) {
            let is = (entry.kind, entry.at, entry.debit, entry.credit, entry.amount, entry.item, entry.request);
            let should = (kind.code(), *at, *debit, *credit, *amount, *item, *request);
            wrong.unless(is == should, || {
                format!(
                    "entry {} (kind, at, debit, credit, amount, item, request) is {is:?}; it should be {should:?}",
                    entry.id
                )
            });
        }
    }
}

#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}
