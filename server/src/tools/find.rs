//! The way of a user's request, put together from what lies about it: the ledger's entries, the
//! journals of the fleet's machines, and the logs of servers. `hongbao-server find` prints it.
//!
//! A journal names a request and what it got; the ledger knows the request of a claim, and of the
//! rest only what was got. So whatever the journals and logs say that the request got is looked for
//! as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use hongbao_proto::UserId;
use serde::Serialize;
use serde_json::Value;

use crate::ledger::find::{Row, open_by, rows_of};
use crate::ledger::user_event::Details;
use crate::limits::{FIND_ITEMS_MAX, FIND_LINE_BYTES_MAX};
use crate::tools::{EXIT_NEGATIVE, print, user_id};

/// What is looked for, and where.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// The ledger; only read
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
    /// Whose
    #[arg(long, value_name = "ID", value_parser = user_id)]
    pub user: UserId,
    /// One request: what it got, and what came of that
    #[arg(long, value_name = "ID")]
    pub request: Option<u64>,
    /// Journals of the fleet's machines
    #[arg(long = "journal", value_name = "FILE", num_args = 1..)]
    pub journals: Vec<PathBuf>,
    /// Logs of servers, json or pretty; with --log info,facts=debug they hold every decision
    #[arg(long = "log", value_name = "FILE", num_args = 1..)]
    pub logs: Vec<PathBuf>,
    /// Items told at most; the latest are
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = item_limit)]
    pub limit: usize,
}

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(Arguments { wanted, json }: &Arguments) -> anyhow::Result<ExitCode> {
    let found = find(wanted)?;
    print(*json, &found, format_args!("{found}"))?;
    Ok(if found.items.is_empty() { ExitCode::from(EXIT_NEGATIVE) } else { ExitCode::SUCCESS })
}

fn item_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=FIND_ITEMS_MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("not a number from 1 to {FIND_ITEMS_MAX}")),
    }
}

/// Something that was found.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "where", rename_all = "snake_case")]
pub enum Item {
    /// A line of a server's log.
    Log(Line),
    Ledger {
        /// Unix microseconds by the server's clock.
        at_us: u64,
        #[serde(flatten)]
        row: Row,
    },
    Journal(Line),
}

#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Unix microseconds by the clock of the server, or of the fleet's machine.
    at_us: u64,
    file: String,
    /// Which line, from 1.
    line: u64,
    text: String,
}

