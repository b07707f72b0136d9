//! Announcements: to everybody who is logged in, with a receipt.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use hongbao_proto::limits::ANNOUNCEMENT_BYTES_MAX;
use hongbao_proto::v1::{self, server_frame::Event};
use hongbao_telemetry::http::{ApiError, JsonBody, PathParam};
use hongbao_telemetry::report::names::event;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::{Admin, stopping};
use crate::clock::wall;
use crate::limits;
use crate::set::broadcast::{AnnouncementView, Broadcasts};
use crate::set::message::{Control, Message};
use crate::set::{SetHandle, delivery};

/// How long all SETs together may take to find room for an announcement.
const QUEUE_PATIENCE: Duration = Duration::from_secs(1);

/// What everybody is to read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAnnouncement {
    /// 1 to 1024 bytes.
    text: String,
}

/// An announcement on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnnouncementBegun {
    /// For `GET /v1/announcements/{id}`.
    id: u64,
    /// SETs that were told.
    sets_told: u32,
    /// SETs whose queue was full for too long: nobody there gets it.
    sets_dropped: u32,
}

/// Write a text to every logged-in connection
#[utoipa::path(post, path = "/v1/announcements", request_body = NewAnnouncement, security(("bearer" = [])),
    responses((status = 202, description = "On its way", body = AnnouncementBegun)))]
pub async fn announce(
    State(admin): State<Admin>,
    JsonBody(new): JsonBody<NewAnnouncement>,
) -> Result<(StatusCode, Json<AnnouncementBegun>), ApiError> {
    if !(1..=ANNOUNCEMENT_BYTES_MAX).contains(&new.text.len()) {
        let bytes = new.text.len();
        return Err(ApiError::bad_request(format!(
            "text has {bytes} bytes; 1 to {ANNOUNCEMENT_BYTES_MAX} are allowed"
        )));
    }
    let told = format!("announcement: {}", new.text);
    let frame = delivery::encode(Event::Announcement(v1::Announcement { text: new.text }));
    let begun = send(&admin.shared.sets, &admin.telemetry.broadcasts, &frame, QUEUE_PATIENCE).await?;
    admin.telemetry.events.push(wall(), event::ANNOUNCEMENT, told);
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

/// Hands an announcement to every SET, with `patience` for those whose queue is full.
async fn send(
    sets: &[SetHandle],
    broadcasts: &Broadcasts,
    frame: &Bytes,
    patience: Duration,
) -> Result<AnnouncementBegun, ApiError> {
    let (broadcast, receipts) = broadcasts.begin(u32::try_from(sets.len()).unwrap_or(u32::MAX), wall());
    // First those that have room: nobody waits for a SET that is busy.
    let mut busy = Vec::new();
    for (set, receipt) in sets.iter().zip(receipts) {
        match set.inbox.try_send(Message::Control(Control::Broadcast { frame: frame.clone(), receipt })) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) => busy.push((set, message)),
            Err(TrySendError::Closed(_)) => return Err(stopping()),
        }
    }
    let (deadline, mut sets_dropped) = (Instant::now() + patience, 0);
    for (set, message) in busy {
        match timeout_at(deadline, set.inbox.reserve()).await {
            Ok(Ok(permit)) => permit.send(message),
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => {
                sets_dropped += 1;
                if let Message::Control(Control::Broadcast { receipt, .. }) = message {
                    broadcasts.queue_full(receipt, set.tally.online.get());
                }
            }
        }
    }
    Ok(AnnouncementBegun { id: broadcast.id, sets_told: broadcast.sets - sets_dropped, sets_dropped })
}

/// Ask what became of an announcement; the last 64 are remembered
#[utoipa::path(get, path = "/v1/announcements/{id}", params(("id" = u64, Path)), security(("bearer" = [])),
    responses((status = 200, body = AnnouncementView), (status = 404)))]
pub async fn inspect(
    State(admin): State<Admin>,
    PathParam(id): PathParam<u64>,
) -> Result<Json<AnnouncementView>, ApiError> {
    let broadcast = admin.telemetry.broadcasts.find(id).ok_or_else(|| {
        ApiError::not_found(format!("no announcement {id} among the last {}", limits::BROADCASTS_KEPT))
    })?;
    Ok(Json(broadcast.view()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::set::tally::SetTally;

    #[tokio::test]
    async fn a_set_that_stays_full_is_reported_with_its_users_not_reached() {
        let (sets, mut queues): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (inbox, queue) = mpsc::channel(1);
                (SetHandle { inbox, tally: Arc::new(SetTally::default()) }, queue)
            })
            .unzip();
        sets[1].inbox.try_send(Message::Control(Control::Tick)).unwrap();
        sets[1].tally.online.set(30);
        let (broadcasts, frame) = (Broadcasts::default(), Bytes::from_static(b"frame"));
        let begun = send(&sets, &broadcasts, &frame, Duration::from_millis(1)).await.unwrap();
        assert_eq!((begun.id, begun.sets_told, begun.sets_dropped), (1, 1, 1));
        assert_eq!(broadcasts.queues_full(), 1);
        let Ok(Message::Control(Control::Broadcast { receipt, .. })) = queues[0].try_recv() else { panic!() };
        receipt.add(20, 0);
        receipt.sweep();
        let progress = broadcasts.find(1).unwrap().view();
        assert_eq!((progress.reached, progress.dropped, progress.sets_dropped), (20, 30, 1));
        assert!(progress.finished_at_ms.is_some());

        // One that finds room in time is told.
        let (begun, _) = tokio::join!(send(&sets, &broadcasts, &frame, Duration::from_secs(30)), async {
            tokio::task::yield_now().await;
            queues[1].recv().await
        });
        assert_eq!(begun.unwrap().sets_told, 2);
        assert!(matches!(queues[1].try_recv(), Ok(Message::Control(Control::Broadcast { .. }))));
    }
}
