//! A peer connection as a machine: descriptions, packets and time in, [`Output`]s out.
//!
//! It wraps str0m's `Rtc`, which speaks ICE, DTLS, SRTP and SCTP, and adds what a WebRTC peer connection has on
//! top: transceivers with tracks, the states of signaling and connection, data channels that can be made at any
//! time. It reads no clock, waits for nothing and opens no socket: [`crate::driver`] does.
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
//! Every method that changes something ends with [`Peer::settle`] or [`Peer::pump`], since str0m wants its output drained after each
//! change. What comes of it waits in the queue that [`Peer::poll`] empties.

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
pub(crate) use transceivers::{Incoming, SendPlan, TransceiverId};

use crate::audio_track::RtcAudioTrack;
use crate::data_channel::{DataChannelState, SEND_BUFFER_BYTES};
use crate::ice_candidate::IceCandidate;
use crate::peer_connection::{IceConnectionState, IceGatheringState, PeerConnectionState, SignalingState};
use crate::{RtcError, RtcErrorType};
use channels::Channels;
use negotiation::Negotiation;
use statistics::Statistics;
use transceivers::Transceivers;

/// How long ICE may be without a working pair before the connection counts as failed. str0m gives a pair up only
/// after it was silent for some 20 s, and does not try it again: what helps then is LiveKit's resume, which begins
/// when the connection fails.
const DISCONNECTED_GRACE: Duration = Duration::from_millis(500);

/// How long after the other side's goodbye the connection counts as failed.
const GOODBYE_GRACE: Duration = Duration::from_secs(1);

/// How long a first connection may take before it counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How often str0m sums its statistics up. They are cheap, and whoever asks should see the last seconds.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

/// Rounds of output and immediate timeouts after one change. str0m needs a handful; more would be a bug that must
/// not hold the thread.
const MAX_ROUNDS: usize = 64;

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this from the socket at `source`.
    Transmit(Transmit),
    /// The peer can be reached at this candidate: have a socket that does.
    Reach(Candidate),
    /// Look for local addresses, anew after an ICE restart.
    Gather,
    /// Decode this.
    Packet(Incoming),
    /// Nothing more will come for this track.
    TrackEnded(RtcAudioTrack),
    /// Send the sound of this transceiver's track so; `None` stops it.
    Send(TransceiverId, Option<SendPlan>),
    /// Tell the application.
    Notify(Notice),
}

/// What the application is told through its callbacks.
#[derive(Debug)]
pub(crate) enum Notice {
    Connection(PeerConnectionState),
    Ice(IceConnectionState),
    Gathering(IceGatheringState),
    Signaling(SignalingState),
    Candidate(IceCandidate),
    /// A track arrives on this transceiver.
    Track(TransceiverId),
    /// Something changed that an offer must tell the peer.
    NegotiationNeeded,
    /// The peer opened a channel with this label.
    ChannelOpened(ChannelKey, String),
    ChannelState(ChannelKey, DataChannelState),
    Message {
        channel: ChannelKey,
        data: Vec<u8>,
        binary: bool,
    },
    /// So many bytes left the send buffer.
    Drained {
        channel: ChannelKey,
        sent: u64,
    },
}

/// See the module.
pub(crate) struct Peer {
    rtc: Rtc,
    /// Candidates of our own, to be told to a fresh `Rtc` as well.
    local_candidates: Vec<Candidate>,
    negotiation: Negotiation,
    transceivers: Transceivers,
    channels: Channels,
    statistics: Statistics,
    connection: ConnectionPhase,
    ice: IceConnectionState,
    gathering: IceGatheringState,
    outputs: VecDeque<Output>,
    /// When str0m wants to be told the time.
    rtc_deadline: Instant,
}