impl Item {
    /// By time. Books and journals know milliseconds only; of one, the ledger comes first and the
    /// journal last: nothing is said before it is durable, and nothing is heard before it is said.
    fn order(&self) -> (u64, u8, u64) {
        let (at_us, rank) = match self {
            Item::Ledger { at_us, .. } => (*at_us, 0),
            Item::Log(line) => (line.at_us, 1),
            Item::Journal(line) => (line.at_us, 2),
        };
        (at_us / 1_000, rank, at_us)
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Found {
    pub user: u64,
    pub request: Option<u64>,
    /// In the order of time.
    pub items: Vec<Item>,
    /// Older ones that are not among the items.
    pub left_off: u64,
    /// The process that has the ledger open: what it has committed since we looked is missing here.
    pub ledger_open_by: Option<u32>,
    /// Entries up to this one lie in an archive and were not looked at; 0: none.
    pub archived_through: i64,
    /// The chain of the user's entries was not followed to its beginning.
    pub cut: bool,
}

pub fn find(wanted: &Wanted) -> anyhow::Result<Found> {
    let (user, request) = (wanted.user.get(), wanted.request);
    let ledger_open_by = open_by(&wanted.ledger);
    let journals = wanted.journals.iter().map(|path| (path, journal_row as Parse, Item::Journal as fn(Line) -> Item));
    let logs = wanted.logs.iter().map(|path| (path, log_row as Parse, Item::Log as fn(Line) -> Item));
    let files: Vec<_> = journals.chain(logs).collect();
    // What the request got, as journals, logs and the ledger name it. It is known only after the
    // last file: they are read twice, unless everything is wanted.
    let mut got = BTreeSet::new();
    if request.is_some() {
        for (path, parse, _) in &files {
            each_line(path, |_, text| {
                let mention = parse(text).filter(|mention| (mention.user, mention.request) == (user, request));
                got.extend(mention.and_then(|mention| mention.about.subject()));
            })?;
        }
    }
    let users = rows_of(&wanted.ledger, wanted.user)?;
    let of_request = users.rows.iter().filter(|row| request.is_some() && row.request == request);
    got.extend(of_request.filter_map(|row| row.about.subject()));
    let is_wanted = |of: Option<u64>, about: Details| {
        request.is_none() || of == request || about.subject().is_some_and(|subject| got.contains(&subject))
    };
    // The latest, at most so many.
    let (mut items, mut seen) = (BTreeMap::new(), 0);
    let mut keep = |item: Item| {
        items.insert((item.order(), seen), item);
        seen += 1;
        if items.len() > wanted.limit {
            items.pop_first();
        }
    };
    for row in users.rows.into_iter().filter(|row| is_wanted(row.request, row.about)) {
        keep(Item::Ledger { at_us: row.at_ms.saturating_mul(1_000), row });
    }
    for (path, parse, item) in files {
        each_line(path, |line, text| {
            let mention = parse(text).filter(|mention| mention.user == user);
            if let Some(Mention { at_us, .. }) = mention.filter(|mention| is_wanted(mention.request, mention.about)) {
                keep(item(Line { at_us, file: path.display().to_string(), line, text: text.to_owned() }));
            }
        })?;
    }
    Ok(Found {
        user,
        request,
        left_off: seen - items.len() as u64,
        items: items.into_values().collect(),
        ledger_open_by,
        archived_through: users.archived_through,
        cut: users.cut,
    })
}

/// What a line of a journal or a log says of a user.
#[derive(Debug, Clone, Copy)]
struct Mention {
    user: u64,
    request: Option<u64>,
    about: Details,
    at_us: u64,
}

/// Reads a line.
type Parse = fn(&str) -> Option<Mention>;

/// Hands over every line that is text, whole, and not longer than [`FIND_LINE_BYTES_MAX`].
fn each_line(path: &Path, mut take: impl FnMut(u64, &str)) -> anyhow::Result<()> {
    let failed = |error| anyhow!("{}: {error}", path.display());
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    let mut too_long = false;
    let mut number = 1;
    loop {
        line.clear();
        let read = reader.by_ref().take(FIND_LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        let ends = line.ends_with(b"\n");
        if ends
            && !too_long
            && let Ok(text) = std::str::from_utf8(&line)
        {
            take(number, text.trim_end());
        }
        too_long = !ends;
        number += u64::from(ends);
    }
}

/// `what,user,request,item,amount_fen,at_ms`
fn journal_row(text: &str) -> Option<Mention> {
    let fields: Vec<&str> = text.split(',').collect();
    let [what, user, request, item, _, at_ms] = fields.as_slice() else { return None };
    let mut parts = item.split('/').map(|part| part.parse::<u64>().ok());
    let (first, second) = (Some(parts.next()??), parts.next().flatten());
    let nothing = Details::default();
    let about = match *what {
        "win" => Details { campaign: first, serial: Some(second?), ..nothing },
        "share" => Details { envelope: first, share: Some(u32::try_from(second?).ok()?), ..nothing },
        "order" | "paid" | "cancelled" => Details { order: first, ..nothing },
        "sent" => Details { envelope: first, ..nothing },
        _ => return None,
    };
    // 0: none of the user's own.
    let request = request.parse().ok().filter(|request| *request != 0);
    let at_ms: u64 = at_ms.parse().ok()?;
    Some(Mention { user: user.parse().ok()?, request, about, at_us: at_ms.saturating_mul(1_000) })
}

/// A line of either format.
fn log_row(text: &str) -> Option<Mention> {
    if text.starts_with('{') {
        let line: Value = serde_json::from_str(text).ok()?;
        return mention(|name| line.get(name)?.as_u64(), line.get("ts")?.as_str()?);
    }
    let ts = text.split(' ').next()?;
    mention(|name| text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()), ts)
}

fn mention(field: impl Fn(&str) -> Option<u64>, ts: &str) -> Option<Mention> {
    let user = field("user")?;
    let at = humantime::parse_rfc3339(ts).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let about = Details {
        order: field("order"),
        campaign: field("campaign"),
        serial: field("serial"),
        envelope: field("envelope"),
        share: field("share").and_then(|share| u32::try_from(share).ok()),
        ..Details::default()
    };
    Some(Mention { user, request: field("request"), about, at_us: u64::try_from(at.as_micros()).ok()? })
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(process) = self.ledger_open_by {
            writeln!(f, "the ledger is open in process {process}: this is what it had committed a moment ago")?;
        }
        if self.archived_through > 0 {
            writeln!(f, "entries up to {} lie in an archive and were not looked at", self.archived_through)?;
        }
        if self.cut {
            writeln!(f, "the user has more entries than were followed: the oldest are not here")?;
        }
        if self.left_off > 0 {
            writeln!(f, "{} older items are left off; --limit asks for more", self.left_off)?;
        }
        for item in &self.items {
            match item {
                Item::Ledger { at_us, row } => {
                    write!(f, "{}  ledger   entry {}: {}{}", stamp(*at_us), row.entry, row.kind, row.about)?;
                    write!(f, " amount_fen={}", row.amount_fen)?;
                    if let Some(request) = row.request {
                        write!(f, " request={request}")?;
                    }
                    match row.acknowledged {
                        Some(true) => writeln!(f, " acknowledged")?,
                        Some(false) => writeln!(f, " not acknowledged yet")?,
                        None => writeln!(f)?,
                    }
                }
                Item::Journal(Line { at_us, file, line, text }) => {
                    writeln!(f, "{}  journal  {file}:{line}: {text}", stamp(*at_us))?;
                }
                Item::Log(Line { at_us, file, line, text }) => {
                    writeln!(f, "{}  log      {file}:{line}: {}", stamp(*at_us), readable(text))?;
                }
            }
        }
        Ok(())
    }
}

/// A line of JSON for people; one for people as it is, without its time.
fn readable(text: &str) -> String {
    let Ok(Value::Object(line)) = serde_json::from_str(text) else {
        return text.split_once(' ').map_or(text, |(_, rest)| rest).trim_start().to_owned();
    };
    let word = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut line_out = format!("{}:", word("event"));
    for (name, value) in line.iter().filter(|(name, _)| !["ts", "level", "event", "msg"].contains(&name.as_str())) {
        line_out.push_str(&format!(" {name}={value}"));
    }
    line_out
}

fn stamp(at_us: u64) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + Duration::from_micros(at_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::user_event::Subject;

    #[test]
    fn a_row_of_a_journal_and_a_line_of_either_log_say_the_same() {
        let journal = journal_row("win,42,77,3/9,120,1700000000123").unwrap();
        let json = r#"{"ts":"2023-11-14T22:13:20.123456Z","level":"debug","event":"win","msg":"won","user":42,"request":77,"campaign":3,"serial":9,"amount_fen":120}"#;
        let pretty = "2023-11-14T22:13:20.123456Z DEBUG win: won user=42 request=77 campaign=3 serial=9 amount_fen=120";
        for mention in [journal, log_row(json).unwrap(), log_row(pretty).unwrap()] {
            assert_eq!((mention.user, mention.request), (42, Some(77)));
            assert_eq!(mention.about.subject(), Some(Subject::Prize { campaign: 3, serial: 9 }));
            assert_eq!(mention.at_us / 1_000, 1_700_000_000_123);
        }
    }

    #[test]
    fn what_is_no_such_line_is_passed_over() {
        for line in
            ["", "{", "what,user,request,item,amount_fen,at_ms", "win,1,2,3,4,5", "{\"user\":\"x\"}", "user=3 x"]
        {
            assert!(journal_row(line).is_none() && log_row(line).is_none(), "{line}");
        }
    }

    #[test]
    fn endless_and_torn_lines_are_passed_over_and_the_next_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let long = "x".repeat(3 * usize::try_from(FIND_LINE_BYTES_MAX).unwrap());
        std::fs::write(&path, format!("one\n{long}\ntwo\ntorn")).unwrap();
        let mut seen = Vec::new();
        each_line(&path, |number, text| seen.push((number, text.to_owned()))).unwrap();
        assert_eq!(seen, [(1, "one".to_owned()), (3, "two".to_owned())]);
    }
}
