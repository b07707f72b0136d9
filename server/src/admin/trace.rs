//! Following one user live, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{once, unfold};
use futures_util::{Stream, StreamExt};
use hongbao_proto::UserId;
use hongbao_telemetry::http::{ApiError, PathParam};
use serde_json::json;

use crate::admin::{Admin, valid};
use crate::clock::wall_us;
use crate::set::directory::Directory;
use crate::set::trace::TraceItem;

/// A comment so often shows a caller that has gone, and a proxy that this goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Follow a user live, on-line or not: `event: step` for each request, ledger decision, answer,
/// push and end; `lost` where the caller was too slow; `stopping` as the last
#[utoipa::path(get, path = "/v1/users/{user}/trace", params(("user" = u64, Path)), security(("bearer" = [])), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 429, description = "As many are followed as may be")))]
pub async fn follow(
    State(admin): State<Admin>,
    PathParam(user): PathParam<u64>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let user = valid(UserId::new(user))?;
    let follower = admin
        .shared
        .traces
        .follow(user)
        .map_err(|error| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tracers", error.to_string()))?;
    let Admin { shared, mut closing, .. } = admin;
    // An error says that the node is gone.
    let closed = async move { drop(closing.wait_for(|closing| *closing).await) };
    let begun = once(async move { following(&shared.directory, user) });
    let steps = unfold(follower, |mut follower| async move { Some((event(follower.next().await), follower)) });
    let stopping = once(async { Event::default().event("stopping").data("{}") });
    let events = begun.chain(steps.take_until(closed)).chain(stopping).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn event(item: TraceItem) -> Event {
    match item {
        TraceItem::Step(step) => Event::default().event("step").data(json!(step).to_string()),
        TraceItem::Lost(count) => Event::default().event("lost").data(json!({ "count": count }).to_string()),
    }
}

/// Where the user is as the following begins.
fn following(directory: &Directory, user: UserId) -> Event {
    let address = directory.find(user);
    let position = json!({
        "user": user.get(),
        "at_us": wall_us(),
        "online": address.is_some(),
        "set": address.map(|address| address.set),
        "slot": address.map(|address| address.key.slot),
    });
    Event::default().event("following").data(position.to_string())
}
