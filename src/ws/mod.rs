//! WebSockets: the upgrade, the connection, its bounded send queue, and its message rate limit.

pub(crate) mod connection;
mod fragments;
pub(crate) mod frame;
mod frame_validator;
#[cfg(test)]
mod fuzz;
mod incoming;
pub(crate) mod rate_limit;
pub(crate) mod send_queue;
pub(crate) mod upgrade;
mod utf8;
