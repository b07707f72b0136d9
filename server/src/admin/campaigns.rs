//! Campaigns: create, list, inspect, stop; and the public list by which anyone can check a draw.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hongbao_proto::{CampaignId, Fen};
use hongbao_telemetry::http::{ApiError, JsonBody, PathParam};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::{Admin, refused, stopping, valid};
use crate::clock::wall;
use crate::generator::{CampaignStatus, Command};
use crate::ledger::LedgerError;
use crate::ledger::task::{CampaignChange, LedgerTask};
use crate::limits::HOLD_MS;
use crate::market::campaign::{Amounts, Campaign, CampaignKind, CampaignTerms, Goods, Sale, Seed};

/// A new campaign.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCampaign {
    /// `rain`, `ticket` or `coupon`.
    #[schema(value_type = String, example = "rain")]
    kind: CampaignKind,
    /// For people; at most 200 bytes.
    #[serde(default)]
    title: String,
    /// How many units: prizes, tickets or coupons.
    total: u64,
    /// Rain: prizes issued per second.
    rate_per_second: Option<u32>,
    /// Rain: the smallest prize, fen.
    min_fen: Option<u64>,
    /// Rain: the largest prize, fen; absent: all are `min_fen`.
    max_fen: Option<u64>,
    /// Sale: what a unit costs, fen; absent: nothing, and a unit is the user's as soon as it is
    /// grabbed.
    price_fen: Option<u64>,
    /// Coupon: what it is worth, fen.
    face_value_fen: Option<u64>,
    /// Sale: how long a grabbed unit waits for its payment, milliseconds, 1000 ..= 86400000;
    /// absent: 15 minutes.
    hold_ms: Option<u64>,
    /// Sale: the unit may be used from then on, Unix milliseconds.
    valid_from_ms: Option<u64>,
    /// Sale: and no more from then on, Unix milliseconds.
    valid_until_ms: Option<u64>,
    /// Sale: Grabs of the first so many milliseconds are served in an order drawn by lot, at most
    /// 5000; 0: by arrival; absent: the server's `--fair-window` where the sale begins later than
    /// now.
    fair_window_ms: Option<u32>,
    /// First unit, Unix milliseconds; absent: now.
    starts_at_ms: Option<u64>,
    /// No unit from then on, Unix milliseconds; absent: until all are gone, or it is stopped.
    ends_at_ms: Option<u64>,
    /// Units that one user may hold; absent: no limit.
    per_user_limit: Option<u32>,
    /// 64 hexadecimal digits; absent: drawn by the server, as it should be.
    seed: Option<String>,
}

/// A campaign with its books.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    #[serde(flatten)]
    public: PublicCampaign,
    /// Whether what was left went back to the treasury.
    settled: bool,
    rate_per_second: Option<u32>,
    hold_ms: Option<u64>,
    created_at_ms: u64,
    stopped_at_ms: Option<u64>,
    per_user_limit: Option<u32>,
    /// Distinct prizes handed out: those won before this run of the server, and those it has
    /// issued.
    issued: u64,
    /// Units that are somebody's for good: prizes won, tickets and coupons paid.
    won: u64,
    /// Their money, fen: paid out by a rain, taken in by a sale.
    paid_fen: u64,
    /// Units that wait for their payment.
    reserved: u64,
    /// What was left in the fund, or in the till, when it was settled, fen.
    refunded_fen: Option<u64>,
    /// Where the serials are; absent for a campaign that ended long ago.
    live: Option<CampaignStatus>,
}

/// What anyone may know.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicCampaign {
    id: u32,
    title: String,
    #[schema(value_type = String)]
    kind: CampaignKind,
    /// `scheduled`, `open`, `sold_out` or `ended`.
    state: &'static str,
    total: u64,
    min_fen: Option<u64>,
    max_fen: Option<u64>,
    price_fen: Option<u64>,
    face_value_fen: Option<u64>,
    valid_from_ms: Option<u64>,
    valid_until_ms: Option<u64>,
    /// Grabs that came within so many milliseconds of the start were served in the order of their
    /// lots: the first 16 bytes of SHA-256(seed ‖ "lot" ‖ user ‖ request), both as 8 bytes,
    /// big-endian; the smallest first.
    fair_window_ms: Option<u32>,
    starts_at_ms: u64,
    ends_at_ms: Option<u64>,
    /// SHA-256 of the seed, hexadecimal.
    seed_sha256: String,
    /// The seed, once nothing more can be won. Prize `s` is worth `min + (x * (max - min + 1) >>
    /// 64)` fen, where `x` is the first 8 bytes, big-endian, of SHA-256(seed ‖ s as 8 bytes,
    /// big-endian).
    seed: Option<String>,
}