/// How the connection fares, with what is needed to get out of each state.
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
    /// `drained` once everything that says goodbye to the peer is out.
    Closed {
        drained: bool,
    },
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            rtc: fresh_rtc(now),
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

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether there is a next thing to do.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When to call [`Self::handle_timeout`] if nothing else happens before.
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

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let ConnectionPhase::Connecting { fails_at } | ConnectionPhase::Disconnected { fails_at } =
            self.connection
            && now >= fails_at
        {
            self.enter(ConnectionPhase::Failed);
        }
        if now >= self.rtc_deadline {
            self.pump(now);
        }
    }

    /// A datagram, or a frame of a stream, arrived. What is not for us is dropped.
    pub(crate) fn handle_packet(
        &mut self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) {
        let Ok(receive) = Receive::new(protocol, source, destination, bytes) else {
            tracing::trace!(%source, "datagram of no known protocol dropped");
            return;
        };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, receive)) {
            // Anyone can send a broken datagram; only what poll_output says is final.
            tracing::debug!(%error, "datagram refused");
        }
        self.pump(now);
    }

    /// We can be reached at `candidate`. `trickle` tells the peer, which the next description does by itself.
    pub(crate) fn add_local_candidate(&mut self, candidate: Candidate, trickle: bool, now: Instant) {
        if self.local_candidates.contains(&candidate) {
            return;
        }
        self.local_candidates.push(candidate.clone());
        let accepted = self.rtc.add_local_candidate(candidate).map(Candidate::to_sdp_string);
        if let Some(line) = accepted.filter(|_| trickle) {
            let candidate = IceCandidate::new(self.first_mid(), line);
            self.notify(Notice::Candidate(candidate));
        }
        self.settle(now);
    }

    /// We can no longer be reached at `candidate`.
    pub(crate) fn remove_local_candidate(&mut self, candidate: &Candidate, now: Instant) {
        self.local_candidates.retain(|known| known != candidate);
        self.rtc.direct_api().invalidate_candidate(candidate);
        self.settle(now);
    }

    /// How far the search for local addresses is.
    pub(crate) fn set_gathering(&mut self, state: IceGatheringState) {
        if self.gathering != state && !self.is_closed() {
            self.gathering = state;
            self.notify(Notice::Gathering(state));
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

    /// Whether ICE has found a way.
    pub(crate) fn is_reached(&self) -> bool {
        matches!(self.ice, IceConnectionState::Connected | IceConnectionState::Completed)
    }

    pub(crate) fn gathering_state(&self) -> IceGatheringState {
        self.gathering
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.connection, ConnectionPhase::Closed { .. })
    }

    /// Whether it is closed and has said goodbye: nothing more will come of it.
    pub(crate) fn is_done(&self) -> bool {
        self.connection == ConnectionPhase::Closed { drained: true } && self.outputs.is_empty()
    }

    /// Says goodbye to the peer and ends all tracks and channels.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        if let Err(error) = self.rtc.close() {
            tracing::debug!(%error, "goodbye not said");
            self.rtc.disconnect();
        }
        self.settle(now);
        for key in self.channels.close_all() {
            self.notify(Notice::ChannelState(key, DataChannelState::Closed));
        }
        for track in self.transceivers.close_all() {
            track.end();
        }
        self.negotiation.close();
        self.ice = IceConnectionState::Closed;
        self.connection = ConnectionPhase::Closed { drained: true };
    }

    /// Fails if the connection is closed.
    fn open(&self) -> Result<(), RtcError> {
        if self.is_closed() { Err(RtcError::closed()) } else { Ok(()) }
    }

    fn enter(&mut self, phase: ConnectionPhase) {
        if self.is_closed() || self.connection == phase {
            return;
        }
        let before = self.connection_state();
        self.connection = phase;
        let state = self.connection_state();
        if state != before {
            tracing::debug!(?state, "peer connection state");
            self.notify(Notice::Connection(state));
        }
    }

    fn enter_ice(&mut self, state: IceConnectionState) {
        if self.ice != state && !self.is_closed() {
            self.ice = state;
            self.notify(Notice::Ice(state));
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notify(notice));
    }

    // --- str0m ----------------------------------------------------------------------------------------

    /// Drains str0m after it was changed, and tells it the time: before it knows that, it does not even say when it
    /// wants to be told.
    fn settle(&mut self, now: Instant) {
        self.run(true, now);
    }

    /// Drains str0m and lets it act on the time, until it wants nothing more for now.
    fn pump(&mut self, now: Instant) {
        self.run(false, now);
    }

    fn run(&mut self, tell_time: bool, now: Instant) {
        for round in 0..MAX_ROUNDS {
            match self.drain(now) {
                Ok(deadline) => self.rtc_deadline = deadline,
                Err(error) => return self.fail(&error),
            }
            if self.rtc_deadline > now && !(tell_time && round == 0) {
                break;
            }
            if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
                return self.fail(&error);
            }
        }
        self.watch_buffers();
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

    /// str0m can't go on: DTLS was refused, or the peer is not who its description said.
    fn fail(&mut self, error: &str0m::RtcError) {
        tracing::warn!(%error, "peer connection failed");
        self.rtc.disconnect();
        self.enter_ice(IceConnectionState::Failed);
        self.enter(ConnectionPhase::Failed);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "str0m's events are non-exhaustive; the rest is video's"
    )]
    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.enter(ConnectionPhase::Connected),
            Event::IceConnectionStateChange(state) => self.handle_ice(state, now),
            Event::RtpPacket(packet) => self.handle_rtp(packet),
            Event::ChannelOpen(id, label) => self.handle_channel_open(id, label),
            Event::ChannelData(message) => self.handle_message(message),
            Event::ChannelClose(id) => self.handle_channel_close(id),
            // The server went away in good order, or the association broke: LiveKit resumes on Failed, and would
            // wait for ICE to notice otherwise. Not at once: where the server has put us out, its reason is on
            // its way by signaling, and a resume would get in the way of who took our place.
            Event::Closed if self.connection == ConnectionPhase::Connected => {
                self.enter(ConnectionPhase::Disconnected { fails_at: now + GOODBYE_GRACE });
            }
            Event::Closed => self.enter(ConnectionPhase::Failed),
            Event::PeerStats(stats) => self.statistics.peer = Some(stats),
            Event::MediaIngressStats(stats) => self.statistics.ingress(stats),
            Event::MediaEgressStats(stats) => self.statistics.egress(stats),
            _ => {}
        }
    }

    fn handle_ice(&mut self, state: str0m::IceConnectionState, now: Instant) {
        use str0m::IceConnectionState as Ice;
        match state {
            Ice::New => self.enter_ice(IceConnectionState::New),
            Ice::Checking => self.enter_ice(IceConnectionState::Checking),
            Ice::Connected => self.enter_ice(IceConnectionState::Connected),
            Ice::Completed => self.enter_ice(IceConnectionState::Completed),
            Ice::Disconnected => self.enter_ice(IceConnectionState::Disconnected),
        }
        match (self.connection, state) {
            // DTLS is done already, so media flows again with the first pair that works.
            (
                ConnectionPhase::Disconnected { .. } | ConnectionPhase::Failed,
                Ice::Connected | Ice::Completed,
            ) if self.rtc.is_connected() => {
                self.enter(ConnectionPhase::Connected);
            }
            (ConnectionPhase::Connected, Ice::Disconnected) => {
                self.enter(ConnectionPhase::Disconnected { fails_at: now + DISCONNECTED_GRACE });
            }
            // An ICE restart checks anew while media still flows on the old pair, and before the first
            // connection more candidates may come: both have their own deadlines.
            _ => {}
        }
    }

    fn first_mid(&self) -> String {
        self.transceivers.first_mid().or_else(|| self.negotiation.app_mid()).unwrap_or_default()
    }
}

