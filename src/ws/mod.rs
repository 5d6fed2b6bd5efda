//! WebSockets: the upgrade, the connection, its bounded send queue, and its message rate limit.

pub mod connection;
pub mod fragments;
pub mod frame;
pub mod rate_limit;
pub mod send_queue;
pub mod upgrade;
