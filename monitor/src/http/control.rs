//! What an operator does from the page, forwarded to servers and machines.
//!
//! Each order goes to every process that it is for, with a token that is good for half a minute and
//! only to addresses that [`trust`] believes. What became of it is told process by process: an
//! order that some machines took and others did not is worse than none, so it is not hidden behind
//! one word. A change of QPS and a storm are ordered for one wall-clock second, worked out here
//! once, because machines must change together.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::{StreamExt, stream};
use hongbao_proto::token::{Audience, Secret, Signer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::access::operator::{Access, Operator, for_operators, for_own_pages, for_readers};
use crate::access::trust::{self, Untrusted};
use crate::guests::service::Guests;
use crate::limits::{
    ACTION_ANSWER_BYTES_MAX, ACTION_CALLS_MAX, ACTION_DEADLINE, ACTION_TOKEN_SECONDS, ACTIONS_MAX,
    AHEAD_ORDER_SECONDS_MAX, AHEAD_ORDER_SECONDS_MIN,
};
use crate::owner::{ControlPoint, GUESTS_SOURCE, Message, Question, ask};
use crate::run::mark::Mark;
use crate::run::merge::Presence;
use crate::run::second::Role;
use hongbao_telemetry::clock::{unix_millis, unix_seconds};
use hongbao_telemetry::http::{ApiError, JsonBody, QueryParams};
use hongbao_telemetry::report::names::event;
use hongbao_telemetry::sse::root_cause;

/// How far ahead an order is for, if it does not say so: every machine must hear of it before.
const AHEAD_SECONDS: u64 = 3;

/// For so long the requests of users whom a storm has spared are looked at, if it does not say so,
/// seconds.
const STORM_WATCH_SECONDS: u32 = 60;

/// Parts per million in a percent.
const PARTS_PER_PERCENT: f64 = 10_000.0;

/// What forwards orders.
#[derive(Debug)]
pub struct Control {
    owner: mpsc::Sender<Message>,
    guests: Arc<Guests>,
    signer: Signer,
    client: reqwest::Client,
    trusted: Vec<IpAddr>,
    room: Semaphore,
}

/// What a process said of an order.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    /// `role/name`.
    target: String,
    ok: bool,
    /// HTTP status of its answer; absent: there was none.
    status: Option<u16>,
    body: Value,
    /// Why there was none.
    error: Option<String>,
}

/// An order for every process of a role, or for one of them.
#[derive(Debug)]
struct Order {
    role: Role,
    /// The name of the one.
    only: Option<String>,
    path: String,
    body: Value,
    /// On the timeline: one of `names::event`, when it takes effect, and in words.
    kind: &'static str,
    at_ms: u64,
    what: String,
}

impl Order {
    /// For servers, at once.
    fn servers(only: Option<String>, path: impl Into<String>, body: Value, kind: &'static str, what: String) -> Self {
        Self { role: Role::Server, only, path: path.into(), body, kind, at_ms: unix_millis(), what }
    }

    /// For all machines, in the Unix second `at`.
    fn machines(path: &str, body: Value, kind: &'static str, at: u64, what: String) -> Self {
        Self { role: Role::Machine, only: None, path: path.to_owned(), body, kind, at_ms: at * 1_000, what }
    }
}

