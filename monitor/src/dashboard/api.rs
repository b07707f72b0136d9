//! The HTTP interface: read-only JSON about the run, health, metrics. Handlers ask the owner and hold nothing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hongbao_proto::token::Verifier;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::books::{Balance, Book};
use super::limits::SECONDS_PER_ANSWER_MAX;
use super::live::{self, ask};
use super::merge::SourceStatus;
use super::owner::{Message, Question};
use super::record::RunStatus;
use super::second::MergedSecond;
use crate::http::{self, ApiError, QueryParams};
use crate::metrics::{self, CumulativeHistograms, Format};
use crate::report::Key;

/// Seconds of an answer that does not ask for a number.
const SECONDS_DEFAULT: usize = 60;

type Owner = mpsc::Sender<Message>;

/// The routes. With a verifier (audience `hongbao-admin`), everything below `/api` needs an administrator's token.
pub fn router(owner: Owner, admin: Option<Arc<Verifier>>) -> Router {
    let api = Router::new()
        .route("/api/v1/seconds", get(seconds))
        .route("/api/v1/latest", get(latest))
        .route("/api/v1/books", get(books))
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/run", get(run))
        .with_state(owner.clone())
        .merge(live::router(owner.clone()));
    let api = match admin {
        Some(verifier) => http::require_admin(api, verifier),
        None => api,
    };
    let open = Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(owner);
    open.merge(api)
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
        Some(second) => Ok(Json(json!({ "headline": second.headline(), "second": &**second }))),
        None => Err(ApiError::not_found("no second has been closed yet")),
    }
}

async fn books(State(owner): State<Owner>) -> Result<Json<Value>, ApiError> {
    let run = ask(&owner, Question::Run).await?;
    let mut books = json!(run.books);
    books["balanced"] = json!(run.books.balanced());
    books["joined_late"] = json!(run.joined_late);
    books["books"] = Book::ALL.map(|book| told(&run.books, book)).into();
    Ok(Json(books))
}

/// One book, with where each side's figures come from.
fn told(balance: &Balance, book: Book) -> Value {
    let (sides, (servers, users)) = (balance.claims.sides(book), book.counters());
    let counters = |keys: [Key; 2]| keys.map(|key| key.name).join(", ");
    json!({
        "book": book.name(),
        "servers_count": sides.servers_count,
        "servers_fen": sides.servers_fen,
        "users_count": sides.users_count,
        "users_fen": sides.users_fen,
        "residual_count": sides.residual_count(),
        "residual_fen": sides.residual_fen(),
        "balanced": sides.balanced(),
        "unbalanced_seconds": balance.unbalanced_seconds_of(book),
        "servers_source": format!("the servers' ledgers: {}", counters(servers)),
        "users_source": format!("what the machines' users were told: {}", counters(users)),
    })
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

async fn metrics(State(owner): State<Owner>, format: Format) -> Result<Response, ApiError> {
    let sample = ask(&owner, Question::Metrics).await?;
    Ok(metrics::response("monitor", &sample, &CumulativeHistograms::default(), format))
}
