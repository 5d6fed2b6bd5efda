//! A peer connection as a sans-IO state machine. Inputs are descriptions, packets and time; outputs are [`Output`]s.
//!
//! It wraps str0m's `Rtc`, which implements ICE, DTLS, SRTP and SCTP, and adds the other parts of a WebRTC peer
//! connection: transceivers with tracks, signaling and connection states, and data channels that can be created at any
//! time. It reads no clock, does not block and opens no socket; that is done by [`crate::driver`].
//!
//! ```text
//!                 set_local(offer)               set_remote(answer)
//! signaling  Stable ────────────▶ HaveLocalOffer ──────────────────▶ Stable
//!              │ set_remote(offer)                set_local(answer)    ▲
//!              └────────────────▶ HaveRemoteOffer ─────────────────────┘
//!
//! connection New ─▶ Connecting ─▶ Connected ◀─▶ Disconnected ─▶ Failed        close() ─▶ Closed
//! ```
//!
//! Every method that changes the `Rtc` ends with [`Peer::drive_after_change`] or [`Peer::drive`], since str0m requires
//! its output to be drained after each change. The outputs are queued for [`Peer::poll`].

mod channels;
mod negotiation;
mod sdp;
mod statistics;
#[cfg(test)]
mod tests;
mod transceivers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::format::{Codec, CodecConfig, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::Extension;
use str0m::{Candidate, Event, Input, Output as RtcOutput, Rtc, RtcConfig};

pub(crate) use channels::ChannelKey;
pub(crate) use transceivers::{ReceivedAudio, SendConfig, TransceiverId};

use crate::audio_track::RtcAudioTrack;
use crate::data_channel::{DataChannelState, SEND_BUFFER_BYTES};
use crate::ice_candidate::IceCandidate;
use crate::peer_connection::{IceConnectionState, IceGatheringState, PeerConnectionState, SignalingState};
use crate::{RtcError, RtcErrorType};
use channels::Channels;
use negotiation::Negotiation;
use statistics::Statistics;
use transceivers::Transceivers;

/// Time without a working ICE candidate pair before the connection fails. str0m abandons a pair only after some 20 s of
/// silence and does not retry it. LiveKit's resume, which starts when the connection fails, recovers from that.
const DISCONNECTED_TIMEOUT: Duration = Duration::from_millis(500);

/// Time from the peer's close (DTLS `close_notify`) to the failure of the connection.
const REMOTE_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time to connect for the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval of str0m's statistics: they are cheap, and `get_stats` should return recent values.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum rounds of draining output and handling due timeouts after one change. str0m needs a few; the limit keeps a
/// bug from blocking the thread.
const MAX_ROUNDS: usize = 64;

/// An action for the driver.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send a packet from the socket with the address `source`.
    Transmit(Transmit),
    /// The peer signalled this candidate: open a socket that can send to it.
    RemoteCandidate(Candidate),
    /// Gather local addresses again, after an ICE restart.
    Regather,
    /// Decode a received packet.
    Packet(ReceivedAudio),
    /// The track has ended; release its receiver.
    TrackEnded(RtcAudioTrack),
    /// Start or reconfigure the sender of this transceiver's track; `None` stops it.
    SetSender(TransceiverId, Option<SendConfig>),
    /// Call a callback of the application.
    Event(PeerEvent),
}

/// An event for the application's callbacks.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    Connection(PeerConnectionState),
    Ice(IceConnectionState),
    Gathering(IceGatheringState),
    Signaling(SignalingState),
    Candidate(IceCandidate),
    /// The peer added a track on this transceiver.
    Track(TransceiverId),
    /// A change requires a new offer.
    NegotiationNeeded,
    /// The peer opened a channel with this label.
    ChannelOpened(ChannelKey, String),
    ChannelState(ChannelKey, DataChannelState),
    Message {
        channel: ChannelKey,
        data: Vec<u8>,
        binary: bool,
    },
    /// `sent` bytes left the send buffer.
    Drained {
        channel: ChannelKey,
        sent: u64,
    },
}

/// A peer connection; see the module documentation.
pub(crate) struct Peer {
    rtc: Rtc,
    /// Local candidates, kept to add them to a new `Rtc`.
    local_candidates: Vec<Candidate>,
    negotiation: Negotiation,
    transceivers: Transceivers,
    channels: Channels,
    statistics: Statistics,
    connection: ConnectionPhase,
    ice: IceConnectionState,
    gathering: IceGatheringState,
    outputs: VecDeque<Output>,
    /// Next timeout of str0m.
    rtc_deadline: Instant,
}

