//! Campaigns as values: what is given away, when, and how much each prize is worth.
//!
//! Everything here is a pure function. The draw above all: its seed is committed to (by SHA-256)
//! before the first prize and published after the last, so that anyone can compute every amount
//! again, in any language, from [`amount_of`]'s text.

use std::fmt;

use hongbao_proto::{CampaignId, Fen, Serial};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::UnixMs;
use crate::limits::{CAMPAIGN_TITLE_CHARS_MAX, CAMPAIGN_TOTAL_MAX, FAIR_WINDOW_MS_MAX, HOLD_MS_MAX};

/// What the amounts of a campaign are drawn with. Secret until no more can be won.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// A fresh seed from the system's randomness.
    pub fn generate() -> Result<Seed, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Seed(bytes))
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Seed> {
        // The crate would take a `0x` before them, too.
        if text.len() == 64 { const_hex::decode_to_array(text).ok().map(Seed) } else { None }
    }

    /// 64 lower-case hexadecimal digits. Gives the secret away: only for a campaign of which nothing
    /// more can be won.
    pub fn to_hex(&self) -> String {
        const_hex::encode(self.0)
    }

    /// The commitment to this seed, SHA-256 of its 32 bytes: published at creation.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// How the amounts of prizes are drawn; both bounds are possible amounts. A fixed amount is `min ==
/// max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    pub min: Fen,
    pub max: Fen,
}

/// What kind of giveaway or sale a campaign is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignKind {
    /// Prizes appear at a steady rate; users shake for them.
    Rain,
    /// Seats of an event: held for whoever grabs one, until paid.
    Ticket,
    /// Vouchers with a face value: free or at a price.
    Coupon,
}

/// What a campaign hands out, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goods {
    /// Money that falls from the sky.
    Rain {
        /// Prizes issued per second, evenly inside the second.
        rate_per_second: u32,
        /// What a prize is worth.
        amounts: Amounts,
    },
    /// Units that are bought.
    Sale(Sale),
}

/// The terms of a sale. Its stock is offered at once, from the start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sale {
    /// [`CampaignKind::Ticket`] or [`CampaignKind::Coupon`].
    pub kind: CampaignKind,
    /// What the buyer pays; nothing: a unit is the buyer's as soon as it is grabbed.
    pub price: Fen,
    /// What a coupon is worth; nothing for tickets.
    pub face_value: Fen,
    /// For how long a grabbed unit waits for its payment, milliseconds.
    pub hold_ms: u64,
    /// The unit may be used from then on, if bounded.
    pub valid_from: Option<UnixMs>,
    /// And no more from then on, if bounded.
    pub valid_until: Option<UnixMs>,
    /// Grabs of the first so many milliseconds are served in an order drawn by lot, not by arrival;
    /// 0: by arrival.
    pub fair_window_ms: u32,
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignTerms {
    pub title: String,
    /// What it hands out.
    pub goods: Goods,
    /// How many units; serials run from 0 to `total - 1`.
    pub total: u64,
    /// Drawn at creation.
    pub seed: Seed,
    /// No unit before this.
    pub starts_at: UnixMs,
    /// No unit at or after this, if set.
    pub ends_at: Option<UnixMs>,
    /// Units that one user may hold, if limited.
    pub per_user_limit: Option<u32>,
}

impl CampaignTerms {
    pub fn kind(&self) -> CampaignKind {
        match self.goods {
            Goods::Rain { .. } => CampaignKind::Rain,
            Goods::Sale(sale) => sale.kind,
        }
    }

    /// The terms of the sale, if it is one.
    pub fn sale(&self) -> Option<&Sale> {
        match &self.goods {
            Goods::Rain { .. } => None,
            Goods::Sale(sale) => Some(sale),
        }
    }

    /// What the prize `serial` is worth, a pure function of seed and serial (see [`amount_of`]); or
    /// a sale's price.
    pub fn amount(&self, serial: Serial) -> Fen {
        match &self.goods {
            Goods::Rain { amounts, .. } => amount_of(&self.seed, *amounts, serial),
            Goods::Sale(sale) => sale.price,
        }
    }

    /// What the campaign's fund must hold: the exact sum of all prizes, by one hash per prize
    /// unless all are worth the same. Nothing for a sale.
    ///
    /// Fits an `i64` for terms that pass [`CampaignTerms::check`]; saturates for others.
    pub fn total_amount(&self) -> Fen {
        match &self.goods {
            Goods::Sale(_) => Fen::ZERO,
            Goods::Rain { amounts, .. } if amounts.min == amounts.max => Fen(self.total.saturating_mul(amounts.min.0)),
            Goods::Rain { .. } => {
                Fen((0..self.total).fold(0, |sum: u64, serial| sum.saturating_add(self.amount(Serial(serial)).0)))
            }
        }
    }

