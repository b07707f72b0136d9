//! Calls of HTTP control surfaces, with errors that fit on a line.

use std::time::Duration;

use hongbao_proto::token::{Audience, Secret, Signer, TokenError};
use reqwest::{Client, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use hongbao_telemetry::sse::root_cause;

/// How long the fleet's tokens are good: longer than any run.
const TOKEN_SECONDS: u64 = 7 * 24 * 3600;

const DEADLINE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[error("{url} {reason}")]
pub struct CallError {
    url: String,
    reason: String,
}

impl CallError {
    fn new(url: &str, reason: String) -> Self {
        Self { url: url.to_owned(), reason }
    }
}

/// Calls with the fleet's token, over connections that are kept.
#[derive(Debug)]
pub struct Caller {
    client: Client,
    token: String,
}

impl Caller {
    /// `now`: Unix seconds.
    pub fn new(secret: &Secret, now: u64) -> Result<Self, TokenError> {
        // No other service is between a fleet and its machines; a proxy of the environment must not
        // be either.
        let client = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap_or_default();
        Ok(Self { client, token: Signer::new(secret).sign("fleet", Audience::Admin, now, TOKEN_SECONDS)? })
    }

    pub async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, CallError> {
        read(self.send(self.client.get(url), url).await?, url).await
    }

    /// Posts, and accepts success only, whatever it says.
    pub async fn post(&self, url: &str, body: &impl Serialize) -> Result<Response, CallError> {
        self.send(self.client.post(url).json(body), url).await
    }

    async fn send(&self, request: RequestBuilder, url: &str) -> Result<Response, CallError> {
        let response = request.bearer_auth(&self.token).send().await.map_err(|error| unreachable(url, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        Err(CallError::new(url, format!("answered {}: {}", status.as_u16(), body.trim())))
    }
}

pub async fn read<T: DeserializeOwned>(response: Response, url: &str) -> Result<T, CallError> {
    let body = response.bytes().await.map_err(|error| unreachable(url, &error))?;
    serde_json::from_slice(&body)
        .map_err(|error| CallError::new(url, format!("answered something unexpected: {error}")))
}

fn unreachable(url: &str, error: &reqwest::Error) -> CallError {
    CallError::new(url, format!("cannot be reached: {}", root_cause(error)))
}
