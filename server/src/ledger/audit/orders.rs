//! Orders beside their entries.

use hongbao_proto::{RequestId, UserId};
use rusqlite::Row;

use super::{Audit, Checked};
use crate::ledger::audit::stream::{Keyed, Stream};
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

impl Keyed for OrderRow {
    fn key(&self) -> i64 {
        self.id
    }
}

impl OrderRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            user: row.get(1)?,
            campaign: row.get(2)?,
            serial: row.get(3)?,
            request: row.get(4)?,
            price: row.get(5)?,
            state: row.get(6)?,
            reserved_at: row.get(7)?,
            pay_by: row.get(8)?,
            decided_at: row.get(9)?,
        })
    }
}

#[derive(Debug)]
struct Step {
    order: i64,
    id: i64,
    kind: i64,
    at: i64,
    debit: i64,
    credit: i64,
    request: Option<i64>,
    told: bool,
}

impl Keyed for Step {
    fn key(&self) -> i64 {
        self.order
    }
}

impl Step {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            order: row.get(0)?,
            id: row.get(1)?,
            kind: row.get(2)?,
            at: row.get(3)?,
            debit: row.get(4)?,
            credit: row.get(5)?,
            request: row.get(6)?,
            told: row.get(7)?,
        })
    }
}

impl Audit<'_> {
    pub(super) fn orders(&mut self) -> Checked {
        let mut orders = self.connection.prepare(
            "SELECT id, user, campaign, serial, request, price, state, reserved_at, pay_by, decided_at
             FROM orders NOT INDEXED ORDER BY +id",
        )?;
        let mut steps = self.connection.prepare(
            "SELECT item, id, kind, at_ms, debit, credit, request, EXISTS (SELECT 1 FROM notices WHERE entry = entries.id)
             FROM entries NOT INDEXED WHERE kind IN (4, 5, 6, 7) ORDER BY item, id",
        )?;
        let mut orders = Stream::new(orders.query([])?, OrderRow::read)?;
        let mut steps = Stream::new(steps.query([])?, Step::read)?;
        while let Some(id) = [orders.key(), steps.key()].into_iter().flatten().min() {
            let (rows, steps) = (orders.take(id)?, steps.take(id)?);
            let place = format_args!("order {id}");
            if rows.len() > 1 {
                self.report.find("unique", place, "is there more than once");
            }
            match (rows.first(), steps.first()) {
                (Some(order), _) => self.order(order, &steps),
                (None, Some(step)) => {
                    self.report.find("order", place, format_args!("does not exist; entry {} is of it", step.id));
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn order(&mut self, order: &OrderRow, steps: &[Step]) {
        self.report.orders += 1;
        self.report.sold += u64::from(order.state == code::PAID);
        for wrong in self.what_is_wrong_with(order, steps) {
            self.report.find("order", format_args!("order {}", order.id), wrong);
        }
        // It is told as it stands, by its latest entry; what its user has given back, not at all.
        let told: Vec<i64> = steps.iter().filter(|step| step.told).map(|step| step.id).collect();
        let latest = steps.last().map(|step| step.id);
        let fits = match told[..] {
            [] => true,
            [entry] => Some(entry) == latest && order.state != code::CANCELLED,
            _ => false,
        };
        if !fits {
            self.report.find(
                "notice",
                format_args!("order {}", order.id),
                format_args!("is to be told by entries {told:?}; its latest is {latest:?}, its state {}", order.state),
            );
        }
    }

    fn what_is_wrong_with(&self, order: &OrderRow, steps: &[Step]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        let checked = |value: i64| u64::try_from(value).ok();
        expect(
            checked(order.user).is_some_and(|user| UserId::new(user).is_ok())
                && checked(order.request).is_some_and(|request| RequestId::new(request).is_ok()),
            format!("user {} or request {} cannot be", order.user, order.request),
        );
        let campaign = self.campaigns.get(&order.campaign);
        match campaign.filter(|campaign| campaign.is_sale()) {
            None => expect(false, format!("of campaign {}, which is no sale", order.campaign)),
            Some(campaign) => {
                expect(
                    campaign.serial(order.serial).is_some(),
                    format!("of unit {}; the campaign has {}", order.serial, campaign.total),
                );
                expect(
                    order.price == campaign.price(),
                    format!("costs {} fen; the campaign says {}", order.price, campaign.price()),
                );
                let hold = if campaign.is_free() { 0 } else { campaign.hold_ms };
                expect(
                    order.pay_by == order.reserved_at.saturating_add(hold),
                    format!(
                        "reserved at {}, to be paid by {}; units are held {hold} ms",
                        order.reserved_at, order.pay_by
                    ),
                );
            }
        }

        let (user, till) = (order.user, order.campaign.wrapping_neg());
        // The first step of an order that began before an archive's cut is in the archive; the last
        // one never is.
        let began_before = order.id <= self.progress.archived_orders;
        let (reserve, rest) = match steps {
            [first, rest @ ..] if first.kind == Kind::Reserve.code() => (Some(first), rest),
            _ => (None, steps),
        };
        match reserve {
            Some(step) => expect(
                (step.debit, step.credit, step.request, step.at)
                    == (till, user, Some(order.request), order.reserved_at),
                format!(
                    "user {user}, request {}, reserved at {}; entry {} says {step:?}",
                    order.request, order.reserved_at, step.id
                ),
            ),
            None => expect(began_before, "no entry reserves it".to_owned()),
        }
        let is_free = order.price == 0;
        let decided = |kind: Kind| match rest {
            [step] => {
                let ends = match kind {
                    Kind::PayOutside => (0, till),
                    _ => (user, till),
                };
                step.kind == kind.code() && (step.debit, step.credit) == ends && order.decided_at == Some(step.at)
            }
            _ => false,
        };
        let at = order.decided_at.unwrap_or(-1);
        let fits = match order.state {
            code::RESERVED => rest.is_empty() && order.decided_at.is_none() && !is_free && reserve.is_some(),
            code::PAID if is_free => rest.is_empty() && at == order.reserved_at,
            code::PAID => (decided(Kind::Pay) || decided(Kind::PayOutside)) && at < order.pay_by,
            code::CANCELLED => decided(Kind::Release) && !is_free,
            code::EXPIRED => decided(Kind::Release) && !is_free && at >= order.pay_by,
            _ => false,
        };
        let kinds: Vec<_> = rest.iter().map(|step| (step.id, step.kind, step.at)).collect();
        expect(
            fits,
            format!(
                "in state {} since {:?}, to be paid by {}, price {}: its entries (id, kind, at) after the first are {kinds:?}",
                order.state, order.decided_at, order.pay_by, order.price
            ),
        );
        wrong
    }
}
