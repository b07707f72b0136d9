//! Users' money: deposits, statements, orders.

#![deny(clippy::wildcard_enum_match_arm)]

use axum::Json;
use axum::extract::State;
use hongbao_proto::{CampaignId, Fen, OrderId, UserId};
use hongbao_telemetry::http::{ApiError, JsonBody, PathParam, QueryParams};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Admin, refused, valid};
use crate::clock::wall;
use crate::ledger::task::LedgerTask;
use crate::ledger::{Answer, DepositResult, Movement, Page, Posting, Purpose, Question, Statement};
use crate::limits::DEPOSIT_USERS_MAX;
use crate::market::order::Order;

/// Rows of one page at most.
const PAGE_MAX: u32 = 1_000;

/// The longest key of a deposit, bytes.
const KEY_BYTES_MAX: usize = 100;

/// Money for the wallets of consecutive users.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeposit {
    /// The first of them.
    first_user: u64,
    /// How many, 1 ..= 100000; absent: the one.
    #[serde(default = "one")]
    users: u32,
    /// To each, fen.
    amount_fen: u64,
    /// Chosen by the operator, 1 to 100 bytes: a deposit of the same key is made once, however
    /// often it is asked for.
    key: String,
}

fn one() -> u32 {
    1
}

/// A deposit in the books.
#[derive(Debug, Serialize, ToSchema)]
pub struct DepositMade {
    users: u32,
    total_fen: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RowsQuery {
    /// Only those before this one; absent: from the newest.
    before: Option<u64>,
    /// 1 to 1000; 100 if absent.
    limit: Option<u32>,
}

impl RowsQuery {
    fn limit(&self) -> Result<u32, ApiError> {
        let limit = self.limit.unwrap_or(100);
        if (1..=PAGE_MAX).contains(&limit) {
            Ok(limit)
        } else {
            Err(ApiError::bad_request(format!("limit {limit} is outside 1..={PAGE_MAX}")))
        }
    }

    fn before_order(&self) -> Result<Option<OrderId>, ApiError> {
        self.before.map(|id| valid(OrderId::new(id))).transpose()
    }
}

/// A user's wallet and what went through it, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatementView {
    user: u64,
    balance_fen: u64,
    movements: Vec<MovementView>,
    /// Whether there are older ones.
    more: bool,
}

/// One movement.
#[derive(Debug, Serialize, ToSchema)]
pub struct MovementView {
    entry: i64,
    at_ms: u64,
    /// `win`, `open`, `send`, `return`, `pay` or `deposit`.
    what: &'static str,
    /// The campaign and serial, the envelope, or the order that it is about.
    item: Option<String>,
    /// Above 0: came in.
    amount_fen: i64,
}

impl From<&Movement> for MovementView {
    fn from(movement: &Movement) -> Self {
        let (what, item) = match movement.purpose {
            Purpose::Win(campaign, serial) => ("win", Some(format!("{campaign}/{serial}"))),
            Purpose::Open(envelope) => ("open", Some(envelope.to_string())),
            Purpose::Send(envelope) => ("send", Some(envelope.to_string())),
            Purpose::Return(envelope) => ("return", Some(envelope.to_string())),
            Purpose::Pay(order) => ("pay", Some(order.to_string())),
            Purpose::Deposit => ("deposit", None),
        };
        Self { entry: movement.entry, at_ms: movement.at, what, item, amount_fen: movement.amount }
    }
}

/// Orders, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrdersView {
    orders: Vec<Order>,
    /// Whether there are older ones.
    more: bool,
}

impl From<Page<Order>> for OrdersView {
    fn from(page: Page<Order>) -> Self {
        Self { orders: page.items, more: page.more }
    }
}

/// Put money into users' wallets
#[utoipa::path(post, path = "/v1/deposits", request_body = NewDeposit, security(("bearer" = [])),
    responses((status = 200, description = "In the books, now or before", body = DepositMade),
        (status = 409, description = "Another deposit has this key")))]
