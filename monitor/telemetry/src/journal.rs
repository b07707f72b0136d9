//! The journal: a CSV row for each distinct win, share, order and payment that a user was told of.
//! What is acknowledged to the server is so only after its row has left this process: whoever reads
//! the journals after any crash finds all that the server may forget. Machines of the fleet write
//! one each, and the monitor one for its guests.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A prize as a user is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prize {
    pub campaign: u32,
    /// Serial inside the campaign.
    pub serial: u64,
    /// Fen.
    pub amount: u64,
}

/// A share as a user is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub envelope: u64,
    pub number: u32,
    /// Fen.
    pub amount: u64,
}

pub const HEADER: &str = "what,user,request,item,amount_fen,at_ms";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    Win(Prize),
    Share(Share),
    /// A unit of a sale, reserved or free.
    Order {
        order: u64,
        campaign: u32,
        serial: u64,
        /// Fen.
        price: u64,
    },
    /// An order that its user has paid.
    Paid {
        order: u64,
        /// Fen.
        price: u64,
    },
    /// An order that its user has given back.
    Cancelled {
        order: u64,
    },
}

/// Rows in memory and the file they go to.
#[derive(Debug)]
pub struct Journal {
    file: Option<File>,
    pending: Vec<u8>,
}

impl Journal {
    /// Creates the file, or empties it, and writes the header. Without a path, rows go nowhere.
    pub fn create(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?;
        let mut journal = Self { file, pending: format!("{HEADER}\n").into_bytes() };
        journal.flush()?;
        Ok(journal)
    }

    /// Adds a row: user id, id of the request that brought it about (0: none of ours), Unix
    /// milliseconds.
    pub fn append(&mut self, user: u64, request: u64, row: Row, at_ms: u64) {
        let to = &mut self.pending;
        match row {
            Row::Win(Prize { campaign, serial, amount }) => {
                writeln!(to, "win,{user},{request},{campaign}/{serial},{amount},{at_ms}")
            }
            Row::Share(Share { envelope, number, amount }) => {
                writeln!(to, "share,{user},{request},{envelope}/{number},{amount},{at_ms}")
            }
            Row::Order { order, campaign, serial, price } => {
                writeln!(to, "order,{user},{request},{order}/{campaign}/{serial},{price},{at_ms}")
            }
            Row::Paid { order, price } => writeln!(to, "paid,{user},{request},{order},{price},{at_ms}"),
            Row::Cancelled { order } => writeln!(to, "cancelled,{user},{request},{order},0,{at_ms}"),
        }
        .expect("a Vec takes all");
    }

    /// Hands all rows to the kernel. After a failure the rest is kept and tried again.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            self.pending.clear();
            return Ok(());
        };
        while !self.pending.is_empty() {
            let written = file.write(&self.pending)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.pending.drain(..written);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIN: Row = Row::Win(Prize { campaign: 1, serial: 2, amount: 3 });

    #[test]
    fn rows_are_in_the_file_once_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.csv");
        let mut journal = Journal::create(Some(&path)).unwrap();
        journal.append(7, 99, WIN, 4);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEADER}\n"));
        journal.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEADER}\nwin,7,99,1/2,3,4\n"));
    }

    #[test]
    fn each_kind_of_row_names_its_item() {
        let mut journal = Journal { file: None, pending: Vec::new() };
        for row in [
            Row::Share(Share { envelope: 5, number: 0, amount: 30 }),
            Row::Order { order: 8, campaign: 2, serial: 6, price: 500 },
            Row::Paid { order: 8, price: 500 },
            Row::Cancelled { order: 9 },
        ] {
            journal.append(7, 99, row, 4);
        }
        let expected = "share,7,99,5/0,30,4\norder,7,99,8/2/6,500,4\npaid,7,99,8,500,4\ncancelled,7,99,9,0,4\n";
        assert_eq!(String::from_utf8(journal.pending).unwrap(), expected);
    }

    #[test]
    fn a_journal_that_cannot_be_written_says_so_and_keeps_its_rows() {
        assert!(Journal::create(Some(Path::new("/nonexistent/journal.csv"))).is_err());
        let mut journal = Journal { file: Some(File::create("/dev/full").unwrap()), pending: Vec::new() };
        journal.append(7, 99, WIN, 4);
        assert!(journal.flush().is_err());
        assert_eq!(journal.pending, b"win,7,99,1/2,3,4\n");
    }
}
