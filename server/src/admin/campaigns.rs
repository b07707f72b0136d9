//! Campaigns: create, list, inspect, stop; and the public list by which anyone can check a draw.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hongbao_monitor::http::{ApiError, JsonBody, PathParam};
use hongbao_proto::{CampaignId, Fen};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::{Admin, stopping};
use crate::campaign::{Amounts, Campaign, CampaignKind, CampaignTerms, Seed, hex};
use crate::generator::{CampaignStatus, Command};
use crate::ledger::LedgerError;
use crate::shard::worker::wall;

/// A new campaign.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCampaign {
    /// `rain`.
    #[schema(value_type = String, example = "rain")]
    kind: CampaignKind,
    /// For people; at most 200 bytes.
    #[serde(default)]
    title: String,
    /// How many prizes.
    total: u64,
    /// Prizes issued per second.
    rate_per_second: u32,
    /// The smallest prize, fen.
    min_fen: u64,
    /// The largest prize, fen; absent: all are `min_fen`.
    max_fen: Option<u64>,
    /// First prize, Unix milliseconds; absent: now.
    starts_at_ms: Option<u64>,
    /// No prize from then on, Unix milliseconds; absent: until all are won, or it is stopped.
    ends_at_ms: Option<u64>,
    /// Prizes that one user may win; absent: no limit.
    per_user_limit: Option<u32>,
    /// 64 hexadecimal digits; absent: drawn by the server, as it should be.
    seed: Option<String>,
}

/// A campaign with its books.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    id: u32,
    #[schema(value_type = String)]
    kind: CampaignKind,
    title: String,
    /// `scheduled`, `open`, `sold_out` or `ended`.
    state: &'static str,
    /// Whether what was left went back to the treasury.
    settled: bool,
    total: u64,
    rate_per_second: u32,
    min_fen: u64,
    max_fen: u64,
    created_at_ms: u64,
    starts_at_ms: u64,
    ends_at_ms: Option<u64>,
    stopped_at_ms: Option<u64>,
    per_user_limit: Option<u32>,
    /// Commitment to the seed: SHA-256, hexadecimal.
    seed_sha256: String,
    /// The seed, once nothing more can be won.
    seed: Option<String>,
    /// Distinct prizes handed out: those won before this run of the server, and those it has issued.
    issued: u64,
    /// Wins in the ledger.
    won: u64,
    /// Their money, fen.
    paid_fen: u64,
    /// What was left in the fund when it was settled, fen.
    refunded_fen: Option<u64>,
    /// Where the serials are; absent for a campaign that ended long ago.
    live: Option<CampaignStatus>,
}

/// What anyone may know.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicCampaign {
    id: u32,
    title: String,
    state: &'static str,
    total: u64,
    min_fen: u64,
    max_fen: u64,
    starts_at_ms: u64,
    ends_at_ms: Option<u64>,
    /// SHA-256 of the seed, hexadecimal.
    seed_sha256: String,
    /// The seed, once nothing more can be won. Prize `s` is worth `min + (x * (max - min + 1) >> 64)` fen, where `x` is the first
    /// 8 bytes, big-endian, of SHA-256(seed ‖ s as 8 bytes, big-endian).
    seed: Option<String>,
}

impl CampaignView {
    fn new(campaign: &Campaign, live: Option<CampaignStatus>) -> Self {
        let terms = &campaign.terms;
        let settled = campaign.settlement.is_some();
        Self {
            id: campaign.id.get(),
            kind: terms.kind,
            title: terms.title.clone(),
            state: live
                .as_ref()
                .map_or(if campaign.won == terms.total { "sold_out" } else { "ended" }, |live| live.state),
            settled,
            total: terms.total,
            rate_per_second: terms.rate_per_second,
            min_fen: terms.amounts.min.0,
            max_fen: terms.amounts.max.0,
            created_at_ms: campaign.created_at,
            starts_at_ms: terms.starts_at,
            ends_at_ms: terms.ends_at,
            stopped_at_ms: campaign.stopped_at,
            per_user_limit: terms.per_user_limit,
            seed_sha256: hex(&terms.seed.sha256()),
            seed: settled.then(|| terms.seed.to_hex()),
            issued: live.as_ref().map_or(campaign.won, |live| live.won_before + live.conservation.issued_first),
            won: campaign.won,
            paid_fen: campaign.paid.0,
            refunded_fen: campaign.settlement.map(|settlement| settlement.refunded.0),
            live,
        }
    }
}

/// Create a campaign
#[utoipa::path(post, path = "/v1/campaigns", request_body = NewCampaign, security(("bearer" = [])),
    responses((status = 201, body = CampaignView), (status = 400, description = "The terms contradict themselves or exceed a limit")))]
