//! Following one user live, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::{self, StreamExt as _};
use hongbao_proto::UserId;
use hongbao_telemetry::http::{ApiError, PathParam};
use serde_json::json;
use tokio::sync::watch;

use crate::admin::{Admin, valid};
use crate::clock::wall_us;
use crate::set::directory::Directory;
use crate::set::trace::{Follower, TraceItem};

/// A comment so often shows a caller that has gone, and a proxy that this goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Who follows, and what becomes true when the surface is about to end; none: that was said.
type Following = Option<(Follower, watch::Receiver<bool>)>;

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
    let begun = stream::iter([Ok(following(&admin.shared.directory, user))]);
    let steps = begun.chain(stream::unfold(Some((follower, admin.closing)), next));
    Ok(Sse::new(steps).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn next(following: Following) -> Option<(Result<Event, Infallible>, Following)> {
    let (mut follower, mut closing) = following?;
    let item = tokio::select! {
        item = follower.next() => item,
        // An error says that the node is gone.
        _ = closing.wait_for(|closing| *closing) => {
            return Some((Ok(Event::default().event("stopping").data("{}")), None));
        }
    };
    let event = match item {
        TraceItem::Step(step) => Event::default().event("step").data(json!(step).to_string()),
        TraceItem::Lost(count) => Event::default().event("lost").data(json!({ "count": count }).to_string()),
    };
    Some((Ok(event), Some((follower, closing))))
}

/// Where the user is as the following begins.
fn following(directory: &Directory, user: UserId) -> Event {
    let address = directory.find(user);
    let told = json!({
        "user": user.get(),
        "at_us": wall_us(),
        "online": address.is_some(),
        "set": address.map(|address| address.set),
        "slot": address.map(|address| address.key.slot),
    });
    Event::default().event("following").data(told.to_string())
}