impl Control {
    /// Orders in the name of the family's secret.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(
        owner: mpsc::Sender<Message>,
        guests: Arc<Guests>,
        secret: &Secret,
        trusted: Vec<IpAddr>,
    ) -> reqwest::Result<Self> {
        // A proxy of the environment, or a redirect, would take the token elsewhere.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ACTION_DEADLINE)
            .build()?;
        let (signer, room) = (Signer::new(secret), Semaphore::new(ACTIONS_MAX));
        Ok(Self { owner, guests, signer, client, trusted, room })
    }

    /// Processes that are there, but for the guests, who are here.
    async fn points(&self) -> Result<Vec<ControlPoint>, ApiError> {
        let mut points = ask(&self.owner, Question::Controls).await?;
        points.retain(|point| {
            let is_guests = point.role == Role::Machine && point.name == GUESTS_SOURCE;
            point.presence == Presence::Reporting && !is_guests
        });
        Ok(points)
    }

    /// Every process of a role, or one of them.
    async fn points_of(&self, role: Role, only: Option<&str>) -> Result<Vec<ControlPoint>, ApiError> {
        let mut points = self.points().await?;
        points.retain(|point| point.role == role && only.is_none_or(|only| only == point.name));
        match (points.is_empty(), only) {
            (false, _) => Ok(points),
            (true, Some(name)) => Err(ApiError::not_found(format!("no {role} {name} reports to this monitor"))),
            (true, None) => Err(ApiError::unavailable(format!("no {role} reports to this monitor"))),
        }
    }

    /// Gives an order, and marks it on the timeline if anybody took it.
    async fn order(&self, operator: &Operator, order: Order) -> Result<Response, ApiError> {
        let Order { role, only, path, body, kind, at_ms, what } = order;
        let points = self.points_of(role, only.as_deref()).await?;
        let outcomes = self.outcomes(operator, points, &path, Some(&body.to_string())).await?;
        let (taken, all) = (outcomes.iter().filter(|outcome| outcome.ok).count(), outcomes.len());
        tracing::info!(event = "order_given", operator = operator.name, kind, what, taken, all, "an operator's order");
        if taken > 0 {
            let of = if taken == all { String::new() } else { format!(" ({taken} of {all} took it)") };
            let mark = Mark {
                at_ms,
                kind: kind.to_owned(),
                source: "operator".to_owned(),
                text: format!("{what}{of}, by {}", operator.name),
            };
            if self.owner.send(Message::Mark(mark)).await.is_err() {
                tracing::debug!(event = "mark_unkept", "the run is over: no mark of the order is kept");
            }
        }
        let status = if taken == all { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        Ok((status, Json(json!({ "outcomes": outcomes }))).into_response())
    }

    /// What each process answers, by its name. Without a body it is a question.
    async fn outcomes(
        &self,
        operator: &Operator,
        points: Vec<ControlPoint>,
        path: &str,
        body: Option<&str>,
    ) -> Result<Vec<Outcome>, ApiError> {
        let _place = self.room.try_acquire().map_err(|_| {
            ApiError::too_many(format!("{ACTIONS_MAX} orders are under way already; try again in a moment"))
        })?;
        let subject = format!("{} by way of the monitor", operator.name);
        let token = self.signer.sign(&subject, Audience::Admin, unix_seconds(), ACTION_TOKEN_SECONDS);
        let token = &token.map_err(|error| ApiError::internal(error.to_string()))?;
        let mut outcomes: Vec<Outcome> = stream::iter(points)
            .map(|point| self.outcome(point, path, body, token))
            .buffer_unordered(ACTION_CALLS_MAX)
            .collect()
            .await;
        outcomes.sort_by(|one, other| one.target.cmp(&other.target));
        Ok(outcomes)
    }

    async fn outcome(&self, point: ControlPoint, path: &str, body: Option<&str>, token: &str) -> Outcome {
        let answer = self.send(&point, path, body, token).await;
        let failed = |error| Outcome { error: Some(error), ..Outcome::default() };
        Outcome { target: format!("{}/{}", point.role, point.name), ..answer.unwrap_or_else(failed) }
    }

    /// What a process answers; or why there is no answer.
    async fn send(&self, point: &ControlPoint, path: &str, body: Option<&str>, token: &str) -> Result<Outcome, String> {
        let address = self.address(point).map_err(|untrusted| untrusted.to_string())?;
        let address = format!("http://{address}{path}");
        let request = match body {
            Some(body) => self.client.post(address).header("content-type", "application/json").body(body.to_owned()),
            None => self.client.get(address),
        };
        let sent = request.bearer_auth(token).send().await;
        let mut response = sent.map_err(|error| root_cause(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
            if bytes.len() + chunk.len() > ACTION_ANSWER_BYTES_MAX {
                return Err(format!("its answer has more than {ACTION_ANSWER_BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).trim().to_owned()));
        Ok(Outcome { ok: status.is_success(), status: Some(status.as_u16()), body, ..Outcome::default() })
    }

    fn address(&self, point: &ControlPoint) -> Result<SocketAddr, Untrusted> {
        trust::address(&point.control, point.peer, &self.trusted)
    }
}

/// The routes: orders for operators, and for readers who there is to take them.
pub fn router(control: Control, access: &Arc<Access>) -> Router {
    let control = Arc::new(control);
    let orders = Router::new()
        .route("/api/v1/control/qps", post(qps))
        .route("/api/v1/control/storm", post(storm))
        .route("/api/v1/control/campaigns", post(campaign).get(campaigns))
        .route("/api/v1/control/campaigns/stop", post(stop_campaign))
        .route("/api/v1/control/envelope-runs", post(envelopes))
        .route("/api/v1/control/announcements", post(announce))
        .route("/api/v1/control/drain", post(drain))
        .with_state(Arc::clone(&control));
    let reading = Router::new().route("/api/v1/controls", get(controls)).with_state(control);
    // A page of a stranger is refused before anybody asks whose session it rides on.
    for_own_pages(for_operators(orders, access), access).merge(for_readers(reading, access))
}

type Shared = State<Arc<Control>>;
type By = Extension<Operator>;

async fn controls(State(control): Shared) -> Result<Json<Value>, ApiError> {
    let points = control.points().await?;
    let of = |role: Role| -> Vec<Value> {
        let told = |point: &ControlPoint| {
            let address = control.address(point);
            let reason = address.as_ref().err().map(ToString::to_string);
            json!({ "name": point.name, "control": address.is_ok(), "reason": reason })
        };
        points.iter().filter(|point| point.role == role).map(told).collect()
    };
    let (max, now) = (control.guests.max(), control.guests.now());
    Ok(Json(json!({
        "servers": of(Role::Server),
        "machines": of(Role::Machine),
        "guests": { "max": max, "now": now },
    })))
}

fn ahead_seconds() -> u64 {
    AHEAD_SECONDS
}

/// The Unix second that an order is for.
fn second_ahead(in_seconds: u64) -> Result<u64, ApiError> {
    if !(AHEAD_ORDER_SECONDS_MIN..=AHEAD_ORDER_SECONDS_MAX).contains(&in_seconds) {
        return Err(ApiError::bad_request(format!(
            "in_seconds is {in_seconds}; it must be {AHEAD_ORDER_SECONDS_MIN} to {AHEAD_ORDER_SECONDS_MAX}, so that every machine hears of it before"
        )));
    }
    // From the next full second on, so that it is not less.
    Ok(unix_millis().div_ceil(1_000) + in_seconds)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewQps {
    /// Requests a second over the whole fleet; 0 pauses.
    qps: u32,
    #[serde(default = "ahead_seconds")]
    in_seconds: u64,
}

async fn qps(
    State(control): Shared,
    Extension(operator): By,
    JsonBody(NewQps { qps, in_seconds }): JsonBody<NewQps>,
) -> Result<Response, ApiError> {
    let at = second_ahead(in_seconds)?;
    let what = format!("{qps} requests a second");
    control.order(&operator, Order::machines("/v1/qps", json!({ "qps": qps, "at": at }), event::QPS, at, what)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStorm {
    /// A percentage, "30%".
    share: String,
    #[serde(default = "ahead_seconds")]
    in_seconds: u64,
}

/// "30%" in parts per million.
fn parts(share: &str) -> Option<u32> {
    let percent = share.trim().strip_suffix('%')?.trim();
    let is_plain = !percent.is_empty() && percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent: f64 = percent.parse().ok().filter(|_| is_plain)?;
    let parts = (percent * PARTS_PER_PERCENT).round();
    // Between 1 and a million.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (1.0..=1e6).contains(&parts).then_some(parts as u32)
}

async fn storm(
    State(control): Shared,
    Extension(operator): By,
    JsonBody(NewStorm { share, in_seconds }): JsonBody<NewStorm>,
) -> Result<Response, ApiError> {
    let parts = parts(&share).ok_or_else(|| {
        ApiError::bad_request(format!("share is {share:?}; it must be above 0% and up to 100%, as in \"30%\""))
    })?;
    let at = second_ahead(in_seconds)?;
    let body = json!({ "share": parts, "at": at, "watch_seconds": STORM_WATCH_SECONDS });
    let what = format!("storm of {}", share.trim());
    control.order(&operator, Order::machines("/v1/storm", body, event::STORM, at, what)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForServer {
    server: Option<String>,
}

/// What the server itself checks: an object, handed on as it is.
type Terms = serde_json::Map<String, Value>;

async fn campaign(
    State(control): Shared,
    Extension(operator): By,
    QueryParams(ForServer { server }): QueryParams<ForServer>,
    JsonBody(terms): JsonBody<Terms>,
) -> Result<Response, ApiError> {
    let word = |key: &str| terms.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, title) = (word("kind"), word("title"));
    let total = terms.get("total").map_or_else(String::new, |total| format!(" of {total}"));
    let what = if title.is_empty() { format!("{kind} begins{total}") } else { format!("{kind} {title} begins{total}") };
    control.order(&operator, Order::servers(server, "/v1/campaigns", terms.into(), event::CAMPAIGN, what)).await
}

/// The campaigns of each server, as it lists them.
async fn campaigns(State(control): Shared, Extension(operator): By) -> Result<Json<Value>, ApiError> {
    let servers = control.points_of(Role::Server, None).await?;
    let outcomes = control.outcomes(&operator, servers, "/v1/campaigns", None).await?;
    Ok(Json(json!({ "outcomes": outcomes })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopCampaign {
    id: u32,
}

async fn stop_campaign(
    State(control): Shared,
    Extension(operator): By,
    QueryParams(ForServer { server }): QueryParams<ForServer>,
    JsonBody(StopCampaign { id }): JsonBody<StopCampaign>,
) -> Result<Response, ApiError> {
    let path = format!("/v1/campaigns/{id}/stop");
    let what = format!("campaign {id} stopped");
    control.order(&operator, Order::servers(server, path, json!({}), event::CAMPAIGN, what)).await
}

async fn envelopes(
    State(control): Shared,
    Extension(operator): By,
    QueryParams(ForServer { server }): QueryParams<ForServer>,
    JsonBody(terms): JsonBody<Terms>,
) -> Result<Response, ApiError> {
    let count = terms.get("count").map_or_else(String::new, |count| format!("{count} "));
    let what = format!("run of {count}group envelopes begins");
    control.order(&operator, Order::servers(server, "/v1/envelope-runs", terms.into(), event::ENVELOPES, what)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAnnouncement {
    text: String,
}

async fn announce(
    State(control): Shared,
    Extension(operator): By,
    QueryParams(ForServer { server }): QueryParams<ForServer>,
    JsonBody(NewAnnouncement { text }): JsonBody<NewAnnouncement>,
) -> Result<Response, ApiError> {
    let (what, body) = (format!("“{text}”"), json!({ "text": text }));
    control.order(&operator, Order::servers(server, "/v1/announcements", body, event::ANNOUNCEMENT, what)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    server: String,
}

async fn drain(
    State(control): Shared,
    Extension(operator): By,
    JsonBody(Drain { server }): JsonBody<Drain>,
) -> Result<Response, ApiError> {
    let what = format!("server {server} drains");
    control.order(&operator, Order::servers(Some(server), "/v1/drain", json!({}), event::DRAIN, what)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_above_0_and_up_to_100() {
        assert_eq!(
            ["30%", " 0.5 %", "100%", "0.0001%"].map(parts),
            [Some(300_000), Some(5_000), Some(1_000_000), Some(1)]
        );
        for none in ["", "30", "0%", "-1%", "100.1%", "1e2%", "inf%", "NaN%", "%", "0.00001%"] {
            assert_eq!(parts(none), None, "{none}");
        }
    }

    #[test]
    fn an_order_is_for_a_near_second_that_every_machine_can_keep() {
        let now = unix_seconds();
        assert!((now + 3..now + 6).contains(&second_ahead(3).unwrap()));
        for none in [0, AHEAD_ORDER_SECONDS_MIN - 1, AHEAD_ORDER_SECONDS_MAX + 1, u64::MAX] {
            assert!(second_ahead(none).unwrap_err().message.contains("in_seconds"), "{none}");
        }
    }
}
