//! The user's audio on its way to recognition: its sources, the decoder of the control channel, voice
//! detection, and the agent that brings audio from the room.
//!
//! ```text
//!   binary frames ─▶ UplinkDecoder ─┐
//!   agent: track, data packets ─────┴▶ AudioSourceSelector ─▶ UtteranceDetector ─▶ SpeechEvent
//! ```
//!
//! Methods that take audio return what the detector made of it; the session hands that to recognition.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    audio::{
        Pcm, SAMPLE_RATE_HZ,
        uplink_decoder::{PcmChunk, UplinkDecoder},
    },
    error::Code,
    limits::Limit,
    livekit::agent::AgentState,
    protocol::{
        DecodeError, Profile, ToClient,
        edge_v1::{
            audio::UplinkFrame,
            from_client::{AudioConfig, Capabilities, MicrophoneStateAck},
            to_client::{MediaReason, MediaSource, MicrophoneData},
        },
    },
    rollout,
    session::{
        SessionConfig, SocketId,
        audio_source_selector::{Admission, AudioSourceSelector},
        audio_watchdog::{self, AudioWatchdog},
        microphone_control::MicrophoneControl,
        out::{Effect, Out, Reason, Soonest, is_due, may_repeat},
    },
    turn::{
        client_vad::{self, ClientVad},
        utterance_detector::{SpeechEvent, UtteranceDetector},
    },
};

/// Audio stopped arriving in the middle of an utterance: it ends after this long.
pub(super) const AUDIO_STALL_TIMEOUT: Duration = Duration::from_millis(1500);

/// The same where the client sends the audio itself and is disconnected: it may come back and send
/// what is missing.
pub(super) const AWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// How soon after its acknowledgement a `mentra` client accepts a microphone message.
pub(super) const MENTRA_SETTLE_TIME: Duration = Duration::from_millis(100);

/// The feature by which clients' own voice detection is trusted (docs/PROTOCOL.md).
const CLIENT_VAD_FEATURE: &str = "client-vad";

/// How much audio may come at once, from a client that was away or sends a recording.
const MAX_AUDIO_AHEAD: Duration = Duration::from_secs(60);

/// How often a client is told that it sends audio too fast.
const AUDIO_NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// How fast audio comes.
pub(super) struct Pace {
    /// When all audio so far would have been spoken, had it come as it is spoken.
    taken_until: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { taken_until: now }
    }

    /// Whether the next samples come no faster than they can be spoken, over some time; then they count.
    pub(super) fn admits(&mut self, samples: &[i16], now: Instant) -> bool {
        let length = Duration::from_secs(1) * samples.len() as u32 / SAMPLE_RATE_HZ;
        let taken_until = self.taken_until.max(now) + length;
        let is_in_time = taken_until <= now + MAX_AUDIO_AHEAD;
        if is_in_time {
            self.taken_until = taken_until;
        }
        is_in_time
    }
}

/// The machine.
pub(super) struct Media {
    selector: AudioSourceSelector,
    microphone: MicrophoneControl,
    /// None while the agent is not, and need not be, in the room.
    agent: Option<AgentState>,
    /// The client publishes its microphone in LiveKit, or said that it may.
    brings_livekit: bool,
    /// The client can send audio on the control channel.
    brings_ws: bool,
    client_vad: ClientVad,
    /// What is said while the client holds its button is an utterance.
    push_to_talk: bool,
    watchdog: AudioWatchdog,
    /// When there was last a sign of a microphone in the room.
    in_room_at: Instant,
    /// None until audio, or its format, comes on the control channel: most sessions never need it.
    uplink: Option<Box<UplinkDecoder>>,
    /// None until the first audio.
    detector: Option<Box<UtteranceDetector>>,
    pace: Pace,
    /// When the client was last told that it sends audio too fast.
    told_ahead_at: Option<Instant>,
}