/// The state of the connection, with the timeouts of each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    New,
    Connecting {
        fails_at: Instant,
    },
    Connected,
    Disconnected {
        fails_at: Instant,
    },
    Failed,
    /// `drained` once the packets that announce the close have been queued.
    Closed {
        drained: bool,
    },
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            rtc: new_rtc(now),
            local_candidates: Vec::new(),
            negotiation: Negotiation::default(),
            transceivers: Transceivers::default(),
            channels: Channels::default(),
            statistics: Statistics::default(),
            connection: ConnectionPhase::New,
            ice: IceConnectionState::New,
            gathering: IceGatheringState::New,
            outputs: VecDeque::new(),
            rtc_deadline: now,
        }
    }

    // --- Time and network -----------------------------------------------------------------------------

    /// Takes the next output.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Self::poll`] would return an output.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.connection {
            ConnectionPhase::Connecting { fails_at } | ConnectionPhase::Disconnected { fails_at } => {
                Some(self.rtc_deadline.min(fails_at))
            }
            ConnectionPhase::New | ConnectionPhase::Connected | ConnectionPhase::Failed => {
                Some(self.rtc_deadline)
            }
            ConnectionPhase::Closed { .. } => None,
        }
    }

    /// Handles expired timers. Call at [`Self::deadline`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let ConnectionPhase::Connecting { fails_at } | ConnectionPhase::Disconnected { fails_at } =
            self.connection
            && now >= fails_at
        {
            self.set_phase(ConnectionPhase::Failed);
        }
        if now >= self.rtc_deadline {
            self.drive(now);
        }
    }

    /// Handles a received datagram or frame of a TCP stream. Unknown or invalid ones are dropped.
    pub(crate) fn handle_packet(
        &mut self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) {
        let Ok(receive) = Receive::new(protocol, source, destination, bytes) else {
            tracing::trace!(%source, "datagram of unknown protocol dropped");
            return;
        };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, receive)) {
            // Not fatal, since anyone can send an invalid datagram. Fatal errors are returned by poll_output.
            tracing::debug!(%error, "invalid datagram");
        }
        self.drive(now);
    }

    /// Adds a local candidate. With `trickle` it is signalled separately; otherwise only in the next description.
    pub(crate) fn add_local_candidate(&mut self, candidate: Candidate, trickle: bool, now: Instant) {
        if self.local_candidates.contains(&candidate) {
            return;
        }
        self.local_candidates.push(candidate.clone());
        let accepted = self.rtc.add_local_candidate(candidate).map(Candidate::to_sdp_string);
        if let Some(line) = accepted.filter(|_| trickle) {
            let candidate = IceCandidate::new(self.first_mid(), line);
            self.notify(PeerEvent::Candidate(candidate));
        }
        self.drive_after_change(now);
    }

    /// Removes a local candidate.
    pub(crate) fn remove_local_candidate(&mut self, candidate: &Candidate, now: Instant) {
        self.local_candidates.retain(|known| known != candidate);
        self.rtc.direct_api().invalidate_candidate(candidate);
        self.drive_after_change(now);
    }

    /// Sets the state of candidate gathering.
    pub(crate) fn set_gathering(&mut self, state: IceGatheringState) {
        if self.gathering != state && !self.is_closed() {
            self.gathering = state;
            self.notify(PeerEvent::Gathering(state));
        }
    }

    // --- States ---------------------------------------------------------------------------------------

    pub(crate) fn connection_state(&self) -> PeerConnectionState {
        match self.connection {
            ConnectionPhase::New => PeerConnectionState::New,
            ConnectionPhase::Connecting { .. } => PeerConnectionState::Connecting,
            ConnectionPhase::Connected => PeerConnectionState::Connected,
            ConnectionPhase::Disconnected { .. } => PeerConnectionState::Disconnected,
            ConnectionPhase::Failed => PeerConnectionState::Failed,
            ConnectionPhase::Closed { .. } => PeerConnectionState::Closed,
        }
    }

    pub(crate) fn ice_state(&self) -> IceConnectionState {
        self.ice
    }

    /// Whether ICE has a working candidate pair.
    pub(crate) fn ice_connected(&self) -> bool {
        matches!(self.ice, IceConnectionState::Connected | IceConnectionState::Completed)
    }

    pub(crate) fn gathering_state(&self) -> IceGatheringState {
        self.gathering
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.connection, ConnectionPhase::Closed { .. })
    }

    /// Whether the connection is closed and all outputs have been taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.connection == ConnectionPhase::Closed { drained: true } && self.outputs.is_empty()
    }

    /// Closes the DTLS and SCTP associations and ends all tracks and channels.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        if let Err(error) = self.rtc.close() {
            tracing::debug!(%error, "failed to notify the peer of the close");
            self.rtc.disconnect();
        }
        self.drive_after_change(now);
        for key in self.channels.close_all() {
            self.notify(PeerEvent::ChannelState(key, DataChannelState::Closed));
        }
        for track in self.transceivers.close_all() {
            track.end();
        }
        self.negotiation.close();
        self.ice = IceConnectionState::Closed;
        self.connection = ConnectionPhase::Closed { drained: true };
    }

    /// Returns an error if the connection is closed.
    fn ensure_open(&self) -> Result<(), RtcError> {
        if self.is_closed() { Err(RtcError::closed()) } else { Ok(()) }
    }

    fn set_phase(&mut self, phase: ConnectionPhase) {
        if self.is_closed() || self.connection == phase {
            return;
        }
        let before = self.connection_state();
        self.connection = phase;
        let state = self.connection_state();
        if state != before {
            tracing::debug!(?state, "peer connection state");
            self.notify(PeerEvent::Connection(state));
        }
    }

    fn set_ice_state(&mut self, state: IceConnectionState) {
        if self.ice != state && !self.is_closed() {
            self.ice = state;
            self.notify(PeerEvent::Ice(state));
        }
    }

    fn notify(&mut self, event: PeerEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    // --- str0m ----------------------------------------------------------------------------------------

    /// Drains str0m after a change, with at least one call of its timeout handler: only after that does it return a
    /// valid next timeout.
    fn drive_after_change(&mut self, now: Instant) {
        self.drive_rtc(true, now);
    }

    /// Drains str0m and handles its timeouts until none is due.
    fn drive(&mut self, now: Instant) {
        self.drive_rtc(false, now);
    }

    fn drive_rtc(&mut self, force_timeout: bool, now: Instant) {
        for round in 0..MAX_ROUNDS {
            match self.drain(now) {
                Ok(deadline) => self.rtc_deadline = deadline,
                Err(error) => return self.fail(&error),
            }
            if self.rtc_deadline > now && !(force_timeout && round == 0) {
                break;
            }
            if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
                return self.fail(&error);
            }
        }
        self.report_drained_buffers();
    }

    fn drain(&mut self, now: Instant) -> Result<Instant, str0m::RtcError> {
        loop {
            match self.rtc.poll_output()? {
                RtcOutput::Timeout(at) => return Ok(at),
                RtcOutput::Transmit(transmit) => self.outputs.push_back(Output::Transmit(transmit)),
                RtcOutput::Event(event) => self.handle_event(event, now),
            }
        }
    }

    /// Handles a fatal error of str0m: the DTLS handshake failed, or the certificate does not match the fingerprint.
    fn fail(&mut self, error: &str0m::RtcError) {
        tracing::warn!(%error, "peer connection failed");
        self.rtc.disconnect();
        self.set_ice_state(IceConnectionState::Failed);
        self.set_phase(ConnectionPhase::Failed);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "str0m's events are non-exhaustive; the others are for video"
    )]
    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.set_phase(ConnectionPhase::Connected),
            Event::IceConnectionStateChange(state) => self.handle_ice(state, now),
            Event::RtpPacket(packet) => self.handle_rtp(packet),
            Event::ChannelOpen(id, label) => self.handle_channel_open(id, label),
            Event::ChannelData(message) => self.handle_message(message),
            Event::ChannelClose(id) => self.handle_channel_close(id),
            // The server closed DTLS, or the SCTP association was aborted. LiveKit resumes on Failed; without it, it
            // would wait for the ICE timeout. It is delayed because a server that removes a participant sends the
            // reason by signaling, and a resume would conflict with a participant that took over the identity.
            Event::Closed if self.connection == ConnectionPhase::Connected => {
                self.set_phase(ConnectionPhase::Disconnected { fails_at: now + REMOTE_CLOSE_TIMEOUT });
            }
            Event::Closed => self.set_phase(ConnectionPhase::Failed),
            Event::PeerStats(stats) => self.statistics.peer = Some(stats),
            Event::MediaIngressStats(stats) => self.statistics.ingress(stats),
            Event::MediaEgressStats(stats) => self.statistics.egress(stats),
            _ => {}
        }
    }

    fn handle_ice(&mut self, state: str0m::IceConnectionState, now: Instant) {
        use str0m::IceConnectionState as Ice;
        match state {
            Ice::New => self.set_ice_state(IceConnectionState::New),
            Ice::Checking => self.set_ice_state(IceConnectionState::Checking),
            Ice::Connected => self.set_ice_state(IceConnectionState::Connected),
            Ice::Completed => self.set_ice_state(IceConnectionState::Completed),
            Ice::Disconnected => self.set_ice_state(IceConnectionState::Disconnected),
        }
        match (self.connection, state) {
            // DTLS is already established, so media flows again with the first working pair.
            (
                ConnectionPhase::Disconnected { .. } | ConnectionPhase::Failed,
                Ice::Connected | Ice::Completed,
            ) if self.rtc.is_connected() => {
                self.set_phase(ConnectionPhase::Connected);
            }
            (ConnectionPhase::Connected, Ice::Disconnected) => {
                self.set_phase(ConnectionPhase::Disconnected { fails_at: now + DISCONNECTED_TIMEOUT });
            }
            // No change: during an ICE restart media still flows on the old pair, and before the first connection
            // more candidates may arrive. Both cases have their own timeouts.
            _ => {}
        }
    }

    fn first_mid(&self) -> String {
        self.transceivers.first_mid().or_else(|| self.negotiation.app_mid()).unwrap_or_default()
    }
}

