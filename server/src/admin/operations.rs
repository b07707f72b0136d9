//! Live books, sessions, probes, and the way out.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hongbao_proto::UserId;
use hongbao_telemetry::http::{ApiError, PathParam, QueryParams};
use hongbao_telemetry::process;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use super::{Admin, stopping, valid};
use crate::generator::Conservation;
use crate::ledger::Totals;
use crate::ledger::writer::LedgerCounts;
use crate::limits;
use crate::set::message::{Control, Message, SessionInfo};

/// Sessions in one page at most.
const PAGE_MAX: usize = 1_000;

/// How long a SET may take to answer an operator.
const SET_PATIENCE: Duration = Duration::from_secs(5);

/// The live books of this server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    /// Users logged in.
    users_online: u64,
    /// Connections open, logged in or not.
    connections: u64,
    requests: Requests,
    /// issued = claimed + in_sets + in_flight + in_transit + returned + void; `residual` is what is
    /// missing from it.
    prizes: Conservation,
    ledger: LedgerStats,
    process: ProcessStats,
    sets: Vec<SetStats>,
}

/// received = answered + owed, in every SET at every moment; read one after the other, they may
/// differ by what came between.
#[derive(Debug, Serialize, ToSchema)]
pub struct Requests {
    received: u64,
    answered: u64,
    owed: u64,
    grabs: u64,
    /// Batches after which an equation of a SET did not hold. Reads 0.
    broken_equations: u64,
}

/// Sums over the ledger's whole life, and its health.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerStats {
    #[serde(flatten)]
    totals: Totals,
    healthy: bool,
    /// Why it is not.
    last_error: Option<String>,
    /// Since the server's start.
    batches: u64,
    postings: u64,
}

/// From /proc.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProcessStats {
    rss_bytes: u64,
    cpu_seconds: f64,
    open_descriptors: u64,
}

/// One SET at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetStats {
    set: usize,
    connections: u64,
    online: u64,
    received: u64,
    owed: u64,
    queue_depth: usize,
}

/// Live books, with the conservation equations
#[utoipa::path(get, path = "/v1/stats", security(("bearer" = [])), responses((status = 200, body = Stats)))]
pub async fn stats(State(admin): State<Admin>) -> Json<Stats> {
    let telemetry = &admin.telemetry;
    let LedgerCounts { batches, postings, totals, .. } = telemetry.ledger.counts();
    #[allow(clippy::cast_precision_loss)] // microseconds of centuries
    let cpu_seconds = process::cpu_micros() as f64 / 1e6;
    Json(Stats {
        users_online: telemetry.sum(|set| &set.online),
        connections: telemetry.sum(|set| &set.connections),
        requests: Requests {
            received: telemetry.sum(|set| &set.received),
            answered: telemetry.answered(),
            owed: telemetry.sum(|set| &set.owed),
            grabs: telemetry.sum(|set| &set.grabs),
            broken_equations: telemetry.sum(|set| &set.broken_equations),
        },
        prizes: admin.telemetry.stock.total(),
        ledger: LedgerStats {
            totals,
            healthy: telemetry.ledger.healthy(),
            last_error: telemetry.ledger.last_error(),
            batches,
            postings,
        },
        process: ProcessStats {
            rss_bytes: process::resident_bytes(),
            cpu_seconds,
            open_descriptors: process::open_descriptors(),
        },
        sets: telemetry
            .sets
            .iter()
            .enumerate()
            .map(|(set, handle)| SetStats {
                set,
                connections: handle.tally.connections.get(),
                online: handle.tally.online.get(),
                received: handle.tally.received.get(),
                owed: handle.tally.owed.get(),
                queue_depth: handle.inbox.max_capacity() - handle.inbox.capacity(),
            })
            .collect(),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// The SET to begin at; 0 if absent.
    #[serde(default)]
    set: u32,
    /// The slot to begin at; 0 if absent.
    #[serde(default)]
    slot: u32,
    /// 1 to 1000; 100 if absent.
    limit: Option<usize>,
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionPage {
    sessions: Vec<SessionInfo>,
    /// Where the next page begins; absent on the last one.
    next: Option<PageStart>,
}

/// Query parameters of the next page.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageStart {
    set: u32,
    slot: u32,
}

/// List sessions, by SET and slot
#[utoipa::path(get, path = "/v1/sessions", params(PageQuery), security(("bearer" = [])), responses((status = 200, body = SessionPage)))]
pub async fn sessions(
    State(admin): State<Admin>,
    QueryParams(page): QueryParams<PageQuery>,
) -> Result<Json<SessionPage>, ApiError> {
    let limit = page.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit {limit} is outside 1..={PAGE_MAX}")));
    }
    let mut found: Vec<SessionInfo> = Vec::new();
    for (index, set) in admin.shared.sets.iter().enumerate().skip(page.set as usize) {
        let (reply, answer) = oneshot::channel();
        let from_slot = if index == page.set as usize { page.slot } else { 0 };
        // One more than fits says that there is a next page, and where.
        let list = Control::List { from_slot, limit: limit + 1 - found.len(), reply };
        set.inbox.send(Message::Control(list)).await.map_err(|_| stopping())?;
        let answer = tokio::time::timeout(SET_PATIENCE, answer).await;
        found.extend(
            answer.map_err(|_| ApiError::unavailable(format!("SET {index} is too busy")))?.map_err(|_| stopping())?,
        );
        if found.len() > limit {
            break;
        }
    }
    let next = found.get(limit).map(|session| PageStart { set: session.set, slot: session.slot });
    found.truncate(limit);
    Ok(Json(SessionPage { sessions: found, next }))
}

/// How long a user is kept out.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct KickQuery {
    /// As `90s` or `1h`, at most 30 days: until then the user's logins are refused. Absent: the user may come back at
    /// once. Forgotten when the server restarts.
    #[serde(default, rename = "for", with = "humantime_serde::option")]
    #[param(value_type = Option<String>)]
    lasts: Option<Duration>,
}

