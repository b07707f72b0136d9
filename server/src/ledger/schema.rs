//! The tables, and what makes a file one of ours. The words of the books, as the tables use them:
//!
//! An account's balance is the sum of what it was credited less the sum of what it was debited. A transfer debits one account
//! and credits another by the same amount, so all balances together are 0 at every commit. The treasury stands for the world
//! outside and is the one account below zero: minus all that was ever put into the books. A campaign's fund is credited by
//! the treasury at creation and debited by each win; what a settlement finds left in it goes to the refunds.

use hongbao_proto::{CampaignId, UserId};

/// `PRAGMA application_id` of a ledger: "HBao".
pub const APPLICATION_ID: i64 = 0x4842_616f;

/// `PRAGMA user_version` that this program writes.
pub const VERSION: i64 = 1;

/// Account ids are derived from their owners, so that no index has to find them: users are positive, campaigns negative.
pub const TREASURY: i64 = 0;

/// Below every campaign's account: campaign ids end at 2^32.
pub const REFUNDS: i64 = -(1 << 40);

/// The fund of a campaign.
pub fn campaign_account(id: CampaignId) -> i64 {
    -i64::from(id.get())
}

/// The account of a user. `None` never happens: user ids end at 2^53.
pub fn user_account(user: UserId) -> Option<i64> {
    i64::try_from(user.get()).ok()
}

/// Codes of `accounts.kind` and `transfers.kind`: written into files, never to be reused.
pub mod kind {
    /// Account: the world outside.
    pub const TREASURY: i64 = 0;
    /// Account: what a campaign can still pay.
    pub const CAMPAIGN: i64 = 1;
    /// Account: what a user has won.
    pub const USER: i64 = 2;
    /// Account: what campaigns have given back.
    pub const REFUNDS: i64 = 3;

    /// Transfer: treasury to campaign, once, at its creation.
    pub const FUND: i64 = 1;
    /// Transfer: campaign to user, once for each win.
    pub const WIN: i64 = 2;
    /// Transfer: campaign to refunds, at most once, when it is settled.
    pub const REFUND: i64 = 3;

    /// Campaign: rain.
    pub const RAIN: i64 = 1;
}

/// Bytes of a page. Users come in no order, so that a batch touches a page of two trees (`wins_by_request`, `accounts`) for
/// nearly each claim, and each page touched is written twice (log, then file): `benches/ledger.rs` falls from 280,000 wins/s
/// at 100,000 wins to 50,000 at a million (a million users, batches of 4,096, 2 busy cores). Pages of 1,024 bytes, which
/// write a quarter of the bytes, were no faster there (248,000 and 49,000).
pub const PAGE_BYTES: i64 = 4096;

/// The tables of version 1.
///
/// `wins` is kept in the order of its primary key: serials are issued in ascending order, so that its inserts and the
/// acknowledgements that follow stay near its end. `wins_by_request` is the one index in random order; it is what makes a
/// repeated request harmless, finds a user's wins, and counts them against a limit without touching `wins` (the primary
/// key rides along in it).
///
/// Foreign keys are declared for `PRAGMA foreign_key_check`, which the audit runs. They are not enforced while writing: every
/// statement that could break one is in `sqlite`, and enforcement would add three look-ups to each win.
pub const TABLES: &str = "
CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    created_at INTEGER NOT NULL,
    title TEXT NOT NULL,
    kind INTEGER NOT NULL,
    total INTEGER NOT NULL CHECK (total > 0),
    rate_per_second INTEGER NOT NULL CHECK (rate_per_second > 0),
    amount_min INTEGER NOT NULL CHECK (amount_min > 0),
    amount_max INTEGER NOT NULL CHECK (amount_max >= amount_min),
    seed BLOB NOT NULL CHECK (length(seed) = 32),
    starts_at INTEGER NOT NULL,
    ends_at INTEGER,
    per_user_limit INTEGER CHECK (per_user_limit > 0),
    stopped_at INTEGER,
    settled_at INTEGER,
    refunded INTEGER NOT NULL DEFAULT 0,
    total_amount INTEGER NOT NULL CHECK (total_amount > 0),
    won INTEGER NOT NULL DEFAULT 0,
    paid INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    balance INTEGER NOT NULL
) STRICT;

CREATE TABLE transfers (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    debit INTEGER NOT NULL REFERENCES accounts (id),
    credit INTEGER NOT NULL REFERENCES accounts (id),
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0),
    kind INTEGER NOT NULL,
    serial INTEGER,
    request INTEGER
) STRICT;

CREATE TABLE wins (
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    serial INTEGER NOT NULL,
    user INTEGER NOT NULL REFERENCES accounts (id),
    request INTEGER NOT NULL,
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0),
    acknowledged INTEGER NOT NULL DEFAULT 0 CHECK (acknowledged IN (0, 1)),
    transfer INTEGER NOT NULL REFERENCES transfers (id),
    PRIMARY KEY (campaign, serial)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX wins_by_request ON wins (user, request);

CREATE TABLE probes (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_ms INTEGER NOT NULL,
    ballast BLOB NOT NULL
) STRICT;
";
