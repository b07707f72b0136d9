//! The dashboard half: what `hongbao-monitor` runs.
//!
//! Reporters' connections ([`ingest`]) and HTTP handlers ([`api`]) hold no state; they send to the one owner ([`owner`]), which
//! applies the pure [`merge`], keeps the [`books`], writes the [`record`] and shows the [`view`].

pub mod books;
pub mod histogram;
pub mod limits;
pub mod merge;
pub mod second;
