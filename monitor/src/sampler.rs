//! The host's row of each second, on its way to the owner.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::owner::Message;
use crate::run::host::{HostSecond, Moment, Units};
use hongbao_telemetry::clock::unix_millis;

/// Rows are taken this long after a second has ended, lest a coarse timer fires just before its
/// end.
const AFTER_SECOND_MS: u64 = 2;

/// Sends a row at once, so that there is one from before the run's first process, and then one
/// whenever a second has ended. A row that comes late says so by its span.
pub async fn run(owner: mpsc::Sender<Message>, stop: CancellationToken) {
    let units = Units::read();
    let mut last: Option<(Moment, Instant)> = None;
    let mut second = unix_millis() / 1_000 - 1;
    loop {
        let (moment, taken) = (Moment::read(), Instant::now());
        let before = last.as_ref().map(|(moment, then)| (moment, taken.duration_since(*then)));
        let row = HostSecond::of(&moment, second, before, units);
        last = Some((moment, taken));
        if owner.send(Message::Host(Box::new(row))).await.is_err() {
            return;
        }
        let pause = 1_000 - unix_millis() % 1_000 + AFTER_SECOND_MS;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
        // A clock that was set back must not give two rows to one second.
        second = (second + 1).max(unix_millis() / 1_000 - 1);
    }
}
