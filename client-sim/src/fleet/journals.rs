//! The journals of all machines together: the users' own record of what they won, kept apart from what machines report.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

/// Why journals cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("journal {path}: {source}")]
pub struct JournalError {
    path: String,
    source: csv::Error,
}

#[derive(Debug, Deserialize)]
struct Row {
    user: u64,
    campaign: u32,
    serial: u64,
    amount_fen: u64,
}

/// What all users were told they won.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Union {
    /// Distinct prizes and their fen, by campaign.
    pub campaigns: HashMap<u32, (u64, u64)>,
    /// Prizes that two users were told of, or with two amounts.
    pub contradictions: u64,
}

impl Union {
    /// Over all campaigns.
    pub fn totals(&self) -> (u64, u64) {
        self.campaigns.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// Reads the journals and joins them.
pub fn read<P: AsRef<Path>>(paths: impl Iterator<Item = P>) -> Result<Union, JournalError> {
    let (mut union, mut prizes) = (Union::default(), HashMap::new());
    for path in paths {
        let error = |source| JournalError { path: path.as_ref().display().to_string(), source };
        let mut journal = csv::Reader::from_path(&path).map_err(error)?;
        for row in journal.deserialize() {
            let Row { user, campaign, serial, amount_fen } = row.map_err(error)?;
            match prizes.insert((campaign, serial), (user, amount_fen)) {
                None => {
                    let (count, fen) = union.campaigns.entry(campaign).or_default();
                    *count += 1;
                    *fen += amount_fen;
                }
                Some(known) if known == (user, amount_fen) => {}
                Some(_) => union.contradictions += 1,
            }
        }
    }
    Ok(union)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::journal::HEADER;

    #[test]
    fn a_prize_in_two_journals_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("{HEADER}\n{rows}")).unwrap();
            path
        };
        let one = write("1.csv", "1,10,1,0,50,0\n1,10,1,0,50,0\n2,11,1,1,5,0\n");
        let two = write("2.csv", "9,12,1,0,50,0\n9,13,2,0,7,0\n");
        let union = read([one, two].iter()).unwrap();
        assert_eq!((union.campaigns[&1], union.campaigns[&2], union.contradictions), ((2, 55), (1, 7), 1));
        assert_eq!(union.totals(), (3, 62));
        assert!(read([directory.path().join("3.csv")].iter()).unwrap_err().to_string().contains("3.csv"));
    }
}