pub async fn create(
    State(admin): State<Admin>,
    JsonBody(new): JsonBody<NewCampaign>,
) -> Result<(StatusCode, Json<CampaignView>), ApiError> {
    let seed = match &new.seed {
        Some(hex) => Seed::from_hex(hex).map_err(|error| ApiError::bad_request(format!("seed: {error}")))?,
        None => {
            Seed::generate().map_err(|error| ApiError::unavailable(format!("no randomness for a seed: {error}")))?
        }
    };
    let terms = CampaignTerms {
        title: new.title,
        kind: new.kind,
        total: new.total,
        rate_per_second: new.rate_per_second,
        amounts: Amounts { min: Fen(new.min_fen), max: Fen(new.max_fen.unwrap_or(new.min_fen)) },
        seed,
        starts_at: new.starts_at_ms.unwrap_or_else(wall),
        ends_at: new.ends_at_ms,
        per_user_limit: new.per_user_limit,
    };
    let campaign = command(&admin, |reply| Command::Create { terms: Box::new(terms), reply }).await?;
    Ok((StatusCode::CREATED, Json(CampaignView::new(&campaign, admin.stock.get(campaign.id)))))
}

/// List all campaigns
#[utoipa::path(get, path = "/v1/campaigns", security(("bearer" = [])), responses((status = 200, body = [CampaignView])))]
pub async fn list(State(admin): State<Admin>) -> Result<Json<Vec<CampaignView>>, ApiError> {
    let campaigns = all(&admin).await?;
    Ok(Json(campaigns.values().map(|campaign| CampaignView::new(campaign, admin.stock.get(campaign.id))).collect()))
}

/// Inspect one campaign
#[utoipa::path(get, path = "/v1/campaigns/{id}", params(("id" = u32, Path)), security(("bearer" = [])),
    responses((status = 200, body = CampaignView), (status = 404)))]
pub async fn inspect(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u32>,
) -> Result<Json<CampaignView>, ApiError> {
    let id = checked(id)?;
    let campaigns = all(&admin).await?;
    let campaign = campaigns.get(&id).ok_or_else(|| no_such(id))?;
    Ok(Json(CampaignView::new(campaign, admin.stock.get(id))))
}

/// Stop a campaign: nothing more can be won, the rest of its fund goes back
#[utoipa::path(post, path = "/v1/campaigns/{id}/stop", params(("id" = u32, Path)), security(("bearer" = [])),
    responses((status = 200, body = CampaignView), (status = 404)))]
pub async fn stop(State(admin): State<Admin>, PathParam(id): PathParam<u32>) -> Result<Json<CampaignView>, ApiError> {
    let id = checked(id)?;
    let campaign = command(&admin, |reply| Command::Stop { id, reply }).await?;
    Ok(Json(CampaignView::new(&campaign, admin.stock.get(id))))
}

/// What anyone may know of the campaigns: commitments, and the seeds of those that are over
#[utoipa::path(get, path = "/public/campaigns", responses((status = 200, body = [PublicCampaign])))]
pub async fn published(State(admin): State<Admin>) -> Result<Json<Vec<PublicCampaign>>, ApiError> {
    let campaigns = all(&admin).await?;
    let published = campaigns.values().map(|campaign| {
        let view = CampaignView::new(campaign, admin.stock.get(campaign.id));
        PublicCampaign {
            id: view.id,
            title: view.title,
            state: view.state,
            total: view.total,
            min_fen: view.min_fen,
            max_fen: view.max_fen,
            starts_at_ms: view.starts_at_ms,
            ends_at_ms: view.ends_at_ms,
            seed_sha256: view.seed_sha256,
            seed: view.seed,
        }
    });
    Ok(Json(published.collect()))
}

async fn all(admin: &Admin) -> Result<BTreeMap<CampaignId, Campaign>, ApiError> {
    let campaigns = admin
        .ledger
        .call(|ledger| ledger.campaigns())
        .await
        .map_err(|_| stopping())?
        .map_err(|error| refused(&error))?;
    Ok(campaigns.into_iter().map(|campaign| (campaign.id, campaign)).collect())
}

async fn command(
    admin: &Admin,
    command: impl FnOnce(oneshot::Sender<Result<Campaign, LedgerError>>) -> Command,
) -> Result<Campaign, ApiError> {
    let (reply, answer) = oneshot::channel();
    admin.generator.send(command(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?.map_err(|error| refused(&error))
}

fn checked(id: u32) -> Result<CampaignId, ApiError> {
    CampaignId::new(id.into()).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn no_such(id: CampaignId) -> ApiError {
    ApiError::not_found(format!("campaign {id} does not exist"))
}

fn refused(error: &LedgerError) -> ApiError {
    match error {
        LedgerError::NoSuchCampaign(id) => no_such(*id),
        LedgerError::BadTerms(why) => ApiError::bad_request(why.clone()),
        LedgerError::Unavailable(_) => ApiError::unavailable(error.to_string()),
        _ => ApiError::internal(error.to_string()),
    }
}
