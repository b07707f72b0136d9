//! Rows of the tables as values, and [`Store`] over one connection: inside a transaction or outside
//! of it.

use std::sync::Arc;

use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, RequestId, RoomId, Serial, UserId};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::clock::UnixMs;
use crate::ledger::books::{
    Account, AccountId, CampaignState, Entry, Envelope, Kind, Opening, OrdersOf, Store, Units, order_id,
};
use crate::ledger::schema::code;
use crate::ledger::{LedgerError, Page};
use crate::market::campaign::{Amounts, Campaign, CampaignKind, CampaignTerms, Goods, Sale, Seed, Settlement};
use crate::market::envelope::{Mode, Offer};
use crate::market::order::{Order, OrderState};

macro_rules! order_columns {
    () => {
        "id, user, campaign, serial, request, price, state, reserved_at, pay_by, decided_at"
    };
}
macro_rules! envelope_columns {
    () => {
        "id, sender, request, room, total, shares, mode, seed, greeting, expires_at, recipients, told, closings.at_ms, refunded"
    };
}
macro_rules! envelope_tables {
    () => {
        "envelopes LEFT JOIN open_envelopes ON open_envelopes.envelope = id LEFT JOIN closings ON closings.envelope = id"
    };
}
pub(super) use order_columns;

/// What a sender that is the house is called in `envelopes.sender`.
const HOUSE: i64 = 0;

pub struct Rows<'a>(pub &'a Connection);

