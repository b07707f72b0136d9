//! Calls of HTTP control surfaces, with errors that fit on a line.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use hongbao_telemetry::sse::root_cause;

/// How long the fleet's tokens are good: longer than any run.
pub const TOKEN_SECONDS: u64 = 7 * 24 * 3600;

const DEADLINE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} answered {status}: {body}")]
    Refused { url: String, status: u16, body: String },
    #[error("{url} answered something unexpected: {reason}")]
    Unexpected { url: String, reason: String },
}

/// A client that keeps its connections.
pub fn client() -> Client {
    // No other service is between a fleet and its machines; a proxy of the environment must not be
    // either.
    Client::builder().no_proxy().timeout(DEADLINE).build().unwrap_or_default()
}

/// Sends, and accepts success only.
pub async fn send(request: RequestBuilder, url: &str) -> Result<Response, CallError> {
    let response = request.send().await.map_err(|error| unreachable(url, &error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    Err(CallError::Refused { url: url.to_owned(), status: status.as_u16(), body: body.trim().to_owned() })
}

/// Sends, and reads the answer.
pub async fn call<T: DeserializeOwned>(request: RequestBuilder, url: &str) -> Result<T, CallError> {
    let body = send(request, url).await?.bytes().await.map_err(|error| unreachable(url, &error))?;
    serde_json::from_slice(&body)
        .map_err(|error| CallError::Unexpected { url: url.to_owned(), reason: error.to_string() })
}

fn unreachable(url: &str, error: &reqwest::Error) -> CallError {
    CallError::Unreachable { url: url.to_owned(), reason: root_cause(error) }
}
