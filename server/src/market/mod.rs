//! What is given away and sold: pure values, without I/O and without a clock.

pub mod campaign;
pub mod envelope;
pub mod lottery;
pub mod order;
pub mod stock;
