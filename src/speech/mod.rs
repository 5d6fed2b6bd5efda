//! From samples to turns. No IO at all.

pub mod playout;
pub mod sentences;
pub mod turn;