impl Media {
    pub(super) fn new(now: Instant, push_to_talk: bool) -> Self {
        Self {
            selector: AudioSourceSelector::default(),
            microphone: MicrophoneControl::default(),
            agent: None,
            brings_livekit: false,
            brings_ws: false,
            client_vad: ClientVad::default(),
            push_to_talk,
            watchdog: AudioWatchdog::default(),
            in_room_at: now,
            uplink: None,
            detector: None,
            pace: Pace::new(now),
            told_ahead_at: None,
        }
    }

    /// The source that is listened to.
    pub(super) fn active(&self) -> MediaSource {
        self.selector.active()
    }

    /// Whether the client publishes its microphone in LiveKit.
    pub(super) fn brings_livekit(&self) -> bool {
        self.brings_livekit
    }

    /// Whether answers can be spoken in the room.
    pub(super) fn speaks_in_room(&self) -> bool {
        self.agent == Some(AgentState::Joined) && self.brings_livekit
    }

    // --- Attaching ----------------------------------------------------------------------------

    /// The last frame of the client's audio that arrived; none where the client does not resume.
    pub(super) fn last_audio_seq(&self) -> Option<u32> {
        self.uplink.as_ref().and_then(|uplink| uplink.last_seq())
    }

    /// A client attached, before it is acknowledged. One that resumes may go on in the middle of a word;
    /// any other is another microphone.
    pub(super) fn attaching(&mut self, resumes: bool, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if resumes {
            self.selector.resumed(out.now);
            Vec::new()
        } else if self.selector.gone(MediaSource::Ws) {
            self.reset_detector(out)
        } else {
            Vec::new()
        }
    }

    /// A client attached and was acknowledged.
    pub(super) fn attached(&mut self, capabilities: &Capabilities, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        let percent = out.config().client_vad_percent;
        let trusted = capabilities.vad && rollout::includes(CLIENT_VAD_FEATURE, &out.info().user, percent);
        let mut events = Vec::new();
        if let Some(step) = self.client_vad.attached(trusted) {
            if let Some(detector) = &mut self.detector {
                detector.follow(trusted);
            }
            events = self.client_vad_steps(vec![step], out);
        }
        match out.profile() {
            Profile::EdgeV1 => self.ask_microphone(out),
            Profile::Mentra => self.ask_microphone_soon(out.now),
        }
        events
    }

    /// The media that the client will use.
    pub(super) fn capabilities(&mut self, capabilities: &Capabilities, out: &mut Out<'_>) {
        let has = |wanted: &str| capabilities.media.iter().any(|media| media == wanted);
        self.brings_livekit = false;
        self.brings_ws = has("ws");
        if has("livekit") {
            self.join_room(out);
        }
        self.listen_to_room(out);
    }

    /// Other participants are transcribed: the agent has to be there, wherever the user's own audio comes from.
    pub(super) fn listen_to_room(&mut self, out: &mut Out<'_>) {
        if out.config().livekit && out.options().hears_others() {
            self.in_room_at = out.now;
            out.push(Effect::JoinRoom);
        }
    }

    /// Another participant is heard.
    pub(super) fn participant_in_room(&mut self, now: Instant) {
        self.in_room_at = now;
    }

    /// The client's numbering of its audio goes on after `sent`, or starts anew. Returns what had waited
    /// for frames that will not come any more.
    pub(super) fn uplink_attached(&mut self, sent: Option<u32>, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if self.uplink.is_none() && sent.is_none() {
            return Vec::new();
        }
        let waited = self.uplink.get_or_insert_default().attached(sent, out.now);
        self.chunks(waited, out)
    }

    // --- Audio --------------------------------------------------------------------------------

    /// How the client's binary frames are packed from now on.
    pub(super) fn configure_uplink(&mut self, format: AudioConfig) -> Result<(), DecodeError> {
        self.uplink.get_or_insert_default().configure(format)
    }