impl CampaignView {
    fn new(campaign: &Campaign, admin: &Admin) -> Self {
        let live = admin.telemetry.stock.get(campaign.id);
        let terms = &campaign.terms;
        let settled = campaign.settlement.is_some();
        let (rate_per_second, amounts, sale) = match terms.goods {
            Goods::Rain { rate_per_second, amounts } => (Some(rate_per_second), Some(amounts), None),
            Goods::Sale(sale) => (None, None, Some(sale)),
        };
        let ended = if campaign.won == terms.total { "sold_out" } else { "ended" };
        let public = PublicCampaign {
            id: campaign.id.get(),
            kind: terms.kind(),
            title: terms.title.clone(),
            state: live.as_ref().map_or(ended, |live| live.state),
            total: terms.total,
            min_fen: amounts.map(|amounts| amounts.min.0),
            max_fen: amounts.map(|amounts| amounts.max.0),
            price_fen: sale.map(|sale| sale.price.0),
            face_value_fen: sale.map(|sale| sale.face_value.0),
            valid_from_ms: sale.and_then(|sale| sale.valid_from),
            valid_until_ms: sale.and_then(|sale| sale.valid_until),
            fair_window_ms: sale.map(|sale| sale.fair_window_ms),
            starts_at_ms: terms.starts_at,
            ends_at_ms: terms.ends_at,
            seed_sha256: const_hex::encode(terms.seed.sha256()),
            seed: settled.then(|| terms.seed.to_hex()),
        };
        Self {
            public,
            settled,
            rate_per_second,
            hold_ms: sale.map(|sale| sale.hold_ms),
            created_at_ms: campaign.created_at,
            stopped_at_ms: campaign.stopped_at,
            per_user_limit: terms.per_user_limit,
            issued: live.as_ref().map_or(campaign.won, |live| live.won_before + live.conservation.issued_first),
            won: campaign.won,
            paid_fen: campaign.paid.0,
            reserved: campaign.reserved,
            refunded_fen: campaign.settlement.map(|settlement| settlement.refunded.0),
            live,
        }
    }
}

/// What the campaign hands out, if the fields go with its kind. `fair_window_ms`: where it does not
/// say.
fn goods(new: &NewCampaign, fair_window_ms: u32) -> Result<Goods, String> {
    let of_rain = [new.rate_per_second.map(u64::from), new.min_fen, new.max_fen];
    let terms_of_sale = [new.price_fen, new.face_value_fen, new.hold_ms, new.valid_from_ms, new.valid_until_ms];
    let is_sale = new.fair_window_ms.is_some() || terms_of_sale.iter().any(Option::is_some);
    if new.kind == CampaignKind::Rain {
        if is_sale {
            return Err("a rain has rate_per_second, min_fen and max_fen, and no field of a sale".to_owned());
        }
        let (Some(rate_per_second), Some(min)) = (new.rate_per_second, new.min_fen) else {
            return Err("a rain needs rate_per_second and min_fen".to_owned());
        };
        let amounts = Amounts { min: Fen(min), max: Fen(new.max_fen.unwrap_or(min)) };
        return Ok(Goods::Rain { rate_per_second, amounts });
    }
    if of_rain.iter().any(Option::is_some) {
        return Err("a sale has a price_fen, and none of rate_per_second, min_fen and max_fen".to_owned());
    }
    Ok(Goods::Sale(Sale {
        kind: new.kind,
        price: Fen(new.price_fen.unwrap_or(0)),
        face_value: Fen(new.face_value_fen.unwrap_or(0)),
        hold_ms: new.hold_ms.unwrap_or(HOLD_MS),
        valid_from: new.valid_from_ms,
        valid_until: new.valid_until_ms,
        fair_window_ms: new.fair_window_ms.unwrap_or(fair_window_ms),
    }))
}

