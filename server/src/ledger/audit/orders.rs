//! Orders beside their entries.

use hongbao_proto::{RequestId, UserId};
use rusqlite::Row;

use super::{Audit, Checked};
use crate::ledger::audit::entries::{COLUMNS, EntryRow};
use crate::ledger::audit::stream::Stream;
use crate::ledger::books::Kind;
use crate::ledger::schema::code;

#[derive(Debug)]
struct OrderRow {
    id: i64,
    user: i64,
    campaign: i64,
    serial: i64,
    request: i64,
    price: i64,
    state: i64,
    reserved_at: i64,
    pay_by: i64,
    decided_at: Option<i64>,
}

impl OrderRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (id, user, campaign, serial, request, price, state, reserved_at, pay_by, decided_at) = row.try_into()?;
        Ok(Self { id, user, campaign, serial, request, price, state, reserved_at, pay_by, decided_at })
    }
}

/// An entry of an order.
struct Step {
    entry: EntryRow,
    /// Whether its user is still to be told of it.
    is_noticed: bool,
}

impl Step {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { entry: EntryRow::read(row)?, is_noticed: row.get(9)? })
    }
}

impl Audit<'_> {
    pub(super) fn orders(&mut self) -> Checked {
        let mut orders = self.connection.prepare(
            "SELECT id, user, campaign, serial, request, price, state, reserved_at, pay_by, decided_at
             FROM orders NOT INDEXED ORDER BY +id",
        )?;
        let mut steps = self.connection.prepare(&format!(
            "SELECT {COLUMNS}, EXISTS (SELECT 1 FROM notices WHERE entry = entries.id)
             FROM entries NOT INDEXED WHERE kind IN (4, 5, 6, 7) ORDER BY item, id"
        ))?;
        let mut orders = Stream::new(orders.query([])?, OrderRow::read, |order| order.id)?;
        let mut steps = Stream::new(steps.query([])?, Step::read, |step| step.entry.item)?;
        while let Some(id) = [orders.key(), steps.key()].into_iter().flatten().min() {
            let (rows, steps) = (orders.take(id)?, steps.take(id)?);
            let place = format_args!("order {id}");
            self.report.expect(rows.len() <= 1, "unique", place, || "is there more than once");
            match (rows.first(), steps.first()) {
                (Some(order), _) => self.order(order, &steps),
                (None, Some(Step { entry, .. })) => {
                    self.report.find("order", place, format_args!("does not exist; entry {} is of it", entry.id));
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn order(&mut self, order: &OrderRow, steps: &[Step]) {
        self.report.orders += 1;
        self.report.sold += u64::from(order.state == code::PAID);
        self.check_order(order, steps);
        // It is told as it stands, by its latest entry; what its user has given back, not at all.
        let told: Vec<i64> = steps.iter().filter(|step| step.is_noticed).map(|step| step.entry.id).collect();
        let latest = steps.last().map(|step| step.entry.id);
        let fits = match told[..] {
            [] => true,
            [entry] => Some(entry) == latest && order.state != code::CANCELLED,
            _ => false,
        };
        self.report.expect(fits, "notice", format_args!("order {}", order.id), || {
            format!("is to be told by entries {told:?}; its latest is {latest:?}, its state {}", order.state)
        });
    }

    fn check_order(&mut self, order: &OrderRow, steps: &[Step]) {
        let OrderRow { id, user, request, serial, price, state, reserved_at, pay_by, decided_at, .. } = *order;
        let place = format_args!("order {id}");
        let checked = |value: i64| u64::try_from(value).ok();
        let is_users = checked(user).is_some_and(|user| UserId::new(user).is_ok())
            && checked(request).is_some_and(|request| RequestId::new(request).is_ok());
        self.report.expect(is_users, "order", place, || format!("user {user} or request {request} cannot be"));
        if let Some(campaign) = self.campaigns.get(&order.campaign).filter(|campaign| campaign.is_sale()) {
            self.report.expect(campaign.serial(serial).is_some(), "order", place, || {
                format!("of unit {serial}; the campaign has {}", campaign.total)
            });
            self.report.expect(price == campaign.price, "order", place, || {
                format!("costs {price} fen; the campaign says {}", campaign.price)
            });
            let hold = if campaign.is_free() { 0 } else { campaign.hold_ms };
            self.report.expect(pay_by == reserved_at.saturating_add(hold), "order", place, || {
                format!("reserved at {reserved_at}, to be paid by {pay_by}; units are held {hold} ms")
            });
        } else {
            self.report.find("order", place, format_args!("of campaign {}, which is no sale", order.campaign));
        }

        let till = order.campaign.wrapping_neg();
        // The first step of an order that began before an archive's cut is in the archive; the last
        // one never is.
        let began_before = id <= self.progress.archived_orders;
        let (reserve, rest) = match steps {
            [first, rest @ ..] if first.entry.kind == Kind::Reserve.code() => (Some(&first.entry), rest),
            _ => (None, steps),
        };
        if let Some(entry) = reserve {
            let is = (entry.debit, entry.credit, entry.request, entry.at);
            self.report.expect(is == (till, user, Some(request), reserved_at), "order", place, || {
                format!("user {user}, request {request}, reserved at {reserved_at}; its first entry says {entry:?}")
            });
        } else {
            self.report.expect(began_before, "order", place, || "no entry reserves it");
        }
        let is_free = price == 0;
        let decided = |kind: Kind| match rest {
            [Step { entry, .. }] => {
                let from = if kind == Kind::PayOutside { 0 } else { user };
                let is = (entry.kind, entry.debit, entry.credit, Some(entry.at));
                is == (kind.code(), from, till, decided_at)
            }
            _ => false,
        };
        let at = decided_at.unwrap_or(-1);
        let fits = match state {
            code::RESERVED => rest.is_empty() && decided_at.is_none() && !is_free && reserve.is_some(),
            code::PAID if is_free => rest.is_empty() && at == reserved_at,
            code::PAID => (decided(Kind::Pay) || decided(Kind::PayOutside)) && at < pay_by,
            code::CANCELLED => decided(Kind::Release) && !is_free,
            code::EXPIRED => decided(Kind::Release) && !is_free && at >= pay_by,
            _ => false,
        };
        self.report.expect(fits, "order", place, || {
            let kinds: Vec<_> = rest.iter().map(|Step { entry, .. }| (entry.id, entry.kind, entry.at)).collect();
            format!(
                "in state {state} since {decided_at:?}, to be paid by {pay_by}, price {price}: its entries (id, kind, at) \
                 after the first are {kinds:?}"
            )
        });
    }
}
