//! The failures that clients see: error codes and close codes. docs/PROTOCOL.md lists every one.

pub use june_protocol::{Close, Code};
