//! The server's admin API, as far as a fleet needs it. Fields that are not known are ignored; one
//! that is missing is an error that names it.

use hongbao_proto::token::{Secret, TokenError};
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fleet::http::{self, CallError, Caller};
use crate::fleet::plan::{Plan, PlannedEnvelopes, PlannedTickets, Rain};

const TITLE: &str = "fleet run";

/// Users that the server lets one deposit go to.
const DEPOSIT_USERS_MAX: u32 = 100_000;

/// What an envelope holds at least, fen for each recipient.
const SHARE_FEN_MIN: u64 = 10;

/// What an envelope holds at most, fen for each recipient.
const SHARE_FEN_MAX: u64 = 500;

/// Body of `GET /v1/stats`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Stats {
    pub process: Process,
}

/// The server's process.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Process {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time so far.
    pub cpu_seconds: f64,
}

/// Body of `GET /v1/campaigns/{id}`.
#[derive(Debug, Clone, Deserialize)]
pub struct Campaign {
    pub id: u32,
    pub issued: u64,
    pub won: u64,
    /// Their money, fen.
    pub paid_fen: u64,
    /// Of a sale: units that wait for their payment.
    #[serde(default)]
    pub reserved: u64,
}

/// Body of `GET /v1/envelope-runs/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvelopeRun {
    pub id: u64,
    /// Envelopes that were asked for.
    pub count: u64,
    pub sent: u64,
    pub open: u64,
    /// What was put into them, fen, where it is told.
    pub sent_fen: Option<u64>,
    /// Shares that were opened, where it is told.
    pub opened_shares: Option<u64>,
    /// Their worth, fen, where it is told.
    pub opened_fen: Option<u64>,
    /// What went back when they expired, fen.
    pub refunded_fen: u64,
    /// All were sent, and each is empty or refunded.
    pub finished: bool,
}

/// Body of `GET /v1/announcements/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broadcast {
    /// Connections that it was written to.
    pub reached: u64,
    /// Connections that did not get it.
    pub dropped: u64,
    /// When the last connection had it, Unix milliseconds; absent: not yet.
    pub finished_at_ms: Option<u64>,
    /// From the request to the last connection, or until now.
    pub seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Created<Id> {
    id: Id,
}

/// The admin API.
#[derive(Debug)]
pub struct Admin {
    caller: Caller,
    url: String,
}

impl Admin {
    /// Of the API at `url`; `now`: Unix seconds.
    pub fn new(url: &str, secret: &Secret, now: u64) -> Result<Self, TokenError> {
        Ok(Self { caller: Caller::new(secret, now)?, url: url.to_owned() })
    }

    pub async fn stats(&self) -> Result<Stats, CallError> {
        self.get("/v1/stats").await
    }

    /// Lets it rain until the plan's last phase is over, and somewhat longer. Returns the
    /// campaign's id.
    pub async fn create_rain(&self, plan: &Plan, rain: Rain) -> Result<u32, CallError> {
        let campaign = json!({
            "kind": "rain",
            "title": TITLE,
            "total": plan.rain_total(rain),
            "rate_per_second": rain.rate,
            "min_fen": rain.min_fen,
            "max_fen": rain.max_fen,
        });
        self.create("/v1/campaigns", &campaign).await
    }

    /// Puts the plan's tickets on sale from Unix millisecond `starts_at_ms` on. Returns the
    /// campaign's id.
    pub async fn create_sale(&self, plan: &Plan, tickets: PlannedTickets, starts_at_ms: u64) -> Result<u32, CallError> {
        let sale = json!({
            "kind": "ticket",
            "title": TITLE,
            "total": tickets.total,
            "price_fen": tickets.price_fen,
            "hold_ms": u64::try_from(plan.hold.as_millis()).unwrap_or(u64::MAX),
            "starts_at_ms": starts_at_ms,
            "per_user_limit": tickets.limit,
        });
        self.create("/v1/campaigns", &sale).await
    }

    /// Puts so many fen into each of the wallets of users 1 to `users`. The same `key` does it
    /// once.
    pub async fn deposit(&self, users: u32, amount_fen: u64, key: &str) -> Result<(), CallError> {
        for first_user in (1..=users).step_by(DEPOSIT_USERS_MAX as usize) {
            let users = DEPOSIT_USERS_MAX.min(users - first_user + 1);
            let key = format!("{key} from {first_user}");
            let deposit = json!({"first_user": first_user, "users": users, "amount_fen": amount_fen, "key": key});
            self.post("/v1/deposits", &deposit).await?;
        }
        Ok(())
    }

    /// Has the house send the plan's envelopes. Returns the run's id.
    pub async fn send_envelopes(&self, plan: &Plan, envelopes: PlannedEnvelopes) -> Result<u64, CallError> {
        let run = json!({
            "count": envelopes.count,
            "rate_per_second": envelopes.rate,
            "recipients": envelopes.recipients,
            "first_user": 1,
            "users": plan.users,
            "min_total_fen": u64::from(envelopes.recipients) * SHARE_FEN_MIN,
            "max_total_fen": u64::from(envelopes.recipients) * SHARE_FEN_MAX,
            "lifetime_seconds": plan.envelope_lifetime.as_secs(),
        });
        self.create("/v1/envelope-runs", &run).await
    }

    pub async fn envelope_run(&self, id: u64) -> Result<EnvelopeRun, CallError> {
        self.get(&format!("/v1/envelope-runs/{id}")).await
    }

    /// No more prizes from this campaign.
    pub async fn stop(&self, campaign: u32) -> Result<(), CallError> {
        self.post(&format!("/v1/campaigns/{campaign}/stop"), &Value::Null).await.map(drop)
    }

    /// Tells everybody a text. Returns the announcement's id, where the server gives one.
    pub async fn announce(&self, text: &str) -> Result<Option<u64>, CallError> {
        let response = self.post("/v1/announcements", &json!({"text": text})).await?;
        // A server that keeps no books of announcements says nothing.
        Ok(response.json::<Created<u64>>().await.ok().map(|created| created.id))
    }

    /// How an announcement went.
    pub async fn broadcast(&self, id: u64) -> Result<Broadcast, CallError> {
        self.get(&format!("/v1/announcements/{id}")).await
    }

    /// A campaign's books.
    pub async fn campaign(&self, campaign: u32) -> Result<Campaign, CallError> {
        self.get(&format!("/v1/campaigns/{campaign}")).await
    }

    async fn create<Id: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<Id, CallError> {
        let response = self.post(path, body).await?;
        http::read(response, path).await.map(|created: Created<Id>| created.id)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Response, CallError> {
        self.caller.post(&format!("{}{path}", self.url), body).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.caller.get(&format!("{}{path}", self.url)).await
    }
}
