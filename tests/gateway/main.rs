//! The whole gateway in this process, over real sockets, without models and without LiveKit: what a
//! client sees of sessions, of the control channel and of its own mistakes.

mod connect;
mod conversation;
mod deploy;
mod history;
mod process;
mod resume;
mod rooms;
mod sessions;
mod support;
