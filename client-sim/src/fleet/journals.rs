//! The journals of all machines together: the users' own record of what they were told, kept apart
//! from what machines report.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::Path;

use serde::Deserialize;

/// Why journals cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("journal {path}: {reason}")]
pub struct JournalError {
    path: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Row {
    what: String,
    user: u64,
    item: String,
    amount_fen: u64,
}

/// How many, and their fen.
pub type CountAndFen = (u64, u64);

pub fn sum_up(parts: impl Iterator<Item = CountAndFen>) -> CountAndFen {
    parts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// What all users were told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct JournalSums {
    /// Distinct prizes, by campaign.
    pub campaigns: HashMap<u32, CountAndFen>,
    /// Distinct shares of envelopes.
    pub shares: CountAndFen,
    /// Units that are somebody's for good, by sale.
    pub sold: HashMap<u32, CountAndFen>,
    /// Prizes, shares or units that two users were told of, or that were told in two ways.
    pub contradictions: u64,
}

impl JournalSums {
    /// Prizes over all campaigns.
    pub fn totals(&self) -> CountAndFen {
        sum_up(self.campaigns.values().copied())
    }

    /// Units over all sales.
    pub fn sold(&self) -> CountAndFen {
        sum_up(self.sold.values().copied())
    }
}

/// What is known while rows are read.
#[derive(Debug, Default)]
struct Reader {
    sums: JournalSums,
    /// By (campaign, serial): user and fen.
    prizes: HashMap<(u32, u64), (u64, u64)>,
    /// By (envelope, share): user and fen.
    shares: HashMap<(u64, u32), (u64, u64)>,
    /// By (envelope, user): the share.
    openings: HashMap<(u64, u64), u32>,
    /// By order: user, campaign, serial, price.
    orders: HashMap<u64, (u64, u32, u64, u64)>,
    /// By (campaign, serial): the order under which it was sold.
    units: HashMap<(u32, u64), u64>,
    /// Orders that were given back.
    cancelled: HashMap<u64, u64>,
}

/// The words of two kinds of users, each with the contradictions that its own rows brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct JournalTotals {
    /// What users of the fleet were told.
    pub fleet: JournalSums,
    pub guests: JournalSums,
}

/// Reads the machines' journals and then the guests', where there is one, and holds each row
/// against all before it.
pub fn read_all<P: AsRef<Path>>(
    machines: impl Iterator<Item = P>,
    guests: Option<&Path>,
) -> Result<JournalTotals, JournalError> {
    let mut reader = Reader::default();
    reader.read(machines)?;
    let fleet = std::mem::take(&mut reader.sums);
    // No guest has come as long as there is no journal.
    reader.read(guests.filter(|path| path.exists()).into_iter())?;
    Ok(JournalTotals { fleet, guests: reader.sums })
}

impl Reader {
    fn read<P: AsRef<Path>>(&mut self, paths: impl Iterator<Item = P>) -> Result<(), JournalError> {
        for path in paths {
            let path = path.as_ref();
            let error = |reason: String| JournalError { path: path.display().to_string(), reason };
            let mut journal = csv::Reader::from_path(path).map_err(|cause| error(cause.to_string()))?;
            for row in journal.deserialize() {
                let row: Row = row.map_err(|cause| error(cause.to_string()))?;
                self.row(&row).ok_or_else(|| error(format!("`{}` of `{}` cannot be read", row.item, row.what)))?;
            }
        }
        Ok(())
    }

    /// `None`: the row makes no sense.
    fn row(&mut self, row: &Row) -> Option<()> {
        let Row { user, amount_fen: fen, ref what, ref item } = *row;
        let sums = &mut self.sums;
        match what.as_str() {
            "win" => {
                let (campaign, serial) = item.split_once('/')?;
                let (campaign, serial) = (campaign.parse().ok()?, serial.parse().ok()?);
                if is_new(&mut self.prizes, (campaign, serial), (user, fen), &mut sums.contradictions) {
                    add(sums.campaigns.entry(campaign).or_default(), fen);
                }
            }
            "share" => {
                let (envelope, share) = item.split_once('/')?;
                let (envelope, share) = (envelope.parse().ok()?, share.parse().ok()?);
                let contradictions = &mut sums.contradictions;
                is_new(&mut self.openings, (envelope, user), share, contradictions);
                if is_new(&mut self.shares, (envelope, share), (user, fen), contradictions) {
                    add(&mut sums.shares, fen);
                }
            }
            "order" => {
                let mut parts = item.split('/');
                let order = parts.next()?.parse().ok()?;
                let (campaign, serial) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                let known = (user, campaign, serial, fen);
                if is_new(&mut self.orders, order, known, &mut sums.contradictions) && fen == 0 {
                    self.sell(order, campaign, serial, fen);
                }
            }
            "paid" => {
                let order = item.parse().ok()?;
                match self.orders.get(&order) {
                    Some(&(owner, campaign, serial, price)) if (owner, price) == (user, fen) => {
                        self.sell(order, campaign, serial, fen);
                    }
                    _ => sums.contradictions += 1,
                }
            }
            "cancelled" => {
                let order = item.parse().ok()?;
                is_new(&mut self.cancelled, order, user, &mut sums.contradictions);
                if self.orders.get(&order).is_none_or(|known| known.0 != user) {
                    sums.contradictions += 1;
                }
            }
            "sent" => {}
            _ => return None,
        }
        Some(())
    }

