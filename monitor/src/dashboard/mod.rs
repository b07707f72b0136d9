//! The dashboard half: what `hongbao-monitor` runs.
//!
//! Reporters' connections ([`ingest`]), the [`sampler`] of the [`host`] and HTTP handlers ([`api`]) hold no state; they send to the one
//! owner ([`owner`]), which applies the pure [`merge`], keeps the [`books`], writes the [`record`] and shows the [`view`]. What a
//! recording came to is told by the [`recap`].

pub mod alert;
pub mod api;
pub mod books;
pub mod column;
pub mod config;
pub mod ends;
pub mod heartbeat;
pub mod histogram;
pub mod host;
pub mod ingest;
pub mod limits;
pub mod live;
pub mod mark;
pub mod merge;
pub mod owner;
pub mod recap;
pub mod record;
pub mod run;
pub mod sampler;
pub mod second;
pub mod series;
pub mod sets;
pub mod view;
