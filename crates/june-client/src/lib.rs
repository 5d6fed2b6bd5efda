//! A client of June Edge: what a voice wearable does on its side of the control channel (`edge.v1`).
//!
//! [`Gateway`] creates a session over REST. A [`Device`] holds it across as many connections as it takes: it
//! reconnects and resumes, sends the audio again that was lost, plays the response and renews its token.
//!
//! ```no_run
//! use june_client::{Device, DeviceEvent, Gateway, Options};
//! use june_protocol::{FromClient, ToClient, from_client::Say, ids::UserId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = Gateway::new("http://127.0.0.1:8080", None);
//! let session = gateway.create_session(&UserId::parse("demo")?).await?;
//! let options = Options {
//!     control_token_expires_at: session.control_token_expires_at,
//!     ..Options::default()
//! };
//! let (mut device, _) = Device::connect(&session.control_url, &session.control_token, options).await?;
//!
//! device.send(FromClient::Say(Say { text: "What time is it?".into() })).await;
//! device.send_audio(&[0; 320]); // 20 ms of the microphone: 16 kHz, mono
//! while let Some(event) = device.next().await {
//!     match event {
//!         DeviceEvent::Message(message) => {
//!             if let ToClient::AnswerDelta { text, .. } = *message {
//!                 print!("{text}");
//!             }
//!         }
//!         DeviceEvent::Audio(frame) => println!("{} samples of speech", frame.samples().len()),
//!         DeviceEvent::Ended(end) => println!("the session cannot be resumed: {end:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!   Device ─┬─ ReconnectPolicy: when to connect, resume, ping   ┐
//!           ├─ TokenRenewal: when to renew the token            │ pure
//!           ├─ ResendBuffer: uplink audio, kept for a resume    │
//!           ├─ Player, SpeechDecoder: downlink audio            ┘
//!           ├─ Channel: one connection
//!           └─ room: the microphone in the LiveKit room (feature `livekit`)
//! ```
//!
//! **Units.** Uplink audio is 16 kHz mono, signed 16 bit. Downlink audio has the rate of its `speech_begin`;
//! a [`Device`] decodes it to signed 16 bit where it asked for Opus ([`Options::speech`]).
//! Durations end in `_ms`; `expires_at` are seconds since the Unix epoch.
//!
//! **TLS.** rustls needs a process-wide crypto provider if the program links more than one:
//! `rustls::crypto::aws_lc_rs::default_provider().install_default()`.

#![warn(missing_docs)]

mod channel;
mod clock;
mod device;
#[cfg(feature = "livekit")]
mod microphone;
mod player;
mod reconnect_policy;
mod resend_buffer;
mod rest;
mod room;
mod speech_decoder;
mod token_renewal;

use std::time::Duration;

use june_protocol::{Close, Code};

pub use channel::{Channel, Event, Reader, Writer};
pub use device::{Device, DeviceEvent, Media, Options};
#[cfg(feature = "livekit")]
pub use microphone::RoomMicrophone;
pub use player::Player;
pub use reconnect_policy::{Due, End, ReconnectPolicy, Retry};
pub use resend_buffer::{RESEND_WINDOW, ResendBuffer};
pub use rest::{Gateway, SessionInfo};
pub use room::RoomState;
pub use speech_decoder::{SpeechDecoder, UnsupportedSpeech};

/// The length of an audio frame, in milliseconds.
pub const FRAME_MS: u64 = 20;

/// The samples of an audio frame.
pub const FRAME_SAMPLES: usize = june_protocol::SAMPLE_RATE_HZ as usize * FRAME_MS as usize / 1000;

/// Why a request or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The gateway could not be reached.
    #[error("the gateway cannot be reached: {0}")]
    Unreachable(String),
    /// The gateway refused.
    #[error("the gateway refused: {code}: {message}")]
    Refused {
        /// The error code (docs/PROTOCOL.md).
        code: String,
        /// The description for people.
        message: String,
        /// How long to wait before a retry; none where a retry cannot succeed.
        retry_after: Option<Duration>,
    },
    /// The gateway's response is not valid.
    #[error("invalid response: {0}")]
    Protocol(String),
    /// The channel closed.
    #[error("the channel is closed: {code} {reason}")]
    Closed {
        /// The close code (RFC 6455 §7.4).
        code: u16,
        /// The reason of the close frame.
        reason: String,
    },
    /// Joining the LiveKit room, or publishing to it, failed.
    #[error("LiveKit: {0}")]
    Livekit(String),
}

impl ClientError {
    /// Whether the gateway did not accept the token.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Refused { code, .. } => [Code::MissingToken, Code::InvalidToken, Code::ExpiredToken]
                .iter()
                .any(|known| known.as_str() == code),
            Self::Closed { code, .. } => *code == Close::Unauthorized.code(),
            Self::Unreachable(_) | Self::Protocol(_) | Self::Livekit(_) => false,
        }
    }
}

/// The innermost cause of an error, which names the problem.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
