//! The tables, and what makes a file one of ours.

/// `PRAGMA application_id` of a ledger: "HBao".
pub const APPLICATION_ID: i64 = 0x4842_616f;

/// `PRAGMA user_version` that this program writes.
pub const VERSION: i64 = 2;

/// Codes of columns other than `entries.kind` (see `books::Kind`): written into files, never to be
/// reused.
pub mod code {
    /// `campaigns.kind`: rain.
    pub const RAIN: i64 = 1;
    /// `campaigns.kind`: tickets.
    pub const TICKET: i64 = 2;
    /// `campaigns.kind`: coupons.
    pub const COUPON: i64 = 3;

    /// `orders.state`: held for the buyer.
    pub const RESERVED: i64 = 1;
    /// `orders.state`: the buyer's for good.
    pub const PAID: i64 = 2;
    /// `orders.state`: given back.
    pub const CANCELLED: i64 = 3;
    /// `orders.state`: not paid in time.
    pub const EXPIRED: i64 = 4;

    /// `envelopes.mode`: by the double-mean method.
    pub const RANDOM: i64 = 1;
    /// `envelopes.mode`: as equal as may be.
    pub const EQUAL: i64 = 2;
}

/// Bytes of a page.
pub const PAGE_BYTES: i64 = 4096;

/// The tables of version 2.
///
/// `entries` is the ledger proper: whatever moved, in the order in which it did; every other table
/// says more about some of its rows, or what they add up to. It has no index but its own order, and
/// all that is written with a win goes to the end of a table: an index by user and request, which
/// version 1 had, and the winner's account touch a page in random order each, and made a win six
/// times as dear at a million of them. What such an index would answer is found along the chain of
/// a user's entries (`previous`).
///
/// `accounts` is written behind: a row is right as of `last_entry`, and the row of every account
/// contains all entries below `progress.accounts_from`. `units` says which serials of a campaign
/// that is not settled are somebody's, 8,192 a row. `notices` holds the entries of which a user has
/// not acknowledged to have heard. An envelope's row never changes, because its list of recipients
/// may be long: `open_envelopes` has those that can be opened, with a bit for each recipient who
/// has acknowledged it; those who have opened it are in `openings`, whether they have a bit or not.
///
/// `progress.archived_*`: what an archive has taken away (`archive`): all entries through this
/// number, and the highest order and envelope among those whose first entry it took.
/// `accounts.archived` is what those entries added to a balance.
///
/// Foreign keys are declared for `PRAGMA foreign_key_check`, which the audit runs. They are not
/// enforced while writing: every statement that could break one is in `sqlite`.
pub const TABLES: &str = "
CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    created_at INTEGER NOT NULL,
    first_entry INTEGER NOT NULL,
    title TEXT NOT NULL,
    kind INTEGER NOT NULL,
    total INTEGER NOT NULL CHECK (total > 0),
    seed BLOB NOT NULL CHECK (length(seed) = 32),
    starts_at INTEGER NOT NULL,
    ends_at INTEGER,
    per_user_limit INTEGER CHECK (per_user_limit > 0),
    rate_per_second INTEGER CHECK (rate_per_second > 0),
    amount_min INTEGER CHECK (amount_min > 0),
    amount_max INTEGER CHECK (amount_max >= amount_min),
    price INTEGER CHECK (price >= 0),
    face_value INTEGER CHECK (face_value >= 0),
    hold_ms INTEGER,
    valid_from INTEGER,
    valid_until INTEGER,
    fair_window_ms INTEGER,
    fund INTEGER NOT NULL CHECK (fund >= 0),
    stopped_at INTEGER,
    settled_at INTEGER,
    refunded INTEGER NOT NULL DEFAULT 0,
    won INTEGER NOT NULL DEFAULT 0,
    paid INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    debit INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    amount_fen INTEGER NOT NULL CHECK (amount_fen >= 0),
    item INTEGER NOT NULL,
    request INTEGER,
    previous INTEGER NOT NULL
) STRICT;

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    balance INTEGER NOT NULL,
    last_entry INTEGER NOT NULL,
    last_claim INTEGER NOT NULL,
    archived INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE units (
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    chunk INTEGER NOT NULL,
    bits BLOB NOT NULL,
    PRIMARY KEY (campaign, chunk)
) STRICT, WITHOUT ROWID;

CREATE TABLE notices (
    entry INTEGER PRIMARY KEY REFERENCES entries (id)
) STRICT;

CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL,
    campaign INTEGER NOT NULL REFERENCES campaigns (id),
    serial INTEGER NOT NULL,
    request INTEGER NOT NULL,
    price INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reserved_at INTEGER NOT NULL,
    pay_by INTEGER NOT NULL,
    decided_at INTEGER
) STRICT;
CREATE UNIQUE INDEX orders_by_user ON orders (user, id);
CREATE INDEX orders_by_campaign ON orders (campaign, id);
CREATE INDEX orders_waiting ON orders (id) WHERE state = 1;

CREATE TABLE envelopes (
    id INTEGER PRIMARY KEY,
    sent_at INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    request INTEGER NOT NULL,
    room INTEGER,
    total INTEGER NOT NULL CHECK (total >= shares),
    shares INTEGER NOT NULL CHECK (shares > 0),
    mode INTEGER NOT NULL,
    seed BLOB NOT NULL CHECK (length(seed) = 32),
    greeting TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    recipients BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX envelopes_by_request ON envelopes (sender, request);

CREATE TABLE open_envelopes (
    envelope INTEGER PRIMARY KEY REFERENCES envelopes (id),
    told BLOB NOT NULL
) STRICT;

CREATE TABLE closings (
    envelope INTEGER PRIMARY KEY REFERENCES envelopes (id),
    at_ms INTEGER NOT NULL,
    refunded INTEGER NOT NULL CHECK (refunded >= 0)
) STRICT;

CREATE TABLE openings (
    envelope INTEGER NOT NULL REFERENCES envelopes (id),
    share INTEGER NOT NULL,
    user INTEGER NOT NULL,
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0),
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (envelope, share)
) STRICT, WITHOUT ROWID;

CREATE TABLE deposits (
    key TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    first_user INTEGER NOT NULL,
    users INTEGER NOT NULL,
    amount_fen INTEGER NOT NULL,
    first_entry INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    accounts_from INTEGER NOT NULL,
    archived_through INTEGER NOT NULL DEFAULT 0,
    archived_orders INTEGER NOT NULL DEFAULT 0,
    archived_envelopes INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO progress (id, accounts_from) VALUES (1, 1);

CREATE TABLE probes (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_ms INTEGER NOT NULL,
    ballast BLOB NOT NULL
) STRICT;

-- For people who look into the file.
CREATE VIEW wins AS
    SELECT -debit AS campaign, item AS serial, credit AS user, request, amount_fen, at_ms, id AS entry,
           NOT EXISTS (SELECT 1 FROM notices WHERE entry = entries.id) AS acknowledged
    FROM entries WHERE kind = 2;
";
