//! What the program does beside serving: judging the host, following a user, finding a request, its
//! manual.

pub mod find;
pub mod host;
pub mod pages;
pub mod trace;
