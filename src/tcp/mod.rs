//! The TCP connections of clients: how many may be open, and how long each may keep the gateway waiting.
//!
//! ```text
//!   accept ─▶ ConnectionLimit ─▶ ClientStream ─▶ requests (http/server)
//!                                    └─────────▶ WebSockets (ws/upgrade), which take the socket out of it
//! ```

mod deadline;
pub(crate) mod limit;
pub(crate) mod stream;
mod write_stall;

pub(crate) use self::{deadline::Deadline, write_stall::WriteStall};
