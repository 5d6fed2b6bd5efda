//! What is kept on disk: conversation history, session records, the deny list.

pub mod history;
pub mod history_suite;
mod pending_sessions;
pub mod sessions;
pub mod sled;
