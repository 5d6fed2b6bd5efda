//! What every request passes: authentication, the drain at shutdown, the request log.

pub mod auth;
pub mod drain;
pub mod log;
