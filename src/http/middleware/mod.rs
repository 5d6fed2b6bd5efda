//! What many requests pass: where they come from, how long they may take, authentication, the refusal while shutting
//! down, the request log.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod deadline;
pub(crate) mod drain;
pub(crate) mod log;
pub(crate) mod origin;
