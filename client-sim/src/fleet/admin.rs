//! The server's admin API, as far as a fleet needs it. Fields that are not known are ignored; one that is missing is an error
//! that names it.

use hongbao_proto::token::{Audience, Secret, Signer, TokenError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fleet::http::{self, CallError};
use crate::fleet::plan::{Plan, Rain};

/// Body of `GET /v1/stats`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Stats {
    /// The process.
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
    /// Its id.
    pub id: u32,
    /// Prizes issued.
    pub issued: u64,
    /// Prizes won.
    pub won: u64,
    /// Their money, fen.
    pub paid_fen: u64,
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
struct Taken {
    id: u64,
}

#[derive(Debug, Serialize)]
struct NewAnnouncement<'a> {
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct NewCampaign<'a> {
    kind: &'a str,
    title: &'a str,
    total: u64,
    rate_per_second: u32,
    min_fen: u64,
    max_fen: u64,
}

#[derive(Debug, Deserialize)]
struct Created {
    id: u32,
}

/// A caller of the admin API.
#[derive(Debug)]
pub struct Admin {
    client: reqwest::Client,
    url: String,
    token: String,
}

impl Admin {
    /// Of the API at `url`; `now`: Unix seconds.
    pub fn new(url: &str, secret: &Secret, now: u64) -> Result<Self, TokenError> {
        let token = Signer::new(secret).sign("fleet", Audience::Admin, now, http::TOKEN_SECONDS)?;
        Ok(Self { client: http::client(), url: url.to_owned(), token })
    }

    /// Live figures.
    pub async fn stats(&self) -> Result<Stats, CallError> {
        self.get("/v1/stats").await
    }

    /// Lets it rain until the plan's last phase is over, and somewhat longer. Returns the campaign's id.
    pub async fn create_rain(&self, plan: &Plan, rain: Rain) -> Result<u32, CallError> {
        let Rain { rate: rate_per_second, min_fen, max_fen } = rain;
        let total = plan.rain_total(rain);
        let campaign = NewCampaign { kind: "rain", title: "fleet run", total, rate_per_second, min_fen, max_fen };
        let url = format!("{}/v1/campaigns", self.url);
        let created: Created =
            http::call(self.client.post(&url).bearer_auth(&self.token).json(&campaign), &url).await?;
        Ok(created.id)
    }

    /// No more prizes from this campaign.
    pub async fn stop(&self, campaign: u32) -> Result<(), CallError> {
        let url = format!("{}/v1/campaigns/{campaign}/stop", self.url);
        http::send(self.client.post(&url).bearer_auth(&self.token), &url).await.map(drop)
    }

    /// Tells everybody a text. Returns the announcement's id, where the server gives one.
    pub async fn announce(&self, text: &str) -> Result<Option<u64>, CallError> {
        let url = format!("{}/v1/announcements", self.url);
        let response =
            http::send(self.client.post(&url).bearer_auth(&self.token).json(&NewAnnouncement { text }), &url).await?;
        // A server that keeps no books of announcements says nothing.
        Ok(response.json::<Taken>().await.ok().map(|taken| taken.id))
    }

    /// How an announcement went.
    pub async fn broadcast(&self, id: u64) -> Result<Broadcast, CallError> {
        self.get(&format!("/v1/announcements/{id}")).await
    }

    /// A campaign's books.
    pub async fn campaign(&self, campaign: u32) -> Result<Campaign, CallError> {
        self.get(&format!("/v1/campaigns/{campaign}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let url = format!("{}{path}", self.url);
        http::call(self.client.get(&url).bearer_auth(&self.token), &url).await
    }
}
