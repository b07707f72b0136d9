//! Campaigns: their rows, what their entries add up to, and which units are somebody's.

use std::collections::HashMap;

use hongbao_proto::Serial;
use sha2::{Digest, Sha256};

use super::{Audit, Checked};
use crate::ledger::LedgerError;
use crate::ledger::books::Kind;
use crate::ledger::schema::code;
use crate::ledger::sqlite::Rows;

/// Serials of one row of `units`.
const CHUNK: u64 = 8_192;

/// A row of `campaigns`, and what its entries have come to so far.
#[derive(Debug, Default)]
pub struct Campaign {
    kind: i64,
    pub total: i64,
    pub first_entry: i64,
    seed: Vec<u8>,
    limit: Option<i64>,
    amounts: (i64, i64),
    pub price: i64,
    /// As stored: `fund`, `refunded`, `won`, `paid`, `reserved`.
    stored: [i64; 5],
    settled_at: Option<i64>,
    pub hold_ms: i64,

    pub first_seen: Option<(i64, Kind)>,
    pub funded: i128,
    pub given_back: i128,
    pub won: i64,
    pub paid: i128,
    pub reserved: i64,
    pub is_closed: bool,
    pub closed_at: Option<i64>,
    /// Units that are somebody's.
    bits: Vec<u64>,
    /// How many a user holds, where there is a limit.
    held: HashMap<i64, i64>,
}

impl Campaign {
    pub fn is_sale(&self) -> bool {
        self.kind != code::RAIN
    }

    pub fn is_free(&self) -> bool {
        self.price == 0
    }

    /// The serial, if there is such a unit.
    pub fn serial(&self, serial: i64) -> Option<u64> {
        u64::try_from(serial).ok().filter(|_| serial < self.total)
    }

    /// A prize, drawn again: see `campaign::amount_of` for the text of the rule.
    pub fn worth(&self, serial: Serial) -> u64 {
        draw(&self.seed, serial.0, self.amounts.0, self.amounts.1)
    }

    /// Says whose the unit is from now on, and whether it was somebody's until now.
    pub fn set(&mut self, serial: u64, taken: bool) -> bool {
        let word = usize::try_from(serial / 64).unwrap_or(usize::MAX);
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let (word, bit) = (&mut self.bits[word], 1 << (serial % 64));
        let was = *word & bit != 0;
        *word = if taken { *word | bit } else { *word & !bit };
        was
    }

    /// A user holds one more unit, or one less. What it holds and the limit, if that is too many.
    pub fn hold(&mut self, user: i64, taken: bool) -> Option<(i64, i64)> {
        let limit = self.limit?;
        let held = self.held.entry(user).or_default();
        *held += if taken { 1 } else { -1 };
        (*held > limit).then_some((*held, limit))
    }
}

/// `min + (x * (max - min + 1) >> 64)`, x being the first 8 bytes of SHA-256(seed, number), all
/// big-endian.
pub fn draw(seed: &[u8], number: u64, min: i64, max: i64) -> u64 {
    let hash = Sha256::new().chain_update(seed).chain_update(number.to_be_bytes()).finalize();
    let x = hash[..8].iter().fold(0u128, |x, byte| x << 8 | u128::from(*byte));
    let (min, max) = (min.unsigned_abs(), max.unsigned_abs());
    min.saturating_add(u64::try_from((x * (u128::from(max.saturating_sub(min)) + 1)) >> 64).unwrap_or(u64::MAX))
}

