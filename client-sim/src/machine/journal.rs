//! The journal: a CSV row for each distinct win that a user was told of. A win is acknowledged to the server only after its row
//! has left this process, so whoever reads the journals after any crash finds every win that the server may forget.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::machine::prizes::Prize;

/// The columns.
pub const HEADER: &str = "user,request,campaign,serial,amount_fen,at_ms";

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

    /// Adds a row: user id, id of the request that won, the prize, Unix milliseconds.
    pub fn append(&mut self, user: u64, request: u64, prize: Prize, at_ms: u64) {
        let Prize { campaign, serial, amount } = prize;
        writeln!(self.pending, "{user},{request},{campaign},{serial},{amount},{at_ms}").expect("a Vec takes all");
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

    #[test]
    fn rows_are_in_the_file_once_flushed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.csv");
        let mut journal = Journal::create(Some(&path)).unwrap();
        journal.append(7, 99, Prize { campaign: 1, serial: 2, amount: 3 }, 4);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEADER}\n"));
        journal.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEADER}\n7,99,1,2,3,4\n"));
    }

    #[test]
    fn a_journal_that_cannot_be_written_says_so_and_keeps_its_rows() {
        assert!(Journal::create(Some(Path::new("/nonexistent/journal.csv"))).is_err());
        let mut journal = Journal { file: Some(File::create("/dev/full").unwrap()), pending: Vec::new() };
        journal.append(7, 99, Prize { campaign: 1, serial: 2, amount: 3 }, 4);
        assert!(journal.flush().is_err());
        assert_eq!(journal.pending, b"7,99,1,2,3,4\n");
    }
}