    /// A binary frame with a header.
    pub(super) fn uplink_frame(
        &mut self,
        frame: UplinkFrame,
        out: &mut Out<'_>,
    ) -> Result<Vec<SpeechEvent>, DecodeError> {
        let chunks = self.uplink.get_or_insert_default().take(frame, out.now)?;
        Ok(self.chunks(chunks, out))
    }

    /// A binary frame without a header.
    pub(super) fn uplink_pcm(
        &mut self,
        payload: &Bytes,
        out: &mut Out<'_>,
    ) -> Result<Vec<SpeechEvent>, DecodeError> {
        let samples = self.uplink.get_or_insert_default().take_bare(payload)?;
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.audio(MediaSource::Ws, &samples.into(), out))
    }

    fn chunks(&mut self, chunks: Vec<PcmChunk>, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        for PcmChunk { pre_roll, samples } in chunks {
            let samples = samples.into();
            events.extend(if pre_roll {
                self.pre_roll(&samples, out)
            } else {
                self.audio(MediaSource::Ws, &samples, out)
            });
        }
        events
    }

    /// Audio of a source: 16 kHz mono.
    pub(super) fn audio(
        &mut self,
        source: MediaSource,
        samples: &Pcm,
        out: &mut Out<'_>,
    ) -> Vec<SpeechEvent> {
        if source != MediaSource::Ws {
            self.in_room_at = out.now;
        }
        self.watchdog.heard(out.now);
        if samples.iter().all(|sample| *sample == 0) {
            // A muted or lost track. It ends an utterance like any silence, but it does not keep another
            // source from taking over.
            return if source == self.selector.active() { self.detect(samples, out) } else { Vec::new() };
        }
        let mut events = match self.selector.admit(source, out.now) {
            Admission::Heard => Vec::new(),
            Admission::Switched(reason) => {
                let events =
                    if reason == MediaReason::Failover { self.reset_detector(out) } else { Vec::new() };
                self.tell_media_state(reason, out);
                events
            }
            Admission::Ignored => return Vec::new(),
        };
        self.microphone.observed();
        if self.client_vad.is_speech() && !self.is_open() {
            // The utterance ended for want of audio, while the client still detected speech.
            events.extend(self.with_detector(out, UtteranceDetector::open));
        }
        events.extend(self.detect(samples, out));
        events
    }

    /// Audio that was captured before the client's voice detection opened. It comes on the control
    /// channel, wherever the rest is heard.
    fn pre_roll(&mut self, samples: &Pcm, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        self.watchdog.heard(out.now);
        if self.selector.admit_pre_roll(out.now) { self.detect(samples, out) } else { Vec::new() }
    }

    /// A source will bring nothing more.
    pub(super) fn source_gone(&mut self, source: MediaSource, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if !self.selector.gone(source) {
            return Vec::new();
        }
        let events = self.reset_detector(out);
        self.tell_media_state(MediaReason::Silent, out);
        events
    }

    // --- Detection ----------------------------------------------------------------------------

    /// Whether an utterance is open.
    fn is_open(&self) -> bool {
        self.detector.as_ref().is_some_and(|detector| detector.is_open())
    }

    fn detect(&mut self, samples: &Pcm, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if !self.is_in_time(samples, out) {
            return Vec::new();
        }
        self.with_detector(out, |detector| detector.push(samples))
    }

    /// Whether a client sends audio no faster than it can be spoken, over some time. Voice detection takes up to a
    /// hundredth of the audio's length: a client that sends a file as fast as it can must not delay other sessions.
    fn is_in_time(&mut self, samples: &Pcm, out: &mut Out<'_>) -> bool {
        if self.pace.admits(samples, out.now) {
            return true;
        }
        Limit::Audio.count();
        if may_repeat(&mut self.told_ahead_at, AUDIO_NOTICE_INTERVAL, out.now) {
            out.error(Code::RateLimited, "audio comes faster than it can be spoken: some was dropped", None);
        }
        false
    }

    /// What follows does not continue what came before.
    fn reset_detector(&mut self, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        self.with_detector(out, UtteranceDetector::stall)
    }

    /// Lets the detector do something. There is none where nothing transcribes.
    fn with_detector(
        &mut self,
        out: &Out<'_>,
        act: impl FnOnce(&mut UtteranceDetector) -> Vec<SpeechEvent>,
    ) -> Vec<SpeechEvent> {
        let config = out.config();
        if config.stt.is_err() {
            return Vec::new();
        }
        let (follows_client, push_to_talk) = (self.client_vad.is_trusted(), self.push_to_talk);
        act(self.detector.get_or_insert_with(|| {
            let mut detector = UtteranceDetector::new((config.detectors)(), config.endpointer);
            detector.follow(follows_client);
            detector.push_to_talk(push_to_talk);
            Box::new(detector)
        }))
    }

    /// When a sample was captured, in milliseconds of the session. It is counted back from now, because
    /// the detector's own count stands still while no audio arrives.
    pub(super) fn session_ms(&self, at_sample: u64, out: &Out<'_>) -> u64 {
        let position = self.detector.as_ref().map_or(at_sample, |detector| detector.position());
        let ago_ms = position.saturating_sub(at_sample) * 1000 / u64::from(SAMPLE_RATE_HZ);
        out.elapsed_ms().saturating_sub(ago_ms)
    }

    /// The pause ends the utterance after so much silence.
    pub(super) fn end_after(&mut self, silence: Duration) -> Vec<SpeechEvent> {
        self.detector.as_mut().map(|detector| detector.end_after(silence)).unwrap_or_default()
    }

    /// Push to talk from now on, or no longer.
    pub(super) fn set_push_to_talk(&mut self, on: bool) -> Vec<SpeechEvent> {
        self.push_to_talk = on;
        self.detector.as_mut().map(|detector| detector.push_to_talk(on)).unwrap_or_default()
    }

    /// The client's own voice detection opened or closed.
    pub(super) fn client_vad(&mut self, speech: bool, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if speech {
            self.microphone_in_room(out);
        }
        let in_room = matches!(self.selector.active(), MediaSource::Livekit | MediaSource::Data);
        let steps = self.client_vad.update(speech, in_room, out.now);
        self.client_vad_steps(steps, out)
    }

    fn client_vad_steps(&mut self, steps: Vec<client_vad::Step>, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        for step in steps {
            match step {
                client_vad::Step::Open => events.extend(self.with_detector(out, UtteranceDetector::open)),
                client_vad::Step::Close if self.is_open() => {
                    events.extend(self.with_detector(out, UtteranceDetector::close));
                }
                client_vad::Step::Close => {}
                client_vad::Step::Subscribe(subscribe) => out.push(Effect::SubscribeMicrophone(subscribe)),
            }
        }
        events
    }

    // --- The microphone -----------------------------------------------------------------------

    /// Tells the client what is wanted of its microphone.
    pub(super) fn ask_microphone(&mut self, out: &mut Out<'_>) {
        if out.socket().is_none() {
            return;
        }
        let on = self.microphone.on();
        out.tell(ToClient::MicrophoneStateChange {
            is_microphone_enabled: on,
            required_data: if on { vec![MicrophoneData::Pcm] } else { Vec::new() },
            bypass_vad: !self.client_vad.is_trusted(),
            session_id: out.info().id,
            timestamp: out.timestamp(),
            version: self.microphone.version(),
        });
        self.microphone.asked(out.now);
    }

    /// The same once a `mentra` client, which was just acknowledged, accepts it.
    pub(super) fn ask_microphone_soon(&mut self, now: Instant) {
        self.microphone.ask_at(now + MENTRA_SETTLE_TIME);
    }

    pub(super) fn microphone_acknowledged(&mut self, ack: &MicrophoneStateAck) {
        self.microphone.acknowledged(ack.version);
    }

    /// The glasses behind a phone came or went.
    pub(super) fn glasses(&mut self, status: &str, out: &mut Out<'_>) {
        let ask = match status {
            "CONNECTED" | "RECONNECTED" => self.microphone.glasses(true, out.now),
            "DISCONNECTED" => self.microphone.glasses(false, out.now),
            _ => false,
        };
        if ask {
            self.ask_microphone(out);
        }
    }

    // --- The room -----------------------------------------------------------------------------

    /// The client brings its microphone over LiveKit: the agent has to be there.
    pub(super) fn join_room(&mut self, out: &mut Out<'_>) {
        if out.config().livekit {
            self.brings_livekit = true;
            self.in_room_at = out.now;
            out.push(Effect::JoinRoom);
        }
    }

    /// Sends the client what it needs to join the room, with a fresh token.
    pub(super) fn send_livekit_info(out: &mut Out<'_>, reply_to: Option<String>) {
        match out.config().authenticator.livekit_info(&out.info().user, &out.info().room, out.bound()) {
            Ok(info) => out.tell(ToClient::LivekitInfo(info)),
            Err(why) => out.error(why.code(), why.to_string(), reply_to),
        }
    }

    /// The client asks for a LiveKit token.
    pub(super) fn livekit_init(&mut self, id: Option<String>, out: &mut Out<'_>) {
        if out.config().livekit {
            Self::send_livekit_info(out, id);
            self.join_room(out);
        } else {
            let message = "this gateway has no LiveKit; send audio on this channel";
            out.error(Code::MediaUnavailable, message, id);
        }
    }

    /// The agent's state in the room changed.
    pub(super) fn agent_state(&mut self, state: AgentState, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if self.agent == Some(state) {
            return Vec::new();
        }
        let events = match state {
            AgentState::Joined => {
                self.selector.room_is_back();
                Vec::new()
            }
            AgentState::Unreachable | AgentState::Displaced => self.fall_back(out),
        };
        self.agent = Some(state);
        self.tell_media_state(self.media_reason(out), out);
        events
    }

    /// The room brings nothing: from now on audio is expected on the control channel.
    fn fall_back(&mut self, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        if self.brings_ws && self.selector.fall_back() { self.reset_detector(out) } else { Vec::new() }
    }

    /// A microphone is, or is about to be, in the room. An agent whose identity was taken by another
    /// participant stays away.
    pub(super) fn microphone_in_room(&mut self, out: &mut Out<'_>) {
        self.in_room_at = out.now;
        let absent = match self.agent {
            None | Some(AgentState::Unreachable) => true,
            Some(AgentState::Joined | AgentState::Displaced) => false,
        };
        if (self.brings_livekit || out.options().hears_others()) && absent {
            out.push(Effect::JoinRoom);
            out.push(Effect::RetryJoin);
        }
    }

    /// When the agent leaves the room because there is no microphone in it.
    fn leave_at(&self, config: &SessionConfig) -> Option<Instant> {
        match self.agent {
            Some(AgentState::Joined | AgentState::Unreachable) => Some(self.in_room_at + config.agent_idle),
            Some(AgentState::Displaced) | None => None,
        }
    }

    fn leave(&mut self, out: &mut Out<'_>) {
        self.agent = None;
        out.push(Effect::LeaveRoom);
        self.tell_media_state(MediaReason::AgentIdle, out);
        tracing::info!(session.id = %out.info().id, "no microphone in the room, agent leaves");
    }

    /// The user was removed from the room: the agent leaves, and does not come back by itself.
    pub(super) fn leave_removed(&mut self, out: &mut Out<'_>) {
        self.agent = None;
        self.brings_livekit = false;
        out.push(Effect::LeaveRoom);
    }

    /// Whether audio should be coming from the room.
    fn expects_audio(&self, out: &Out<'_>) -> bool {
        out.socket().is_some()
            && self.microphone.on()
            && (self.client_vad.is_speech() || !self.client_vad.is_trusted())
            && self.speaks_in_room()
    }

    /// Why the media are as they are, when nothing has just changed.
    pub(super) fn media_reason(&self, out: &Out<'_>) -> MediaReason {
        match self.agent {
            _ if !out.config().livekit => MediaReason::LivekitOff,
            Some(AgentState::Unreachable) => MediaReason::LivekitUnreachable,
            Some(AgentState::Displaced) => MediaReason::DuplicateIdentity,
            Some(AgentState::Joined) => MediaReason::AgentJoined,
            None => MediaReason::Silent,
        }
    }

    pub(super) fn tell_media_state(&self, reason: MediaReason, out: &mut Out<'_>) {
        out.tell(ToClient::MediaState {
            active: self.selector.active(),
            reason,
            last_audio_age_ms: self.selector.age(out.now).map(|age| age.as_millis() as u64),
        });
    }

    // --- Time ---------------------------------------------------------------------------------

    pub(super) fn deadline(&self, socket: Option<SocketId>, config: &SessionConfig) -> Soonest {
        Soonest::default()
            .or(socket.and(self.microphone.deadline()), Reason::Microphone)
            .or(self.uplink.as_deref().and_then(UplinkDecoder::deadline), Reason::Reorder)
            .or(self.client_vad.deadline(), Reason::ClientVad)
            .or(self.watchdog.deadline(), Reason::AudioWatchdog)
            .or(self.leave_at(config), Reason::AgentIdle)
            .or(self.stall_at(socket), Reason::AudioStall)
    }

    /// What time brings.
    pub(super) fn tick(&mut self, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        let now = out.now;
        let mut events = Vec::new();
        if is_due(self.uplink.as_deref().and_then(UplinkDecoder::deadline), now) {
            let waited = self.uplink.as_mut().map(|uplink| uplink.due(now)).unwrap_or_default();
            events.extend(self.chunks(waited, out));
        }
        if out.socket().is_some() && is_due(self.microphone.deadline(), now) {
            self.microphone.tick(now);
            self.ask_microphone(out);
        }
        if is_due(self.stall_at(out.socket()), now) {
            events.extend(if self.is_away(out.socket()) {
                self.source_gone(MediaSource::Ws, out)
            } else {
                self.reset_detector(out)
            });
            self.selector.stalled();
        }
        let steps = self.client_vad.due(now);
        events.extend(self.client_vad_steps(steps, out));
        events.extend(self.watch_audio(out));
        if is_due(self.leave_at(out.config()), now) {
            self.leave(out);
        }
        events
    }

    fn watch_audio(&mut self, out: &mut Out<'_>) -> Vec<SpeechEvent> {
        self.watchdog.expect(self.expects_audio(out), out.now);
        match (self.watchdog.due(out.now), out.socket()) {
            (Some(audio_watchdog::Step::Ask), Some(_)) => {
                tracing::info!(session.id = %out.info().id, "no audio from the room, client asked to join again");
                Self::send_livekit_info(out, None);
                Vec::new()
            }
            (Some(audio_watchdog::Step::FallBack), Some(_)) => {
                tracing::warn!(session.id = %out.info().id, "no audio from the room");
                let events = self.fall_back(out);
                self.tell_media_state(MediaReason::LivekitSilent, out);
                events
            }
            (Some(_), None) | (None, _) => Vec::new(),
        }
    }

    /// When the open utterance ends because no audio arrives any more.
    fn stall_at(&self, socket: Option<SocketId>) -> Option<Instant> {
        let timeout = if self.is_away(socket) { AWAY_TIMEOUT } else { AUDIO_STALL_TIMEOUT };
        // While a button is held its client says when the turn is over.
        let is_held = self.push_to_talk && self.client_vad.is_speech() && !self.is_away(socket);
        self.selector.heard_at().filter(|_| self.is_open() && !is_held).map(|at| at + timeout)
    }

    /// Whether the client that sends the audio itself is disconnected.
    fn is_away(&self, socket: Option<SocketId>) -> bool {
        socket.is_none() && self.selector.active() == MediaSource::Ws
    }
}
