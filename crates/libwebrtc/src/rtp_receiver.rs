//! RTP receivers.

use std::fmt::{self, Debug};
use std::sync::Weak;

use crate::RtcError;
use crate::clock;
use crate::driver::Connection;
use crate::media_stream::MediaStream;
use crate::media_stream_track::MediaStreamTrack;
use crate::peer::TransceiverId;
use crate::rtp_parameters::RtpParameters;
use crate::stats::RtcStats;

/// The receiver of a transceiver. It does not keep the connection alive.
#[derive(Clone)]
pub struct RtpReceiver {
    connection: Weak<Connection>,
    id: TransceiverId,
}

impl RtpReceiver {
    /// The current remote track. LiveKit reuses a media section for tracks of other participants; the receiver then has
    /// a new track, and the old one has ended.
    pub fn track(&self) -> Option<MediaStreamTrack> {
        self.connection.upgrade()?.with(|peer, _| peer.receiver_track(self.id))
    }

    /// Ids of the streams that the track belongs to.
    pub fn stream_ids(&self) -> Vec<String> {
        let connection = self.connection.upgrade();
        connection.map(|connection| connection.with(|peer, _| peer.stream_ids(self.id))).unwrap_or_default()
    }

    /// Streams that the track belongs to.
    pub fn streams(&self) -> Vec<MediaStream> {
        let Some(connection) = self.connection.upgrade() else {
            return Vec::new();
        };
        let (ids, track) =
            connection.with(|peer, _| (peer.stream_ids(self.id), peer.receiver_track(self.id)));
        ids.into_iter().map(|id| MediaStream::new(id, track.iter().cloned().collect())).collect()
    }

    /// Returns the statistics of the receiver, which are at most two seconds old.
    ///
    /// # Errors
    /// `InvalidState` if the connection no longer exists.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, RtcError> {
        let connection = self.connection.upgrade().ok_or_else(RtcError::closed)?;
        Ok(connection.with(|peer, _| peer.receiver_stats(self.id, clock::unix_us())))
    }

    /// Current parameters.
    pub fn parameters(&self) -> RtpParameters {
        let connection = self.connection.upgrade();
        connection
            .map(|connection| connection.with(|peer, _| peer.receiver_parameters(self.id)))
            .unwrap_or_default()
    }

    pub(crate) fn new(connection: Weak<Connection>, id: TransceiverId) -> Self {
        Self { connection, id }
    }
}

impl Debug for RtpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtpReceiver").field("track", &self.track()).finish_non_exhaustive()
    }
}
