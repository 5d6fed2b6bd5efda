//! Peer connections, with the methods of W3C webrtc-pc §4.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures are those of the crate whose place this takes"
)]

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

/// How a connection fares.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum PeerConnectionState {
    /// Nothing was negotiated yet.
    New,
    /// ICE and DTLS are at work.
    Connecting,
    /// Media and data flow.
    Connected,
    /// The peer has not been heard of for some seconds; it may come back by itself.
    Disconnected,
    /// It will not come back without an ICE restart or a new connection.
    Failed,
    /// This side closed it.
    Closed,
}

/// How ICE fares.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum IceConnectionState {
    /// Nothing was negotiated yet.
    New,
    /// Pairs of addresses are being tried.
    Checking,
    /// One works; others are still being tried.
    Connected,
    /// One works, and none is left to try.
    Completed,
    /// None works.
    Failed,
    /// None works any more.
    Disconnected,
    /// This side closed the connection.
    Closed,
    /// Never used; it is in the list of the C++ library.
    Max,
}

/// How far the search for local addresses is.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum IceGatheringState {
    /// Not begun.
    New,
    /// Under way.
    Gathering,
    /// Done.
    Complete,
}

/// Where a negotiation stands.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SignalingState {
    /// Nothing is pending.
    Stable,
    /// Our offer waits for its answer.
    HaveLocalOffer,
    /// Our provisional answer was given. Not used: answers are final here.
    HaveLocalPrAnswer,
    /// The peer's offer waits for our answer.
    HaveRemoteOffer,
    /// The peer's provisional answer was given. Not used: it is taken for the final one.
    HaveRemotePrAnswer,
    /// The connection is closed.
    Closed,
}

/// What an offer is to be like.
#[derive(Debug, Clone, Default)]
pub struct OfferOptions {
    /// Find new addresses and credentials for ICE.
    pub ice_restart: bool,
    /// Be ready to receive audio. Here a transceiver says so, see [`PeerConnection::add_transceiver_for_media`].
    pub offer_to_receive_audio: bool,
    /// Be ready to receive video. Here a transceiver says so.
    pub offer_to_receive_video: bool,
}

/// What an answer is to be like: nothing to choose.
#[derive(Debug, Clone, Default)]
pub struct AnswerOptions {}

/// Limits of what a connection sends, in bits per second; a `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BitrateSettings {
    /// The least that bandwidth estimation may come to.
    pub min_bitrate_bps: Option<u64>,
    /// What bandwidth estimation starts from.
    pub start_bitrate_bps: Option<u64>,
    /// The most that bandwidth estimation may come to.
    pub max_bitrate_bps: Option<u64>,
}

/// Why a STUN or TURN server gave no address.
#[derive(Debug, Clone)]
pub struct IceCandidateError {
    /// Our address, towards the server.
    pub address: String,
    /// Our port, towards the server.
    pub port: i32,
    /// The server.
    pub url: String,
    /// Its error code (RFC 8489 §14.8), or 701 if it was not reached.
    pub error_code: i32,
    /// What it said.
    pub error_text: String,
}

/// A track that begins to arrive.
#[derive(Debug, Clone)]
pub struct TrackEvent {
    /// The receiver it arrives at.
    pub receiver: RtpReceiver,
    /// The streams that its sender put it in.
    pub streams: Vec<MediaStream>,
    /// The track.
    pub track: MediaStreamTrack,
    /// The transceiver of that receiver.
    pub transceiver: RtpTransceiver,
}

/// Told each [`PeerConnectionState`].
pub type OnConnectionChange = Box<dyn FnMut(PeerConnectionState) + Send + Sync>;
/// Given each data channel that the peer opens.
pub type OnDataChannel = Box<dyn FnMut(DataChannel) + Send + Sync>;
/// Given each candidate that is not in a description, for the peer.
pub type OnIceCandidate = Box<dyn FnMut(IceCandidate) + Send + Sync>;
/// Told each failure of a STUN or TURN server.
pub type OnIceCandidateError = Box<dyn FnMut(IceCandidateError) + Send + Sync>;
/// Told each [`IceConnectionState`].
pub type OnIceConnectionChange = Box<dyn FnMut(IceConnectionState) + Send + Sync>;
/// Told each [`IceGatheringState`].
pub type OnIceGatheringChange = Box<dyn FnMut(IceGatheringState) + Send + Sync>;
/// Told that an offer has something to tell.
pub type OnNegotiationNeeded = Box<dyn FnMut(u32) + Send + Sync>;
/// Told each [`SignalingState`].
pub type OnSignalingChange = Box<dyn FnMut(SignalingState) + Send + Sync>;
/// Given each track that begins to arrive.
pub type OnTrack = Box<dyn FnMut(TrackEvent) + Send + Sync>;

