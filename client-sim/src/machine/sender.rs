//! The one timer of a machine: walks the schedule and sends what is due. It looks at the schedule
//! every `--pace` at most, and a timer of the runtime has a granularity of a millisecond; so at
//! each wake everything due by then is sent.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::clock::MILLISECOND;
use crate::limits::{SEND_BATCH, SENDS_PER_CLOCK_READ};
use crate::machine::shared::Shared;

/// What a timer of the runtime is rounded up to.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// Nanoseconds until a socket that refused bytes is tried again.
const RETRY_NANOS: u64 = MILLISECOND;

/// Never returns.
pub async fn run(shared: Rc<Shared>) {
    loop {
        if send_batch(&shared) {
            // There may be more; answers come first.
            tokio::task::yield_now().await;
            continue;
        }
        match next_wake(&shared) {
            Some(wake) => {
                // The timer adds up to its own granularity.
                let paced = Instant::now() + shared.config.common.pace.saturating_sub(TIMER_GRANULARITY);
                let wake = Instant::from_std(shared.clock.instant(wake)).max(paced);
                tokio::select! {
                    () = sleep_until(wake) => {}
                    () = shared.schedule_changed.notified() => {}
                }
            }
            None => shared.schedule_changed.notified().await,
        }
    }
}

/// Sends what is due; says whether there may be more at once.
fn send_batch(shared: &Shared) -> bool {
    let mut crowd = shared.crowd.borrow_mut();
    if crowd.has_refused() {
        crowd.write_refused();
    }
    let mut now = shared.clock.now();
    for sent in 1..=SEND_BATCH {
        if !crowd.send_due(now) {
            return false;
        }
        if sent % SENDS_PER_CLOCK_READ == 0 {
            now = shared.clock.now();
        }
    }
    true
}

fn next_wake(shared: &Shared) -> Option<u64> {
    let crowd = shared.crowd.borrow();
    let due = crowd.next_due();
    if crowd.has_refused() {
        let retry = shared.clock.now() + RETRY_NANOS;
        return Some(due.map_or(retry, |due| due.min(retry)));
    }
    due
}