fn fresh_rtc(now: Instant) -> Rtc {
    let mut config = RtcConfig::new();
    *config.codec_config() = codecs();
    config
        .clear_extension_map()
        .set_extension(1, Extension::AudioLevel)
        .set_extension(4, Extension::RtpMid)
        // In frame mode str0m stays silent when LiveKit gives a media section to another track whose sequence
        // numbers are lower; and adapting to the network needs the packets as they come.
        .set_rtp_mode(true)
        .set_sctp_max_buffered_amount(SEND_BUFFER_BYTES)
        .set_stats_interval(Some(STATS_INTERVAL))
        .build(now)
}

/// What is offered: Opus with copies (RED) and with lost packets sent again (NACK). And of video, which is ignored but
/// which LiveKit expects a subscriber to negotiate, no more than it takes: each variant would be told in three sections
/// of each description, and make all of them cost more than the sound.
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

    /// What was asked for is not in this crate.
    pub(crate) fn unavailable(what: &str) -> Self {
        Self::invalid_state(format!(
            "{what} is not available in this libwebrtc, which carries sound and data only"
        ))
    }

    fn invalid_sdp(error: impl std::fmt::Display) -> Self {
        Self { error_type: RtcErrorType::InvalidSdp, message: error.to_string() }
    }
}

/// The mid as str0m has it.
fn mid(text: &str) -> Mid {
    Mid::from(text)
}

/// The kind of a media section that carries media.
fn media_kind(kind: sdp::SectionKind) -> Option<MediaKind> {
    match kind {
        sdp::SectionKind::Audio => Some(MediaKind::Audio),
        sdp::SectionKind::Video => Some(MediaKind::Video),
        sdp::SectionKind::Application | sdp::SectionKind::Other => None,
    }
}
