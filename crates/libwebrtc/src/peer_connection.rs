//! Peer connections (W3C webrtc-pc §4).

#![expect(clippy::needless_pass_by_value, reason = "the signatures are those of the original crate")]

use std::fmt::{self, Debug};
use std::sync::Arc;

use crate::clock;
use crate::data_channel::{DataChannel, DataChannelInit};
use crate::driver::Connection;
use crate::ice_candidate::IceCandidate;
use crate::media_stream::MediaStream;
use crate::media_stream_track::MediaStreamTrack;
use crate::peer_connection_factory::RtcConfiguration;
use crate::rtp_receiver::RtpReceiver;
use crate::rtp_sender::RtpSender;
use crate::rtp_transceiver::{RtpTransceiver, RtpTransceiverInit};
use crate::session_description::SessionDescription;
use crate::stats::RtcStats;
use crate::{MediaType, RtcError};

/// State of a connection (W3C webrtc-pc, `RTCPeerConnectionState`).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum PeerConnectionState {
    /// No description has been applied yet.
    New,
    /// ICE and DTLS are connecting.
    Connecting,
    /// ICE and DTLS are connected.
    Connected,
    /// The connection to the peer is interrupted; it may recover without action.
    Disconnected,
    /// The connection has failed; recovery needs an ICE restart or a new connection.
    Failed,
    /// The connection was closed by this side.
    Closed,
}

/// State of ICE (W3C webrtc-pc, `RTCIceConnectionState`).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum IceConnectionState {
    /// No description has been applied yet.
    New,
    /// Candidate pairs are being checked; none works yet.
    Checking,
    /// A candidate pair works; others are still being checked.
    Connected,
    /// A candidate pair works, and all checks are done.
    Completed,
    /// No candidate pair works.
    Failed,
    /// No candidate pair works any more.
    Disconnected,
    /// The connection was closed by this side.
    Closed,
    /// Never used; part of the enum of the C++ library.
    Max,
}

/// State of candidate gathering (W3C webrtc-pc, `RTCIceGatheringState`).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum IceGatheringState {
    /// Gathering has not started.
    New,
    /// Gathering is in progress.
    Gathering,
    /// Gathering is complete.
    Complete,
}

/// State of the offer/answer negotiation (W3C webrtc-pc, `RTCSignalingState`).
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SignalingState {
    /// No negotiation is in progress.
    Stable,
    /// A local offer is set; its answer is pending.
    HaveLocalOffer,
    /// A local provisional answer is set. Not used: local answers are final.
    HaveLocalPrAnswer,
    /// A remote offer is set; its answer is pending.
    HaveRemoteOffer,
    /// A remote provisional answer is set. Not used: it is treated as final.
    HaveRemotePrAnswer,
    /// The connection is closed.
    Closed,
}

/// Options of [`PeerConnection::create_offer`].
#[derive(Debug, Clone, Default)]
pub struct OfferOptions {
    /// Restart ICE: gather again and use new credentials.
    pub ice_restart: bool,
    /// Ignored; use [`PeerConnection::add_transceiver_for_media`] to receive audio.
    pub offer_to_receive_audio: bool,
    /// Ignored; use [`PeerConnection::add_transceiver_for_media`] to receive video.
    pub offer_to_receive_video: bool,
}

/// Options of [`PeerConnection::create_answer`]; there are none.
#[derive(Debug, Clone, Default)]
pub struct AnswerOptions {}

/// Limits of the send bitrate of a connection, in bits per second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BitrateSettings {
    /// Minimum of the bandwidth estimate.
    pub min_bitrate_bps: Option<u64>,
    /// Initial bandwidth estimate.
    pub start_bitrate_bps: Option<u64>,
    /// Maximum of the bandwidth estimate.
    pub max_bitrate_bps: Option<u64>,
}

/// Error of gathering a candidate from a STUN or TURN server.
#[derive(Debug, Clone)]
pub struct IceCandidateError {
    /// Local address used for the server; empty if unknown.
    pub address: String,
    /// Local port used for the server; 0 if unknown.
    pub port: i32,
    /// URI of the server.
    pub url: String,
    /// STUN error code (RFC 8489 §14.8), or 701 if the server could not be reached.
    pub error_code: i32,
    /// Description of the error.
    pub error_text: String,
}

