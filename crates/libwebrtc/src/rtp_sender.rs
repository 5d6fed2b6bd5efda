//! RTP senders.

use std::fmt::{self, Debug};
use std::sync::Weak;

use crate::RtcError;
use crate::clock;
use crate::driver::Connection;
use crate::media_stream_track::MediaStreamTrack;
use crate::peer::TransceiverId;
use crate::rtp_parameters::RtpParameters;
use crate::stats::RtcStats;

/// Backend of a video encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoEncoderBackend {
    /// Selected automatically.
    #[default]
    Auto,
    /// Software.
    Software,
    /// Any hardware encoder.
    Hardware,
    /// NVIDIA NVENC.
    Nvenc,
    /// VAAPI.
    Vaapi,
    /// Apple VideoToolbox.
    VideoToolbox,
    /// None; frames are already encoded.
    PreEncoded,
}

impl VideoEncoderBackend {
    /// The available encoders: none, since this crate does not send video.
    pub fn list_available() -> impl IntoIterator<Item = VideoEncoderBackend> {
        []
    }
}

/// The sender of a transceiver. It does not keep the connection alive.
#[derive(Clone)]
pub struct RtpSender {
    connection: Weak<Connection>,
    id: TransceiverId,
}

impl RtpSender {
    /// The current local track.
    pub fn track(&self) -> Option<MediaStreamTrack> {
        self.connection.upgrade()?.with(|peer, _| peer.sender_track(self.id))
    }

    /// Returns the statistics of the sender, which are at most two seconds old.
    ///
    /// # Errors
    /// `InvalidState` if the connection no longer exists.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        Ok(connection.with(|peer, _| peer.sender_stats(self.id, clock::unix_us())))
    }

    /// Replaces the track without negotiation; `None` stops sending.
    ///
    /// # Errors
    /// `InvalidState` if the connection no longer exists or is closed, the kinds differ, or the track cannot be sent
    /// (video, microphone or remote tracks).
    pub fn set_track(&self, track: Option<MediaStreamTrack>) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.set_sender_track(self.id, track))
    }

    /// Current parameters.
    pub fn parameters(&self) -> RtpParameters {
        let connection = self.connection.upgrade();
        connection
            .map(|connection| connection.with(|peer, _| peer.sender_parameters(self.id)))
            .unwrap_or_default()
    }

    /// Sets the parameters. For audio, `max_bitrate` and `active` of the first encoding have an effect.
    ///
    /// # Errors
    /// `InvalidState` if the connection no longer exists or is closed, or the number of encodings differs.
    pub fn set_parameters(&self, parameters: RtpParameters) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.set_sender_parameters(self.id, parameters))
    }

    /// Selects a video encoder: no effect.
    pub fn set_video_encoder_backend(&self, backend: VideoEncoderBackend) {
        tracing::debug!(?backend, "video encoder backend ignored: video is not available");
    }

    pub(crate) fn new(connection: Weak<Connection>, id: TransceiverId) -> Self {
        Self { connection, id }
    }

    pub(crate) fn connection(&self) -> &Weak<Connection> {
        &self.connection
    }

    pub(crate) fn id(&self) -> TransceiverId {
        self.id
    }
}

impl Debug for RtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtpSender").field("track", &self.track()).finish_non_exhaustive()
    }
}
