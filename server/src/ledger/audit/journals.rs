//! The clients' journals: what users were told must be in the ledger.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use rusqlite::OptionalExtension;
use serde::Serialize;

use super::{Audit, Checked};
use crate::ledger::LedgerError;
use crate::ledger::schema::code;

/// The header of a client's journal. `what` and `item`: `win` campaign/serial; `share`
/// envelope/share; `order` order/campaign/serial, for its price; `paid` order, for its price;
/// `cancelled` order, for nothing; `sent` envelope, for its total.
pub const JOURNAL_HEADER: &str = "what,user,request,item,amount_fen,at_ms";

/// The header of a journal that has nothing but prizes of rains.
pub const JOURNAL_HEADER_OF_WINS: &str = "user,request,campaign,serial,amount_fen,at_ms";

/// What the clients' journals said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JournalSums {
    pub files: u64,
    pub wins: u64,
    /// Their money, fen.
    pub received_fen: i128,
    /// Different shares of envelopes.
    pub shares: u64,
    /// Their money, fen.
    pub shares_fen: i128,
    pub orders: u64,
    /// Orders that were said to be paid.
    pub paid: u64,
    /// Their money, fen.
    pub paid_fen: i128,
    /// Orders that were said to be cancelled.
    pub cancelled: u64,
    /// Different envelopes that were said to be sent.
    pub sent: u64,
    /// Their money, fen.
    pub sent_fen: i128,
    /// Rows that say the same as an earlier one: something told again after a reconnect. Not an
    /// imbalance.
    pub repeats: u64,
    /// Journals whose last line was cut off by the end of their writer; that line is not counted.
    pub torn: u64,
    /// Wins of the ledger that no journal holds: acknowledged to nobody before a crash. Not an
    /// imbalance.
    pub unheard: u64,
    /// Rows about what may be in an archive, and is not in the ledger. Not an imbalance.
    pub archived: u64,
}

impl fmt::Display for JournalSums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "journals: {} files, {} wins, {} fen received, {} told again, {} cut off, {} wins nobody has heard of",
            self.files, self.wins, self.received_fen, self.repeats, self.torn, self.unheard,
        )?;
        if self.shares + self.orders + self.paid + self.cancelled + self.sent > 0 {
            write!(
                f,
                "; {} shares of {} fen, {} orders, {} paid with {} fen, {} cancelled, {} envelopes sent with {} fen",
                self.shares,
                self.shares_fen,
                self.orders,
                self.paid,
                self.paid_fen,
                self.cancelled,
                self.sent,
                self.sent_fen,
            )?;
        }
        if self.archived > 0 {
            write!(f, "; {} rows about what was archived", self.archived)?;
        }
        Ok(())
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Win { campaign: i64, serial: i64 },
    Share { envelope: i64, share: i64 },
    Order { order: i64, campaign: i64, serial: i64 },
    Paid { order: i64 },
    Cancelled { order: i64 },
    Sent { envelope: i64 },
}

impl What {
    fn parse(what: &str, item: &str) -> Option<Self> {
        let numbers: Vec<i64> = item.split('/').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        Some(match (what, &numbers[..]) {
            ("win", &[campaign, serial]) => Self::Win { campaign, serial },
            ("share", &[envelope, share]) => Self::Share { envelope, share },
            ("order", &[order, campaign, serial]) => Self::Order { order, campaign, serial },
            ("paid", &[order]) => Self::Paid { order },
            ("cancelled", &[order]) => Self::Cancelled { order },
            ("sent", &[envelope]) => Self::Sent { envelope },
            _ => return None,
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Win { campaign, serial } => write!(f, "prize {campaign}/{serial}"),
            Self::Share { envelope, share } => write!(f, "share {envelope}/{share}"),
            Self::Order { order, campaign, serial } => write!(f, "order {order} of unit {campaign}/{serial}"),
            Self::Paid { order } => write!(f, "order {order} as paid"),
            Self::Cancelled { order } => write!(f, "order {order} as cancelled"),
            Self::Sent { envelope } => write!(f, "envelope {envelope} as sent"),
        }
    }
}

/// A row of a journal, but for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Told {
    what: What,
    user: i64,
    request: i64,
    amount: i64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} request {} was told of {}, {} fen", self.user, self.request, self.what, self.amount)
    }
}

/// User, request where the ledger keeps it, and amount.
type Kept = (i64, Option<i64>, i64);

/// What the journals said of wins, by campaign and serial, each with its place: sought among the
/// entries at the end.
type Wins = HashMap<(i64, i64), Vec<(Told, String)>>;

#[derive(Default)]
struct Heard {
    rows: HashSet<Told>,
    wins: Wins,
    sums: JournalSums,
}

