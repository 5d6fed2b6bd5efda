//! The official `livekit` crate on this one, against a real livekit-server and the official SDKs for Python and
//! Node.js.
//!
//! ```text
//! LIVEKIT_SERVER=… JUNE_PYTHON=… NODE_PATH=… cargo test -p libwebrtc --test livekit
//! ```
//! `LIVEKIT_SERVER` is a binary of livekit-server (v1.8.4 or later); `JUNE_PYTHON` a Python with the packages
//! `livekit`, `livekit-api` and `numpy`; `NODE_PATH` a `node_modules` that holds `@livekit/rtc-node`. Each test
//! starts a server of its own on free ports of the loopback interface and stops it. Without the variables the
//! tests fail and say so.

mod audio;
mod data;
mod leaks;
mod line;
mod network;
mod ports;
mod reconnect;
mod support;
