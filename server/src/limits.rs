//! The bounds of the server, in one place.

/// Unacknowledged wins told at one login.
pub const RECALLED_WINS_MAX: usize = 256;

/// Requests that wait for the ledger's writer.
pub const LEDGER_QUEUE_MAX: usize = 16 * 1024;

/// Postings in one transaction.
pub const LEDGER_BATCH_MAX: usize = 4 * 1024;

/// Prizes of one campaign: the sum of their amounts is computed at creation, about 0.1 µs each.
pub const CAMPAIGN_TOTAL_MAX: u64 = 10_000_000;
