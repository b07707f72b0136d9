//! Guests who play from a browser: their connection to a server, and what they won.

pub mod bridge;
pub mod guest_book;
pub mod service;