    /// Refuses terms that contradict themselves or exceed a limit, in one line for a person.
    pub fn check(&self) -> Result<(), String> {
        if self.total == 0 || self.total > CAMPAIGN_TOTAL_MAX {
            return Err(format!("total {} is outside 1..={CAMPAIGN_TOTAL_MAX}", self.total));
        }
        let largest = match &self.goods {
            Goods::Rain { rate_per_second: 0, .. } => {
                return Err("rate_per_second 0 would never issue a prize".to_owned());
            }
            Goods::Rain { amounts: Amounts { min, max }, .. } => {
                if *min == Fen::ZERO || min > max {
                    return Err(format!(
                        "amounts {}..={} fen: the smallest must be at least 1 and at most the largest",
                        min.0, max.0
                    ));
                }
                *max
            }
            Goods::Sale(sale) => {
                sale.check()?;
                sale.price.max(sale.face_value)
            }
        };
        if u128::from(self.total) * u128::from(largest.0) > I64_MAX {
            return Err(format!(
                "total {} times the largest amount {} fen exceeds what the books can hold",
                self.total, largest.0
            ));
        }
        if let Some(ends_at) = self.ends_at
            && ends_at <= self.starts_at
        {
            return Err(format!("ends_at {ends_at} is not after starts_at {}", self.starts_at));
        }
        if u128::from(self.starts_at.max(self.ends_at.unwrap_or(0))) > I64_MAX {
            return Err("a time is beyond what the books can hold".to_owned());
        }
        let title_chars = self.title.chars().count();
        if title_chars > CAMPAIGN_TITLE_CHARS_MAX {
            return Err(format!("title has {title_chars} characters; at most {CAMPAIGN_TITLE_CHARS_MAX} are kept"));
        }
        if self.per_user_limit == Some(0) {
            return Err("per_user_limit 0 would let nobody win; leave it out for no limit".to_owned());
        }
        Ok(())
    }
}

impl Sale {
    fn check(&self) -> Result<(), String> {
        match self.kind {
            CampaignKind::Rain => return Err("a rain is no sale".to_owned()),
            CampaignKind::Ticket if self.face_value != Fen::ZERO => {
                return Err("a ticket has no face value; leave face_value_fen out, or sell coupons".to_owned());
            }
            CampaignKind::Ticket | CampaignKind::Coupon => {}
        }
        if self.price != Fen::ZERO && !(1_000..=HOLD_MS_MAX).contains(&self.hold_ms) {
            return Err(format!("hold_ms {} is outside 1000..={HOLD_MS_MAX}", self.hold_ms));
        }
        if let (Some(from), Some(until)) = (self.valid_from, self.valid_until)
            && until <= from
        {
            return Err(format!("valid_until {until} is not after valid_from {from}"));
        }
        if u128::from(self.valid_from.max(self.valid_until).unwrap_or(0)) > I64_MAX {
            return Err("a time is beyond what the books can hold".to_owned());
        }
        if self.fair_window_ms > FAIR_WINDOW_MS_MAX {
            return Err(format!("fair_window_ms {} is above {FAIR_WINDOW_MS_MAX}", self.fair_window_ms));
        }
        Ok(())
    }
}

/// SQL's integers end here.
const I64_MAX: u128 = (1 << 63) - 1;

/// How a campaign ended for good: nothing can be won any more and the rest of its fund has been
/// given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    pub settled_at: UnixMs,
    /// What was left in its fund.
    pub refunded: Fen,
}

/// A campaign as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Its name in requests.
    pub id: CampaignId,
    pub created_at: UnixMs,
    pub terms: CampaignTerms,
    /// Stopped by an operator before its end.
    pub stopped_at: Option<UnixMs>,
    /// Ended for good.
    pub settlement: Option<Settlement>,
    /// Units that are somebody's for good, durable: prizes won, or tickets and coupons paid.
    pub won: u64,
    /// Their money: paid out by a rain, taken in by a sale.
    pub paid: Fen,
    /// Units of a sale that wait for their payment.
    pub reserved: u64,
}

/// The amount of one prize, so that anyone can check a draw with SHA-256 in any language:
///
/// 1. `h` = SHA-256 over 40 bytes: the 32 bytes of the seed, then the serial as 8 bytes,
///    big-endian;
/// 2. `x` = the first 8 bytes of `h` as an unsigned big-endian number;
/// 3. amount = `min + ((x * (max - min + 1)) >> 64)`, in integers wide enough for the product (128
///    bits).
///
/// In Python: `lo + (int.from_bytes(sha256(seed + n.to_bytes(8, "big")).digest()[:8], "big") * (hi
/// - lo + 1) >> 64)`.
///
/// Uniform over `min..=max`, both included, but for a bias below 2^-64 × the width. Requires `min
/// <= max`.
pub fn amount_of(seed: &Seed, amounts: Amounts, serial: Serial) -> Fen {
    let hash = Sha256::new_with_prefix(seed.0).chain_update(serial.0.to_be_bytes()).finalize();
    let x = u64::from_be_bytes(std::array::from_fn(|index| hash[index]));
    let width = u128::from(amounts.max.0.saturating_sub(amounts.min.0)) + 1;
    let offset =
        u64::try_from((u128::from(x) * width) >> 64).expect("x < 2^64, so the product shifted is below the width");
    Fen(amounts.min.0 + offset)
}

