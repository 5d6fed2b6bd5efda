//! The official `livekit` crate on this one, against a real livekit-server and the official Python SDK.
//!
//! ```text
//! LIVEKIT_SERVER=/path/to/livekit-server JUNE_PYTHON=/path/to/python cargo test -p libwebrtc --test livekit
//! ```
//! `LIVEKIT_SERVER` is a binary of livekit-server (v1.8.4 or later); `JUNE_PYTHON` a Python with the packages
//! `livekit`, `livekit-api` and `numpy`. Each test starts a server of its own on free ports of the loopback
//! interface and stops it. Without the two variables the tests fail and say so. `-- --ignored`, with a `NODE_PATH`
//! that holds `@livekit/rtc-node`, adds the official SDK for Node.js.

mod audio;
mod data;
mod leaks;
mod network;
mod reconnect;
mod support;
