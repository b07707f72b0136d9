//! What a machine remembers of one user: some thirty bytes, idle or not. Whatever few users have (a
//! goodbye, bytes that a socket refused, a second request under way) is kept aside, by user.

use std::net::TcpStream;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Away,
    /// A connection is being opened.
    Connecting,
    /// Connected; Login is sent.
    LoggingIn,
    /// Connected; the server had no capacity for the Login, which is sent again later.
    Waiting,
    Online,
    /// The connection is ending; what still comes is not looked at.
    Leaving,
    /// The server said goodbye for good.
    Retired,
}

#[derive(Debug, Default)]
pub struct User {
    /// The connection, which does not block.
    pub socket: Option<TcpStream>,
    /// When `state` began, milliseconds since the machine's start.
    pub since_ms: u32,
    /// When anything was last written, likewise.
    pub sent_ms: u32,
    pub acknowledges: u16,
    pub state: State,
    /// Attempts to connect that failed in a row.
    pub attempts: u8,
    pub pinged: bool,
    /// Was logged in before.
    pub known: bool,
}

const _: () = assert!(size_of::<User>() <= 20);
