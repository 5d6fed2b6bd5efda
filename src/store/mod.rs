//! What outlives the process: conversation history, session records, the deny list.
//!
//! One async trait per store, with a suite of tests that every implementation passes. [`sled`] is the
//! implementation on the embedded database; its disk work runs on threads of its own.

pub(crate) mod deny_list;
pub(crate) mod disk_health;
pub mod history;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod retention;
pub(crate) mod sessions;
pub mod sled;
#[cfg(test)]
pub(crate) mod suite;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// The disk does not keep up: too many operations wait for it.
    #[error("too many operations wait for the store")]
    Full,
    /// The disk takes no writes now (it is full, read-only, broken); the store opens its database again once
    /// it does. The text is for operators.
    #[error("the store is not available: {cause}")]
    Unavailable { cause: String },
    /// The gateway is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The database failed, or a value cannot be read. The text is for the log.
    #[error("the store failed: {0}")]
    Failed(String),
}