/// A new remote track.
#[derive(Debug, Clone)]
pub struct TrackEvent {
    /// The receiver of the track.
    pub receiver: RtpReceiver,
    /// The streams that the track belongs to.
    pub streams: Vec<MediaStream>,
    /// The track.
    pub track: MediaStreamTrack,
    /// The transceiver of the receiver.
    pub transceiver: RtpTransceiver,
}

/// Callback for each new [`PeerConnectionState`].
pub type OnConnectionChange = Box<dyn FnMut(PeerConnectionState) + Send + Sync>;
/// Callback for each data channel that the peer opens.
pub type OnDataChannel = Box<dyn FnMut(DataChannel) + Send + Sync>;
/// Callback for each local candidate that is not part of a description and has to be signalled to the peer.
pub type OnIceCandidate = Box<dyn FnMut(IceCandidate) + Send + Sync>;
/// Callback for each failure of a STUN or TURN server.
pub type OnIceCandidateError = Box<dyn FnMut(IceCandidateError) + Send + Sync>;
/// Callback for each new [`IceConnectionState`].
pub type OnIceConnectionChange = Box<dyn FnMut(IceConnectionState) + Send + Sync>;
/// Callback for each new [`IceGatheringState`].
pub type OnIceGatheringChange = Box<dyn FnMut(IceGatheringState) + Send + Sync>;
/// Callback for changes that require a new offer.
pub type OnNegotiationNeeded = Box<dyn FnMut(u32) + Send + Sync>;
/// Callback for each new [`SignalingState`].
pub type OnSignalingChange = Box<dyn FnMut(SignalingState) + Send + Sync>;
/// Callback for each new remote track.
pub type OnTrack = Box<dyn FnMut(TrackEvent) + Send + Sync>;

/// A peer connection. Clones refer to the same connection, which is closed when the last one is dropped.
///
/// Callbacks run on a media thread and must not block. Events before a callback is set are not repeated.
#[derive(Clone)]
pub struct PeerConnection {
    handle: Arc<Handle>,
}

/// Closes the connection when it is dropped.
struct Handle {
    connection: Arc<Connection>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.connection.close();
    }
}

impl PeerConnection {
    pub(crate) fn start(configuration: RtcConfiguration) -> Result<Self, RtcError> {
        let connection = Connection::start(configuration)?;
        Ok(Self { handle: Arc::new(Handle { connection }) })
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.handle.connection
    }

    /// Changes the ICE servers and the ICE transport policy, for candidates gathered from now on.
    ///
    /// # Errors
    /// `InvalidState` if the connection is closed.
    pub fn set_configuration(&self, config: RtcConfiguration) -> Result<(), RtcError> {
        if self.connection_state() == PeerConnectionState::Closed {
            return Err(RtcError::closed());
        }
        self.connection().set_configuration(config);
        Ok(())
    }

    /// Validates the limits, which have no effect: there is no bandwidth estimation, since audio does not need it. The
    /// bitrate of a track is limited by
    /// [`RtpEncodingParameters::max_bitrate`](crate::rtp_parameters::RtpEncodingParameters).
    ///
    /// # Errors
    /// `InvalidState` if the limits contradict each other or the connection is closed.
    pub fn set_bitrate(&self, settings: BitrateSettings) -> Result<(), RtcError> {
        if self.connection_state() == PeerConnectionState::Closed {
            return Err(RtcError::closed());
        }
        let BitrateSettings { min_bitrate_bps: min, start_bitrate_bps: start, max_bitrate_bps: max } =
            settings;
        let below = |one: Option<u64>, other: Option<u64>| matches!((one, other), (Some(one), Some(other)) if one < other);
        if below(start, min) {
            return Err(RtcError::invalid_state("start_bitrate_bps < min_bitrate_bps"));
        }
        if below(max, start) {
            return Err(RtcError::invalid_state("max_bitrate_bps < start_bitrate_bps"));
        }
        if below(max, min) {
            return Err(RtcError::invalid_state("max_bitrate_bps < min_bitrate_bps"));
        }
        Ok(())
    }