/// A connection to a peer. Clones are the same connection; the last one to go closes it.
///
/// Callbacks run on the connection's thread and must not block. One that is set late misses what was before it.
#[derive(Clone)]
pub struct PeerConnection {
    handle: Arc<Handle>,
}

/// Closes the connection when the application has let go of it.
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

    /// Changes the servers and the policy of ICE, for what is gathered from now on.
    ///
    /// # Errors
    /// `InvalidState` when the connection is closed.
    pub fn set_configuration(&self, config: RtcConfiguration) -> Result<(), RtcError> {
        if self.connection_state() == PeerConnectionState::Closed {
            return Err(RtcError::closed());
        }
        self.connection().set_configuration(config);
        Ok(())
    }

    /// Checks the limits. There is no bandwidth estimation here, since audio has no use for it: what a track may
    /// take is said by [`RtpEncodingParameters::max_bitrate`](crate::rtp_parameters::RtpEncodingParameters).
    ///
    /// # Errors
    /// `InvalidState` when the limits contradict each other or the connection is closed.
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

    /// Makes an offer of all that was added and changed.
    ///
    /// # Errors
    /// `InvalidState` while another negotiation is pending, when there is nothing to offer, or when the
    /// connection is closed.
    pub async fn create_offer(&self, options: OfferOptions) -> Result<SessionDescription, RtcError> {
        self.connection().with(|peer, now| peer.create_offer(&options, now))
    }

    /// Makes the answer to the peer's offer.
    ///
    /// # Errors
    /// `InvalidState` when there is no offer to answer.
    pub async fn create_answer(&self, _options: AnswerOptions) -> Result<SessionDescription, RtcError> {
        self.connection().with(|peer, _| peer.create_answer())
    }

    /// Applies a description made here.
    ///
    /// # Errors
    /// `InvalidState` when it has no place in the present [`SignalingState`].
    pub async fn set_local_description(&self, desc: SessionDescription) -> Result<(), RtcError> {
        self.connection().with(|peer, now| peer.set_local_description(desc, now))
    }

    /// Applies a description of the peer's.
    ///
    /// # Errors
    /// `InvalidSdp` when it can't be read or contradicts what was agreed on; `InvalidState` when it has no place
    /// in the present [`SignalingState`].
    pub async fn set_remote_description(&self, desc: SessionDescription) -> Result<(), RtcError> {
        self.connection().with(|peer, now| peer.set_remote_description(desc, now))
    }

    /// Adds an address of the peer's. One of a kind that can't be used is passed over.
    ///
    /// # Errors
    /// `InvalidState` before the description that it belongs to, and when the connection is closed.
    pub async fn add_ice_candidate(&self, candidate: IceCandidate) -> Result<(), RtcError> {
        self.connection().with(|peer, now| peer.add_remote_candidate(&candidate, now))
    }

    /// Makes a data channel. It opens when the peers are connected.
    ///
    /// # Errors
    /// `InvalidState` when `init` contradicts itself, its stream is taken, or the connection is closed.
    pub fn create_data_channel(&self, label: &str, init: DataChannelInit) -> Result<DataChannel, RtcError> {
        self.connection().create_data_channel(label, &init)
    }

    /// Sends `track` on a transceiver that has nothing to send, or on a new one.
    ///
    /// # Errors
    /// `InvalidState` for a track that can't be sent (video, a microphone, a remote one), and when the connection
    /// is closed.
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
    /// `InvalidState` when the sender is of another connection, or this one is closed.
    pub fn remove_track(&self, sender: RtpSender) -> Result<(), RtcError> {
        if !sender.connection().ptr_eq(&self.connection().downgrade()) {
            return Err(RtcError::invalid_state("the sender is of another connection"));
        }
        self.connection().with(|peer, _| peer.remove_track(sender.id()))
    }

    /// What happened so far, as of a moment ago.
    ///
    /// # Errors
    /// None; the type is that of the crate whose place this one takes.
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

    /// Adds a transceiver without a track to send, mostly to receive one.
    ///
    /// # Errors
    /// `InvalidState` when `media_type` is neither audio nor video, or the connection is closed.
    pub fn add_transceiver_for_media(
        &self,
        media_type: MediaType,
        init: RtpTransceiverInit,
    ) -> Result<RtpTransceiver, RtcError> {
        let id = self.connection().with(|peer, _| peer.add_transceiver(media_type, None, init))?;
        Ok(self.connection().transceiver(id))
    }

    /// Says goodbye to the peer, and ends all tracks and channels.
    pub fn close(&self) {
        self.connection().close();
    }

    /// Has the next offer restart ICE.
    pub fn restart_ice(&self) {
        self.connection().with(|peer, _| peer.restart_ice());
    }

    /// How the connection fares.
    pub fn connection_state(&self) -> PeerConnectionState {
        self.connection().with(|peer, _| peer.connection_state())
    }

    /// How ICE fares.
    pub fn ice_connection_state(&self) -> IceConnectionState {
        self.connection().with(|peer, _| peer.ice_state())
    }

    /// How far the search for local addresses is.
    pub fn ice_gathering_state(&self) -> IceGatheringState {
        self.connection().with(|peer, _| peer.gathering_state())
    }

    /// Where the negotiation stands.
    pub fn signaling_state(&self) -> SignalingState {
        self.connection().with(|peer, _| peer.signaling_state())
    }

    /// Our last description that both sides agreed on.
    pub fn current_local_description(&self) -> Option<SessionDescription> {
        self.connection().with(|peer, _| peer.current_local_description())
    }

    /// The peer's last description that both sides agreed on.
    pub fn current_remote_description(&self) -> Option<SessionDescription> {
        self.connection().with(|peer, _| peer.current_remote_description())
    }

    /// The sending halves of all transceivers.
    pub fn senders(&self) -> Vec<RtpSender> {
        self.transceivers().iter().map(RtpTransceiver::sender).collect()
    }

    /// The receiving halves of all transceivers.
    pub fn receivers(&self) -> Vec<RtpReceiver> {
        self.transceivers().iter().map(RtpTransceiver::receiver).collect()
    }

    /// All transceivers, in the order they were added.
    pub fn transceivers(&self) -> Vec<RtpTransceiver> {
        let ids = self.connection().with(|peer, _| peer.transceiver_ids());
        ids.into_iter().map(|id| self.connection().transceiver(id)).collect()
    }

    /// Sets who is told each state of the connection.
    pub fn on_connection_state_change(&self, f: Option<OnConnectionChange>) {
        *self.connection().callbacks.connection.lock() = f;
    }

    /// Sets who is given the channels that the peer opens.
    pub fn on_data_channel(&self, f: Option<OnDataChannel>) {
        *self.connection().callbacks.data_channel.lock() = f;
    }

    /// Sets who is given our candidates.
    pub fn on_ice_candidate(&self, f: Option<OnIceCandidate>) {
        *self.connection().callbacks.candidate.lock() = f;
    }

    /// Sets who is told that a STUN or TURN server failed.
    pub fn on_ice_candidate_error(&self, f: Option<OnIceCandidateError>) {
        *self.connection().callbacks.candidate_error.lock() = f;
    }

    /// Sets who is told each state of ICE.
    pub fn on_ice_connection_state_change(&self, f: Option<OnIceConnectionChange>) {
        *self.connection().callbacks.ice.lock() = f;
    }

    /// Sets who is told how far the search for local addresses is.
    pub fn on_ice_gathering_state_change(&self, f: Option<OnIceGatheringChange>) {
        *self.connection().callbacks.gathering.lock() = f;
    }

    /// Sets who is told that an offer has something to tell.
    pub fn on_negotiation_needed(&self, f: Option<OnNegotiationNeeded>) {
        *self.connection().callbacks.negotiation_needed.lock() = f;
    }

    /// Sets who is told where the negotiation stands.
    pub fn on_signaling_state_change(&self, f: Option<OnSignalingChange>) {
        *self.connection().callbacks.signaling.lock() = f;
    }

    /// Sets who is given the tracks that begin to arrive.
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
