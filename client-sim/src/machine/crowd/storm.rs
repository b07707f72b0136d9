//! Storms: connections are cut without ceremony, and their users come back as after any loss.

use std::time::Duration;

use socket2::SockRef;

use super::Crowd;
use crate::backoff;
use crate::machine::labels::EndReason;
use crate::machine::user::State;
use crate::results::StormOrder;
use crate::storm;

impl Crowd {
    /// The storm that was announced next begins. Returns whom it hits; they are then to be cut.
    pub fn storm_begins(&mut self, order: StormOrder) -> Vec<u32> {
        self.storms.begin();
        let mut hit = storm::hit(order.share, order.at, self.first, self.first + self.user_count() - 1);
        hit.iter_mut().for_each(|user| *user -= self.first);
        hit
    }

    /// Cuts those of `users` who are online.
    pub fn cut(&mut self, users: &[u32], now: u64) {
        for &user in users {
            if self.closing || self.users[user as usize].state != State::Online {
                continue;
            }
            self.storms.cut(user);
            let pause = backoff::delay_ms(self.first + user, 0);
            self.farewells.insert(user, (EndReason::Storm, Some(pause)));
            self.reset(user, now);
        }
    }

    /// Ends a connection with a reset: nothing is said to the server, and no TIME_WAIT keeps the
    /// port from its user's return.
    fn reset(&mut self, user: u32, now: u64) {
        if let Some(socket) = &self.users[user as usize].socket {
            // On a socket that the server has reset first this fails, and need not succeed.
            SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
        }
        self.ended(user, EndReason::Storm, now);
    }
}
