//! The dashboard half: what `hongbao-monitor` runs.
//!
//! Reporters' connections ([`ingest`]) and HTTP handlers ([`api`]) hold no state; they send to the one owner ([`owner`]), which
//! applies the pure [`merge`], keeps the [`books`], writes the [`record`] and shows the [`view`].

pub mod api;
pub mod books;
pub mod config;
pub mod ends;
pub mod histogram;
pub mod ingest;
pub mod limits;
pub mod merge;
pub mod owner;
pub mod record;
pub mod run;
pub mod second;
pub mod view;
