//! The HTTP interface: the page, read-only JSON about the run, health, metrics. Handlers ask the
//! owner and hold nothing.

use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hongbao_proto::CLIENT_PROTO;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::access::operator::{self, Access};
use crate::guests::bridge;
use crate::guests::service::{self as guests, Guests};
use crate::http::control::{self, Control};
use crate::http::live;
use crate::http::page;
use crate::limits::SECONDS_PER_ANSWER_MAX;
use crate::owner::{Message, Question, ask};
use crate::recording::RunStatus;
use crate::run::books::{Book, Trade};
use crate::run::merge::SourceStatus;
use crate::run::second::MergedSecond;
use crate::runs::{self, Runs};
use hongbao_telemetry::http::{ApiError, QueryParams};
use hongbao_telemetry::metrics::{self, CumulativeHistograms, Format};
use hongbao_telemetry::report::Key;

/// Seconds of an answer that does not ask for a number.
const SECONDS_DEFAULT: usize = 60;

type Owner = mpsc::Sender<Message>;
type Own = (Arc<Access>, Arc<Guests>);

/// What the routes are about, besides the owner.
#[derive(Debug)]
pub struct Surface {
    pub access: Arc<Access>,
    /// Orders of operators.
    pub control: Control,
    /// People who play.
    pub guests: Arc<Guests>,
    /// Recordings that lie beside this run's.
    pub runs: Arc<Runs>,
}

/// The routes.
///
/// # Errors
/// As [`page::router`].
pub fn router(owner: Owner, surface: Surface) -> io::Result<Router> {
    let Surface { access, control, guests, runs } = surface;
    let api = Router::new()
        .route("/api/v1/seconds", get(seconds))
        .route("/api/v1/latest", get(latest))
        .route("/api/v1/books", get(books))
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/run", get(run))
        .with_state(owner.clone())
        .merge(live::router(owner.clone(), Arc::clone(&runs)))
        .merge(runs::api::router(runs));
    let api = operator::for_readers(api, &access);
    let open = Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(ready))
        .route("/client.proto", get(|| async { CLIENT_PROTO }))
        .with_state(owner.clone());
    let own = (Arc::clone(&access), Arc::clone(&guests));
    let metrics = Router::new().route("/metrics", get(metrics)).with_state((owner, own));
    let all = open
        .merge(metrics)
        .merge(api)
        .merge(page::router()?)
        .merge(operator::router(&access))
        .merge(guests::router(&guests, &access))
        .merge(bridge::router(&guests, &access))
        .merge(control::router(control, &access));
    Ok(operator::for_known_hosts(all, &access))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: Option<u64>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct SecondsPage<'a> {
    seconds: Vec<&'a MergedSecond>,
    /// Ask from here for what follows.
    next: Option<u64>,
}

async fn seconds(State(owner): State<Owner>, QueryParams(range): QueryParams<Range>) -> Result<Response, ApiError> {
    let limit = range.limit.unwrap_or(SECONDS_DEFAULT);
    if !(1..=SECONDS_PER_ANSWER_MAX).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit is {limit}; it must be 1 to {SECONDS_PER_ANSWER_MAX}")));
    }
    let seconds = ask(&owner, |reply| Question::Seconds { from: range.from, limit, reply }).await?;
    let next = seconds.last().map(|last| last.second + 1).or(range.from);
    let seconds = seconds.iter().map(|second| &**second).collect();
    Ok(Json(SecondsPage { seconds, next }).into_response())
}

async fn latest(State(owner): State<Owner>) -> Result<Json<Value>, ApiError> {
    let seconds = ask(&owner, |reply| Question::Seconds { from: None, limit: 1, reply }).await?;
    match seconds.first() {
        Some(second) => Ok(Json(json!({ "headline": second.headline, "second": &**second }))),
        None => Err(ApiError::not_found("no second has been closed yet")),
    }
}

async fn books(State(owner): State<Owner>) -> Result<Json<Value>, ApiError> {
    let run = ask(&owner, Question::Run).await?;
    let mut books = json!(run.books);
    books["balanced"] = json!(run.books.balanced());
    books["joined_late"] = json!(run.joined_late);
    // With where each side's figures come from.
    let told = |(trade, book): (Trade, Book)| {
        let counters = |keys: [Key; 2]| keys.map(|key| key.name).join(", ");
        let (servers, users) = book.counters();
        let mut told = json!(trade);
        told["balanced"] = json!(trade.sides.balanced());
        told["unbalanced_seconds"] = json!(run.books.unbalanced_seconds_of(book));
        told["servers_source"] = format!("the servers' ledgers: {}", counters(servers)).into();
        told["users_source"] = format!("what the machines' users were told: {}", counters(users)).into();
        told
    };
    books["books"] = run.books.claims.trades().into_iter().zip(Book::ALL).map(told).collect();
    Ok(Json(books))
}

async fn sources(State(owner): State<Owner>) -> Result<Json<Value>, ApiError> {
    let sources: Vec<SourceStatus> = ask(&owner, Question::Sources).await?;
    Ok(Json(json!({ "sources": sources })))
}

async fn run(State(owner): State<Owner>) -> Result<Json<RunStatus>, ApiError> {
    ask(&owner, Question::Run).await.map(Json)
}

/// Ready: the owner answers. A recording that fails does not stop the run, but is said here.
async fn ready(State(owner): State<Owner>) -> Result<Json<Value>, ApiError> {
    let run = ask(&owner, Question::Run).await?;
    Ok(Json(json!({ "status": "ready", "record_failures": run.record_failures })))
}

/// The owner's metrics with those of what asks it.
async fn metrics(State((owner, (access, guests))): State<(Owner, Own)>, format: Format) -> Result<Response, ApiError> {
    let mut sample = ask(&owner, Question::Metrics).await?;
    guests.metrics(&mut sample);
    sample.counters.extend(access.counters());
    Ok(metrics::response("monitor", &sample, &CumulativeHistograms::default(), format))
}
