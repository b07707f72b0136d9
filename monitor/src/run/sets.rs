//! Each server's SETs as they are now. Only the latest second is kept: the recording has sums, and
//! what a person looks for here is the one that stands out.

use std::collections::BTreeMap;
use std::sync::Arc;

use hongbao_proto::report_v1::Sets;
use serde::{Deserialize, Serialize};

use crate::limits::SETS_PER_SOURCE_MAX;
use crate::run::rejection::{Rejection, at_most};

/// Values above this are not exact in JSON.
const VALUE_MAX: u64 = 1 << 52;

/// One server's SETs, in order: each list has one entry for each SET.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetsSecond {
    pub connections: Vec<u64>,
    /// Users logged in.
    pub online: Vec<u64>,
    /// Messages that wait in the queue.
    pub queue_depth: Vec<u64>,
    /// Requests not answered yet.
    pub owed: Vec<u64>,
    /// Prizes and units on the shelves.
    pub stock: Vec<u64>,
}

/// Checks what a report brought.
pub fn checked(sets: Sets) -> Result<SetsSecond, Rejection> {
    let Sets { connections, online, queue_depth, owed, stock } = sets;
    let count = connections.len();
    let lists = [&connections, &online, &queue_depth, &owed, &stock];
    at_most("report", count, "SETs", SETS_PER_SOURCE_MAX)?;
    if lists.iter().any(|list| list.len() != count) {
        return Err(Rejection::Uneven);
    }
    if lists.iter().any(|list| list.iter().any(|&value| value > VALUE_MAX)) {
        return Err(Rejection::Range("a value of a SET".to_owned()));
    }
    Ok(SetsSecond { connections, online, queue_depth, owed, stock })
}

/// The SETs of every server that reports them, by the server's name.
#[derive(Debug, Clone, Default)]
pub struct SetsBoard(BTreeMap<String, (u64, Arc<SetsSecond>)>);

impl SetsBoard {
    /// What a server reported with its `second`. An older report does not replace a newer one.
    pub fn put(&mut self, server: &str, second: u64, sets: SetsSecond) {
        let newest = self.0.get(server).map_or(0, |(newest, _)| *newest);
        if second >= newest {
            self.0.insert(server.to_owned(), (second, Arc::new(sets)));
        }
    }

    /// A server whose clock was set back, or that is not there, leaves its place.
    pub fn forget(&mut self, server: &str) {
        self.0.remove(server);
    }

    pub fn servers(&self) -> BTreeMap<&str, &SetsSecond> {
        self.0.iter().map(|(server, (_, sets))| (server.as_str(), &**sets)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(count: usize, value: u64) -> Sets {
        let list = || vec![value; count];
        Sets { connections: list(), online: list(), queue_depth: list(), owed: list(), stock: list() }
    }

    #[test]
    fn lists_that_are_uneven_too_long_or_out_of_range_are_refused() {
        assert!(checked(sets(SETS_PER_SOURCE_MAX, 7)).is_ok());
        let refused = |sets| checked(sets).unwrap_err().to_string();
        let many = SETS_PER_SOURCE_MAX + 1;
        let too_many = format!("report has {many} SETs; at most {SETS_PER_SOURCE_MAX} are allowed");
        assert_eq!(refused(sets(many, 7)), too_many);
        assert_eq!(refused(Sets { stock: vec![], ..sets(2, 7) }), "the lists of a server's SETs must be equally long");
        assert_eq!(refused(sets(2, u64::MAX)), "a value of a SET is out of range");
    }

    #[test]
    fn a_late_report_does_not_replace_a_newer_one() {
        let mut board = SetsBoard::default();
        for (second, value) in [(5, 50), (4, 40)] {
            board.put("server-1", second, checked(sets(1, value)).unwrap());
        }
        assert_eq!(board.servers()["server-1"].stock, [50]);
        board.forget("server-1");
        assert!(board.servers().is_empty());
    }
}