pub async fn deposit(
    State(admin): State<Admin>,
    JsonBody(new): JsonBody<NewDeposit>,
) -> Result<Json<DepositMade>, ApiError> {
    let first = valid(UserId::new(new.first_user))?;
    if !(1..=DEPOSIT_USERS_MAX).contains(&new.users) {
        return Err(ApiError::bad_request(format!("users {} is outside 1..={DEPOSIT_USERS_MAX}", new.users)));
    }
    if !(1..=KEY_BYTES_MAX).contains(&new.key.len()) {
        let bytes = new.key.len();
        return Err(ApiError::bad_request(format!("key has {bytes} bytes; 1 to {KEY_BYTES_MAX} are allowed")));
    }
    if new.amount_fen == 0 {
        return Err(ApiError::bad_request("amount_fen 0 would move nothing"));
    }
    let (count, amount) = (new.users, Fen(new.amount_fen));
    let posting = Posting::Deposit { first, count, amount, key: new.key.into() };
    match admin.shared.ledger.post_one(posting, wall()).await.map_err(refused)? {
        DepositResult::Deposited => {
            Ok(Json(DepositMade { users: count, total_fen: u64::from(count).saturating_mul(amount.0) }))
        }
        DepositResult::KeyUsed => Err(ApiError::conflict("a different deposit has this key")),
        DepositResult::TooMuch => Err(ApiError::bad_request("more than the books can hold")),
    }
}

/// A user's balance and movements
#[utoipa::path(get, path = "/v1/users/{user}/statement", params(("user" = u64, Path), RowsQuery), security(("bearer" = [])),
    responses((status = 200, body = StatementView)))]
pub async fn statement(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u64>,
    QueryParams(rows): QueryParams<RowsQuery>,
) -> Result<Json<StatementView>, ApiError> {
    let before = rows
        .before
        .map(|before| i64::try_from(before).map_err(|_| ApiError::bad_request("before: no such entry")))
        .transpose()?;
    let Statement { balance, movements } =
        ask(&admin, id, Question::Statement { before, limit: rows.limit()? }).await?;
    Ok(Json(StatementView {
        user: id,
        balance_fen: balance.0,
        movements: movements.items.iter().map(MovementView::from).collect(),
        more: movements.more,
    }))
}

/// A user's orders
#[utoipa::path(get, path = "/v1/users/{user}/orders", params(("user" = u64, Path), RowsQuery), security(("bearer" = [])),
    responses((status = 200, body = OrdersView)))]
pub async fn orders_of_user(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u64>,
    QueryParams(rows): QueryParams<RowsQuery>,
) -> Result<Json<OrdersView>, ApiError> {
    let page: Page<Order> =
        ask(&admin, id, Question::Orders { before: rows.before_order()?, limit: rows.limit()? }).await?;
    Ok(Json(page.into()))
}

/// A sale's orders
#[utoipa::path(get, path = "/v1/campaigns/{id}/orders", params(("id" = u32, Path), RowsQuery), security(("bearer" = [])),
    responses((status = 200, body = OrdersView), (status = 404)))]
pub async fn orders_of_campaign(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u32>,
    QueryParams(rows): QueryParams<RowsQuery>,
) -> Result<Json<OrdersView>, ApiError> {
    let id = valid(CampaignId::new(id.into()))?;
    let (before, limit) = (rows.before_order()?, rows.limit()?);
    let page = admin.shared.ledger.run(|reply| LedgerTask::OrdersOf { campaign: id, before, limit, reply }).await;
    Ok(Json(page.map_err(refused)?.into()))
}

async fn ask<A: TryFrom<Answer>>(admin: &Admin, id: u64, question: Question) -> Result<A, ApiError> {
    admin.shared.ledger.ask(valid(UserId::new(id))?, question).await.map_err(refused)
}