impl Store for Rows<'_> {
    fn entry(&self, id: i64) -> Result<Option<Entry>, LedgerError> {
        self.one(
            "SELECT id, at_ms, kind, debit, credit, amount_fen, item, request, previous FROM entries WHERE id = ?1",
            id,
            entry,
        )
    }

    fn order(&self, id: OrderId) -> Result<Option<Order>, LedgerError> {
        self.one(concat!("SELECT ", order_columns!(), " FROM orders WHERE id = ?1"), sql(id.get())?, order)
    }

    fn envelope(&self, id: EnvelopeId) -> Result<Option<Envelope>, LedgerError> {
        let statement = concat!("SELECT ", envelope_columns!(), " FROM ", envelope_tables!(), " WHERE id = ?1");
        let Some(mut envelope) = self.one(statement, sql(id.get())?, envelope)? else { return Ok(None) };
        self.read_openings(&mut envelope)?;
        Ok(Some(envelope))
    }

    fn sent(&self, sender: Option<UserId>, request: RequestId) -> Result<Option<EnvelopeId>, LedgerError> {
        let sender = sender.map_or(Ok(HOUSE), |sender| sql(sender.get()))?;
        let id: Option<i64> = self
            .0
            .prepare_cached("SELECT id FROM envelopes WHERE sender = ?1 AND request = ?2")?
            .query_row([sender, sql(request.get())?], |row| row.get(0))
            .optional()?;
        id.map(envelope_id).transpose()
    }

    fn orders(&self, of: OrdersOf, before: Option<OrderId>, limit: u32) -> Result<Page<Order>, LedgerError> {
        let (column, owner) = match of {
            OrdersOf::User(user) => ("user", sql(user.get())?),
            OrdersOf::Campaign(campaign) => ("campaign", campaign.get().into()),
        };
        let columns = order_columns!();
        let mut statement = self.0.prepare_cached(&format!(
            "SELECT {columns} FROM orders WHERE {column} = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
        ))?;
        let before = before.map_or(Ok(i64::MAX), |before| sql(before.get()))?;
        // One more than asked for tells whether there are older ones.
        let mut rows = statement.query([owner, before, i64::from(limit) + 1])?;
        let mut page = Page::default();
        while let Some(row) = rows.next()? {
            if page.items.len() >= limit as usize {
                page.more = true;
                break;
            }
            page.items.push(order(row)?);
        }
        Ok(page)
    }

    fn deposit(&self, key: &str) -> Result<Option<(UserId, u32, Fen)>, LedgerError> {
        self.one("SELECT first_user, users, amount_fen FROM deposits WHERE key = ?1", key, |row| {
            Ok((user_id(row.get(0)?)?, row.get(1)?, Fen(unsigned(row.get(2)?)?)))
        })
    }

    fn put_campaign(&mut self, state: &CampaignState, fund: Fen) -> Result<(), LedgerError> {
        let terms = &state.campaign.terms;
        let (rate, amounts, sale) = match &terms.goods {
            Goods::Rain { rate_per_second, amounts } => (Some(*rate_per_second), Some(*amounts), None),
            Goods::Sale(sale) => (None, None, Some(*sale)),
        };
        let kind = match terms.kind() {
            CampaignKind::Rain => code::RAIN,
            CampaignKind::Ticket => code::TICKET,
            CampaignKind::Coupon => code::COUPON,
        };
        let money = |fen: Option<Fen>| fen.map(|fen| sql(fen.0)).transpose();
        self.write(
            "INSERT INTO campaigns (id, created_at, first_entry, title, kind, total, seed, starts_at, ends_at, per_user_limit,
             rate_per_second, amount_min, amount_max, price, face_value, hold_ms, valid_from, valid_until, fair_window_ms, fund)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20)",
            params![
                state.campaign.id.get(),
                sql(state.campaign.created_at)?,
                state.first_entry,
                terms.title,
                kind,
                sql(terms.total)?,
                terms.seed.0,
                sql(terms.starts_at)?,
                terms.ends_at.map(sql).transpose()?,
                terms.per_user_limit,
                rate,
                money(amounts.map(|amounts| amounts.min))?,
                money(amounts.map(|amounts| amounts.max))?,
                money(sale.map(|sale| sale.price))?,
                money(sale.map(|sale| sale.face_value))?,
                sale.map(|sale| sql(sale.hold_ms)).transpose()?,
                sale.and_then(|sale| sale.valid_from).map(sql).transpose()?,
                sale.and_then(|sale| sale.valid_until).map(sql).transpose()?,
                sale.map(|sale| sale.fair_window_ms),
                sql(fund.0)?,
            ],
        )
    }

    fn settle_campaign(&mut self, id: CampaignId, settlement: Settlement) -> Result<(), LedgerError> {
        let (settled_at, refunded) = (sql(settlement.settled_at)?, sql(settlement.refunded.0)?);
        let settle = "UPDATE campaigns SET settled_at = ?2, refunded = ?3 WHERE id = ?1";
        self.write(settle, params![id.get(), settled_at, refunded])?;
        self.0.prepare_cached("DELETE FROM units WHERE campaign = ?1")?.execute([id.get()])?;
        Ok(())
    }

    fn put_entry(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.write(
            "INSERT INTO entries (id, at_ms, kind, debit, credit, amount_fen, item, request, previous)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
            params![
                entry.id,
                sql(entry.at)?,
                entry.kind.code(),
                entry.debit.0,
                entry.credit.0,
                entry.amount,
                entry.item,
                entry.request.map(|request| sql(request.get())).transpose()?,
                entry.previous,
            ],
        )
    }

    fn put_order(&mut self, order: &Order) -> Result<(), LedgerError> {
        let state = match order.state {
            OrderState::Reserved => code::RESERVED,
            OrderState::Paid => code::PAID,
            OrderState::Cancelled => code::CANCELLED,
            OrderState::Expired => code::EXPIRED,
        };
        self.write(
            "INSERT INTO orders (id, user, campaign, serial, request, price, state, reserved_at, pay_by, decided_at)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, decided_at = excluded.decided_at",
            params![
                sql(order.id.get())?,
                sql(order.user.get())?,
                order.campaign.get(),
                sql(order.serial.0)?,
                sql(order.request.get())?,
                sql(order.price.0)?,
                state,
                sql(order.reserved_at)?,
                sql(order.pay_by)?,
                order.decided_at.map(sql).transpose()?,
            ],
        )
    }

    fn put_envelope(&mut self, envelope: &Envelope, sent_at: UnixMs) -> Result<(), LedgerError> {
        let offer = &envelope.offer;
        let id = sql(offer.envelope.get())?;
        let mode = match offer.mode {
            Mode::Random => code::RANDOM,
            Mode::Equal => code::EQUAL,
        };
        self.write(
            "INSERT INTO envelopes (id, sent_at, sender, request, room, total, shares, mode, seed, greeting, expires_at,
             recipients) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
            params![
                id,
                sql(sent_at)?,
                offer.sender.map_or(Ok(HOUSE), |sender| sql(sender.get()))?,
                sql(envelope.request.get())?,
                offer.room.map(|room| sql(room.get())).transpose()?,
                sql(envelope.total.0)?,
                offer.shares,
                mode,
                envelope.seed.0,
                offer.greeting,
                sql(offer.expires_at)?,
                envelope.recipients.iter().flat_map(|user| user.get().to_le_bytes()).collect::<Vec<u8>>(),
            ],
        )?;
        let bits = words_to_bytes(&envelope.acknowledged);
        self.write("INSERT INTO open_envelopes (envelope, told) VALUES (?1, ?2)", params![id, bits])
    }

    fn close_envelope(&mut self, id: EnvelopeId, at: UnixMs, refunded: Fen) -> Result<(), LedgerError> {
        let id = sql(id.get())?;
        self.write("DELETE FROM open_envelopes WHERE envelope = ?1", [id])?;
        let closing = [id, sql(at)?, sql(refunded.0)?];
        self.write("INSERT INTO closings (envelope, at_ms, refunded) VALUES (?1, ?2, ?3)", closing)
    }

    fn put_opening(&mut self, envelope: EnvelopeId, share: u32, opening: &Opening) -> Result<(), LedgerError> {
        let (user, amount, at) = (sql(opening.user.get())?, sql(opening.amount.0)?, sql(opening.at)?);
        self.write(
            "INSERT INTO openings (envelope, share, user, amount_fen, at_ms) VALUES (?1,?2,?3,?4,?5)",
            [sql(envelope.get())?, share.into(), user, amount, at],
        )
    }

    fn put_notice(&mut self, entry: i64) -> Result<(), LedgerError> {
        self.write("INSERT INTO notices (entry) VALUES (?1)", [entry])
    }

    fn drop_notice(&mut self, entry: i64) -> Result<(), LedgerError> {
        self.write("DELETE FROM notices WHERE entry = ?1", [entry])
    }

    fn put_deposit(
        &mut self,
        key: &str,
        (first, count, amount): (UserId, u32, Fen),
        at: UnixMs,
        first_entry: i64,
    ) -> Result<(), LedgerError> {
        self.write(
            "INSERT INTO deposits (key, at_ms, first_user, users, amount_fen, first_entry)
             VALUES (?1,?2,?3,?4,?5,?6)",
            params![key, sql(at)?, sql(first.get())?, count, sql(amount.0)?, first_entry],
        )
    }
}

