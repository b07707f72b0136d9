//! The steady chores of a machine: the journal is written out and wins acknowledged every 20 ms,
//! and every user is looked at about once a second, in slices.

use std::rc::Rc;

use hongbao_telemetry::program::service::Service;
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::HOUSEKEEPING_PERIOD;
use crate::machine::shared::{Shared, Stage};

/// Never returns.
pub async fn run(shared: Rc<Shared>) {
    let mut rounds = interval(HOUSEKEEPING_PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut journal_fails = false;
    loop {
        rounds.tick().await;
        let now = shared.clock.now();
        let mut crowd = shared.crowd.borrow_mut();
        match crowd.keep(now) {
            Ok(()) => {
                if std::mem::replace(&mut journal_fails, false) {
                    tracing::info!(event = "journal_works", "the journal can be written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut journal_fails, true) {
                    tracing::error!(event = "journal_failing", %error, "journal cannot be written; no win is acknowledged until it can");
                }
            }
        }
        if shared.stage.get() == Stage::Connecting && crowd.census.online == crowd.user_count() {
            shared.stage.set(Stage::Running);
            shared.all_online.notify_one();
        }
    }
}

/// Tells a service manager that the machine serves, then how it is. Everything of a machine is on
/// this one thread, so that a word from here says that all of it turns. Never returns.
pub async fn notify_service(service: Service, shared: Rc<Shared>) {
    service.ready("connecting");
    let mut pace = interval(service.pace());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let (online, users) = {
            let crowd = shared.crowd.borrow();
            (crowd.census.online, crowd.user_count())
        };
        service.alive(&format!("{}; {online} of {users} users on-line", shared.stage.get().label()));
    }
}
