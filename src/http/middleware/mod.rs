//! What every request passes: authentication and the request log.

pub mod auth;
pub mod log;
