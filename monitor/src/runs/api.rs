//! The routes of past runs. A run's id is a name, `live` the one that is being recorded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Runs, Window, no_chart};
use crate::recording::read::Reader;
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

async fn list(State(runs): Shared) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "runs": *runs.list().await? })))
}

async fn run(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Json<Value>, ApiError> {
    runs.run(&id).await.map(Json)
}

async fn series(
    State(runs): Shared,
    PathParam(id): PathParam<String>,
    QueryParams(window): QueryParams<Window>,
) -> Result<Response, ApiError> {
    Ok(json_bytes(runs.series(&id, window).await?))
}

async fn marks(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "marks": runs.read(&id, Reader::marks).await? })))
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
) -> Result<Response, ApiError> {
    Ok(json_bytes(runs.read(&id, move |recording| recording.sets(moment.at.unwrap_or(u64::MAX))).await?))
}

async fn sources(
    State(runs): Shared,
    PathParam(id): PathParam<String>,
    QueryParams(moment): QueryParams<Moment>,
) -> Result<Json<Value>, ApiError> {
    let sources = runs.read(&id, move |recording| recording.sources(moment.at)).await?;
    Ok(Json(json!({ "sources": sources })))
}

async fn export_csv(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, ApiError> {
    let (id, table) = runs.table(&id).await?;
    let body = Body::from_stream(table.stream());
    Ok(file(body, "text/csv; charset=utf-8; header=present", SAVED, &format!("{id}.csv")))
}

async fn export_json(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, ApiError> {
    let (id, bytes) = runs.export(&id).await?;
    Ok(file(bytes, "application/json", SAVED, &format!("{id}.json")))
}

async fn report_html(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, ApiError> {
    let (id, report) = runs.report(&id).await?;
    let file = file(report.page.clone(), "text/html; charset=utf-8", SHOWN, &format!("{id}-report.html"));
    Ok(([(CONTENT_SECURITY_POLICY, REPORT_POLICY)], file).into_response())
}

async fn report_json(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Response, ApiError> {
    let (id, report) = runs.report(&id).await?;
    let bytes = report.json().map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(file(bytes, "application/json", SHOWN, &format!("{id}-report.json")))
}

async fn charts(State(runs): Shared, PathParam(id): PathParam<String>) -> Result<Json<Value>, ApiError> {
    let (_, report) = runs.report(&id).await?;
    let names: Vec<&str> = report.charts.iter().map(|chart| chart.file).collect();
    let titles: serde_json::Map<String, Value> =
        report.charts.iter().map(|chart| (chart.file.to_owned(), chart.title.into())).collect();
    Ok(Json(json!({ "charts": names, "titles": titles })))
}

async fn chart(State(runs): Shared, PathParam((id, name)): PathParam<(String, String)>) -> Result<Response, ApiError> {
    let name = name.strip_suffix(".svg").ok_or_else(no_chart)?;
    let (id, chart) = runs.chart(&id, name).await?;
    let file = file(chart.svg, "image/svg+xml", SHOWN, &format!("{id}-{name}.svg"));
    Ok(([(CONTENT_SECURITY_POLICY, CHART_POLICY)], file).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    a: String,
    b: String,
}

async fn compare(
    State(runs): Shared,
    QueryParams(Pair { a, b }): QueryParams<Pair>,
) -> Result<Json<Comparison>, ApiError> {
    runs.compare(&a, &b).await.map(Json)
}

/// What a browser does with a file.
const SHOWN: &str = "inline";
const SAVED: &str = "attachment";

/// Names are made of run ids and our own: they need no quoting beyond the quotes.
fn file(body: impl Into<Body>, kind: &'static str, disposition: &str, name: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (CONTENT_DISPOSITION, format!("{disposition}; filename=\"hongbao-{name}\"")),
    ];
    (headers, body.into()).into_response()
}

/// JSON that is encoded already.
pub fn json_bytes(bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], bytes).into_response()
}
