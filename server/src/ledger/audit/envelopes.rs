//! Envelopes beside their entries and the shares that were opened, each drawn again from the seed.

use std::collections::HashSet;

use hongbao_proto::UserId;
use rusqlite::Row;

use super::{Audit, Checked};
use crate::ledger::audit::campaigns::draw;
use crate::ledger::audit::entries::{COLUMNS, EntryRow};
use crate::ledger::audit::stream::Stream;
use crate::ledger::books::{AccountId, Kind};
use crate::ledger::schema::code;
use crate::ledger::sqlite::Rows;

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

impl EnvelopeRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (id, sent_at, sender, request, total, shares, mode, seed, expires_at, recipients, told) = row.try_into()?;
        let closed = row.get::<_, Option<i64>>(11)?.zip(row.get(12)?);
        Ok(Self { id, sent_at, sender, request, total, shares, mode, seed, expires_at, recipients, told, closed })
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

impl Opening {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (envelope, share, user, amount, at) = row.try_into()?;
        Ok(Self { envelope, share, user, amount, at })
    }
}

/// Which envelope an entry of one is of.
fn envelope_of(entry: &EntryRow) -> i64 {
    ACCOUNTS.wrapping_sub(if entry.kind == Kind::Send.code() { entry.credit } else { entry.debit })
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
        let mut envelopes = Stream::new(envelopes.query([])?, EnvelopeRow::read, |envelope| envelope.id)?;
        let mut openings = Stream::new(openings.query([])?, Opening::read, |opening| opening.envelope)?;
        let mut steps = Stream::new(steps.query([])?, EntryRow::read, envelope_of)?;
        while let Some(id) = [envelopes.key(), openings.key(), steps.key()].into_iter().flatten().min() {
            let (rows, openings, steps) = (envelopes.take(id)?, openings.take(id)?, steps.take(id)?);
            let place = format_args!("envelope {id}");
            self.report.expect(rows.len() <= 1, "unique", place, || "is there more than once");
            if let Some(envelope) = rows.first() {
                self.envelope(envelope, &openings, &steps);
            } else {
                let entries: Vec<i64> = steps.iter().map(|step| step.id).collect();
                let detail =
                    format_args!("does not exist; {} openings and entries {entries:?} are of it", openings.len());
                self.report.find("envelope", place, detail);
            }
        }
        let repeats = "SELECT sender, request, count(*) FROM envelopes NOT INDEXED GROUP BY +sender, +request HAVING count(*) > 1";
        Rows(self.connection).each(repeats, |row| {
            let (sender, request, count): (i64, i64, i64) = row.try_into()?;
            let place = format_args!("user {sender} request {request}");
            self.report.find("unique", place, format_args!("has sent {count} envelopes"));
            Ok(())
        })
    }

    fn envelope(&mut self, envelope: &EnvelopeRow, openings: &[Opening], steps: &[EntryRow]) {
        self.report.envelopes += 1;
        let drawn = shares(envelope);
        let place = format_args!("envelope {}", envelope.id);
        self.report.expect(
            drawn.iter().all(|share| *share >= 1) && drawn.iter().sum::<i64>() == envelope.total,
            "envelope",
            place,
            || format!("its shares {drawn:?} are not at least a fen each, or not {} together", envelope.total),
        );
        let EnvelopeRow { mode, request, sent_at, expires_at, .. } = *envelope;
        let can_be = [code::RANDOM, code::EQUAL].contains(&mode) && request > 0 && expires_at > sent_at;
        self.report
            .expect(can_be, "envelope", place, || format!("mode {mode}, request {request}, expires at {expires_at}"));
        let (recipients, rest) = envelope.recipients.as_chunks::<8>();
        let recipients: Vec<u64> = recipients.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let are_users = rest.is_empty() && recipients.iter().all(|user| UserId::new(*user).is_ok());
        self.report.expect(
            are_users && recipients.is_sorted_by(|a, b| a < b),
            "envelope",
            place,
            || "its recipients are not ascending users",
        );
        let mut openers = HashSet::new();
        for (n, opening) in (0..).zip(openings) {
            let share = opening.share;
            self.report
                .expect(share == n, "envelope", place, || format!("share {share} was opened where {n} was next"));
            let amount = usize::try_from(share).ok().and_then(|share| drawn.get(share));
            self.report.expect(amount == Some(&opening.amount), "envelope", place, || {
                format!("share {share} of {} fen was drawn as {amount:?}", opening.amount)
            });
            let is_theirs = u64::try_from(opening.user).is_ok_and(|user| recipients.binary_search(&user).is_ok());
            self.report.expect(is_theirs, "envelope", place, || {
                format!("share {share} was opened by user {}, no recipient", opening.user)
            });
            self.report.expect(openers.insert(opening.user), "envelope", place, || {
                format!("user {} has opened two shares", opening.user)
            });
            self.report.expect(opening.at < expires_at, "envelope", place, || {
                format!("share {share} was opened at {}; it expired at {expires_at}", opening.at)
            });
        }

        let opened: i128 = openings.iter().map(|opening| i128::from(opening.amount)).sum();
        let left = i128::from(envelope.total) - opened;
        let is_empty = openings.len() as u64 == envelope.shares.unsigned_abs();
        match (envelope.closed, &envelope.told) {
            (Some(_), Some(_)) | (None, None) => {
                self.report.find("envelope", place, "must be either open or closed");
            }
            (None, Some(told)) => {
                self.report.expect(!is_empty, "envelope", place, || "all its shares are opened, and it is open");
                let bits = recipients.len();
                let words = bits.div_ceil(64);
                let beyond = told
                    .iter()
                    .enumerate()
                    .any(|(byte, value)| (0..8).any(|bit| byte * 8 + bit >= bits && value >> bit & 1 == 1));
                self.report.expect(told.len() == words * 8 && !beyond, "envelope", place, || {
                    format!("{} bytes of bits for {bits} recipients", told.len())
                });
            }
            (Some((at, refunded)), None) => {
                let last = openings.last().map(|opening| opening.at);
                let fits = if is_empty { last == Some(at) } else { at >= expires_at };
                self.report.expect(i128::from(refunded) == left && fits, "envelope", place, || {
                    format!(
                        "closed at {at} with {refunded} fen given back; {left} were left, it expired at {expires_at}"
                    )
                });
            }
        }
        let inside = self.accounts.get(&(ACCOUNTS - envelope.id)).map_or(0, |account| account.balance);
        let should = if envelope.closed.is_some() { 0 } else { left };
        self.report.expect(inside == should, "envelope", place, || {
            format!("its account holds {inside} fen; {should} should be left")
        });
        self.check_steps(envelope, openings, steps);
    }

    /// The entries are the sending, the openings in their order, and the return of the rest; the
    /// first of them may be archived.
    fn check_steps(&mut self, envelope: &EnvelopeRow, openings: &[Opening], steps: &[EntryRow]) {
        let place = format_args!("envelope {}", envelope.id);
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
        let (there, should) = (steps.len(), expected.len());
        let cut = should.saturating_sub(there);
        let may_be_cut = envelope.id <= self.progress.archived_envelopes && there > 0;
        let fits = there == should || (there < should && may_be_cut);
        self.report.expect(fits, "envelope", place, || format!("has {there} entries; {should} should be there"));
        if there < should && !may_be_cut {
            return;
        }
        for (entry, (kind, at, debit, credit, amount, item, request)) in steps.iter().zip(&expected[cut..]) {
            let is = (entry.kind, entry.at, entry.debit, entry.credit, entry.amount, entry.item, entry.request);
            let should = (kind.code(), *at, *debit, *credit, *amount, *item, *request);
            self.report.expect(is == should, "envelope", place, || {
                format!(
                    "entry {} (kind, at, debit, credit, amount, item, request) is {is:?}; it should be {should:?}",
                    entry.id
                )
            });
        }
    }
}
