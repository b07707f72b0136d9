//! A run as a table for other programs: RFC 4180, one row a second, every figure as it was
//! recorded.

use std::io;
use std::path::Path;

use futures_util::stream::{self, Stream};
use serde_json::{Value, json};

use crate::recording::plain_name;
use crate::recording::read::{ReadError, Reader, Second};
use crate::run::host::HostSecond;
use crate::run::second::Headline;
use crate::run::series::columns;
use crate::runs::jobs::aside;
use hongbao_telemetry::http::ApiError;

/// Sent at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A table that is made while somebody reads it: between two chunks it holds an open file and no
/// thread.
#[derive(Debug)]
pub struct Table {
    reader: Reader,
    reasons: Vec<(String, String)>,
    /// The next second.
    from: u64,
    /// What is to be sent next. The first is made before anything is sent: what is damaged early on
    /// is refused in words.
    chunk: Vec<u8>,
}

impl Table {
    /// Opens a recording and makes the table's beginning.
    pub fn open(directory: &Path) -> Result<Self, ReadError> {
        let reader = Reader::open(directory)?;
        let mut table = Self { reasons: reader.reason_names()?, reader, from: 0, chunk: Vec::new() };
        let reasons = table.reasons.iter().map(|(group, kind)| format!("{group}_{kind}"));
        let header: Vec<String> = columns().map(|column| column.name.to_owned()).chain(reasons).collect();
        write(&mut table.chunk, &header);
        table.extend()?;
        Ok(table)
    }

    /// Adds the next rows to the chunk; none after the last.
    fn extend(&mut self) -> Result<(), ReadError> {
        let Self { reader, reasons, from, chunk } = self;
        reader.seconds(*from, u64::MAX, |second| {
            write(chunk, &cells(&second, reasons));
            *from = second.headline.second + 1;
            chunk.len() < CHUNK_BYTES
        })
    }

    /// The table in chunks, each made aside. A damaged row ends it with an error, so that nobody
    /// takes a part for the whole.
    pub fn stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
        stream::try_unfold(self, |mut table| async move {
            let made = aside(move || {
                let chunk = std::mem::take(&mut table.chunk);
                table.extend().map_err(|error| ApiError::internal(error.to_string()))?;
                Ok((chunk, table))
            });
            let (chunk, table) = made.await.map_err(io::Error::other)?;
            Ok((!chunk.is_empty()).then_some((chunk, table)))
        })
    }
}

fn cells(second: &Second, reasons: &[(String, String)]) -> Vec<String> {
    let text = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    let (headline, host, kinds) = (json!(second.headline), json!(second.host), json!(second.reasons));
    let figures = Headline::COLUMNS.iter().map(|column| text(&headline[column.name]));
    // The second is there already.
    let hosts = HostSecond::COLUMNS.iter().skip(1).map(|column| text(&host[plain_name(column)]));
    let counts = reasons.iter().map(|(group, kind)| kinds[group].get(kind).map_or_else(|| "0".to_owned(), text));
    figures.chain(hosts).chain(counts).collect()
}

fn write(bytes: &mut Vec<u8>, record: &[String]) {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(bytes);
    writer
        .write_record(record)
        .unwrap_or_else(|error| unreachable!("rows of one length in memory are always written: {error}"));
}
