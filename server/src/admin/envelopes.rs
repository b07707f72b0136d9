//! Runs of envelopes on the operator's account, and any one envelope.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hongbao_proto::limits::{
    ENVELOPE_SECONDS, ENVELOPE_SECONDS_MAX, ENVELOPE_SHARES_MAX, ENVELOPE_USERS_MAX, GREETING_BYTES_MAX,
};
use hongbao_proto::{EnvelopeId, Fen, UserId};
use hongbao_telemetry::http::{ApiError, JsonBody, PathParam};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, refused, valid};
use crate::clock::wall;
use crate::ledger::task::LedgerTask;
use crate::limits::ENVELOPE_FEN_MAX;
use crate::market::campaign::{Amounts, Seed};
use crate::market::envelope::Mode;
use crate::services::envelope_runs::{COUNT_MAX, Progress, Run, Terms};

/// Envelopes on the operator's account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// How many envelopes, 1 ..= 1000000.
    count: u64,
    /// How many a second.
    rate_per_second: u32,
    /// To how many users each, drawn anew for each envelope, 1 ..= 500.
    recipients: u32,
    /// Into how many shares each falls, 1 ..= 500; absent: one for each recipient.
    shares: Option<u32>,
    /// `random` or `equal`; absent: random.
    #[schema(value_type = Option<String>)]
    mode: Option<Mode>,
    /// The first of the users to draw from.
    first_user: u64,
    /// How many they are.
    users: u64,
    /// The least that an envelope holds, fen: at least one for each share.
    min_total_fen: u64,
    /// The most; absent: all hold `min_total_fen`.
    max_total_fen: Option<u64>,
    /// For how long each can be opened, seconds; absent: a day.
    lifetime_seconds: Option<u32>,
    /// For people, at most 200 bytes.
    #[serde(default)]
    greeting: String,
}

/// One envelope.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvelopeInfo {
    id: u64,
    /// Absent: an operator.
    sender: Option<u64>,
    room: Option<u64>,
    total_fen: u64,
    shares: u32,
    #[schema(value_type = String)]
    mode: Mode,
    expires_at_ms: u64,
    /// Whether it can be opened no more.
    over: bool,
    refunded_fen: Option<u64>,
    /// In the order of opening.
    opened: Vec<ShareInfo>,
}

/// One share.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShareInfo {
    user: u64,
    amount_fen: u64,
    at_ms: u64,
}

impl NewRun {
    fn check(self) -> Result<Terms, String> {
        let shares = self.shares.unwrap_or(self.recipients);
        let max = self.max_total_fen.unwrap_or(self.min_total_fen);
        let seconds = self.lifetime_seconds.unwrap_or(ENVELOPE_SECONDS);
        let first_user = UserId::new(self.first_user).map_err(|error| error.to_string())?;
        let last = self.first_user.checked_add(self.users.saturating_sub(1));
        let ranges = [
            ("count", self.count, 1, COUNT_MAX),
            ("rate_per_second", self.rate_per_second.into(), 1, 100_000),
            ("recipients", self.recipients.into(), 1, ENVELOPE_USERS_MAX as u64),
            ("shares", shares.into(), 1, ENVELOPE_SHARES_MAX.into()),
            ("users", self.users, self.recipients.into(), UserId::MAX),
            ("min_total_fen", self.min_total_fen, shares.into(), ENVELOPE_FEN_MAX),
            ("max_total_fen", max, self.min_total_fen, ENVELOPE_FEN_MAX),
            ("lifetime_seconds", seconds.into(), 1, ENVELOPE_SECONDS_MAX.into()),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} {value} is outside {least}..={most}"));
            }
        }
        if last.is_none_or(|last| last > UserId::MAX) {
            let Self { first_user, users, .. } = self;
            return Err(format!("first_user {first_user} and users {users}: user ids end at {}", UserId::MAX));
        }
        if self.greeting.len() > GREETING_BYTES_MAX {
            let bytes = self.greeting.len();
            return Err(format!("greeting has {bytes} bytes; at most {GREETING_BYTES_MAX} are allowed"));
        }
        Ok(Terms {
            count: self.count,
            rate_per_second: self.rate_per_second,
            recipients: self.recipients,
            shares,
            mode: self.mode.unwrap_or(Mode::Random),
            first_user,
            users: self.users,
            totals: Amounts { min: Fen(self.min_total_fen), max: Fen(max) },
            lifetime_ms: u64::from(seconds) * 1_000,
            greeting: self.greeting.into(),
        })
    }
}

