//! A run as a table for other programs: RFC 4180, one row a second, every figure as it was
//! recorded.

use std::io;
use std::path::Path;

use futures_util::stream::{self, Stream};

use crate::recording::read::{FileError, GROUPS};
use crate::recording::replay::{Parts, ReasonNames, Replay, Row};
use crate::runs::Failure;
use crate::runs::jobs::aside;

/// Sent at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A table that is made while somebody reads it: between two chunks it holds open files and no
/// thread.
#[derive(Debug)]
pub struct Table {
    replay: Replay,
    /// Columns of headline.csv, and of host.csv.
    widths: [usize; 2],
    reasons: ReasonNames,
    row: Row,
    begun: bool,
    /// Made before anything is sent: what is damaged early on is refused in words.
    first: Option<Vec<u8>>,
}

impl Table {
    /// Opens a recording whose reasons are known: the header is told before the first row.
    pub fn open(directory: &Path, ended: bool, reasons: &ReasonNames) -> Result<Self, FileError> {
        let mut replay = Replay::open(directory, ended, Parts { reasons: true, times: false })?;
        replay.expect_reasons(reasons);
        let widths = replay.widths();
        let mut table =
            Self { replay, widths, reasons: reasons.clone(), row: Row::default(), begun: false, first: None };
        table.first = Some(table.chunk()?);
        Ok(table)
    }

    fn header(&self) -> Vec<String> {
        let mut names = self.replay.columns();
        for ((group, ..), reasons) in GROUPS.iter().zip(&self.reasons) {
            names.extend(reasons.iter().map(|reason| format!("{group}_{reason}")));
        }
        names
    }

    fn cells(&self) -> Vec<String> {
        let (row, [headline, host]) = (&self.row, self.widths);
        let mut cells = row.headline.clone();
        cells.resize(headline, String::new());
        cells.extend_from_slice(&row.host);
        cells.resize(headline + host, String::new());
        for (names, sums) in self.reasons.iter().zip(&row.reasons) {
            let sum = |place: usize| sums.get(place).copied().flatten().map_or_else(String::new, |sum| sum.to_string());
            cells.extend((0..names.len()).map(sum));
        }
        cells
    }

    /// The next rows; empty after the last.
    pub fn chunk(&mut self) -> Result<Vec<u8>, FileError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let written = |outcome: csv::Result<()>| {
            outcome.unwrap_or_else(|error| unreachable!("rows of one length in memory are always written: {error}"));
        };
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        while bytes.len() < CHUNK_BYTES {
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut bytes);
            if !self.begun {
                self.begun = true;
                written(writer.write_record(self.header()));
                continue;
            }
            if !self.replay.next(&mut self.row)? {
                break;
            }
            written(writer.write_record(self.cells()));
        }
        Ok(bytes)
    }

    /// The table in chunks, each made aside. A damaged row ends it with an error, so that nobody
    /// takes a part for the whole.
    pub fn stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
        stream::try_unfold(self, |mut table| async move {
            let made = aside(move || match table.chunk() {
                Ok(chunk) => Ok((chunk, table)),
                Err(error) => Err(Failure::Damaged(error.to_string())),
            });
            let (chunk, table) = made.await.map_err(io::Error::other)?;
            Ok((!chunk.is_empty()).then_some((chunk, table)))
        })
    }
}
