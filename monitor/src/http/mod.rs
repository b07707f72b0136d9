//! The monitor's HTTP surface: data, live stream, page, and what operators order.

pub mod api;
pub mod control;
pub mod live;
pub mod page;
