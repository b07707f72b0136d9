//! What a monitor's HTTP interface says, brought to the screen: history once, then the live stream,
//! and all of it again whenever the monitor has been away. Never ends by itself.

use std::convert::Infallible;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::terminal::state::{SECONDS_KEPT, Update};
use hongbao_telemetry::sse::{self, Stream, StreamError};

/// Between attempts to reach a monitor that is away.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// At most so long.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// For an answer that is not a stream.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of such an answer: ten minutes of every column take a twentieth of it.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Monitor {
    /// `http://HOST:PORT`, without a slash at its end.
    pub url: String,
    /// A bearer token for a monitor that wants one.
    pub token: Option<String>,
}

/// Follows the monitor. Who takes no updates any more ends it.
pub async fn run(monitor: Monitor, updates: mpsc::Sender<Update>) {
    let feed = match sse::client() {
        Ok(client) => Feed { monitor, client, updates },
        Err(error) => return notify(&updates, Update::Away(error.to_string())).await,
    };
    let mut pauses = PAUSES.build();
    loop {
        let Err(problem) = feed.follow(&mut pauses).await;
        notify(&feed.updates, Update::Away(problem.to_string())).await;
        tokio::time::sleep(pauses.next().unwrap_or(RETRY_MAX)).await;
    }
}

async fn notify(updates: &mpsc::Sender<Update>, update: Update) {
    // Where the screen has gone, this task is about to be ended too.
    updates.send(update).await.ok();
}

const PAUSES: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).without_max_times().with_jitter();

struct Feed {
    monitor: Monitor,
    client: reqwest::Client,
    updates: mpsc::Sender<Update>,
}

impl Feed {
    /// One connection, from its beginning to its end; returns why it ended.
    async fn follow(&self, pauses: &mut ExponentialBackoff) -> Result<Infallible, StreamError> {
        let url = format!("{}/api/v1/stream", self.monitor.url);
        let mut stream = Stream::open(&self.client, &url, self.monitor.token.as_deref(), None).await?;
        *pauses = PAUSES.build();
        notify(&self.updates, Update::Connected).await;
        // The stream is open already: what happens while history is read waits in it, and nothing
        // falls between the two.
        let mut has_history = false;
        loop {
            let event = stream.next().await?;
            let Ok(data) = serde_json::from_str::<Value>(&event.data) else { continue };
            let now_ms = data["now_ms"].as_u64();
            let is_second = event.name == "second";
            notify(&self.updates, Update::Data(event.name, data)).await;
            if let (false, Some(now_ms)) = (has_history, now_ms) {
                has_history = true;
                let from = (now_ms / 1_000).saturating_sub(SECONDS_KEPT as u64);
                self.ask("series", &format!("?from={from}")).await;
                self.ask("marks", "").await;
                self.ask("sources", "").await;
                self.ask("books", "").await;
            } else if is_second {
                self.ask("books", "").await;
            }
        }
    }

    /// What cannot be had is left out: the stream goes on, and it is where failures show.
    async fn ask(&self, what: &str, query: &str) {
        let url = format!("{}/api/v1/{what}{query}", self.monitor.url);
        let mut request = self.client.get(url).timeout(ANSWER_DEADLINE);
        if let Some(token) = &self.monitor.token {
            request = request.bearer_auth(token);
        }
        let Ok(mut response) = request.send().await.and_then(reqwest::Response::error_for_status) else { return };
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return;
            }
            body.extend_from_slice(&chunk);
        }
        if let Ok(value) = serde_json::from_slice(&body) {
            notify(&self.updates, Update::Data(what.to_owned(), value)).await;
        }
    }
}