impl Audit<'_> {
    pub(super) fn journals(&mut self, paths: &[PathBuf]) -> Checked {
        let mut heard = Heard::default();
        heard.sums.files = paths.len() as u64;
        for path in paths {
            self.journal(path, &mut heard)?;
        }
        self.seek_wins(&mut heard)?;
        self.report.journals = Some(heard.sums);
        Ok(())
    }

    fn journal(&mut self, path: &PathBuf, heard: &mut Heard) -> Checked {
        let failed = |error: io::Error| LedgerError::Unavailable(format!("{}: {error}", path.display()));
        let mut reader = BufReader::new(fs::File::open(path).map_err(failed)?);
        let mut line = String::new();
        let mut only_wins = false;
        let mut number = 0u64;
        loop {
            line.clear();
            if reader.read_line(&mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            number += 1;
            if !line.ends_with('\n') {
                heard.sums.torn += 1;
                return Ok(());
            }
            let text = line.trim_end();
            let place = format!("{}:{number}", path.display());
            if number > 1 {
                match parse(text, only_wins) {
                    Some(told) => self.told(told, place, heard)?,
                    None => self.report.find("journal", place, format_args!("cannot be read: {text:?}")),
                }
                continue;
            }
            match text {
                JOURNAL_HEADER => {}
                JOURNAL_HEADER_OF_WINS => only_wins = true,
                _ => {
                    self.report.find("journal", place, format_args!("header is {text:?}, not {JOURNAL_HEADER:?}"));
                    return Ok(());
                }
            }
        }
    }

    fn told(&mut self, told: Told, place: String, heard: &mut Heard) -> Checked {
        let sums = &mut heard.sums;
        if !heard.rows.insert(told) {
            sums.repeats += 1;
            return Ok(());
        }
        let amount = i128::from(told.amount);
        let (kept, archived) = match told.what {
            What::Win { campaign, serial } => {
                sums.wins += 1;
                sums.received_fen += amount;
                heard.wins.entry((campaign, serial)).or_default().push((told, place));
                return Ok(());
            }
            What::Share { envelope, share } => {
                sums.shares += 1;
                sums.shares_fen += amount;
                let kept = self.seek(
                    "SELECT user, NULL, amount_fen FROM openings WHERE envelope = ?1 AND share = ?2",
                    [envelope, share, 0],
                )?;
                (kept, envelope <= self.progress.archived_envelopes)
            }
            What::Order { order, campaign, serial } => {
                sums.orders += 1;
                let kept = self.seek(
                    "SELECT user, request, price FROM orders WHERE id = ?1 AND campaign = ?2 AND serial = ?3",
                    [order, campaign, serial],
                )?;
                (kept, order <= self.progress.archived_orders)
            }
            What::Paid { order } => {
                sums.paid += 1;
                sums.paid_fen += amount;
                let kept = self.seek(
                    "SELECT user, NULL, price FROM orders WHERE id = ?1 AND state = ?2",
                    [order, code::PAID, 0],
                )?;
                (kept, order <= self.progress.archived_orders)
            }
            What::Cancelled { order } => {
                sums.cancelled += 1;
                let kept = self.seek(
                    "SELECT user, NULL, 0 FROM orders WHERE id = ?1 AND state = ?2",
                    [order, code::CANCELLED, 0],
                )?;
                (kept, order <= self.progress.archived_orders)
            }
            What::Sent { envelope } => {
                sums.sent += 1;
                sums.sent_fen += amount;
                let kept = self.seek("SELECT sender, request, total FROM envelopes WHERE id = ?1", [envelope, 0, 0])?;
                (kept, envelope <= self.progress.archived_envelopes)
            }
        };
        match kept {
            None if archived => heard.sums.archived += 1,
            kept => self.compare(&told, &place, kept),
        }
        Ok(())
    }

    /// The row that must be there. The statement takes as many of the numbers as it names.
    fn seek(&self, statement: &str, numbers: [i64; 3]) -> Result<Option<Kept>, LedgerError> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let numbers = &numbers[..statement.parameter_count()];
        Ok(statement
            .query_row(rusqlite::params_from_iter(numbers), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?)
    }

    fn compare(&mut self, told: &Told, place: &str, kept: Option<Kept>) {
        match kept {
            Some((user, request, amount)) => {
                let same_request = request.is_none_or(|request| request == told.request);
                if (user, amount) != (told.user, told.amount) || !same_request {
                    self.report.find(
                        "journal",
                        place,
                        format_args!("{told}; the ledger says user {user} request {request:?}, {amount} fen"),
                    );
                }
            }
            None => self.report.find("journal", place, format_args!("{told}; the ledger has no such thing")),
        }
    }

    /// Goes through all wins once: entries have no index by what was won.
    fn seek_wins(&mut self, heard: &mut Heard) -> Checked {
        let mut matched = 0;
        let mut statement =
            self.connection.prepare("SELECT -debit, item, credit, request, amount_fen FROM entries WHERE kind = 2")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(claims) = heard.wins.remove(&(row.get(0)?, row.get(1)?)) else { continue };
            matched += 1;
            let kept = (row.get(2)?, row.get(3)?, row.get(4)?);
            for (told, place) in claims {
                self.compare(&told, &place, Some(kept));
            }
        }
        heard.sums.unheard = self.report.wins.saturating_sub(matched);
        let mut rest: Vec<_> = heard.wins.drain().collect();
        rest.sort_by_key(|(unit, _)| *unit);
        for ((campaign, _), claims) in rest {
            let archived = self
                .campaigns
                .get(&campaign)
                .is_some_and(|campaign| campaign.first_entry <= self.progress.archived_through);
            for (told, place) in claims {
                if archived {
                    heard.sums.archived += 1;
                } else {
                    self.compare(&told, &place, None);
                }
            }
        }
        Ok(())
    }
}

fn parse(text: &str, only_wins: bool) -> Option<Told> {
    let fields: Vec<&str> = text.split(',').collect();
    let number = |field: &str| field.parse::<i64>().ok();
    let &[a, b, c, d, amount, at] = &fields[..] else { return None };
    number(at)?;
    let amount = number(amount)?;
    if only_wins {
        let what = What::Win { campaign: number(c)?, serial: number(d)? };
        Some(Told { what, user: number(a)?, request: number(b)?, amount })
    } else {
        Some(Told { what: What::parse(a, d)?, user: number(b)?, request: number(c)?, amount })
    }
}