/// Send a run of envelopes on the operator's account
#[utoipa::path(post, path = "/v1/envelope-runs", request_body = NewRun, security(("bearer" = [])),
    responses((status = 201, description = "Begun", body = Progress), (status = 400)))]
pub async fn start(
    State(admin): State<Admin>,
    JsonBody(new): JsonBody<NewRun>,
) -> Result<(StatusCode, Json<Progress>), ApiError> {
    let terms = new.check().map_err(ApiError::bad_request)?;
    let seed = Seed::generate().map_err(|error| ApiError::unavailable(format!("no randomness for a seed: {error}")))?;
    let id = admin.runs.start(Run::begin(terms, seed, &admin.runs, &admin.shared, wall));
    let progress = admin.runs.find(id).ok_or_else(|| ApiError::internal("the run is gone"))?;
    Ok((StatusCode::CREATED, Json(progress)))
}

/// All runs that are remembered
#[utoipa::path(get, path = "/v1/envelope-runs", security(("bearer" = [])), responses((status = 200, body = [Progress])))]
pub async fn runs(State(admin): State<Admin>) -> Json<Vec<Progress>> {
    Json(admin.runs.all())
}

/// How far a run has come
#[utoipa::path(get, path = "/v1/envelope-runs/{id}", params(("id" = u64, Path)), security(("bearer" = [])),
    responses((status = 200, body = Progress), (status = 404)))]
pub async fn run(State(admin): State<Admin>, PathParam(id): PathParam<u64>) -> Result<Json<Progress>, ApiError> {
    admin.runs.find(id).map(Json).ok_or_else(|| ApiError::not_found(format!("run {id} is not known")))
}

/// Send no more envelopes of a run; those on their way can be opened
#[utoipa::path(post, path = "/v1/envelope-runs/{id}/stop", params(("id" = u64, Path)), security(("bearer" = [])),
    responses((status = 200, body = Progress), (status = 404)))]
pub async fn stop(State(admin): State<Admin>, PathParam(id): PathParam<u64>) -> Result<Json<Progress>, ApiError> {
    admin.runs.stop(id);
    run(State(admin), PathParam(id)).await
}

/// One envelope
#[utoipa::path(get, path = "/v1/envelopes/{id}", params(("id" = u64, Path)), security(("bearer" = [])),
    responses((status = 200, body = EnvelopeInfo), (status = 404)))]
pub async fn inspect(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u64>,
) -> Result<Json<EnvelopeInfo>, ApiError> {
    let id = valid(EnvelopeId::new(id))?;
    let ids = vec![id];
    let views = admin.shared.ledger.run(|reply| LedgerTask::Envelopes { ids, reply }).await.map_err(refused)?;
    let missing = || ApiError::not_found(format!("envelope {id} does not exist"));
    let view = views.into_iter().next().flatten().ok_or_else(missing)?;
    let opened =
        view.opened.iter().map(|(user, amount, at)| ShareInfo { user: user.get(), amount_fen: amount.0, at_ms: *at });
    Ok(Json(EnvelopeInfo {
        id: id.get(),
        sender: view.offer.sender.map(UserId::get),
        room: view.offer.room.map(hongbao_proto::RoomId::get),
        total_fen: view.total.0,
        shares: view.offer.shares,
        mode: view.offer.mode,
        expires_at_ms: view.offer.expires_at,
        over: view.is_over,
        refunded_fen: view.refunded.map(|refunded| refunded.0),
        opened: opened.collect(),
    }))
}
