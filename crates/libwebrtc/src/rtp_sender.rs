//! The sending half of a transceiver.

use std::fmt::{self, Debug};
use std::sync::Weak;

use crate::RtcError;
use crate::clock;
use crate::driver::Connection;
use crate::media_stream_track::MediaStreamTrack;
use crate::peer::TransceiverId;
use crate::rtp_parameters::RtpParameters;
use crate::stats::RtcStats;

/// Which encoder video should go through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoEncoderBackend {
    /// Whatever suits.
    #[default]
    Auto,
    /// One that runs on the CPU.
    Software,
    /// Any that the machine's hardware offers.
    Hardware,
    /// NVIDIA NVENC.
    Nvenc,
    /// VAAPI.
    Vaapi,
    /// Apple VideoToolbox.
    VideoToolbox,
    /// None: frames come encoded.
    PreEncoded,
}

impl VideoEncoderBackend {
    /// The encoders of this process: none, since this crate sends no video.
    pub fn list_available() -> impl IntoIterator<Item = VideoEncoderBackend> {
        []
    }
}

/// The sending half of a transceiver. It does not keep the connection alive.
#[derive(Clone)]
pub struct RtpSender {
    connection: Weak<Connection>,
    id: TransceiverId,
}

impl RtpSender {
    /// The track it sends.
    pub fn track(&self) -> Option<MediaStreamTrack> {
        self.connection.upgrade()?.with(|peer, _| peer.sender_track(self.id))
    }

    /// What it sent so far, as of a moment ago.
    ///
    /// # Errors
    /// `InvalidState` when the connection is gone.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        Ok(connection.with(|peer, _| peer.sender_stats(self.id, clock::unix_us())))
    }

    /// Sends `track` in place of the present one, without negotiation; `None` sends nothing.
    ///
    /// # Errors
    /// `InvalidState` when the connection is gone, the kinds differ, or the track can't be sent: video, or a
    /// microphone.
    pub fn set_track(&self, track: Option<MediaStreamTrack>) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.set_sender_track(self.id, track))
    }

    /// How it is set up.
    pub fn parameters(&self) -> RtpParameters {
        let connection = self.connection.upgrade();
        connection
            .map(|connection| connection.with(|peer, _| peer.sender_parameters(self.id)))
            .unwrap_or_default()
    }

    /// Changes how it is set up: of audio, the bitrate and whether it is active.
    ///
    /// # Errors
    /// `InvalidState` when the connection is gone or the number of encodings changed.
    pub fn set_parameters(&self, parameters: RtpParameters) -> Result<(), RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        connection.with(|peer, _| peer.set_sender_parameters(self.id, parameters))
    }

    /// Asks for a video encoder. There is none, so nothing comes of it.
    pub fn set_video_encoder_backend(&self, backend: VideoEncoderBackend) {
        tracing::debug!(?backend, "video encoder asked for, but this crate sends no video");
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
