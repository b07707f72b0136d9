//! The operators' HTTP surface: loopback by default, a bearer token for everything but probes,
//! metrics and the public list of campaigns, and an OpenAPI description of itself.

mod announcements;
mod campaigns;
mod envelopes;
mod operations;
mod trace;
mod wallets;

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use hongbao_proto::token::Verifier;
use hongbao_telemetry::http::{self, ApiError};
use hongbao_telemetry::metrics::{self, Format};
use tokio::sync::{Notify, mpsc};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::generator::Command;
use crate::ledger::LedgerError;
use crate::services::envelope_runs::Runs;
use crate::set::Shared;
use crate::telemetry::Telemetry;

/// What the handlers work with.
#[derive(Clone)]
pub struct Admin {
    /// The SETs, and where each user is.
    pub shared: Arc<Shared>,
    pub generator: mpsc::Sender<Command>,
    /// The opening window of sales that begin later and do not say otherwise, milliseconds.
    pub fair_window_ms: u32,
    /// Operators' runs of envelopes.
    pub runs: Arc<Runs>,
    /// Every counter.
    pub telemetry: Telemetry,
    /// Asks the server to stop, in order.
    pub stop: Arc<Notify>,
    /// Becomes true when this surface is about to end.
    pub closing: tokio::sync::watch::Receiver<bool>,
    /// Whether new connections are taken in.
    pub accepting: tokio::sync::watch::Receiver<bool>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "hongbao-server", description = "Campaigns, sessions, live books and the life of one server."),
    modifiers(&BearerToken)
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("bearer", scheme);
    }
}

/// All routes, guarded where they must be.
pub fn router(admin: Admin, verifier: Arc<Verifier>) -> Router {
    let (guarded, mut api) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(campaigns::create, campaigns::list))
        .routes(routes!(campaigns::inspect))
        .routes(routes!(campaigns::stop))
        .routes(routes!(wallets::orders_of_campaign))
        .routes(routes!(wallets::deposit))
        .routes(routes!(wallets::statement))
        .routes(routes!(wallets::orders_of_user))
        .routes(routes!(envelopes::start, envelopes::runs))
        .routes(routes!(envelopes::run))
        .routes(routes!(envelopes::stop))
        .routes(routes!(envelopes::inspect))
        .routes(routes!(operations::stats))
        .routes(routes!(operations::sessions))
        .routes(routes!(operations::kick))
        .routes(routes!(trace::follow))
        .routes(routes!(announcements::announce))
        .routes(routes!(announcements::inspect))
        .routes(routes!(operations::drain))
        .with_state(admin.clone())
        .split_for_parts();
    let (open, open_api) = OpenApiRouter::new()
        .routes(routes!(campaigns::published))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(metrics))
        .with_state(admin)
        .split_for_parts();
    api.merge(open_api);
    http::require_admin(guarded, verifier)
        .merge(open)
        .route("/openapi.json", get(move || std::future::ready(Json(api))))
}

/// Every counter, gauge and histogram, in the classic text format of Prometheus, or as OpenMetrics
/// for who asks for it
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
async fn metrics(State(admin): State<Admin>, format: Format) -> Response {
    metrics::response("server", &admin.telemetry.sample(), &admin.telemetry.histograms(), format)
}

/// The server is on its way out: a part of it has ended before the request could be answered.
fn stopping() -> ApiError {
    ApiError::unavailable("the server is stopping")
}

/// An id of the path, if it is one.
fn valid<I, E: Display>(id: Result<I, E>) -> Result<I, ApiError> {
    id.map_err(|error| ApiError::bad_request(error.to_string()))
}

/// What the ledger would not do, as an answer over HTTP.
fn refused(error: LedgerError) -> ApiError {
    match error {
        LedgerError::NoSuchCampaign(id) => ApiError::not_found(format!("campaign {id} does not exist")),
        LedgerError::BadTerms(why) => ApiError::bad_request(why),
        LedgerError::Unavailable(_) => ApiError::unavailable(error.to_string()),
        LedgerError::Stopped => stopping(),
        LedgerError::TooNew { .. }
        | LedgerError::TooOld { .. }
        | LedgerError::InUse { .. }
        | LedgerError::Foreign { .. }
        | LedgerError::Refused(_)
        | LedgerError::Corrupt(_)
        | LedgerError::Mismatched => ApiError::internal(error.to_string()),
    }
}