fn new_rtc(now: Instant) -> Rtc {
    let mut config = RtcConfig::new();
    *config.codec_config() = codecs();
    config
        .clear_extension_map()
        .set_extension(1, Extension::AudioLevel)
        .set_extension(4, Extension::RtpMid)
        // RTP mode instead of frame mode. Frame mode yields nothing when LiveKit reuses a media section for a track
        // with lower sequence numbers, and the jitter buffer needs the packets as they arrive.
        .set_rtp_mode(true)
        .set_sctp_max_buffered_amount(SEND_BUFFER_BYTES)
        .set_stats_interval(Some(STATS_INTERVAL))
        .build(now)
}

/// The offered codecs: Opus with RED and NACK, and the minimum of video codecs. Video is not decoded, but LiveKit
/// expects subscribers to negotiate it. Each further variant would be repeated in three sections of every description
/// and cost more processor time than the audio.
fn codecs() -> CodecConfig {
    const VP8: u8 = 96;
    const H264: u8 = 108;
    const CONSTRAINED_BASELINE_3_1: u32 = 0x42_e0_1f;
    let mut codecs = CodecConfig::empty();
    codecs.enable_opus(true, true);
    codecs.add_config(VP8.into(), None, Codec::Vp8, Frequency::NINETY_KHZ, None, FormatParams::default());
    codecs.add_h264(H264.into(), None, true, CONSTRAINED_BASELINE_3_1);
    let mut codecs = codecs.params().to_vec();
    codecs.iter_mut().for_each(|codec| codec.set_fb_nack(codec.spec().codec.is_audio()));
    CodecConfig::new_from_payload_params(codecs)
}

impl RtcError {
    pub(crate) fn closed() -> Self {
        Self::invalid_state("the peer connection is closed")
    }

    pub(crate) fn invalid_state(message: impl Into<String>) -> Self {
        Self { error_type: RtcErrorType::InvalidState, message: message.into() }
    }

    /// `what` is not implemented by this crate.
    pub(crate) fn unavailable(what: &str) -> Self {
        Self::invalid_state(format!(
            "{what} is not available in this libwebrtc, which supports audio and data only"
        ))
    }

    fn invalid_sdp(error: impl std::fmt::Display) -> Self {
        Self { error_type: RtcErrorType::InvalidSdp, message: error.to_string() }
    }
}

/// Converts a mid to str0m's type.
fn mid(text: &str) -> Mid {
    Mid::from(text)
}

/// Media kind of a section; `None` if it carries neither audio nor video.
fn media_kind(kind: sdp::SectionKind) -> Option<MediaKind> {
    match kind {
        sdp::SectionKind::Audio => Some(MediaKind::Audio),
        sdp::SectionKind::Video => Some(MediaKind::Video),
        sdp::SectionKind::Application | sdp::SectionKind::Other => None,
    }
}