    /// Creates an offer with all changes since the last negotiation.
    ///
    /// # Errors
    /// `InvalidState` if another negotiation is in progress, there is nothing to offer, or the connection is closed.
    pub async fn create_offer(&self, options: OfferOptions) -> Result<SessionDescription, RtcError> {
        self.connection().with(|peer, now| peer.create_offer(&options, now))
    }

    /// Creates the answer to the remote offer.
    ///
    /// # Errors
    /// `InvalidState` if no remote offer is set or the connection is closed.
    pub async fn create_answer(&self, _options: AnswerOptions) -> Result<SessionDescription, RtcError> {
        self.connection().with(|peer, _| peer.create_answer())
    }

    /// Applies a local description, as created by [`Self::create_offer`] or [`Self::create_answer`].
    ///
    /// # Errors
    /// `InvalidState` if it is not allowed in the current [`SignalingState`].
    pub async fn set_local_description(&self, desc: SessionDescription) -> Result<(), RtcError> {
        self.connection().with(|peer, now| peer.set_local_description(desc, now))
    }

    /// Applies a remote description.
    ///
    /// # Errors
    /// `InvalidSdp` if it cannot be parsed or contradicts the negotiated session; `InvalidState` if it is not allowed
    /// in the current [`SignalingState`].
    pub async fn set_remote_description(&self, desc: SessionDescription) -> Result<(), RtcError> {
        self.connection().with(|peer, now| peer.set_remote_description(desc, now))
    }

    /// Adds a candidate of the peer. Candidates of unsupported kinds are ignored.
    ///
    /// # Errors
    /// `InvalidState` if no remote description is set or the connection is closed.
    pub async fn add_ice_candidate(&self, candidate: IceCandidate) -> Result<(), RtcError> {
        self.connection().with(|peer, now| peer.add_remote_candidate(&candidate, now))
    }

    /// Creates a data channel. It opens when the peers are connected.
    ///
    /// # Errors
    /// `InvalidState` if `init` is invalid, its stream id is in use, or the connection is closed.
    pub fn create_data_channel(&self, label: &str, init: DataChannelInit) -> Result<DataChannel, RtcError> {
        self.connection().create_data_channel(label, &init)
    }

    /// Sends `track` on an unused transceiver of its kind, or on a new one. The stream ids are ignored.
    ///
    /// # Errors
    /// `InvalidState` if the track cannot be sent (video, microphone or remote tracks) or the connection is closed.
    pub fn add_track<T: AsRef<str>>(
        &self,
        track: MediaStreamTrack,
        _streams_ids: &[T],
    ) -> Result<RtpSender, RtcError> {
        let id = self.connection().with(|peer, _| peer.add_track(track))?;
        Ok(self.connection().transceiver(id).sender())
    }

    /// Stops sending the track of `sender`.
    ///
    /// # Errors
    /// `InvalidState` if the sender belongs to another connection or this one is closed.
    pub fn remove_track(&self, sender: RtpSender) -> Result<(), RtcError> {
        if !sender.connection().ptr_eq(&self.connection().downgrade()) {
            return Err(RtcError::invalid_state("the sender belongs to another connection"));
        }
        self.connection().with(|peer, _| peer.remove_track(sender.id()))
    }

