//! Tests of the official `livekit` crate on top of this one, with a livekit-server, the official SDKs for Python and
//! Node.js, and livekit-client in Chromium.
//!
//! ```text
//! LIVEKIT_SERVER=… JUNE_PYTHON=… NODE_PATH=… cargo test -p libwebrtc --test livekit
//! ```
//! - `LIVEKIT_SERVER`: path of a livekit-server binary (v1.8.4 or later);
//! - `JUNE_PYTHON`: path of a Python with the packages `livekit`, `livekit-api` and `numpy`;
//! - `NODE_PATH`: path of a `node_modules` directory with `@livekit/rtc-node`, `livekit-client` and `playwright-core`.
//!
//! Each test starts its own server on free ports of the loopback interface and stops it. If a variable is not set, the
//! tests that need it fail with a message.

mod audio;
mod data;
mod leaks;
mod network;
mod reconnect;
mod support;