impl Rows<'_> {
    fn one<T>(
        &self,
        statement: &str,
        key: impl rusqlite::ToSql,
        read: impl FnOnce(&Row<'_>) -> Result<T, LedgerError>,
    ) -> Result<Option<T>, LedgerError> {
        let mut statement = self.0.prepare_cached(statement)?;
        let mut rows = statement.query([key])?;
        rows.next()?.map(read).transpose()
    }

    /// Runs a statement that must change exactly one row.
    pub fn write(&self, statement: &str, parameters: impl Params) -> Result<(), LedgerError> {
        match self.0.prepare_cached(statement)?.execute(parameters)? {
            1 => Ok(()),
            changed => Err(corrupt(format!("{changed} rows were changed where one was expected: {statement}"))),
        }
    }

    /// Every row of a statement without parameters.
    pub fn each(
        &self,
        statement: &str,
        mut take: impl FnMut(&Row<'_>) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let mut statement = self.0.prepare(statement)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            take(row)?;
        }
        Ok(())
    }

    /// Every row of a statement without parameters, as what it says.
    pub fn all<T>(&self, statement: &str, read: fn(&Row<'_>) -> Result<T, LedgerError>) -> Result<Vec<T>, LedgerError> {
        let mut all = Vec::new();
        self.each(statement, |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// All campaigns, without their units.
    pub fn campaigns(&self) -> Result<Vec<CampaignState>, LedgerError> {
        self.all("SELECT * FROM campaigns", state)
    }

    /// Envelopes that can be opened, with those who opened them.
    pub fn open_envelopes(&self) -> Result<Vec<Envelope>, LedgerError> {
        let (columns, tables) = (envelope_columns!(), envelope_tables!());
        let open = format!("SELECT {columns} FROM {tables} WHERE open_envelopes.envelope NOTNULL");
        let mut envelopes = self.all(&open, envelope)?;
        for envelope in &mut envelopes {
            self.read_openings(envelope)?;
        }
        Ok(envelopes)
    }

    /// How many shares were opened, and their money: one pass over narrow rows, some millions a
    /// second.
    pub fn opened(&self) -> Result<(u64, Fen), LedgerError> {
        let sum = "SELECT count(*), ifnull(sum(amount_fen), 0) FROM openings";
        let (count, money): (i64, i64) = self.0.query_row(sum, [], |row| row.try_into())?;
        Ok((unsigned(count)?, Fen(unsigned(money)?)))
    }

    fn read_openings(&self, envelope: &mut Envelope) -> Result<(), LedgerError> {
        let mut statement =
            self.0.prepare_cached("SELECT user, amount_fen, at_ms FROM openings WHERE envelope = ?1 ORDER BY share")?;
        let mut rows = statement.query([sql(envelope.offer.envelope.get())?])?;
        while let Some(row) = rows.next()? {
            let amount = Fen(unsigned(row.get(1)?)?);
            envelope.opened.push(Opening { user: user_id(row.get(0)?)?, amount, at: unsigned(row.get(2)?)? });
            envelope.left = envelope.left.checked_sub(amount).ok_or_else(|| {
                corrupt(format!("more was opened of envelope {} than it held", envelope.offer.envelope))
            })?;
        }
        Ok(())
    }
}

/// A row of `entries`, all columns in their order.
pub fn entry(row: &Row<'_>) -> Result<Entry, LedgerError> {
    let (id, kind): (i64, i64) = (row.get(0)?, row.get(2)?);
    Ok(Entry {
        id,
        at: unsigned(row.get(1)?)?,
        kind: Kind::from_code(kind).ok_or_else(|| corrupt(format!("entry {id} is of the unknown kind {kind}")))?,
        debit: AccountId(row.get(3)?),
        credit: AccountId(row.get(4)?),
        amount: row.get(5)?,
        item: row.get(6)?,
        request: row.get::<_, Option<i64>>(7)?.map(request_id).transpose()?,
        previous: row.get(8)?,
    })
}

/// A row of `accounts`: id, balance, last_entry, last_claim.
pub fn account(row: &Row<'_>) -> Result<(AccountId, Account), LedgerError> {
    let account = Account { balance: row.get(1)?, last_entry: row.get(2)?, last_claim: unsigned(row.get(3)?)? };
    Ok((AccountId(row.get(0)?), account))
}

pub fn order(row: &Row<'_>) -> Result<Order, LedgerError> {
    let id = order_id(row.get(0)?)?;
    Ok(Order {
        id,
        user: user_id(row.get(1)?)?,
        campaign: campaign_id(row.get(2)?)?,
        serial: Serial(unsigned(row.get(3)?)?),
        request: request_id(row.get(4)?)?,
        price: Fen(unsigned(row.get(5)?)?),
        state: match row.get(6)? {
            code::RESERVED => OrderState::Reserved,
            code::PAID => OrderState::Paid,
            code::CANCELLED => OrderState::Cancelled,
            code::EXPIRED => OrderState::Expired,
            other => return Err(corrupt(format!("order {id} is in the unknown state {other}"))),
        },
        reserved_at: unsigned(row.get(7)?)?,
        pay_by: unsigned(row.get(8)?)?,
        decided_at: row.get::<_, Option<i64>>(9)?.map(unsigned).transpose()?,
    })
}

/// A row of `envelope_columns!`; nobody has opened it yet.
pub fn envelope(row: &Row<'_>) -> Result<Envelope, LedgerError> {
    let id = envelope_id(row.get(0)?)?;
    let total = Fen(unsigned(row.get(4)?)?);
    let recipients: Vec<u8> = row.get(10)?;
    let (recipients, []) = recipients.as_chunks::<8>() else {
        return Err(corrupt(format!("recipients of envelope {id}")));
    };
    let recipients = recipients
        .iter()
        .map(|bytes| UserId::new(u64::from_le_bytes(*bytes)).map_err(|error| corrupt(error.to_string())))
        .collect::<Result<Arc<[UserId]>, _>>()?;
    let words = Envelope::words(recipients.len());
    let acknowledged = match row.get::<_, Option<Vec<u8>>>(11)? {
        None => vec![u64::MAX; words],
        Some(bytes) => bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
    };
    if acknowledged.len() != words {
        return Err(corrupt(format!("envelope {id} has not a bit for each recipient")));
    }
    let closed = match (row.get::<_, Option<i64>>(12)?, row.get::<_, Option<i64>>(13)?) {
        (Some(at), Some(refunded)) => Some((unsigned(at)?, Fen(unsigned(refunded)?))),
        _ => None,
    };
    let sender: i64 = row.get(1)?;
    let offer = Offer {
        envelope: id,
        sender: if sender == HOUSE { None } else { Some(user_id(sender)?) },
        room: row
            .get::<_, Option<i64>>(3)?
            .map(|room| RoomId::new(unsigned(room)?).map_err(|error| corrupt(error.to_string())))
            .transpose()?,
        shares: row.get(5)?,
        mode: match row.get(6)? {
            code::RANDOM => Mode::Random,
            code::EQUAL => Mode::Equal,
            other => return Err(corrupt(format!("envelope {id} is of the unknown mode {other}"))),
        },
        greeting: row.get(8)?,
        expires_at: unsigned(row.get(9)?)?,
    };
    Ok(Envelope {
        offer: Arc::new(offer),
        request: request_id(row.get(2)?)?,
        total,
        seed: Seed(row.get(7)?),
        recipients,
        acknowledged: acknowledged.into(),
        opened: Vec::new(),
        left: total,
        closed,
    })
}

/// A row of `campaigns`, by the names of its columns; its units are elsewhere.
fn state(row: &Row<'_>) -> Result<CampaignState, LedgerError> {
    fn must<T: FromSql>(row: &Row<'_>, column: &str) -> Result<T, LedgerError> {
        row.get::<_, Option<T>>(column)?.ok_or_else(|| corrupt(format!("a campaign has no {column}")))
    }
    let number = |column: &str| -> Result<u64, LedgerError> { unsigned(must(row, column)?) };
    let optional = |column: &str| -> Result<Option<u64>, LedgerError> {
        row.get::<_, Option<i64>>(column)?.map(unsigned).transpose()
    };
    let sale = |kind| -> Result<Goods, LedgerError> {
        Ok(Goods::Sale(Sale {
            kind,
            price: Fen(number("price")?),
            face_value: Fen(number("face_value")?),
            hold_ms: number("hold_ms")?,
            valid_from: optional("valid_from")?,
            valid_until: optional("valid_until")?,
            fair_window_ms: must(row, "fair_window_ms")?,
        }))
    };
    let goods = match row.get("kind")? {
        code::RAIN => Goods::Rain {
            rate_per_second: must(row, "rate_per_second")?,
            amounts: Amounts { min: Fen(number("amount_min")?), max: Fen(number("amount_max")?) },
        },
        code::TICKET => sale(CampaignKind::Ticket)?,
        code::COUPON => sale(CampaignKind::Coupon)?,
        other => return Err(corrupt(format!("unknown kind of campaign {other}"))),
    };
    let refunded = Fen(number("refunded")?);
    let campaign = Campaign {
        id: campaign_id(row.get("id")?)?,
        created_at: number("created_at")?,
        terms: CampaignTerms {
            title: row.get("title")?,
            goods,
            total: number("total")?,
            seed: Seed(row.get("seed")?),
            starts_at: number("starts_at")?,
            ends_at: optional("ends_at")?,
            per_user_limit: row.get("per_user_limit")?,
        },
        stopped_at: optional("stopped_at")?,
        settlement: optional("settled_at")?.map(|settled_at| Settlement { settled_at, refunded }),
        won: number("won")?,
        paid: Fen(number("paid")?),
        reserved: number("reserved")?,
    };
    Ok(CampaignState { campaign, first_entry: row.get("first_entry")?, units: Units::default() })
}

/// Bits as bytes, lowest first.
pub fn words_to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What cannot be right.
pub fn corrupt(what: impl Into<String>) -> LedgerError {
    LedgerError::Corrupt(what.into())
}

pub fn sql(value: u64) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| corrupt(format!("{value} is beyond SQL's integers")))
}

/// A number that cannot be negative.
pub fn unsigned(value: i64) -> Result<u64, LedgerError> {
    u64::try_from(value).map_err(|_| corrupt(format!("{value} where no negative number can be")))
}

macro_rules! checked {
    ($($name:ident: $id:ty;)*) => {
        $(
            #[doc = concat!("A checked [`", stringify!($id), "`].")]
            pub fn $name(value: i64) -> Result<$id, LedgerError> {
                <$id>::new(unsigned(value)?).map_err(|error| corrupt(error.to_string()))
            }
        )*
    };
}

checked! {
    user_id: UserId;
    campaign_id: CampaignId;
    request_id: RequestId;
    envelope_id: EnvelopeId;
}
