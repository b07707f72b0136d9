//! Tells a service manager how the run is, once the owner of the run has said so: a monitor whose
//! owner hangs is not alive.

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::owner::{Message, Question, ask};
use crate::recording::RunStatus;
use hongbao_telemetry::program::service::Service;

/// Says that the monitor serves, then how it is, until `stop`.
pub async fn run(service: Service, owner: mpsc::Sender<Message>, stop: CancellationToken) {
    service.ready("no process reports yet");
    let mut pace = tokio::time::interval(service.pace());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = pace.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            answer = ask(&owner, Question::Run) => match answer {
                Ok(run) => service.alive(&status(&run)),
                Err(_) => break,
            },
        }
    }
    service.stopping("closing the last seconds and the recording");
}

fn status(run: &RunStatus) -> String {
    let books = if run.books.balanced() { "the books agree" } else { "THE BOOKS DO NOT AGREE" };
    let recording =
        if run.record_failures > 0 { format!("; {} writes failed", run.record_failures) } else { String::new() };
    format!("{} seconds merged, {} complete; {books}{recording}", run.seconds, run.seconds_complete)
}