    /// Returns the statistics of the connection, which are at most two seconds old.
    ///
    /// # Errors
    /// None; the return type is that of the original crate.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, RtcError> {
        Ok(self.connection().with(|peer, _| peer.stats(clock::unix_us())))
    }

    /// Adds a transceiver that sends `track`.
    ///
    /// # Errors
    /// As [`Self::add_track`].
    pub fn add_transceiver(
        &self,
        track: MediaStreamTrack,
        init: RtpTransceiverInit,
    ) -> Result<RtpTransceiver, RtcError> {
        let media = match &track {
            MediaStreamTrack::Audio(_) => MediaType::Audio,
            MediaStreamTrack::Video(_) => MediaType::Video,
        };
        let id = self.connection().with(|peer, _| peer.add_transceiver(media, Some(track), init))?;
        Ok(self.connection().transceiver(id))
    }

    /// Adds a transceiver without a track to send, usually to receive one.
    ///
    /// # Errors
    /// `InvalidState` if `media_type` is neither audio nor video or the connection is closed.
    pub fn add_transceiver_for_media(
        &self,
        media_type: MediaType,
        init: RtpTransceiverInit,
    ) -> Result<RtpTransceiver, RtcError> {
        let id = self.connection().with(|peer, _| peer.add_transceiver(media_type, None, init))?;
        Ok(self.connection().transceiver(id))
    }

    /// Closes the connection, notifies the peer, and ends all tracks and channels.
    pub fn close(&self) {
        self.connection().close();
    }

    /// Makes the next offer restart ICE.
    pub fn restart_ice(&self) {
        self.connection().with(|peer, _| peer.restart_ice());
    }

    /// State of the connection.
    pub fn connection_state(&self) -> PeerConnectionState {
        self.connection().with(|peer, _| peer.connection_state())
    }

    /// State of ICE.
    pub fn ice_connection_state(&self) -> IceConnectionState {
        self.connection().with(|peer, _| peer.ice_state())
    }

    /// State of candidate gathering.
    pub fn ice_gathering_state(&self) -> IceGatheringState {
        self.connection().with(|peer, _| peer.gathering_state())
    }

    /// State of the negotiation.
    pub fn signaling_state(&self) -> SignalingState {
        self.connection().with(|peer, _| peer.signaling_state())
    }

    /// The last successfully negotiated local description.
    pub fn current_local_description(&self) -> Option<SessionDescription> {
        self.connection().with(|peer, _| peer.current_local_description())
    }

    /// The last successfully negotiated remote description.
    pub fn current_remote_description(&self) -> Option<SessionDescription> {
        self.connection().with(|peer, _| peer.current_remote_description())
    }

    /// The senders of all transceivers.
    pub fn senders(&self) -> Vec<RtpSender> {
        self.transceivers().iter().map(RtpTransceiver::sender).collect()
    }

    /// The receivers of all transceivers.
    pub fn receivers(&self) -> Vec<RtpReceiver> {
        self.transceivers().iter().map(RtpTransceiver::receiver).collect()
    }

    /// All transceivers, in the order they were added.
    pub fn transceivers(&self) -> Vec<RtpTransceiver> {
        let ids = self.connection().with(|peer, _| peer.transceiver_ids());
        ids.into_iter().map(|id| self.connection().transceiver(id)).collect()
    }

    /// Sets the callback for new states of the connection.
    pub fn on_connection_state_change(&self, f: Option<OnConnectionChange>) {
        *self.connection().callbacks.connection.lock() = f;
    }

    /// Sets the callback for data channels opened by the peer.
    pub fn on_data_channel(&self, f: Option<OnDataChannel>) {
        *self.connection().callbacks.data_channel.lock() = f;
    }

    /// Sets the callback for local candidates.
    pub fn on_ice_candidate(&self, f: Option<OnIceCandidate>) {
        *self.connection().callbacks.candidate.lock() = f;
    }

    /// Sets the callback for failures of STUN or TURN servers.
    pub fn on_ice_candidate_error(&self, f: Option<OnIceCandidateError>) {
        *self.connection().callbacks.candidate_error.lock() = f;
    }

    /// Sets the callback for new states of ICE.
    pub fn on_ice_connection_state_change(&self, f: Option<OnIceConnectionChange>) {
        *self.connection().callbacks.ice.lock() = f;
    }

    /// Sets the callback for new states of candidate gathering.
    pub fn on_ice_gathering_state_change(&self, f: Option<OnIceGatheringChange>) {
        *self.connection().callbacks.gathering.lock() = f;
    }

    /// Sets the callback for changes that require a new offer.
    pub fn on_negotiation_needed(&self, f: Option<OnNegotiationNeeded>) {
        *self.connection().callbacks.negotiation_needed.lock() = f;
    }

    /// Sets the callback for new states of the negotiation.
    pub fn on_signaling_state_change(&self, f: Option<OnSignalingChange>) {
        *self.connection().callbacks.signaling.lock() = f;
    }

    /// Sets the callback for new remote tracks.
    pub fn on_track(&self, f: Option<OnTrack>) {
        *self.connection().callbacks.track.lock() = f;
    }
}

impl Debug for PeerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConnection")
            .field("state", &self.connection_state())
            .field("ice_state", &self.ice_connection_state())
            .finish()
    }
}
