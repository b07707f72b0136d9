//! The dashboard half: what `hongbao-monitor` runs.
//!
//! Reporters' connections ([`ingest`]), the [`sampler`] of the [`host`] and HTTP handlers ([`api`]) hold no state; they send to the one
//! owner ([`owner`]), which applies the pure [`merge`], keeps the [`books`], writes the [`record`] and shows the [`view`]. What a
//! recording came to is told by the [`recap`], and past [`runs`] are read back from their [`files`].

pub mod alert;
pub mod allowance;
pub mod api;
pub mod books;
pub mod bridge;
pub mod column;
pub mod config;
pub mod control;
pub mod ends;
pub mod files;
pub mod guest_book;
pub mod guests;
pub mod histogram;
pub mod host;
pub mod ingest;
pub mod limits;
pub mod live;
pub mod mark;
pub mod merge;
pub mod operator;
pub mod owner;
pub mod page;
pub mod recap;
pub mod record;
pub mod run;
pub mod runs;
pub mod sampler;
pub mod second;
pub mod series;
pub mod sets;
pub mod trust;
pub mod view;