/// Create a campaign
#[utoipa::path(post, path = "/v1/campaigns", request_body = NewCampaign, security(("bearer" = [])),
    responses((status = 201, body = CampaignView), (status = 400, description = "The terms contradict themselves or exceed a limit")))]
pub async fn create(
    State(admin): State<Admin>,
    JsonBody(new): JsonBody<NewCampaign>,
) -> Result<(StatusCode, Json<CampaignView>), ApiError> {
    let seed = match &new.seed {
        Some(hex) => {
            Seed::from_hex(hex).ok_or_else(|| ApiError::bad_request("seed: a seed is 64 hexadecimal digits"))?
        }
        None => {
            Seed::generate().map_err(|error| ApiError::unavailable(format!("no randomness for a seed: {error}")))?
        }
    };
    // Whoever is there when a sale begins at once was there by chance.
    let begins_later = new.starts_at_ms.is_some_and(|starts_at| starts_at > wall());
    let window = if begins_later { admin.fair_window_ms } else { 0 };
    let goods = goods(&new, window).map_err(ApiError::bad_request)?;
    let terms = CampaignTerms {
        title: new.title,
        goods,
        total: new.total,
        seed,
        starts_at: new.starts_at_ms.unwrap_or_else(wall),
        ends_at: new.ends_at_ms,
        per_user_limit: new.per_user_limit,
    };
    Ok((StatusCode::CREATED, Json(change(&admin, CampaignChange::Create(Box::new(terms))).await?)))
}

/// List all campaigns
#[utoipa::path(get, path = "/v1/campaigns", security(("bearer" = [])), responses((status = 200, body = [CampaignView])))]
pub async fn list(State(admin): State<Admin>) -> Result<Json<Vec<CampaignView>>, ApiError> {
    Ok(Json(all(&admin).await?))
}

/// Inspect one campaign
#[utoipa::path(get, path = "/v1/campaigns/{id}", params(("id" = u32, Path)), security(("bearer" = [])),
    responses((status = 200, body = CampaignView), (status = 404)))]
pub async fn inspect(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u32>,
) -> Result<Json<CampaignView>, ApiError> {
    let id = valid(CampaignId::new(id.into()))?;
    let campaign = all(&admin).await?.into_iter().find(|campaign| campaign.public.id == id.get());
    campaign.map(Json).ok_or_else(|| refused(LedgerError::NoSuchCampaign(id)))
}

/// Stop a campaign: nothing more can be won, the rest of its fund goes back
#[utoipa::path(post, path = "/v1/campaigns/{id}/stop", params(("id" = u32, Path)), security(("bearer" = [])),
    responses((status = 200, body = CampaignView), (status = 404)))]
pub async fn stop(State(admin): State<Admin>, PathParam(id): PathParam<u32>) -> Result<Json<CampaignView>, ApiError> {
    let id = valid(CampaignId::new(id.into()))?;
    change(&admin, CampaignChange::Stop(id)).await.map(Json)
}

/// What anyone may know of the campaigns: commitments, and the seeds of those that are over
#[utoipa::path(get, path = "/public/campaigns", responses((status = 200, body = [PublicCampaign])))]
pub async fn published(State(admin): State<Admin>) -> Result<Json<Vec<PublicCampaign>>, ApiError> {
    Ok(Json(all(&admin).await?.into_iter().map(|campaign| campaign.public).collect()))
}

/// By id.
async fn all(admin: &Admin) -> Result<Vec<CampaignView>, ApiError> {
    let campaigns = admin.shared.ledger.run(|reply| LedgerTask::Campaigns { reply }).await.map_err(refused)?;
    Ok(campaigns.iter().map(|campaign| CampaignView::new(campaign, admin)).collect())
}

async fn change(admin: &Admin, change: CampaignChange) -> Result<CampaignView, ApiError> {
    let (reply, answer) = oneshot::channel();
    admin.generator.send(Command::Change { change, reply }).await.map_err(|_| stopping())?;
    let campaign = answer.await.map_err(|_| stopping())?.map_err(refused)?;
    Ok(CampaignView::new(&campaign, admin))
}