    /// A unit is somebody's for good.
    fn sell(&mut self, order: u64, campaign: u32, serial: u64, fen: u64) {
        if self.cancelled.contains_key(&order) {
            self.sums.contradictions += 1;
        }
        if is_new(&mut self.units, (campaign, serial), order, &mut self.sums.contradictions) {
            add(self.sums.sold.entry(campaign).or_default(), fen);
        }
    }
}

/// Whether nothing was known under this key; something else there is a contradiction.
fn is_new<K: Eq + Hash, V: PartialEq>(known: &mut HashMap<K, V>, key: K, value: V, contradictions: &mut u64) -> bool {
    match known.entry(key) {
        Entry::Vacant(new) => {
            new.insert(value);
            true
        }
        Entry::Occupied(before) => {
            *contradictions += u64::from(*before.get() != value);
            false
        }
    }
}

fn add(sum: &mut CountAndFen, fen: u64) {
    sum.0 += 1;
    sum.1 += fen;
}

#[cfg(test)]
mod tests {
    use super::*;
    use hongbao_telemetry::journal::HEADER;

    fn sums(journals: &[&str]) -> JournalSums {
        let directory = tempfile::tempdir().unwrap();
        let write = |(number, rows): (usize, &&str)| {
            let path = directory.path().join(format!("{number}.csv"));
            std::fs::write(&path, format!("{HEADER}\n{}\n", rows.replace(' ', "\n"))).unwrap();
            path
        };
        read_all(journals.iter().enumerate().map(write), None).unwrap().fleet
    }

    #[test]
    fn a_prize_in_two_journals_is_found_out() {
        let one = "win,1,10,1/0,50,0 win,1,10,1/0,50,0 win,2,11,1/1,5,0";
        let sums = sums(&[one, "win,9,12,1/0,50,0 win,9,13,2/0,7,0"]);
        assert_eq!((sums.campaigns[&1], sums.campaigns[&2], sums.contradictions), ((2, 55), (1, 7), 1));
        assert_eq!(sums.totals(), (3, 62));
    }

    #[test]
    fn guests_are_told_apart_and_a_prize_won_by_both_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("{HEADER}\n{}\n", rows.replace(' ', "\n"))).unwrap();
            path
        };
        let machine = write("machine-01.csv", "win,1,10,1/0,50,0 win,2,11,1/1,5,0");
        let guests = write("guests.csv", "win,9000000000000000,12,1/2,7,0 win,9000000000000000,13,1/1,5,0");
        let words = read_all([&machine].into_iter(), Some(&guests)).unwrap();
        assert_eq!((words.fleet.totals(), words.guests.totals()), ((2, 55), (1, 7)));
        assert_eq!((words.fleet.contradictions, words.guests.contradictions), (0, 1));
        let words = read_all([&machine].into_iter(), Some(&directory.path().join("none.csv"))).unwrap();
        assert_eq!((words.fleet.totals(), words.guests), ((2, 55), JournalSums::default()));
    }

    #[test]
    fn a_share_in_two_journals_or_with_two_amounts_is_found_out() {
        let one = "share,1,10,7/0,50,0 share,1,16,7/0,50,0 share,2,11,7/1,5,0";
        assert_eq!((sums(&[one]).shares, sums(&[one]).contradictions), ((2, 55), 0));
        for wrong in ["share,9,12,7/0,50,0", "share,1,12,7/0,51,0", "share,1,12,7/2,50,0"] {
            assert_eq!(sums(&[one, wrong]).contradictions, 1, "{wrong}");
        }
    }

    #[test]
    fn a_unit_sold_twice_is_found_and_one_given_back_is_not_sold() {
        let one = "order,1,10,100/3/0,500,0 paid,1,16,100,500,0 order,2,11,101/3/1,500,0 cancelled,2,17,101,0,0";
        let two = "order,9,12,102/3/1,500,0 paid,9,16,102,500,0 order,9,13,103/4/0,0,0";
        let good = sums(&[one, two]);
        assert_eq!(
            (good.sold[&3], good.sold[&4], good.sold(), good.contradictions),
            ((2, 1_000), (1, 0), (3, 1_000), 0)
        );
        for wrong in [
            "order,8,14,104/3/0,500,0 paid,8,16,104,500,0",
            "order,8,14,104/4/0,0,0",
            "paid,8,14,100,500,0",
            "paid,1,14,100,501,0",
            "paid,8,14,999,500,0",
            "paid,2,14,101,500,0",
            "order,8,14,100/3/0,500,0",
        ] {
            assert!(sums(&[one, two, wrong]).contradictions >= 1, "{wrong}");
        }
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("3.csv");
        let refusal = || read_all([&path].into_iter(), None).unwrap_err().to_string();
        assert!(refusal().contains("3.csv"));
        for wrong in ["win,1,10,1,50,0", "share,1,10,x/0,50,0", "order,1,10,1/2,50,0", "gift,1,10,1,50,0"] {
            std::fs::write(&path, format!("{HEADER}\n{wrong}\n")).unwrap();
            assert!(refusal().contains("cannot be read"), "{wrong}");
        }
    }
}
