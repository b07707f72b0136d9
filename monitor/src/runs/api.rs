//! The routes of past runs. A run's id is a name, `live` the one that is being recorded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, Runs, Window};
use crate::report::compare::Comparison;
use hongbao_telemetry::http::{ApiError, PathParam, QueryParams};

type Shared = State<Arc<Runs>>;

/// The report is of no origin: its scripts, which it brings along, cannot ask this interface for
/// anything. Which of them run is said by a policy within.
const REPORT_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts allow-downloads";

/// A chart has styles and nothing else; whatever stood in a recording, it may load and run nothing.
const CHART_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// `/api/v1/runs…` and `/api/v1/compare`.
pub fn router(runs: Arc<Runs>) -> Router {
    Router::new()
        .route("/api/v1/runs", get(list))
        .route("/api/v1/runs/{id}", get(run))
        .route("/api/v1/runs/{id}/series", get(series))
        .route("/api/v1/runs/{id}/marks", get(marks))
        .route("/api/v1/runs/{id}/sets", get(sets))
        .route("/api/v1/runs/{id}/sources", get(sources))
        .route("/api/v1/runs/{id}/export.csv", get(export_csv))
        .route("/api/v1/runs/{id}/export.json", get(export_json))
        .route("/api/v1/runs/{id}/report.html", get(report_html))
        .route("/api/v1/runs/{id}/report.json", get(report_json))
        .route("/api/v1/runs/{id}/charts", get(charts))
        .route("/api/v1/runs/{id}/charts/{file}", get(chart))
        .route("/api/v1/compare", get(compare))
        .with_state(runs)
}

async fn list(State(runs): Shared) -> Result<Json<Value>, Failure> {
    Ok(Json(json!({ "runs": *runs.list().await? })))
}

async fn run(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Json<Value>, Failure> {
    runs.run(&id).await.map(Json)
}

async fn series(
    State(runs): Shared,
    PathParam(id): PathParam<String>,
    QueryParams(window): QueryParams<Window>,
) -> Result<Response, Failure> {
    Ok(json_bytes(runs.series(&id, window).await?))
}

async fn marks(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Json<Value>, Failure> {
    Ok(Json(json!({ "marks": runs.marks(&id).await? })))
}

/// A second of a run; without it, its last.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moment {
    at: Option<u64>,
}

async fn sets(
    State(runs): Shared,
    PathParam(id): PathParam<String>,
    QueryParams(moment): QueryParams<Moment>,
) -> Result<Response, Failure> {
    Ok(json_bytes(runs.sets(&id, moment.at).await?))
}

async fn sources(
    State(runs): Shared,
    PathParam(id): PathParam<String>,
    QueryParams(moment): QueryParams<Moment>,
) -> Result<Json<Value>, Failure> {
    Ok(Json(json!({ "sources": runs.sources(&id, moment.at).await? })))
}

async fn export_csv(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, Failure> {
    let (id, table) = runs.table(&id).await?;
    let body = Body::from_stream(table.stream());
    Ok(file(body, "text/csv; charset=utf-8; header=present", &Kept::Saved(format!("hongbao-{id}.csv"))))
}

async fn export_json(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, Failure> {
    let (id, bytes) = runs.export(&id).await?;
    Ok(file(Body::from(bytes), "application/json", &Kept::Saved(format!("hongbao-{id}.json"))))
}

async fn report_html(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, Failure> {
    let (id, report) = runs.report(&id).await?;
    let page = report.page.clone();
    let mut response =
        file(Body::from(page), "text/html; charset=utf-8", &Kept::Shown(format!("hongbao-{id}-report.html")));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(REPORT_POLICY));
    Ok(response)
}

async fn report_json(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, Failure> {
    let (id, report) = runs.report(&id).await?;
    let bytes = report.json().map_err(|error| Failure::Internal(error.to_string()))?;
    Ok(file(Body::from(bytes), "application/json", &Kept::Shown(format!("hongbao-{id}-report.json"))))
}

async fn charts(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Json<Value>, Failure> {
    let (_, report) = runs.report(&id).await?;
    let names: Vec<&str> = report.charts.iter().map(|chart| chart.file).collect();
    let titles: serde_json::Map<String, Value> =
        report.charts.iter().map(|chart| (chart.file.to_owned(), chart.title.into())).collect();
    Ok(Json(json!({ "charts": names, "titles": titles })))
}

async fn chart(State(runs): Shared, PathParam((id, name)): PathParam<(String, String)>) -> Result<Response, Failure> {
    let name = name.strip_suffix(".svg").ok_or(Failure::NoChart)?;
    let (id, chart) = runs.chart(&id, name).await?;
    let mut response = file(Body::from(chart.svg), "image/svg+xml", &Kept::Shown(format!("hongbao-{id}-{name}.svg")));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CHART_POLICY));
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    a: String,
    b: String,
}

async fn compare(State(runs): Shared, pair: Result<QueryParams<Pair>, ApiError>) -> Result<Json<Comparison>, Response> {
    let QueryParams(Pair { a, b }) = pair.map_err(IntoResponse::into_response)?;
    runs.compare(&a, &b).await.map(Json).map_err(IntoResponse::into_response)
}

/// What a browser does with a file.
enum Kept {
    /// Shows it, and knows what to call it.
    Shown(String),
    Saved(String),
}

/// Names are made of run ids and our own: they need no quoting beyond the quotes.
fn file(body: Body, kind: &'static str, kept: &Kept) -> Response {
    let disposition = match kept {
        Kept::Shown(name) => format!("inline; filename=\"{name}\""),
        Kept::Saved(name) => format!("attachment; filename=\"{name}\""),
    };
    let mut response = Response::new(body);
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    response.headers_mut().extend(headers);
    if let Ok(disposition) = HeaderValue::from_str(&disposition) {
        response.headers_mut().insert(CONTENT_DISPOSITION, disposition);
    }
    response
}

/// JSON that is encoded already.
pub fn json_bytes(bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], bytes).into_response()
}