impl Audit<'_> {
    pub(super) fn read_campaigns(&mut self) -> Checked {
        let campaigns = "SELECT id, kind, total, first_entry, seed, per_user_limit, ifnull(amount_min, 0),
            ifnull(amount_max, 0), ifnull(price, 0), fund, refunded, won, paid, reserved, settled_at, ifnull(hold_ms, 0)
            FROM campaigns";
        Rows(self.connection).each(campaigns, |row| {
            let campaign = Campaign {
                kind: row.get(1)?,
                total: row.get(2)?,
                first_entry: row.get(3)?,
                seed: row.get(4)?,
                limit: row.get(5)?,
                amounts: (row.get(6)?, row.get(7)?),
                price: row.get(8)?,
                stored: [row.get(9)?, row.get(10)?, row.get(11)?, row.get(12)?, row.get(13)?],
                settled_at: row.get(14)?,
                hold_ms: row.get(15)?,
                ..Campaign::default()
            };
            self.report.campaigns += 1;
            self.campaigns.insert(row.get(0)?, campaign);
            Ok(())
        })?;
        for state in Rows(self.connection).campaigns()? {
            if let Err(refusal) = state.campaign.terms.check() {
                self.report.find("terms", format_args!("campaign {}", state.campaign.id), refusal);
            }
        }
        Ok(())
    }

    pub(super) fn check_campaigns(&mut self) -> Checked {
        let mut units = HashMap::<i64, Vec<(i64, Vec<u8>)>>::new();
        Rows(self.connection).each("SELECT campaign, chunk, bits FROM units", |row| {
            units.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
            Ok(())
        })?;
        let campaigns = std::mem::take(&mut self.campaigns);
        let checked = campaigns.iter().try_for_each(|(id, campaign)| {
            self.sums(*id, campaign);
            self.fund(*id, campaign)?;
            self.units(*id, campaign, &units.remove(id).unwrap_or_default());
            Ok(())
        });
        self.campaigns = campaigns;
        checked
    }

    fn sums(&mut self, id: i64, campaign: &Campaign) {
        let place = format_args!("campaign {id}");
        let [_, _, won, paid, reserved] = campaign.stored;
        let is_archived = campaign.first_entry <= self.progress.archived_through;
        // What was archived of it can only have been more.
        let fits = if is_archived {
            won >= campaign.won && i128::from(paid) >= campaign.paid && reserved == 0
        } else {
            (won, i128::from(paid), reserved) == (campaign.won, campaign.paid, campaign.reserved)
        };
        self.report.expect(fits, "sums", place, || {
            let Campaign { won: of_entries, paid: fen, reserved: waiting, .. } = campaign;
            format!(
                "says {won} won, {paid} fen, {reserved} reserved; its entries say {of_entries}, {fen} fen, {waiting}"
            )
        });
        let (first, begins) = (campaign.first_seen, campaign.first_entry);
        let too_early = first.is_some_and(|(entry, _)| entry < begins);
        let is_funded = campaign.is_sale() || is_archived || first == Some((begins, Kind::Fund));
        self.report.expect(is_funded && !too_early, "campaign", place, || {
            format!("should begin with entry {begins}; its first one is {first:?}")
        });
    }

    fn fund(&mut self, id: i64, campaign: &Campaign) -> Checked {
        let place = format_args!("campaign {id}");
        let [fund, refunded, _, paid, reserved] = campaign.stored.map(i128::from);
        let Campaign { funded, given_back, closed_at, .. } = *campaign;
        let is_archived = campaign.first_entry <= self.progress.archived_through;
        let drawn = self.drawn(campaign)?;
        self.report
            .expect(fund == drawn, "fund", place, || format!("says its prizes are worth {fund} fen; they are {drawn}"));
        self.report.expect(funded == drawn || is_archived, "fund", place, || {
            format!("was given {funded} fen; its prizes are worth {drawn}")
        });
        let holds = self.accounts.get(&id.wrapping_neg()).map_or(0, |account| account.balance);
        let left = if campaign.is_sale() { paid - refunded } else { drawn - paid - refunded };
        self.report.expect(holds == left, "fund", place, || {
            format!("its account holds {holds} fen; {drawn} funded, {paid} paid and {refunded} given back leave {left}")
        });
        if let Some(at) = campaign.settled_at {
            // The closing entry may be archived, or there was nothing to give back.
            let is_recorded = given_back == refunded || (is_archived && given_back == 0);
            let is_over = holds == 0 && reserved == 0 && closed_at.is_none_or(|closed| closed == at);
            self.report.expect(is_over && is_recorded, "fund", place, || {
                format!("settled at {at} with {holds} fen left, {reserved} reserved and {refunded} given back; its entry says {given_back} at {closed_at:?}")
            });
        } else {
            self.report.expect(refunded == 0 && !campaign.is_closed, "fund", place, || {
                format!("{refunded} fen given back, but not settled")
            });
        }
        Ok(())
    }

    /// What all prizes of a campaign are worth: millions of draws.
    fn drawn(&self, campaign: &Campaign) -> Result<i128, LedgerError> {
        let (min, max) = campaign.amounts;
        if campaign.is_sale() {
            return Ok(0);
        }
        if min == max {
            return Ok(i128::from(min) * i128::from(campaign.total));
        }
        let mut drawn = 0;
        for serial in 0..campaign.total.unsigned_abs() {
            if serial % 16_384 == 0 {
                self.on_time()?;
            }
            drawn += i128::from(campaign.worth(Serial(serial)));
        }
        Ok(drawn)
    }

    /// The bits of a campaign that is not settled are the units that its entries say; a settled one
    /// has none.
    fn units(&mut self, id: i64, campaign: &Campaign, chunks: &[(i64, Vec<u8>)]) {
        let place = format_args!("campaign {id}");
        if campaign.settled_at.is_some() {
            self.report.expect(chunks.is_empty(), "units", place, || "is settled and still has units");
            return;
        }
        let mut stored = vec![0u8; campaign.bits.len() * 8];
        for (chunk, bits) in chunks {
            let sized = bits.len() as u64 == CHUNK / 8;
            let start = usize::try_from(*chunk).ok().and_then(|chunk| chunk.checked_mul(bits.len()));
            let Some(start) = start.filter(|_| sized && *chunk <= campaign.total / 8_192) else {
                let bytes = bits.len();
                self.report.find("units", place, format_args!("chunk {chunk} of {bytes} bytes"));
                continue;
            };
            if stored.len() < start + bits.len() {
                stored.resize(start + bits.len(), 0);
            }
            stored[start..start + bits.len()].copy_from_slice(bits);
        }
        let mut computed: Vec<u8> = campaign.bits.iter().flat_map(|word| word.to_le_bytes()).collect();
        computed.resize(stored.len().max(computed.len()), 0);
        stored.resize(computed.len(), 0);
        for (byte, (stored, computed)) in stored.iter().zip(&computed).enumerate() {
            for bit in (0..8).filter(|bit| (stored ^ computed) >> bit & 1 == 1) {
                let serial = byte * 8 + bit;
                let place = format_args!("unit {id}/{serial}");
                let is_marked = stored >> bit & 1 == 1;
                let (says, is) = if is_marked { ("somebody's", "nobody's") } else { ("free", "somebody's") };
                self.report.find("units", place, format_args!("is marked as {says}; it is {is}"));
            }
        }
    }
}
