//! The run as it happens, over HTTP: the stream of events, and what a page needs to begin with.
//!
//! What is streamed is made once, by the owner, and handed to every reader. A reader that is too
//! slow loses its stream, not the others theirs: it comes back with the last second that it has
//! seen, and gets those that it missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::limits::{SERIES_POINTS_MAX, STREAMS_MAX};
use crate::owner::{Message, Question, StreamEvent, Subscription, ask};
use crate::recording::read;
use crate::run::series::Series;
use crate::runs::{self, Runs, Window};
use hongbao_telemetry::http::{ApiError, QueryParams};

/// Between two events that keep a quiet stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How soon a reader that lost its stream should come back.
const RETRY: Duration = Duration::from_secs(1);

type Owner = mpsc::Sender<Message>;

#[derive(Debug, Clone)]
struct Live {
    owner: Owner,
    streams: Arc<Semaphore>,
    runs: Arc<Runs>,
}

/// `/api/v1/stream`, `/api/v1/series`, `/api/v1/marks`, `/api/v1/sets`.
pub fn router(owner: Owner, runs: Arc<Runs>) -> Router {
    Router::new()
        .route("/api/v1/stream", get(stream))
        .route("/api/v1/series", get(series))
        .route("/api/v1/marks", get(marks))
        .route("/api/v1/sets", get(sets))
        .with_state(Live { owner, streams: Arc::new(Semaphore::new(STREAMS_MAX)), runs })
}

/// One reader of the stream, and its place among them.
struct Reader {
    subscription: Subscription,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next event; none ends the stream.
    async fn next(&mut self) -> Option<Event> {
        let Subscription { first, missed, live, dropped } = &mut self.subscription;
        if let Some(standing) = first.pop_front() {
            return Some(event(&standing));
        }
        if let Some(row) = missed.pop_front() {
            return Some(event(&StreamEvent::second(&row)));
        }
        match live.recv().await {
            Ok(sent) => Some(event(&sent)),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(events)) => {
                dropped.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    event = "stream_reader_slow",
                    events,
                    "a reader of the stream was too slow and is dropped"
                );
                None
            }
        }
    }
}

fn event(sent: &StreamEvent) -> Event {
    let event = Event::default().event(sent.event).data(&sent.data);
    match sent.id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

fn events(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    let retry = stream::once(async { Ok(Event::default().retry(RETRY)) });
    let events = stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) });
    futures_util::StreamExt::chain(retry, events)
}

async fn stream(State(live): State<Live>, headers: HeaderMap) -> Result<Response, ApiError> {
    let place = Arc::clone(&live.streams).try_acquire_owned();
    let place = place.map_err(|_| ApiError::unavailable(format!("{STREAMS_MAX} streams are open; close one first")))?;
    // What is no second is of another server, or a page's mistake: then there is nothing to catch
    // up with.
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let subscription = ask(&live.owner, |reply| Question::Subscribe { after, reply }).await?;
    let reader = Reader { subscription, _place: place };
    // An event, not a comment: a script hears nothing of those, and would take a quiet stream for dead.
    let alive = Event::default().event("alive").data("still here");
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).event(alive);
    // Whatever stands between must not wait for more before it passes an event on.
    Ok(([("x-accel-buffering", "no")], Sse::new(events(reader)).keep_alive(keep_alive)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    run: Option<String>,
    from: Option<u64>,
    until: Option<u64>,
    every: Option<u64>,
}

/// Seconds that one value stands for, lest an answer has more than [`SERIES_POINTS_MAX`] values in
/// a column. `finest`: what is kept of the range at all.
///
/// # Errors
/// What was asked for is too fine.
pub fn resolution(asked: Option<u64>, span: u64, finest: u64) -> Result<u64, ApiError> {
    let least = span.div_ceil(SERIES_POINTS_MAX).max(finest).max(1);
    match asked {
        None => Ok(least.next_multiple_of(finest.max(1))),
        Some(every) if every >= 1 && span.div_ceil(every) <= SERIES_POINTS_MAX => {
            Ok(every.max(finest).next_multiple_of(finest.max(1)))
        }
        Some(every) => Err(ApiError::bad_request(format!(
            "every is {every}; for {span} seconds it must be at least {least}, so that there are {SERIES_POINTS_MAX} values or fewer"
        ))),
    }
}

async fn series(State(live): State<Live>, QueryParams(asked): QueryParams<Asked>) -> Result<Response, ApiError> {
    if let Some(run) = asked.run.as_deref().filter(|run| !live.runs.is_current(run)) {
        let window = Window { from: asked.from, until: asked.until, every: asked.every };
        return live.runs.series(run, window).await.map(runs::api::json_bytes);
    }
    let (from, until) = (asked.from.unwrap_or(0), asked.until.unwrap_or(u64::MAX));
    if from > until {
        return Err(ApiError::bad_request(format!("from is {from} and until is {until}; from must not be later")));
    }
    let history = ask(&live.owner, |reply| Question::History { from, until, reply }).await?;
    let (first, last) = (history.rows.first(), history.rows.last());
    let span = first.zip(last).map_or(0, |(first, last)| last.second() - first.second() + 1);
    let every = resolution(asked.every, span, history.finest)?;
    let series = move || Series::of(&history.run, every, history.rows.iter().map(|row| &**row));
    // An hour is some hundred thousand values: the owner has seconds to close meanwhile.
    let series = tokio::task::spawn_blocking(series).await;
    Ok(series.map(Json).map_err(|error| ApiError::internal(error.to_string()))?.into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichRun {
    run: Option<String>,
}

async fn marks(State(live): State<Live>, QueryParams(asked): QueryParams<WhichRun>) -> Result<Json<Value>, ApiError> {
    if let Some(run) = asked.run.as_deref().filter(|run| !live.runs.is_current(run)) {
        return Ok(Json(json!({ "marks": live.runs.read(run, read::Reader::marks).await? })));
    }
    let marks = ask(&live.owner, Question::Marks).await?;
    let marks: Vec<_> = marks.iter().map(|mark| &**mark).collect();
    Ok(Json(json!({ "marks": marks })))
}

async fn sets(State(live): State<Live>) -> Result<Json<Value>, ApiError> {
    let sets = ask(&live.owner, Question::Sets).await?;
    Ok(Json(json!(sets.servers())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_never_has_more_values_than_the_bound() {
        assert_eq!(resolution(None, 100, 1).unwrap(), 1);
        assert_eq!(resolution(None, SERIES_POINTS_MAX + 1, 1).unwrap(), 2);
        assert_eq!(resolution(None, 100, 10).unwrap(), 10);
        assert_eq!(resolution(Some(15), 100, 10).unwrap(), 20);
        assert_eq!(resolution(Some(60), 100, 1).unwrap(), 60);
        for every in [0, 1] {
            let refused = resolution(Some(every), SERIES_POINTS_MAX + 1, 1).unwrap_err();
            assert!(refused.message.contains("at least 2"), "{refused}");
        }
    }
}
