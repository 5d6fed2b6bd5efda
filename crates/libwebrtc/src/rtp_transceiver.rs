//! Transceivers: a sender and a receiver that share a media section.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures are those of the crate whose place this takes"
)]

use std::fmt::{self, Debug};
use std::sync::Weak;

use crate::RtcError;
use crate::driver::Connection;
use crate::peer::TransceiverId;
use crate::rtp_parameters::{RtpCodecCapability, RtpEncodingParameters};
use crate::rtp_receiver::RtpReceiver;
use crate::rtp_sender::RtpSender;

/// What a new transceiver is made of.
#[derive(Debug, Clone)]
pub struct RtpTransceiverInit {
    /// The direction to negotiate.
    pub direction: RtpTransceiverDirection,
    /// The streams that the track it sends belongs to.
    pub stream_ids: Vec<String>,
    /// How the track it sends is encoded.
    pub send_encodings: Vec<RtpEncodingParameters>,
}

/// Which ways media flows, seen from this side.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RtpTransceiverDirection {
    /// Both ways.
    SendRecv,
    /// Out only.
    SendOnly,
    /// In only.
    RecvOnly,
    /// Neither way for now.
    Inactive,
    /// Neither way ever again.
    Stopped,
}

impl RtpTransceiverDirection {
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same without sending: what remains when a track is taken away.
    pub(crate) fn without_sending(self) -> Self {
        match self {
            Self::SendRecv | Self::RecvOnly => Self::RecvOnly,
            Self::SendOnly | Self::Inactive => Self::Inactive,
            Self::Stopped => Self::Stopped,
        }
    }

    /// The same, and sending.
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
    /// The id of its media section, once that is negotiated.
    pub fn mid(&self) -> Option<String> {
        self.connection.upgrade()?.with(|peer, _| peer.mid(self.id))
    }

    /// The direction that both sides agreed on, once they did.
    pub fn current_direction(&self) -> Option<RtpTransceiverDirection> {
        self.connection.upgrade()?.with(|peer, _| peer.current_direction(self.id))
    }

    /// The direction that this side wants; `Stopped` when the connection is gone.
    pub fn direction(&self) -> RtpTransceiverDirection {
        let gone = RtpTransceiverDirection::Stopped;
        self.connection
            .upgrade()
            .map_or(gone, |connection| connection.with(|peer, _| peer.direction(self.id)))
    }

    /// Its sending half.
    pub fn sender(&self) -> RtpSender {
        RtpSender::new(self.connection.clone(), self.id)
    }

    /// Its receiving half.
    pub fn receiver(&self) -> RtpReceiver {
        RtpReceiver::new(self.connection.clone(), self.id)
    }

    /// Asks for `codecs` in this order. There is one audio codec here, Opus, and no video is sent: the wish
    /// is granted when it can be (the list is empty or has Opus in it) and refused otherwise.
    ///
    /// # Errors
    /// `InvalidState` when this side has none of them, or the connection is gone.
    pub fn set_codec_preferences(&self, codecs: Vec<RtpCodecCapability>) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.set_codec_preferences(self.id, &codecs))
    }

    /// Stops it for good: the next offer says so.
    ///
    /// # Errors
    /// `InvalidState` when the connection is gone.
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