/// End a user's connection, and keep the user out where it is asked for
#[utoipa::path(delete, path = "/v1/sessions/{user}", params(("user" = u64, Path), KickQuery), security(("bearer" = [])),
    responses((status = 202, description = "On its way"), (status = 404, description = "Not logged in here")))]
pub async fn kick(
    State(admin): State<Admin>,
    PathParam(user): PathParam<u64>,
    QueryParams(KickQuery { lasts }): QueryParams<KickQuery>,
) -> Result<StatusCode, ApiError> {
    let user = valid(UserId::new(user))?;
    let address = admin.shared.directory.find(user);
    let set = &admin.shared.sets[address.map_or(0, |address| address.set as usize)];
    if let Some(lasts) = lasts {
        let max = Duration::from_secs(limits::BARRED_SECONDS_MAX);
        if lasts.is_zero() || lasts > max {
            return Err(ApiError::bad_request(format!("for {lasts:?} is outside 1s..=30days")));
        }
        let ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        set.inbox.send(Message::Control(Control::Bar { user, ms })).await.map_err(|_| stopping())?;
    }
    match address {
        Some(address) => {
            let kick = Control::Kick { key: address.key, user };
            set.inbox.send(Message::Control(kick)).await.map_err(|_| stopping())?;
        }
        None if lasts.is_none() => return Err(ApiError::not_found(format!("user {user} is not logged in here"))),
        None => {}
    }
    Ok(StatusCode::ACCEPTED)
}

/// Stop the server in order, as SIGTERM does
#[utoipa::path(post, path = "/v1/drain", security(("bearer" = [])), responses((status = 202, description = "Begun")))]
pub async fn drain(State(admin): State<Admin>) -> StatusCode {
    admin.stop.notify_one();
    StatusCode::ACCEPTED
}

/// The process runs
#[utoipa::path(get, path = "/healthz", responses((status = 200)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Users can log in and win: connections are accepted and the ledger can be written
#[utoipa::path(get, path = "/readyz", responses((status = 200), (status = 503, description = "With the reason")))]
pub async fn readyz(State(admin): State<Admin>) -> Result<&'static str, ApiError> {
    if !*admin.accepting.borrow() {
        return Err(stopping());
    }
    if !admin.telemetry.ledger.healthy() {
        let why = admin.telemetry.ledger.last_error().unwrap_or_default();
        return Err(ApiError::unavailable(format!("the ledger cannot be written: {why}")));
    }
    Ok("ready\n")
}
