//! LiveKit's `libwebrtc` crate, written anew in Rust.
//!
//! The official `livekit` crate stands on a crate `libwebrtc` that wraps Google's C++ library. This one takes its
//! place by
//! ```toml
//! [patch.crates-io]
//! libwebrtc = { path = "crates/libwebrtc" }
//! ```
//! with the same public names, and does the same for sound and data: ICE, DTLS, SRTP and SCTP by the sans-IO
//! [str0m](https://docs.rs/str0m), Opus by libopus. Video, end-to-end encryption, audio devices and desktop capture
//! are not in it, and say so. Taking the two lines away gives Google's library back.
//!
//! # A tour, in reading order
//!
//! | part | what it is |
//! |---|---|
//! | [`peer_connection`], [`data_channel`], [`audio_source`], [`audio_stream`], … | the public names, thin over the rest |
//! | `peer` | a peer connection as a machine: descriptions, packets and time in, things to do out |
//! | `audio` | sound: jitter buffer, decoding, pacing, encoding. Machines too |
//! | `driver` | what is done: sockets, timers, threads, callbacks |
//!
//! A packet's way in: socket → `driver::network` → `peer` (decrypts, finds its track) → `audio::receiver` (order,
//! concealment, decoding) → `audio::sink` → [`NativeAudioStream`](audio_stream::native::NativeAudioStream).
//!
//! A frame's way out: [`NativeAudioSource`](audio_source::native::NativeAudioSource) → `audio::pacer` →
//! `driver::source` → `audio::sender` (encoding, level) → `peer` (encrypts) → socket.

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

/// What a media section carries.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MediaType {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
    /// Data channels.
    Data,
    /// Something else.
    Unsupported,
}

/// The kind of an [`RtcError`].
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RtcErrorType {
    /// The system, or this crate, could not.
    Internal,
    /// A description is wrong.
    InvalidSdp,
    /// What was asked for has no place here and now, or is not in this crate.
    InvalidState,
}

/// Why something was not done.
#[derive(Error, Debug)]
#[error("an RtcError occurred: {error_type:?} - {message}")]
pub struct RtcError {
    /// Its kind.
    pub error_type: RtcErrorType,
    /// What exactly.
    pub message: String,
}
