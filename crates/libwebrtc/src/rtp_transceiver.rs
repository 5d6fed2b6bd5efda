//! Transceivers: a sender and a receiver that share a media section.

#![expect(clippy::needless_pass_by_value, reason = "the signatures are those of the original crate")]

use std::fmt::{self, Debug};
use std::sync::Weak;

use crate::RtcError;
use crate::driver::Connection;
use crate::peer::TransceiverId;
use crate::rtp_parameters::{RtpCodecCapability, RtpEncodingParameters};
use crate::rtp_receiver::RtpReceiver;
use crate::rtp_sender::RtpSender;

/// Parameters of a new transceiver (W3C webrtc-pc, `RTCRtpTransceiverInit`).
#[derive(Debug, Clone)]
pub struct RtpTransceiverInit {
    /// Preferred direction.
    pub direction: RtpTransceiverDirection,
    /// Ids of the streams that the sent track belongs to. Ignored by this crate.
    pub stream_ids: Vec<String>,
    /// Encodings of the sent track; empty for one default encoding.
    pub send_encodings: Vec<RtpEncodingParameters>,
}

/// Direction of media, from this side's point of view.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RtpTransceiverDirection {
    /// Send and receive.
    SendRecv,
    /// Send only.
    SendOnly,
    /// Receive only.
    RecvOnly,
    /// Neither.
    Inactive,
    /// Stopped permanently.
    Stopped,
}

impl RtpTransceiverDirection {
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same direction without sending, after a track is removed.
    pub(crate) fn without_sending(self) -> Self {
        match self {
            Self::SendRecv | Self::RecvOnly => Self::RecvOnly,
            Self::SendOnly | Self::Inactive => Self::Inactive,
            Self::Stopped => Self::Stopped,
        }
    }

    /// The same direction with sending.
    pub(crate) fn with_sending(self) -> Self {
        match self {
            Self::SendRecv | Self::RecvOnly => Self::SendRecv,
            Self::SendOnly | Self::Inactive => Self::SendOnly,
            Self::Stopped => Self::Stopped,
        }
    }
}

/// A sender and a receiver that share a media section of a connection. It does not keep the connection alive.
#[derive(Clone)]
pub struct RtpTransceiver {
    connection: Weak<Connection>,
    id: TransceiverId,
}

impl RtpTransceiver {
    /// Mid of its media section, once negotiated.
    pub fn mid(&self) -> Option<String> {
        self.connection.upgrade()?.with(|peer, _| peer.mid(self.id))
    }

    /// Negotiated direction, once negotiated.
    pub fn current_direction(&self) -> Option<RtpTransceiverDirection> {
        self.connection.upgrade()?.with(|peer, _| peer.current_direction(self.id))
    }

    /// Preferred direction; `Stopped` if the connection no longer exists.
    pub fn direction(&self) -> RtpTransceiverDirection {
        let gone = RtpTransceiverDirection::Stopped;
        self.connection
            .upgrade()
            .map_or(gone, |connection| connection.with(|peer, _| peer.direction(self.id)))
    }

    /// Its sender.
    pub fn sender(&self) -> RtpSender {
        RtpSender::new(self.connection.clone(), self.id)
    }

    /// Its receiver.
    pub fn receiver(&self) -> RtpReceiver {
        RtpReceiver::new(self.connection.clone(), self.id)
    }

    /// Sets the preferred order of codecs. It only validates the list: an empty one, or one with a supported codec
    /// (Opus; VP8 or H.264 for video) is accepted. The order has no effect.
    ///
    /// # Errors
    /// `InvalidState` if no codec of the list is supported, or the connection no longer exists or is closed.
    pub fn set_codec_preferences(&self, codecs: Vec<RtpCodecCapability>) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.set_codec_preferences(self.id, &codecs))
    }

    /// Stops the transceiver permanently. The change is signalled in the next offer.
    ///
    /// # Errors
    /// `InvalidState` if the connection no longer exists or is closed.
    pub fn stop(&self) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.stop_transceiver(self.id))
    }

    pub(crate) fn new(connection: Weak<Connection>, id: TransceiverId) -> Self {
        Self { connection, id }
    }
}

impl Debug for RtpTransceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtpTransceiver")
            .field("mid", &self.mid())
            .field("direction", &self.direction())
            .finish_non_exhaustive()
    }
}
