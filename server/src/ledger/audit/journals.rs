//! The clients' journals: what users were told must be in the ledger.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use rusqlite::{OptionalExtension, params_from_iter};
use serde::Serialize;

use super::{Audit, Checked, Progress};
use crate::ledger::LedgerError;
use crate::ledger::schema::code;
use crate::ledger::sqlite::Rows;

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
        let Self { files, wins, received_fen, repeats, torn, unheard, archived, .. } = self;
        let Self { shares, shares_fen, orders, paid, paid_fen, cancelled, sent, sent_fen, .. } = self;
        write!(
            f,
            "journals: {files} files, {wins} wins, {received_fen} fen received, {repeats} told again, {torn} cut off, \
             {unheard} wins nobody has heard of"
        )?;
        if shares + orders + paid + cancelled + sent > 0 {
            write!(
                f,
                "; {shares} shares of {shares_fen} fen, {orders} orders, {paid} paid with {paid_fen} fen, \
                 {cancelled} cancelled, {sent} envelopes sent with {sent_fen} fen"
            )?;
        }
        if *archived > 0 {
            write!(f, "; {archived} rows about what was archived")?;
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
struct JournalRow {
    what: What,
    user: i64,
    request: i64,
    amount: i64,
}

impl fmt::Display for JournalRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} request {} was told of {}, {} fen", self.user, self.request, self.what, self.amount)
    }
}

/// User, request where the ledger keeps it, and amount.
type Kept = (i64, Option<i64>, i64);

#[derive(Default)]
struct Journals {
    rows: HashSet<JournalRow>,
    /// By campaign and serial, each with its place: sought among the entries at the end.
    wins: HashMap<(i64, i64), Vec<(JournalRow, String)>>,
    sums: JournalSums,
}

impl Audit<'_> {
    pub(super) fn journals(&mut self, paths: &[PathBuf]) -> Checked {
        let mut journals = Journals::default();
        journals.sums.files = paths.len() as u64;
        for path in paths {
            self.journal(path, &mut journals)?;
        }
        self.seek_wins(&mut journals)?;
        self.report.journals = Some(journals.sums);
        Ok(())
    }

    fn journal(&mut self, path: &PathBuf, journals: &mut Journals) -> Checked {
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
                journals.sums.torn += 1;
                return Ok(());
            }
            let text = line.trim_end();
            let place = format!("{}:{number}", path.display());
            if number > 1 {
                match parse(text, only_wins) {
                    Some(row) => self.journal_row(row, place, journals)?,
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

    fn journal_row(&mut self, row: JournalRow, place: String, journals: &mut Journals) -> Checked {
        let sums = &mut journals.sums;
        if !journals.rows.insert(row) {
            sums.repeats += 1;
            return Ok(());
        }
        let amount = i128::from(row.amount);
        let Progress { archived_orders, archived_envelopes, .. } = self.progress;
        // What the ledger has of it, and whether that may be in an archive.
        let (statement, numbers, is_archived) = match row.what {
            What::Win { campaign, serial } => {
                sums.wins += 1;
                sums.received_fen += amount;
                journals.wins.entry((campaign, serial)).or_default().push((row, place));
                return Ok(());
            }
            What::Share { envelope, share } => {
                sums.shares += 1;
                sums.shares_fen += amount;
                let opening = "SELECT user, NULL, amount_fen FROM openings WHERE envelope = ?1 AND share = ?2";
                (opening, [envelope, share, 0], envelope <= archived_envelopes)
            }
            What::Order { order, campaign, serial } => {
                sums.orders += 1;
                let taken = "SELECT user, request, price FROM orders WHERE id = ?1 AND campaign = ?2 AND serial = ?3";
                (taken, [order, campaign, serial], order <= archived_orders)
            }
            What::Paid { order } => {
                sums.paid += 1;
                sums.paid_fen += amount;
                let paid = "SELECT user, NULL, price FROM orders WHERE id = ?1 AND state = ?2";
                (paid, [order, code::PAID, 0], order <= archived_orders)
            }
            What::Cancelled { order } => {
                sums.cancelled += 1;
                let cancelled = "SELECT user, NULL, 0 FROM orders WHERE id = ?1 AND state = ?2";
                (cancelled, [order, code::CANCELLED, 0], order <= archived_orders)
            }
            What::Sent { envelope } => {
                sums.sent += 1;
                sums.sent_fen += amount;
                let sent = "SELECT sender, request, total FROM envelopes WHERE id = ?1";
                (sent, [envelope, 0, 0], envelope <= archived_envelopes)
            }
        };
        let mut statement = self.connection.prepare_cached(statement)?;
        // It takes as many of the numbers as it names.
        let numbers = params_from_iter(&numbers[..statement.parameter_count()]);
        match statement.query_row(numbers, |row| row.try_into()).optional()? {
            None if is_archived => sums.archived += 1,
            kept => self.compare(&row, &place, kept),
        }
        Ok(())
    }

    fn compare(&mut self, row: &JournalRow, place: &str, kept: Option<Kept>) {
        if let Some((user, request, amount)) = kept {
            let is_same_request = request.is_none_or(|request| request == row.request);
            self.report.expect((user, amount) == (row.user, row.amount) && is_same_request, "journal", place, || {
                format!("{row}; the ledger says user {user} request {request:?}, {amount} fen")
            });
        } else {
            self.report.find("journal", place, format_args!("{row}; the ledger has no such thing"));
        }
    }

    /// Goes through all wins once: entries have no index by what was won.
    fn seek_wins(&mut self, journals: &mut Journals) -> Checked {
        let mut matched = 0;
        let wins = "SELECT -debit, item, credit, request, amount_fen FROM entries WHERE kind = 2";
        Rows(self.connection).each(wins, |row| {
            let Some(claims) = journals.wins.remove(&(row.get(0)?, row.get(1)?)) else { return Ok(()) };
            matched += 1;
            let kept = (row.get(2)?, row.get(3)?, row.get(4)?);
            for (row, place) in claims {
                self.compare(&row, &place, Some(kept));
            }
            Ok(())
        })?;
        journals.sums.unheard = self.report.wins.saturating_sub(matched);
        let mut rest: Vec<_> = journals.wins.drain().collect();
        rest.sort_by_key(|(unit, _)| *unit);
        for ((campaign, _), claims) in rest {
            let archived_through = self.progress.archived_through;
            if self.campaigns.get(&campaign).is_some_and(|campaign| campaign.first_entry <= archived_through) {
                journals.sums.archived += claims.len() as u64;
                continue;
            }
            for (row, place) in claims {
                self.compare(&row, &place, None);
            }
        }
        Ok(())
    }
}

fn parse(text: &str, only_wins: bool) -> Option<JournalRow> {
    let fields: Vec<&str> = text.split(',').collect();
    let number = |field: &str| field.parse::<i64>().ok();
    let &[a, b, c, d, amount, at] = &fields[..] else { return None };
    number(at)?;
    let amount = number(amount)?;
    if only_wins {
        let what = What::Win { campaign: number(c)?, serial: number(d)? };
        Some(JournalRow { what, user: number(a)?, request: number(b)?, amount })
    } else {
        Some(JournalRow { what: What::parse(a, d)?, user: number(b)?, request: number(c)?, amount })
    }
}
