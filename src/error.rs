//! The failures that clients see: error codes and close codes. docs/PROTOCOL.md lists every one.
//!
//! An HTTP response and a `connection_error` are made from an [`ApiError`].

pub use june_protocol::{Close, Code};

/// For the modules that still return it; it belongs to HTTP.
pub use crate::http::error::ApiError;
