//! What both ends of the wire share: messages, framing, checked ids and the claims that a token
//! carries.
//!
//! Nothing here does I/O or knows a runtime; every function is a plain function over bytes and
//! values.

#![forbid(unsafe_code)]

pub mod frame;
pub mod id;
pub mod limits;
pub mod token;

/// The generated messages of the client protocol (`proto/hongbao/v1/client.proto`).
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/hongbao.v1.rs"));
}

/// The generated messages of the monitor protocol (`proto/hongbao/report/v1/report.proto`).
pub mod report_v1 {
    include!(concat!(env!("OUT_DIR"), "/hongbao.report.v1.rs"));
}

/// The text of the client protocol, for clients of any language.
pub const CLIENT_PROTO: &str = include_str!("../proto/hongbao/v1/client.proto");

pub use id::{CampaignId, EnvelopeId, Fen, IdError, OrderId, RequestId, RoomId, Serial, UserId};
