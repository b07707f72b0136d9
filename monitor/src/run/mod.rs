//! What a run is, without I/O: reports merged by second, columns, books, marks, alerts.

pub mod alert;
pub mod books;
pub mod column;
pub mod ends;
pub mod histogram;
pub mod host;
pub mod mark;
pub mod merge;
pub mod rejection;
pub mod second;
pub mod series;
pub mod sets;
