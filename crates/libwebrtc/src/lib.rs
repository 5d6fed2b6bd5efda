//! A replacement for LiveKit's `libwebrtc` crate without Google's C++ library.
//!
//! The official `livekit` crate depends on a crate `libwebrtc` that wraps Google's libwebrtc. This crate has the same
//! public API and replaces it by
//! ```toml
//! [patch.crates-io]
//! libwebrtc = { path = "crates/libwebrtc" }
//! ```
//! It implements audio and data channels: ICE, DTLS, SRTP and SCTP by the sans-IO library
//! [str0m](https://docs.rs/str0m), Opus by libopus. Video, end-to-end encryption, audio devices and desktop capture are
//! not implemented; their functions exist and fail or do nothing, as documented. Removing the two lines restores
//! Google's library.
//!
//! # Structure
//!
//! | module | contents |
//! |---|---|
//! | [`peer_connection`], [`data_channel`], [`audio_source`], [`audio_stream`], … | the public API, a thin layer over the other modules |
//! | `peer` | a peer connection as a sans-IO state machine: descriptions, packets and time in, actions out |
//! | `audio` | jitter buffer, decoding, pacing, encoding; sans-IO as well |
//! | `driver` | sockets, timers, threads, callbacks |
//!
//! Path of a received packet: socket → `driver::network` → `peer` (SRTP, track lookup) → `audio::receiver` (jitter
//! buffer, concealment, decoding) → `audio::sink` → [`NativeAudioStream`](audio_stream::native::NativeAudioStream).
//!
//! Path of a sent frame: [`NativeAudioSource`](audio_source::native::NativeAudioSource) → `audio::pacer` →
//! `driver::source` → `audio::sender` (encoding, audio level) → `peer` (SRTP) → socket.

#![warn(missing_docs)]

use thiserror::Error;

mod audio;
mod clock;
mod driver;
mod enum_dispatch;
mod peer;

pub mod audio_frame;
pub mod audio_source;
pub mod audio_stream;
pub mod audio_track;
pub mod data_channel;
#[cfg(any(target_os = "macos", target_os = "windows", target_os = "linux"))]
pub mod desktop_capturer;
pub mod ice_candidate;
pub mod media_stream;
pub mod media_stream_track;
pub mod native;
pub mod peer_connection;
pub mod peer_connection_factory;
pub mod prelude;
pub mod rtp_parameters;
pub mod rtp_receiver;
pub mod rtp_sender;
pub mod rtp_transceiver;
pub mod session_description;
pub mod stats;
pub mod video_frame;
pub mod video_source;
pub mod video_stream;
pub mod video_track;

/// Kind of a media section.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MediaType {
    /// Audio.
    Audio,
    /// Video.
    Video,
    /// Data channels.
    Data,
    /// Any other kind.
    Unsupported,
}

/// Kind of an [`RtcError`].
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RtcErrorType {
    /// A system call or an internal operation failed.
    Internal,
    /// A session description is invalid.
    InvalidSdp,
    /// The operation or its arguments are not valid in the current state, or the feature is not implemented.
    InvalidState,
}

/// Error of an operation on a peer connection or its parts.
#[derive(Error, Debug)]
#[error("an RtcError occurred: {error_type:?} - {message}")]
pub struct RtcError {
    /// Kind of the error.
    pub error_type: RtcErrorType,
    /// Description of the error.
    pub message: String,
}
