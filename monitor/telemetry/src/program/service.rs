//! What a process says to the service manager that started it: when it serves, how it is, and that
//! it is alive. Without one (no `NOTIFY_SOCKET`) nothing is said.
//!
//! A ping must prove something. Whoever sends it asks its parts first and passes on what they said:
//! [`Service::alive`] is called by the loop that would stand still if the process did.

use std::time::Duration;

use sd_notify::NotifyState;

/// Between two words where no watchdog sets the pace.
const PACE: Duration = Duration::from_secs(5);

/// Within its watchdog's patience a process is asked so often: two pings may be late or lost.
const PINGS_PER_WATCHDOG: u32 = 4;

/// The pace of a watchdog that is too impatient to be kept; it is told so often, and no more.
const PACE_MIN: Duration = Duration::from_millis(50);

/// The least silence that means something: parts of a process are looked at once a second.
const PATIENCE_MIN: Duration = Duration::from_secs(2);

/// The variables by which a service manager is found. A child that is no service of its own must
/// not inherit them.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The way to the service manager.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    watchdog: Option<Duration>,
}

impl Service {
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) }
    }

    /// How often [`alive`](Self::alive) is to be called.
    pub fn pace(&self) -> Duration {
        self.watchdog.map_or(PACE, |patience| (patience / PINGS_PER_WATCHDOG).max(PACE_MIN))
    }

    /// How long a part of the process may be silent before the process is not called alive any
    /// more. Short: the manager waits for its whole patience besides, and whatever answers within
    /// that is heard again.
    pub fn patience(&self) -> Duration {
        self.pace().max(PATIENCE_MIN)
    }

    /// The process serves from now on.
    pub fn ready(&self, status: &str) {
        self.notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Everything in it turns; `status` is for people.
    pub fn alive(&self, status: &str) {
        let watched = self.watchdog.map(|_| NotifyState::Watchdog);
        let said: Vec<_> = watched.into_iter().chain([NotifyState::Status(status)]).collect();
        self.notify(&said);
    }

    /// Something in it does not turn: only what a person should know, so that the manager's
    /// patience runs out.
    pub fn ill(&self, status: &str) {
        self.notify(&[NotifyState::Status(status)]);
    }

    /// The process is on its way out.
    pub fn stopping(&self, status: &str) {
        self.notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    fn notify(&self, state: &[NotifyState]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::debug!(event = "service_unheard", %error, "the service manager does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_in_time_and_a_late_part_is_noticed_in_time() {
        let watched = Service { watchdog: Some(Duration::from_secs(60)) };
        assert_eq!((watched.pace(), watched.patience()), (Duration::from_secs(15), Duration::from_secs(15)));
        assert_eq!(Service { watchdog: None }.pace(), PACE);
        let impatient = Service { watchdog: Some(Duration::from_micros(1)) };
        assert_eq!((impatient.pace(), impatient.patience()), (PACE_MIN, PATIENCE_MIN));
    }
}