#[cfg(test)]
impl CampaignTerms {
    /// What the tests of this crate begin with.
    pub(crate) fn example() -> Self {
        Self {
            title: "rain".to_owned(),
            goods: Goods::Rain { rate_per_second: 10, amounts: Amounts { min: Fen(1), max: Fen(200) } },
            total: 1_000,
            seed: Seed([7; 32]),
            starts_at: 1_000,
            ends_at: Some(2_000),
            per_user_limit: Some(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rain(rate_per_second: u32, min: u64, max: u64) -> Goods {
        Goods::Rain { rate_per_second, amounts: Amounts { min: Fen(min), max: Fen(max) } }
    }

    fn sale(change: impl FnOnce(&mut Sale)) -> Goods {
        let mut sale = Sale {
            kind: CampaignKind::Ticket,
            price: Fen(100),
            face_value: Fen::ZERO,
            hold_ms: 1_000,
            valid_from: None,
            valid_until: None,
            fair_window_ms: 0,
        };
        change(&mut sale);
        Goods::Sale(sale)
    }

    #[test]
    fn a_sale_costs_its_price_and_needs_no_fund() {
        let terms = CampaignTerms { goods: sale(|_| {}), ..CampaignTerms::example() };
        assert_eq!(terms.check(), Ok(()));
        assert_eq!(
            (terms.amount(Serial(7)), terms.total_amount(), terms.kind()),
            (Fen(100), Fen::ZERO, CampaignKind::Ticket)
        );
    }

    /// SHA-256 of one padded block, written from FIPS 180-4: shares nothing with the crate that
    /// `amount_of` uses. Its constants are roots of primes, computed here too.
    fn plain_sha256_of_40_bytes(message: &[u8; 40]) -> [u8; 32] {
        // The first 32 bits of the fraction of prime^(1/power), by bisection over integers.
        fn root_fraction(prime: u128, power: u32) -> u32 {
            let fits = |root: u128| match power {
                2 => root * root <= prime << 64,
                // root < 2^36 here: its cube stays below 2^108, as does prime << 96.
                _ => root * root * root <= prime << 96,
            };
            let (mut low, mut high) = (0u128, 1 << 37);
            while high - low > 1 {
                let middle = (low + high) / 2;
                if fits(middle) { low = middle } else { high = middle }
            }
            u32::try_from(low & 0xffff_ffff).unwrap()
        }
        let primes: Vec<u128> = (2..312u128).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
        let k: Vec<u32> = primes[..64].iter().map(|p| root_fraction(*p, 3)).collect();
        let mut state: Vec<u32> = primes[..8].iter().map(|p| root_fraction(*p, 2)).collect();
        let mut block = [0u8; 64];
        block[..40].copy_from_slice(message);
        block[40] = 0x80;
        block[56..].copy_from_slice(&(40u64 * 8).to_be_bytes());
        let mut w: Vec<u32> = block.chunks(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect();
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w.push(w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1));
        }
        let mut v = state.clone();
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choose = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = v[7].wrapping_add(s1).wrapping_add(choose).wrapping_add(k[i]).wrapping_add(w[i]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let t2 = s0.wrapping_add((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(t2);
        }
        state.iter_mut().zip(v).for_each(|(s, v)| *s = s.wrapping_add(v));
        let bytes: Vec<u8> = state.iter().flat_map(|s| s.to_be_bytes()).collect();
        bytes.try_into().unwrap()
    }

    #[test]
    fn the_draw_is_the_published_one() {
        // Computed with Python's hashlib by the line in the documentation of `amount_of`.
        let amounts = Amounts { min: Fen(1), max: Fen(20_000) };
        let seed = Seed(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let drawn: Vec<u64> = (0..8).map(|n| amount_of(&seed, amounts, Serial(n)).0).collect();
        assert_eq!(drawn, [13269, 7530, 9016, 4377, 9255, 13775, 2208, 17625]);
    }

    #[test]
    fn both_ends_of_the_amounts_are_reached_and_all_between_alike() {
        let amounts = Amounts { min: Fen(11), max: Fen(20) };
        let mut seen = [0u32; 10];
        for n in 0..100_000 {
            seen[usize::try_from(amount_of(&Seed([9; 32]), amounts, Serial(n)).0 - 11).unwrap()] += 1;
        }
        // 10,000 expected with a standard deviation of 95: five of them.
        assert!(seen.iter().all(|count| (9_525..=10_475).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_seed_survives_its_text_and_is_never_shown_by_debug() {
        let seed = Seed::generate().unwrap();
        assert_ne!(seed, Seed::generate().unwrap());
        assert_eq!(Seed::from_hex(&seed.to_hex()), Some(seed));
        assert_eq!(Seed::from_hex(&seed.to_hex().to_uppercase()), Some(seed));
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(Seed::from_hex(text), None);
        }
        assert_eq!(format!("{seed:?}"), "Seed(..)");
        // SHA-256 of 32 zero bytes.
        assert_eq!(
            const_hex::encode(Seed([0; 32]).sha256()),
            "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
        );
    }

    #[test]
    fn each_bad_term_is_refused_by_name() {
        assert_eq!(CampaignTerms::example().check(), Ok(()));
        type Spoil = fn(&mut CampaignTerms);
        let refusals: [(&str, Spoil); 19] = [
            ("total 0", |t| t.total = 0),
            ("total 10000001", |t| t.total = CAMPAIGN_TOTAL_MAX + 1),
            ("rate_per_second", |t| t.goods = rain(0, 1, 200)),
            ("amounts 0..=200", |t| t.goods = rain(10, 0, 200)),
            ("amounts 201..=200", |t| t.goods = rain(10, 201, 200)),
            ("exceeds", |t| t.goods = rain(10, 1, u64::MAX)),
            ("exceeds", |t| t.goods = rain(10, 1, u64::MAX / 2 / 1_000 + 1)),
            ("face value", |t| t.goods = sale(|sale| sale.face_value = Fen(1))),
            ("exceeds", |t| t.goods = sale(|sale| sale.price = Fen(u64::MAX / 2 / 1_000 + 1))),
            ("hold_ms 999", |t| t.goods = sale(|sale| sale.hold_ms = 999)),
            ("hold_ms", |t| t.goods = sale(|sale| sale.hold_ms = HOLD_MS_MAX + 1)),
            ("valid_until 5", |t| {
                t.goods = sale(|sale| {
                    sale.valid_from = Some(5);
                    sale.valid_until = Some(5);
                })
            }),
            ("fair_window_ms", |t| t.goods = sale(|sale| sale.fair_window_ms = FAIR_WINDOW_MS_MAX + 1)),
            ("no sale", |t| t.goods = sale(|sale| sale.kind = CampaignKind::Rain)),
            ("ends_at 1000 is not after", |t| t.ends_at = Some(1_000)),
            ("time", |t| t.ends_at = Some(u64::MAX)),
            ("time", |t| (t.starts_at, t.ends_at) = (u64::MAX, None)),
            ("201 characters", |t| t.title = "红".repeat(201)),
            ("per_user_limit", |t| t.per_user_limit = Some(0)),
        ];
        for (expected, spoil) in refusals {
            let mut terms = CampaignTerms::example();
            spoil(&mut terms);
            let refusal = terms.check().unwrap_err();
            assert!(refusal.contains(expected), "{refusal:?} lacks {expected:?}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_follows_a_plain_reading_of_the_rule_within_bounds(
            seed: [u8; 32], serial: u64, a in 1u64.., b in 1u64..,
        ) {
            let amounts = Amounts { min: Fen(a.min(b)), max: Fen(a.max(b)) };
            let amount = amount_of(&Seed(seed), amounts, Serial(serial));
            prop_assert!(amounts.min <= amount && amount <= amounts.max);
            prop_assert_eq!(amount, amount_of(&Seed(seed), amounts, Serial(serial)));

            let mut message = [0; 40];
            message[..32].copy_from_slice(&seed);
            message[32..].copy_from_slice(&serial.to_be_bytes());
            let x = plain_sha256_of_40_bytes(&message)[..8].iter().fold(0u128, |x, byte| x << 8 | u128::from(*byte));
            let width = u128::from(amounts.max.0 - amounts.min.0 + 1);
            prop_assert_eq!(u128::from(amount.0), u128::from(amounts.min.0) + ((x * width) >> 64));
        }

        #[test]
        fn the_total_is_the_sum_of_all_prizes(seed: [u8; 32], total in 1u64..50, min in 1u64..1_000, width in 0u64..1_000) {
            let amounts = Amounts { min: Fen(min), max: Fen(min + width) };
            let goods = Goods::Rain { rate_per_second: 1, amounts };
            let terms = CampaignTerms { seed: Seed(seed), total, goods, ..CampaignTerms::example() };
            let sum: u64 = (0..total).map(|n| terms.amount(Serial(n)).0).sum();
            prop_assert_eq!(terms.total_amount(), Fen(sum));
        }
    }
}
