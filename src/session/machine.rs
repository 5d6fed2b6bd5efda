//! The session's decisions: who is attached, what is heard, whose turn it is, what is told.
//!
//! ```text
//!                 attach                        socket lost, or silent for 30 s
//!   detached ───────────────▶ attached ────────────────────────────────────┐
//!      ▲  │                      │  ▲ attach (the older socket is dismissed) │
//!      │  │ grace is over        │  └──┘                                     │
//!      │  ▼                      ▼ goodbye, logout, shutdown                 │
//!      │ ended ◀─────────────────┘                                           │
//!      └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Pure: inputs and the time go in, effects come out, in order. It owns smaller machines, one idea
//! each: [`Outbox`], [`Sources`], [`Microphone`], [`ClientVad`], [`GapWatch`], [`Turns`] and the
//! [`Answer`] that is being given.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytestring::ByteString;

use super::{
    answer::{self, Answer, Outcome, Voice, Waterfall},
    gap::{self, GapWatch},
    microphone::Microphone,
    outbox::Outbox,
    sources::{Admission, Sources},
    subscriptions::Subscriptions,
    takeovers::Takeovers,
    vad::{self, ClientVad},
};
use crate::{
    ai::{Line, Pcm, Prompt, Role},
    clock,
    error::{Close, Code},
    history,
    ids::{DeviceId, RoomName, SessionId, TurnId, UserId, UtteranceId},
    protocol::{
        DecodeError, EDGE_V1, FromClient, Profile, Said, ToClient,
        audio::Codec,
        from_client::{ConnectionInit, LivekitMode},
        mentra,
        to_client::{
            AudioFormat, ConnectionAck, Delivery, EndReason, Finish, LivekitInfo, MediaOffer, MediaReason,
            MediaSource, MicrophoneData, PartState, StreamData, UserSession,
        },
    },
    rollout,
    speech::{
        self,
        turn::{self, Turns},
    },
};

/// Sockets of one session, told apart by when they came: an older number is stale.
pub type SocketId = u64;

/// Frames in a row that could not be read before the channel is closed.
const MALFORMED_LIMIT: u32 = 10;

/// Sound stopped arriving in the middle of an utterance: it ends after this long.
const STALL: Duration = Duration::from_millis(1500);

/// Its client is away, and brought the sound itself: it may come back with what is missing.
const AWAY: Duration = Duration::from_secs(5);

/// The feature by which clients' own voice detection is trusted (docs/PROTOCOL.md).
const CLIENT_VAD: &str = "client-vad";

/// What a model gets to read of the conversation so far, in lines and in bytes.
const DIALOGUE_LINES: usize = 24;
const DIALOGUE_BYTES: usize = 6_000;

/// Rooms a client may watch at once.
const MOST_WATCHED: usize = 16;

/// How soon after its acknowledgement a `mentra` client can take the wish for its microphone.
const SETTLE: Duration = Duration::from_millis(100);

/// How often a client may ask for a token.
const TOKEN_EVERY: Duration = Duration::from_secs(1);

/// The longest line a client may type.
const LONGEST_TYPED: usize = 4_000;

/// What is the same for every session of this gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a session waits for its client to come back.
    pub grace: Duration,
    /// How often an attached client is pinged.
    pub heartbeat: Duration,
    /// After how much silence an attached client counts as gone.
    pub dead_after: Duration,
    /// The language that is transcribed, `en-US`.
    pub language: String,
    /// Standing instructions of the thinker.
    pub system_prompt: String,
    /// The transcriber's name; or why there is none.
    pub transcriber: Result<&'static str, String>,
    /// How answers are spoken; none where they are text only.
    pub voice: Option<Voice>,
    /// Whether this gateway has a LiveKit.
    pub livekit: bool,
    /// Of how many users in a hundred the clients' own voice detection is trusted.
    pub client_vad_percent: u8,
    /// How long our participant stays in a room without a microphone.
    pub agent_idle: Duration,
}

/// What is true of one session from its beginning.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// Its LiveKit room.
    pub room: RoomName,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// How often a gateway took it up: keeps the numbers of turns and utterances apart.
    pub incarnation: u32,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A socket wants the session; it has proved that it may.
    Attach(Box<Attach>),
    /// The token that a socket was attached with ends at this time.
    TokenEnds(SocketId, Instant),
    /// A socket closed, by whichever side.
    SocketLost(SocketId),
    /// A socket showed a sign of life.
    Alive(SocketId),
    /// A client said something.
    Said(SocketId, Said),
    /// A client wants to know who is in a room, and showed that it may; the id is its message's.
    MayWatch(SocketId, RoomName, Option<String>),
    /// A client of the `mentra` profile says again that it is there; with a fresh token, where it uses
    /// one.
    Greeted(SocketId, Option<LivekitInfo>),
    /// A client was given a LiveKit token over REST.
    LivekitToken,
    /// A client sent something that could not be read.
    Malformed(SocketId, DecodeError),
    /// Sound came from a source: 16 kHz mono.
    Sound(MediaSource, Pcm),
    /// Sound that was captured before the client's voice detection opened; it comes on the control
    /// channel, wherever the rest is heard.
    PreRoll(Pcm),
    /// A source will bring nothing more.
    SourceGone(MediaSource),
    /// News of our participant in the room.
    Agent(AgentNews),
    /// The user's microphone is in the room, as LiveKit says.
    MicrophonePublished,
    /// The gate opened at this time of the session, in milliseconds.
    SpeechStarted {
        /// When the first sample was heard.
        at_ms: u64,
    },
    /// The gate closed.
    SpeechEnded {
        /// Why.
        reason: speech::EndReason,
        /// Where the utterance ends, in milliseconds of the session.
        at_ms: u64,
    },
    /// The transcriber has a better idea of an utterance.
    Interim(UtteranceId, String),
    /// The transcriber's last word about an utterance.
    Final(UtteranceId, String),
    /// The transcriber failed at an utterance.
    Unheard(UtteranceId, String),
    /// The thinker gave a piece of the answer of this generation.
    Thought(u32, String),
    /// The thinker has finished; or failed.
    ThoughtOver(u32, Result<(), String>),
    /// The speaker gave samples.
    Spoken(u32, Vec<i16>),
    /// The speaker is through with its sentence; or failed.
    SentenceSpoken(u32, Result<(), String>),
    /// A turn is on disk.
    Saved(TurnId, u64),
    /// What the user and the gateway said before this session.
    Remembered(Vec<Line>),
    /// The session is to end.
    End(EndReason),
    /// Nothing; the deadline is due.
    Tick,
}

/// A socket that wants the session.
#[derive(Debug)]
pub struct Attach {
    /// The socket.
    pub socket: SocketId,
    /// What it speaks.
    pub profile: Profile,
    /// What the client said of itself.
    pub init: ConnectionInit,
    /// The client showed the secret of this session.
    pub may_resume: bool,
    /// The secret for the next time.
    pub resume_token: String,
    /// A fresh publish token, where the client can use one.
    pub livekit: Option<LivekitInfo>,
    /// The last frame of its sound that arrived, where there is one.
    pub last_audio_seq: Option<u32>,
}

/// News of the gateway's own participant in the session's room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentNews {
    /// It is in the room.
    Joined,
    /// It is not, and keeps trying.
    Unreachable,
    /// Another participant took its identity; it does not come back.
    Displaced,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Send a text frame.
    Send(SocketId, ByteString),
    /// Send a binary frame.
    SendBinary(SocketId, Bytes),
    /// Send a WebSocket ping.
    Ping(SocketId),
    /// Close a socket, after what was sent to it.
    Close(SocketId, Close, &'static str),
    /// Sign a token for the client and send it as `livekit_info`.
    SendLivekitInfo(SocketId, LivekitMode),
    /// The sound belongs to the active source: listen to it.
    Listen(Pcm),
    /// Another source is heard from now on: forget what is left of the last one.
    ResetListener,
    /// The client's own detection decides what is speech, or no longer.
    FollowClient(bool),
    /// The client's own VAD opened.
    OpenGate,
    /// End the open utterance for this reason.
    CloseGate(speech::EndReason),
    /// Begin to transcribe.
    Transcribe(UtteranceId),
    /// The utterance is complete.
    EndUtterance(UtteranceId),
    /// Begin to think.
    Think(u32, Prompt),
    /// The model need not go on.
    StopThinking,
    /// Speak a sentence.
    Speak(u32, String),
    /// Say samples in the room.
    SayInRoom(Vec<i16>),
    /// Let the client fetch samples under a URL and play them.
    PlayClip {
        /// Who.
        socket: SocketId,
        /// What the client answers by.
        request_id: String,
        /// The samples.
        samples: Vec<i16>,
        /// In Hz.
        rate_hz: u32,
    },
    /// Nothing more of the answer will be fetched.
    DropClips,
    /// Pass on to the consumers what the client said.
    Forward(FromClient),
    /// Let the consumers know what was transcribed.
    ForwardStream(ToClient),
    /// Two devices fight for the session: refuse newcomers until then.
    RefuseUntil(Instant),
    /// Speak nothing more of this answer, and let nothing more of it be heard in the room.
    StopSpeaking,
    /// Keep a line; tell the client when the turn, if there is one, is on disk.
    Remember(history::Line, Option<TurnId>),
    /// Be in the room.
    JoinRoom,
    /// Be there no longer.
    LeaveRoom,
    /// Hear the user's microphone in the room, or no longer.
    HearRoom(bool),
    /// Where our participant waits before it tries again to be in the room: wait no longer.
    HurryAgent,
    /// Tell the client who is in a room, from now on.
    WatchRoom(RoomName),
    /// No longer.
    UnwatchRoom(RoomName),
    /// The session is over: let go of everything.
    Ended(EndReason),
}

/// Who is attached.
#[derive(Debug)]
enum Phase {
    Attached(Attached),
    Detached { until: Instant },
    Ended,
}

/// The socket that speaks for the client.
#[derive(Debug)]
struct Attached {
    socket: SocketId,
    /// The last sign of life.
    alive_at: Instant,
    /// When to ping next.
    ping_at: Instant,
    /// Frames in a row that could not be read.
    malformed: u32,
    /// When the client last asked for a token.
    token_asked_at: Option<Instant>,
    /// When its token ends.
    token_ends_at: Option<Instant>,
}

/// An utterance whose last word is still to come.
#[derive(Debug)]
struct Hearing {
    started_ms: u64,
    /// How far it goes; grows while it is open.
    ended_ms: u64,
    /// The last interim that was told.
    told: String,
    /// Which engine of the client's own hears it; none where ours does.
    provider: Option<String>,
}

impl Hearing {
    fn new(at_ms: u64) -> Self {
        Self { started_ms: at_ms, ended_ms: at_ms, told: String::new(), provider: None }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    facts: Facts,
    settings: Arc<Settings>,
    /// When the session began, by the clock that `now` comes from.
    began: Instant,
    phase: Phase,
    /// What the client speaks; that of the last one while there is none.
    profile: Profile,
    takeovers: Takeovers,
    /// Counts attachments.
    epoch: u64,
    outbox: Outbox,
    sources: Sources,
    microphone: Microphone,
    agent: Option<AgentNews>,
    /// The client brings its microphone over LiveKit, or said that it may.
    brings_livekit: bool,
    /// The client can send its sound on the control channel.
    brings_ws: bool,
    vad: ClientVad,
    gap: GapWatch,
    /// When there was last a sign of a microphone in the room.
    in_room_at: Instant,
    /// The streams the client wants.
    subscriptions: Subscriptions,
    /// The rooms whose participants the client wants to know.
    watched: BTreeSet<RoomName>,
    /// The utterance the gate is open for.
    open: Option<UtteranceId>,
    last_utterance: UtteranceId,
    hearing: BTreeMap<UtteranceId, Hearing>,
    /// When the last utterance ended, and the same in milliseconds of the session.
    speech_end: Option<(Instant, u64)>,
    turns: Turns,
    answer: Option<Box<Answer>>,
    /// What is being answered, until it is known what was heard of the answer.
    asked: Option<String>,
    dialogue: VecDeque<Line>,
}

impl Session {
    /// A session that nobody is attached to yet; it waits for its grace. `unix_ms` is the calendar's
    /// word for `now`.
    pub fn new(facts: Facts, settings: Arc<Settings>, now: Instant, unix_ms: u64) -> Self {
        // A gateway that was killed may have told its clients numbers that are in no store: each
        // incarnation counts from a place of its own.
        let first = u64::from(facts.incarnation) << 32;
        Self {
            began: now - Duration::from_millis(unix_ms.saturating_sub(facts.started_ms)),
            phase: Phase::Detached { until: now + settings.grace },
            profile: Profile::default(),
            takeovers: Takeovers::default(),
            epoch: first,
            outbox: Outbox::starting_after(first),
            sources: Sources::default(),
            microphone: Microphone::default(),
            agent: None,
            brings_livekit: false,
            brings_ws: false,
            vad: ClientVad::default(),
            gap: GapWatch::default(),
            in_room_at: now,
            subscriptions: Subscriptions::default(),
            watched: BTreeSet::new(),
            open: None,
            last_utterance: UtteranceId(first),
            hearing: BTreeMap::new(),
            speech_end: None,
            turns: Turns::new(TurnId(first), facts.incarnation << 20),
            answer: None,
            asked: None,
            dialogue: VecDeque::new(),
            facts,
            settings,
        }
    }

    /// What is true of it from its beginning.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The socket that speaks for the client, if one does.
    pub fn socket(&self) -> Option<SocketId> {
        match &self.phase {
            Phase::Attached(attached) => Some(attached.socket),
            Phase::Detached { .. } | Phase::Ended => None,
        }
    }

    /// What the client speaks.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Milliseconds since the session began.
    pub fn elapsed_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_millis() as u64
    }

    /// When [`Input::Tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Attached(attached) => {
                let dead_at = attached.alive_at + self.settings.dead_after;
                [Some(attached.ping_at), Some(dead_at), attached.token_ends_at].into_iter().flatten().min()
            }
            Phase::Detached { until } => Some(*until),
            Phase::Ended => return None,
        };
        let microphone = self.socket().and(self.microphone.deadline());
        let answer = self.answer.as_deref().and_then(Answer::deadline);
        let subscriptions = self.subscriptions.deadline();
        let media = [self.vad.deadline(), self.gap.deadline(), self.leave_at(), self.stall_at()];
        [phase, microphone, answer, subscriptions].into_iter().chain(media).flatten().min()
    }

    /// Takes one input, and says what is to be done, in order.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(self.phase, Phase::Ended) {
            return effects;
        }
        match input {
            Input::Attach(attach) => self.attach(*attach, now, &mut effects),
            Input::TokenEnds(socket, at) => self.token_ends(socket, at),
            Input::SocketLost(socket) => self.socket_lost(socket, now),
            Input::Alive(socket) => self.alive(socket, now),
            Input::Said(socket, said) => {
                if self.socket() == Some(socket) {
                    self.said(socket, said, now, &mut effects);
                }
            }
            Input::MayWatch(socket, room, id) => {
                if self.socket() == Some(socket) {
                    self.alive(socket, now);
                    self.watch(room, id, now, &mut effects);
                }
            }
            Input::Greeted(socket, livekit) => {
                if self.socket() == Some(socket) {
                    self.alive(socket, now);
                    let ack = self.connection_ack(false, String::new(), livekit, None, now);
                    self.tell(ToClient::ConnectionAck(Box::new(ack)), now, &mut effects);
                    self.microphone.ask_at(now + SETTLE);
                }
            }
            Input::LivekitToken => self.join_room(now, &mut effects),
            Input::Malformed(socket, error) => self.malformed(socket, &error, now, &mut effects),
            Input::Sound(source, samples) => self.sound(source, samples, now, &mut effects),
            Input::PreRoll(samples) => self.pre_roll(samples, now, &mut effects),
            Input::SourceGone(source) => self.source_gone(source, now, &mut effects),
            Input::Agent(news) => self.agent_news(news, now, &mut effects),
            Input::MicrophonePublished => self.microphone_in_room(now, &mut effects),
            Input::SpeechStarted { at_ms } => self.speech_started(at_ms, now, &mut effects),
            Input::SpeechEnded { reason, at_ms } => self.speech_ended(reason, at_ms, now, &mut effects),
            Input::Interim(utterance, text) => self.interim(utterance, text, now, &mut effects),
            Input::Final(utterance, text) => self.transcribed(utterance, text, now, &mut effects),
            Input::Unheard(utterance, why) => self.unheard(utterance, why, now, &mut effects),
            Input::Thought(generation, delta) => {
                self.answering(generation, now, &mut effects, |answer| answer.thought(&delta, now));
            }
            Input::ThoughtOver(generation, result) => {
                self.thought_over(generation, result, now, &mut effects);
            }
            Input::Spoken(generation, samples) => {
                self.answering(generation, now, &mut effects, |answer| answer.spoken(&samples, now));
            }
            Input::SentenceSpoken(generation, result) => {
                self.answering(generation, now, &mut effects, |answer| {
                    answer.sentence_spoken(result.is_ok(), now)
                });
            }
            Input::Saved(turn_id, history_seq) => {
                self.tell(ToClient::TurnSaved { turn_id, history_seq }, now, &mut effects);
            }
            Input::Remembered(lines) => {
                for line in lines.into_iter().rev() {
                    self.dialogue.push_front(line);
                }
                self.shorten_dialogue();
            }
            Input::End(reason) => self.end(reason, now, &mut effects),
            Input::Tick => {}
        }
        self.timers(now, &mut effects);
        effects
    }

    // --- Attachment ---------------------------------------------------------------------------

    fn attach(&mut self, attach: Attach, now: Instant, effects: &mut Vec<Effect>) {
        let Attach { socket, profile, init, may_resume, resume_token, livekit, last_audio_seq } = attach;
        if let Some(older) = self.socket() {
            if older > socket {
                effects.push(closing(profile, socket, Close::Superseded, "a newer socket has the session"));
                return;
            }
            if !may_resume && let Err(until) = self.takeovers.ask(now) {
                self.refuse(socket, profile, now, effects);
                effects.push(Effect::RefuseUntil(until));
                return;
            }
            self.farewell(older, EndReason::Superseded, Close::Superseded, effects);
        }
        if profile != self.profile {
            // What one of them was given, the other one cannot go on with.
            self.cut_answer(now, effects);
            self.outbox.forget();
            self.profile = profile;
        }
        self.epoch += 1;
        self.phase = Phase::Attached(Attached {
            socket,
            alive_at: now,
            ping_at: now + self.settings.heartbeat,
            malformed: 0,
            token_asked_at: None,
            token_ends_at: None,
        });
        self.subscriptions.attached(init.subscriptions, now);

        let resume = init.resume.filter(|resume| may_resume && resume.session_id == self.facts.id);
        if resume.is_some() {
            self.sources.resumed(now);
        } else if self.sources.gone(MediaSource::Ws) {
            // Another microphone, as far as we know.
            effects.push(Effect::ResetListener);
        }
        let missed = resume.and_then(|resume| self.outbox.after(resume.last_server_seq, now));
        let resumed = missed.is_some();
        let ack = self.connection_ack(resumed, resume_token, livekit, last_audio_seq, now);
        self.tell(ToClient::ConnectionAck(Box::new(ack)), now, effects);
        for frame in missed.into_iter().flatten() {
            effects.push(Effect::Send(socket, frame));
        }
        if !resumed {
            self.tell_media_state(self.media_reason(), now, effects);
        }
        if let Err(why) = &self.settings.transcriber {
            let message = Some(why.clone());
            self.tell(
                ToClient::SttState { state: PartState::Failed, provider: "none".into(), message },
                now,
                effects,
            );
        }
        let percent = self.settings.client_vad_percent;
        let trusted = init.capabilities.vad && rollout::includes(CLIENT_VAD, &self.facts.user, percent);
        if let Some(step) = self.vad.attached(trusted) {
            effects.push(Effect::FollowClient(trusted));
            self.vad_steps(vec![step], effects);
        }
        match profile {
            Profile::EdgeV1 => self.ask_microphone(now, effects),
            Profile::Mentra => self.microphone.ask_at(now + SETTLE),
        }
        effects.extend(self.watched.iter().cloned().map(Effect::WatchRoom));
        self.brings_livekit = false;
        self.brings_ws = init.capabilities.media.iter().any(|media| media == "ws");
        if init.capabilities.media.iter().any(|media| media == "livekit") {
            self.join_room(now, effects);
        }
        if let Some(generation) = self.answer.as_deref().map(Answer::generation) {
            self.answering(generation, now, effects, |answer| answer.resume(now));
        }
        let device = init.device_id.unwrap_or_else(DeviceId::unnamed);
        tracing::info!(
            session.id = %self.facts.id, device.id = %device, epoch = self.epoch, resumed, "client attached"
        );
    }

    /// The client brings its microphone over LiveKit: we are there to hear it.
    fn join_room(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.settings.livekit {
            self.brings_livekit = true;
            self.in_room_at = now;
            effects.push(Effect::JoinRoom);
        }
    }

    /// Turns away one of the devices that fight for the session.
    fn refuse(&self, socket: SocketId, profile: Profile, now: Instant, effects: &mut Vec<Effect>) {
        let words = "too many devices want this session";
        let message = ToClient::ConnectionError {
            code: Code::RateLimited,
            message: words.into(),
            timestamp: self.timestamp(now),
            retryable: true,
            retry_after_ms: None,
        };
        effects.extend(self.encode(profile, &message, None, now).map(|text| Effect::Send(socket, text)));
        effects.push(closing(profile, socket, Close::Overloaded, words));
        tracing::warn!(session.id = %self.facts.id, "devices fight for the session, one is refused");
    }

    fn connection_ack(
        &self,
        resumed: bool,
        resume_token: String,
        livekit: Option<LivekitInfo>,
        last_audio_seq: Option<u32>,
        now: Instant,
    ) -> ConnectionAck {
        let mut offered = vec![MediaSource::Ws];
        if self.settings.livekit {
            offered.insert(0, MediaSource::Livekit);
        }
        ConnectionAck {
            session_id: self.facts.id,
            timestamp: self.timestamp(now),
            livekit,
            user_session: self.user_session(),
            protocol: EDGE_V1.into(),
            epoch: self.epoch,
            resumed,
            resume_token,
            grace_ms: self.settings.grace.as_millis() as u64,
            heartbeat_ms: self.settings.heartbeat.as_millis() as u64,
            media: MediaOffer { active: self.sources.active(), offered },
            audio: AudioFormat {
                codec: Codec::Pcm16le,
                sample_rate: crate::ai::LISTEN_RATE_HZ,
                frame_ms: 20,
                last_seq: last_audio_seq,
            },
        }
    }

    /// The session as MentraOS clients know it.
    fn user_session(&self) -> UserSession {
        UserSession {
            user_id: self.facts.user.clone(),
            start_time: clock::timestamp(self.facts.started_ms),
            active_app_sessions: Vec::new(),
            loading_apps: Vec::new(),
            app_subscriptions: serde_json::Map::new(),
            requires_audio: true,
            minimum_transcription_languages: vec![self.settings.language.clone()],
            is_transcribing: self.settings.transcriber.is_ok(),
        }
    }

    fn token_ends(&mut self, socket: SocketId, at: Instant) {
        if let Phase::Attached(attached) = &mut self.phase
            && attached.socket == socket
        {
            attached.token_ends_at = Some(at);
        }
    }

    fn socket_lost(&mut self, socket: SocketId, now: Instant) {
        if self.socket() != Some(socket) {
            // The close of a socket that was replaced arrives late: the session has a newer one.
            return;
        }
        self.phase = Phase::Detached { until: now + self.settings.grace };
        if let Some(answer) = &mut self.answer {
            answer.pause(now);
        }
        tracing::info!(session.id = %self.facts.id, "client detached");
    }

    fn alive(&mut self, socket: SocketId, now: Instant) {
        if let Phase::Attached(attached) = &mut self.phase
            && attached.socket == socket
        {
            attached.alive_at = now;
        }
    }

    fn malformed(&mut self, socket: SocketId, error: &DecodeError, now: Instant, effects: &mut Vec<Effect>) {
        let Phase::Attached(attached) = &mut self.phase else {
            return;
        };
        if attached.socket != socket {
            return;
        }
        attached.alive_at = now;
        metrics::counter!(crate::telemetry::MALFORMED_MESSAGES).increment(1);
        if self.profile == Profile::Mentra {
            return;
        }
        let code = match error {
            DecodeError::Json(_) | DecodeError::NoType => {
                attached.malformed += 1;
                Code::MalformedMessage
            }
            DecodeError::Header(_) => Code::MalformedMessage,
            DecodeError::Codec(_) => Code::Unsupported,
        };
        let too_many = attached.malformed >= MALFORMED_LIMIT;
        self.tell(ToClient::error(code, error.to_string(), None), now, effects);
        if too_many {
            effects.push(closing(
                self.profile,
                socket,
                Close::Policy,
                "too many messages that could not be read",
            ));
            self.socket_lost(socket, now);
        }
    }

    fn end(&mut self, reason: EndReason, now: Instant, effects: &mut Vec<Effect>) {
        self.cut_answer(now, effects);
        if let Some(socket) = self.socket() {
            let close = match reason {
                EndReason::Shutdown => Close::Restart,
                EndReason::GraceExpired
                | EndReason::Superseded
                | EndReason::Logout
                | EndReason::Disconnected => Close::Normal,
            };
            self.farewell(socket, reason, close, effects);
        }
        self.phase = Phase::Ended;
        effects.push(Effect::Ended(reason));
        tracing::info!(session.id = %self.facts.id, ?reason, "session ended");
    }

    fn farewell(&self, socket: SocketId, reason: EndReason, close: Close, effects: &mut Vec<Effect>) {
        if self.profile == Profile::EdgeV1 {
            effects.push(Effect::Send(socket, ToClient::SessionEnd { reason }.encode(None).into()));
        }
        let words = match reason {
            EndReason::GraceExpired => "the session expired",
            EndReason::Superseded => "a newer socket has the session",
            EndReason::Logout => "the session has ended",
            EndReason::Disconnected => "an operator disconnected the session",
            EndReason::Shutdown => "the gateway restarts",
        };
        effects.push(closing(self.profile, socket, close, words));
    }

    // --- What the client says -----------------------------------------------------------------

    fn said(&mut self, socket: SocketId, said: Said, now: Instant, effects: &mut Vec<Effect>) {
        if let Phase::Attached(attached) = &mut self.phase {
            attached.alive_at = now;
            attached.malformed = 0;
        }
        let Said { id, message } = said;
        match message {
            FromClient::ConnectionInit(_) => {
                let message = "the session is attached already; open a new socket to attach again";
                self.tell(ToClient::error(Code::SessionError, message, id), now, effects);
            }
            FromClient::Ping(_) | FromClient::Pong => {}
            FromClient::Vad(vad) => {
                if vad.status {
                    self.microphone_in_room(now, effects);
                }
                let in_room = matches!(self.sources.active(), MediaSource::Livekit | MediaSource::Data);
                let steps = self.vad.said(vad.status, in_room, now);
                self.vad_steps(steps, effects);
            }
            FromClient::MicrophoneStateAck(ack) => self.microphone.acknowledged(ack.version),
            FromClient::LivekitInit(init) => {
                if !self.may_ask_for_token(now) {
                    let message = "a token can be asked for once a second";
                    self.tell(ToClient::error(Code::RateLimited, message, id), now, effects);
                } else if self.settings.livekit {
                    effects.push(Effect::SendLivekitInfo(socket, init.mode));
                    self.join_room(now, effects);
                } else {
                    let message = "this gateway has no LiveKit; send audio on this channel";
                    self.tell(ToClient::error(Code::MediaUnavailable, message, id), now, effects);
                }
            }
            // The socket's side configures its decoder by it; nothing to decide here.
            FromClient::AudioConfig(_) => {}
            FromClient::Subscriptions(update) => self.subscriptions.update(update.subscriptions, now),
            FromClient::LocalTranscription(local) => self.local_transcription(local, now, effects),
            FromClient::GlassesConnectionState(state) => {
                let say = match state.status.as_str() {
                    "CONNECTED" | "RECONNECTED" => self.microphone.glasses(true, now),
                    "DISCONNECTED" => self.microphone.glasses(false, now),
                    _ => false,
                };
                if say {
                    self.ask_microphone(now, effects);
                }
                effects.push(Effect::Forward(FromClient::GlassesConnectionState(state)));
            }
            FromClient::AudioPlayResponse(response) => self.clip_played(response, now, effects),
            FromClient::ResumeAck(ack) => self.outbox.acknowledge(ack.last_server_seq),
            FromClient::Goodbye => self.end(EndReason::Logout, now, effects),
            FromClient::Playhead(playhead) => {
                self.answering(playhead.generation, now, effects, |answer| {
                    answer.played(playhead.played_ms, now);
                    Vec::new()
                });
            }
            FromClient::Interrupt(interrupt) => {
                let current = self.turns.answering();
                if interrupt.generation.is_none_or(|generation| current == Some(generation)) {
                    self.take_turn(turn::Input::Interrupted, now, effects);
                }
            }
            FromClient::Say(say) => self.typed(&say.text, id, now, effects),
            FromClient::SubscribeParticipants(of) => {
                let room = of.room.unwrap_or_else(|| self.facts.room.clone());
                if room == self.facts.room {
                    self.watch(room, id, now, effects);
                } else {
                    let message = "another room than the session's own takes a LiveKit token for it";
                    self.tell(ToClient::error(Code::Forbidden, message, id), now, effects);
                }
            }
            FromClient::UnsubscribeParticipants(of) => {
                let room = of.room.unwrap_or_else(|| self.facts.room.clone());
                if self.watched.remove(&room) {
                    effects.push(Effect::UnwatchRoom(room));
                }
            }
            other @ FromClient::Other { .. } => {
                metrics::counter!(crate::telemetry::UNKNOWN_MESSAGES).increment(1);
                effects.push(Effect::Forward(other));
            }
        }
    }

    /// Whether the client has not asked for a token just now.
    fn may_ask_for_token(&mut self, now: Instant) -> bool {
        let Phase::Attached(attached) = &mut self.phase else { return false };
        let may = attached.token_asked_at.is_none_or(|at| now >= at + TOKEN_EVERY);
        if may {
            attached.token_asked_at = Some(now);
        }
        may
    }

    /// A client played a file, or could not: one of ours, or one of a consumer's.
    fn clip_played(
        &mut self,
        response: crate::protocol::from_client::AudioPlayResponse,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let ours = self
            .answer
            .as_mut()
            .and_then(|answer| answer.clip_played(&response.request_id, response.success, now));
        match ours {
            Some(done) => {
                if !response.success {
                    metrics::counter!(crate::telemetry::CLIPS_FAILED).increment(1);
                    tracing::warn!(
                        session.id = %self.facts.id, cause = response.error.unwrap_or_default(),
                        "the client cannot play a clip: does it reach PUBLIC_URL?"
                    );
                }
                for effect in done {
                    self.perform(effect, now, effects);
                }
            }
            None => effects.push(Effect::Forward(FromClient::AudioPlayResponse(response))),
        }
    }

    fn typed(&mut self, text: &str, id: Option<String>, now: Instant, effects: &mut Vec<Effect>) {
        let text = text.trim();
        if text.is_empty() || text.len() > LONGEST_TYPED {
            let message = format!("text: must have 1 to {LONGEST_TYPED} bytes");
            self.tell(ToClient::error(Code::InvalidRequest, message, id), now, effects);
            return;
        }
        let at = self.elapsed_ms(now);
        self.speech_end = Some((now, at));
        effects.push(Effect::Remember(
            history::Line::Utterance {
                utterance_id: None,
                text: text.to_owned(),
                start_ms: at,
                end_ms: at,
                language: self.settings.language.clone(),
            },
            None,
        ));
        self.take_turn(turn::Input::Typed(text.to_owned()), now, effects);
    }

    /// Watches a room that the client may see.
    fn watch(&mut self, room: RoomName, id: Option<String>, now: Instant, effects: &mut Vec<Effect>) {
        if self.watched.len() >= MOST_WATCHED && !self.watched.contains(&room) {
            let message = format!("at most {MOST_WATCHED} rooms can be watched at once");
            self.tell(ToClient::error(Code::RateLimited, message, id), now, effects);
            return;
        }
        self.watched.insert(room.clone());
        effects.push(Effect::WatchRoom(room));
    }

    fn ask_microphone(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.socket().is_none() {
            return;
        }
        let on = self.microphone.on();
        let message = ToClient::MicrophoneStateChange {
            is_microphone_enabled: on,
            required_data: if on { vec![MicrophoneData::Pcm] } else { Vec::new() },
            bypass_vad: !self.vad.is_trusted(),
            session_id: self.facts.id,
            timestamp: self.timestamp(now),
            version: self.microphone.version(),
        };
        self.tell(message, now, effects);
        self.microphone.asked(now);
    }

    // --- What is heard ------------------------------------------------------------------------

    fn sound(&mut self, source: MediaSource, samples: Pcm, now: Instant, effects: &mut Vec<Effect>) {
        if source != MediaSource::Ws {
            self.in_room_at = now;
        }
        self.gap.heard(now);
        if samples.iter().all(|sample| *sample == 0) {
            // What a muted or lost track sounds like. It ends an utterance like any silence, but it
            // keeps no other source from taking over.
            if source == self.sources.active() {
                effects.push(Effect::Listen(samples));
            }
            return;
        }
        match self.sources.admit(source, now) {
            Admission::Heard => {}
            Admission::Switched(reason) => {
                if reason == MediaReason::Failover {
                    effects.push(Effect::ResetListener);
                }
                self.tell_media_state(reason, now, effects);
            }
            Admission::Ignored => return,
        }
        self.microphone.observed();
        if self.vad.is_speech() && self.open.is_none() {
            // The utterance ended for want of sound, while the client kept hearing somebody speak.
            effects.push(Effect::OpenGate);
        }
        effects.push(Effect::Listen(samples));
    }

    fn pre_roll(&mut self, samples: Pcm, now: Instant, effects: &mut Vec<Effect>) {
        self.gap.heard(now);
        if self.sources.admit_pre_roll(now) {
            effects.push(Effect::Listen(samples));
        }
    }

    fn vad_steps(&mut self, steps: Vec<vad::Step>, effects: &mut Vec<Effect>) {
        for step in steps {
            match step {
                vad::Step::Open => effects.push(Effect::OpenGate),
                vad::Step::Close if self.open.is_some() => {
                    effects.push(Effect::CloseGate(speech::EndReason::ClientVad));
                }
                vad::Step::Close => {}
                vad::Step::HearRoom(hear) => effects.push(Effect::HearRoom(hear)),
            }
        }
    }

    fn source_gone(&mut self, source: MediaSource, now: Instant, effects: &mut Vec<Effect>) {
        if self.sources.gone(source) {
            effects.push(match self.open {
                Some(_) => Effect::CloseGate(speech::EndReason::Muted),
                None => Effect::ResetListener,
            });
            self.tell_media_state(MediaReason::Silent, now, effects);
        }
    }

    // --- The room -----------------------------------------------------------------------------

    fn agent_news(&mut self, news: AgentNews, now: Instant, effects: &mut Vec<Effect>) {
        if self.agent.as_ref() == Some(&news) {
            return;
        }
        match news {
            AgentNews::Joined => self.sources.room_is_back(),
            AgentNews::Unreachable | AgentNews::Displaced => self.fall_back(effects),
        }
        self.agent = Some(news);
        self.tell_media_state(self.media_reason(), now, effects);
    }

    /// The room brings nothing: from now on sound is expected on the control channel.
    fn fall_back(&mut self, effects: &mut Vec<Effect>) {
        if self.brings_ws && self.sources.fall_back() {
            effects.push(Effect::ResetListener);
        }
    }

    /// Somebody is to be heard in the room. An agent whose identity another one took stays away.
    fn microphone_in_room(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.in_room_at = now;
        let absent = match &self.agent {
            None | Some(AgentNews::Unreachable) => true,
            Some(AgentNews::Joined | AgentNews::Displaced) => false,
        };
        if self.brings_livekit && absent {
            effects.push(Effect::JoinRoom);
            effects.push(Effect::HurryAgent);
        }
    }

    /// When our participant leaves the room because there is no microphone in it.
    fn leave_at(&self) -> Option<Instant> {
        match &self.agent {
            Some(AgentNews::Joined | AgentNews::Unreachable) => {
                Some(self.in_room_at + self.settings.agent_idle)
            }
            Some(AgentNews::Displaced) | None => None,
        }
    }

    fn leave(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.agent = None;
        effects.push(Effect::LeaveRoom);
        self.tell_media_state(MediaReason::AgentIdle, now, effects);
        tracing::info!(session.id = %self.facts.id, "no microphone in the room, agent leaves");
    }

    /// Whether sound should be coming from the room.
    fn expects_sound(&self) -> bool {
        self.socket().is_some()
            && self.microphone.on()
            && (self.vad.is_speech() || !self.vad.is_trusted())
            && self.brings_livekit
            && self.agent == Some(AgentNews::Joined)
    }

    fn watch_gap(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.gap.expect(self.expects_sound(), now);
        match (self.gap.due(now), self.socket()) {
            (Some(gap::Step::Ask), Some(socket)) => {
                tracing::info!(session.id = %self.facts.id, "no sound from the room, client asked to join again");
                effects.push(Effect::SendLivekitInfo(socket, LivekitMode::Publish));
            }
            (Some(gap::Step::FallBack), Some(_)) => {
                tracing::warn!(session.id = %self.facts.id, "no sound from the room");
                self.fall_back(effects);
                self.tell_media_state(MediaReason::LivekitSilent, now, effects);
            }
            (Some(_), None) | (None, _) => {}
        }
    }

    /// Why the media are as they are, when nothing has just changed.
    fn media_reason(&self) -> MediaReason {
        match &self.agent {
            _ if !self.settings.livekit => MediaReason::LivekitOff,
            Some(AgentNews::Unreachable) => MediaReason::LivekitUnreachable,
            Some(AgentNews::Displaced) => MediaReason::DuplicateIdentity,
            Some(AgentNews::Joined) => MediaReason::AgentJoined,
            None => MediaReason::Silent,
        }
    }

    fn tell_media_state(&mut self, reason: MediaReason, now: Instant, effects: &mut Vec<Effect>) {
        let message = ToClient::MediaState {
            active: self.sources.active(),
            reason,
            last_audio_age_ms: self.sources.age(now).map(|age| age.as_millis() as u64),
        };
        self.tell(message, now, effects);
    }

    fn speech_started(&mut self, at_ms: u64, now: Instant, effects: &mut Vec<Effect>) {
        self.last_utterance = self.last_utterance.next();
        let utterance = self.last_utterance;
        self.open = Some(utterance);
        self.hearing.insert(utterance, Hearing::new(at_ms));
        let source = self.sources.active();
        self.tell(ToClient::SpeechStarted { utterance_id: utterance, at: at_ms, source }, now, effects);
        effects.push(Effect::Transcribe(utterance));
        self.take_turn(turn::Input::SpeechStarted(utterance), now, effects);
    }

    fn speech_ended(
        &mut self,
        reason: speech::EndReason,
        at_ms: u64,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(utterance) = self.open.take() else { return };
        if let Some(hearing) = self.hearing.get_mut(&utterance) {
            hearing.ended_ms = at_ms;
        }
        self.speech_end = Some((now, self.elapsed_ms(now)));
        let source = self.sources.active();
        self.tell(ToClient::SpeechEnded { utterance_id: utterance, at: at_ms, source, reason }, now, effects);
        effects.push(Effect::EndUtterance(utterance));
        self.take_turn(turn::Input::SpeechEnded(utterance), now, effects);
    }

    fn interim(&mut self, utterance: UtteranceId, text: String, now: Instant, effects: &mut Vec<Effect>) {
        let elapsed = self.elapsed_ms(now);
        let open = self.open == Some(utterance);
        let Some(hearing) = self.hearing.get_mut(&utterance) else {
            return;
        };
        // A client replaces the interim it has: a shorter one would make words vanish and come back.
        if text.len() < hearing.told.len() || text == hearing.told {
            return;
        }
        if open {
            hearing.ended_ms = elapsed;
        }
        hearing.told.clone_from(&text);
        self.tell_transcription(utterance, text, false, now, effects);
    }

    fn transcribed(&mut self, utterance: UtteranceId, text: String, now: Instant, effects: &mut Vec<Effect>) {
        if !self.hearing.contains_key(&utterance) {
            return;
        }
        self.tell_transcription(utterance, text.clone(), true, now, effects);
        let Some(hearing) = self.hearing.remove(&utterance) else {
            return;
        };
        if !text.trim().is_empty() {
            effects.push(Effect::Remember(
                history::Line::Utterance {
                    utterance_id: Some(utterance),
                    text: text.clone(),
                    start_ms: hearing.started_ms,
                    end_ms: hearing.ended_ms,
                    language: self.settings.language.clone(),
                },
                None,
            ));
        }
        self.take_turn(turn::Input::Transcribed { utterance, text }, now, effects);
    }

    fn unheard(&mut self, utterance: UtteranceId, why: String, now: Instant, effects: &mut Vec<Effect>) {
        tracing::warn!(session.id = %self.facts.id, cause = %why, "utterance not transcribed");
        let provider = self.provider().to_owned();
        let message = Some(why);
        self.tell(ToClient::SttState { state: PartState::Degraded, provider, message }, now, effects);
        self.transcribed(utterance, String::new(), now, effects);
    }

    fn local_transcription(
        &mut self,
        local: crate::protocol::from_client::LocalTranscription,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if local.text.len() > LONGEST_TYPED {
            let message = format!("text: must have at most {LONGEST_TYPED} bytes");
            self.tell(ToClient::error(Code::InvalidRequest, message, None), now, effects);
            return;
        }
        let at = self.elapsed_ms(now);
        let utterance = match self.hearing.last_key_value().filter(|_| self.open.is_none()) {
            Some((utterance, _)) => *utterance,
            None => {
                self.last_utterance = self.last_utterance.next();
                self.last_utterance
            }
        };
        let hearing = self.hearing.entry(utterance).or_insert_with(|| Hearing::new(at));
        hearing.ended_ms = at;
        hearing.provider = Some(local.provider.unwrap_or_else(|| "client".into()));
        if local.is_final {
            self.speech_end = Some((now, at));
            self.transcribed(utterance, local.text, now, effects);
        } else {
            self.interim(utterance, local.text, now, effects);
        }
    }

    /// Tells an interim or a final to every stream that wants it, in the subscriber's own words.
    fn tell_transcription(
        &mut self,
        utterance: UtteranceId,
        text: String,
        is_final: bool,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let Some(hearing) = self.hearing.get(&utterance) else {
            return;
        };
        let data = StreamData::Transcription {
            utterance_id: utterance,
            text,
            is_final,
            start_time: hearing.started_ms,
            end_time: hearing.ended_ms,
            transcribe_language: self.settings.language.clone(),
            provider: hearing.provider.as_deref().unwrap_or_else(|| self.provider()).to_owned(),
        };
        let usual = format!("transcription:{}", self.settings.language);
        let message = |session: &Self, stream_type| ToClient::DataStream {
            session_id: session.facts.id,
            stream_type,
            data: data.clone(),
            timestamp: session.timestamp(now),
        };
        let default = (self.profile == Profile::EdgeV1).then(|| usual.clone());
        for stream in self.subscriptions.transcription(&self.settings.language, default) {
            self.tell(message(self, stream), now, effects);
        }
        effects.push(Effect::ForwardStream(message(self, usual)));
    }

    fn provider(&self) -> &'static str {
        self.settings.transcriber.as_ref().copied().unwrap_or("none")
    }

    // --- Turns and answers --------------------------------------------------------------------

    fn take_turn(&mut self, input: turn::Input, now: Instant, effects: &mut Vec<Effect>) {
        for effect in self.turns.handle(input) {
            match effect {
                turn::Effect::Answer(turn) => self.begin_answer(turn, now, effects),
                turn::Effect::Cut { reopened, .. } => self.cut(reopened, now, effects),
            }
        }
    }

    fn begin_answer(&mut self, turn: turn::Turn, now: Instant, effects: &mut Vec<Effect>) {
        self.tell(
            ToClient::TurnStarted {
                turn_id: turn.id,
                generation: turn.generation,
                utterance_ids: turn.utterances.clone(),
            },
            now,
            effects,
        );
        let (speech_end, speech_end_ms) = self.speech_end.unwrap_or((now, self.elapsed_ms(now)));
        let waterfall =
            Waterfall { speech_end, speech_end_ms, final_at: (!turn.utterances.is_empty()).then_some(now) };
        self.asked = Some(turn.text.clone());
        let mut lines: Vec<Line> = self.dialogue.iter().cloned().collect();
        lines.push(Line { role: Role::User, text: turn.text.clone() });
        let prompt = Prompt { system: self.settings.system_prompt.clone(), lines };
        effects.push(Effect::Think(turn.generation, prompt));
        let voice = self.voice();
        // A client of that profile takes no binary frames.
        let in_clips =
            self.profile == Profile::Mentra && voice.is_some_and(|voice| voice.delivery == Delivery::Ws);
        let mut answer = Answer::new(turn, voice, waterfall);
        if in_clips {
            answer = answer.in_clips();
        }
        if self.socket().is_none() {
            answer.pause(now);
        }
        self.answer = Some(Box::new(answer));
    }

    /// How an answer is spoken now: in the room only while we are there to say it.
    fn voice(&self) -> Option<Voice> {
        let in_room = self.agent == Some(AgentNews::Joined) && self.brings_livekit;
        self.settings.voice.map(|voice| match voice.delivery {
            Delivery::Room if !in_room => Voice { delivery: Delivery::Ws, ..voice },
            Delivery::Room | Delivery::Ws => voice,
        })
    }

    /// Gives the answer up. Where its words come back in the next turn, nothing of it is kept.
    fn cut(&mut self, reopened: bool, now: Instant, effects: &mut Vec<Effect>) {
        let Some(answer) = self.answer.take() else { return };
        effects.push(Effect::StopThinking);
        effects.push(Effect::StopSpeaking);
        effects.push(Effect::DropClips);
        let turn = answer.turn_id();
        let (told, outcome) = answer.cut(now);
        for effect in told {
            self.perform(effect, now, effects);
        }
        if reopened {
            self.asked = None;
        } else {
            self.keep_answer(turn, outcome, effects);
        }
    }

    fn cut_answer(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.take_turn(turn::Input::Interrupted, now, effects);
    }

    fn thought_over(
        &mut self,
        generation: u32,
        result: Result<(), String>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if self.turns.answering() != Some(generation) {
            return;
        }
        let finish = match result {
            Ok(()) => Finish::Stop,
            Err(why) => {
                tracing::warn!(session.id = %self.facts.id, cause = %why, "no answer");
                let message = format!("the answer could not be made: {why}");
                self.tell(ToClient::error(Code::AiUnavailable, message, None), now, effects);
                Finish::Error
            }
        };
        self.answering(generation, now, effects, |answer| answer.text_over(finish, now));
    }

    /// Lets the current answer do something, if it is still of this generation.
    fn answering(
        &mut self,
        generation: u32,
        now: Instant,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Answer) -> Vec<answer::Effect>,
    ) {
        let Some(answer) = self.answer.as_mut().filter(|answer| answer.generation() == generation) else {
            return;
        };
        for effect in act(answer) {
            self.perform(effect, now, effects);
        }
    }

    fn perform(&mut self, effect: answer::Effect, now: Instant, effects: &mut Vec<Effect>) {
        match effect {
            answer::Effect::Tell(message) => self.tell(message, now, effects),
            answer::Effect::Sound(frame) => {
                if let Some(socket) = self.socket() {
                    effects.push(Effect::SendBinary(socket, frame));
                }
            }
            answer::Effect::SayInRoom(samples) => effects.push(Effect::SayInRoom(samples)),
            answer::Effect::PlayClip { request_id, samples, rate_hz } => {
                if let Some(socket) = self.socket() {
                    effects.push(Effect::PlayClip { socket, request_id, samples, rate_hz });
                }
            }
            answer::Effect::Speak(sentence) => {
                if let Some(generation) = self.turns.answering() {
                    effects.push(Effect::Speak(generation, sentence));
                }
            }
            answer::Effect::StopThinking => effects.push(Effect::StopThinking),
            answer::Effect::Noticed => {
                if let Some(generation) = self.turns.answering() {
                    self.take_turn(turn::Input::Noticed { generation }, now, effects);
                }
            }
            answer::Effect::Over(outcome) => {
                let Some(answer) = self.answer.take() else { return };
                self.keep_answer(answer.turn_id(), outcome, effects);
                self.take_turn(turn::Input::Over { generation: answer.generation() }, now, effects);
            }
        }
    }

    /// Puts what was asked and what was heard into the dialogue and the history.
    fn keep_answer(&mut self, turn_id: TurnId, outcome: Outcome, effects: &mut Vec<Effect>) {
        if let Some(text) = self.asked.take() {
            self.dialogue.push_back(Line { role: Role::User, text });
        }
        let Outcome { heard, played_ms, finish } = outcome;
        if !heard.is_empty() {
            self.dialogue.push_back(Line { role: Role::Assistant, text: heard.clone() });
        }
        self.shorten_dialogue();
        effects.push(Effect::Remember(
            history::Line::Answer { turn_id, text: heard, finish, played_ms },
            Some(turn_id),
        ));
    }

    fn shorten_dialogue(&mut self) {
        let mut bytes: usize = self.dialogue.iter().map(|line| line.text.len()).sum();
        while self.dialogue.len() > DIALOGUE_LINES || bytes > DIALOGUE_BYTES {
            match self.dialogue.pop_front() {
                Some(line) => bytes -= line.text.len(),
                None => break,
            }
        }
    }

    // --- Time ---------------------------------------------------------------------------------

    fn timers(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Attached(attached) => {
                let socket = attached.socket;
                if now >= attached.alive_at + self.settings.dead_after {
                    effects.push(closing(
                        self.profile,
                        socket,
                        Close::GoingAway,
                        "no sign of life for too long",
                    ));
                    self.socket_lost(socket, now);
                } else if attached.token_ends_at.is_some_and(|at| now >= at) {
                    // The session waits: whoever logs in again within the grace goes on in it.
                    let expired = ToClient::AuthError { message: "the token has expired".into() };
                    effects.push(Effect::Send(socket, expired.encode(None).into()));
                    effects.push(closing(self.profile, socket, Close::Unauthorized, "the token has expired"));
                    self.socket_lost(socket, now);
                } else if now >= attached.ping_at {
                    attached.ping_at = now + self.settings.heartbeat;
                    effects.push(Effect::Ping(socket));
                }
            }
            Phase::Detached { until } if now >= *until => {
                self.end(EndReason::GraceExpired, now, effects);
                return;
            }
            Phase::Detached { .. } | Phase::Ended => {}
        }
        self.subscriptions.tick(now);
        if self.socket().is_some() && self.microphone.deadline().is_some_and(|at| now >= at) {
            self.microphone.tick(now);
            self.ask_microphone(now, effects);
        }
        if self.stall_at().is_some_and(|at| now >= at) {
            if self.is_away() {
                self.source_gone(MediaSource::Ws, now, effects);
            } else {
                effects.push(Effect::CloseGate(speech::EndReason::Muted));
            }
            self.sources.stalled();
        }
        let steps = self.vad.due(now);
        self.vad_steps(steps, effects);
        self.watch_gap(now, effects);
        if self.leave_at().is_some_and(|at| now >= at) {
            self.leave(now, effects);
        }
        if let Some(generation) = self.answer.as_deref().map(Answer::generation) {
            self.answering(generation, now, effects, |answer| answer.tick(now));
        }
    }

    /// When the open utterance ends because no sound arrives any more.
    fn stall_at(&self) -> Option<Instant> {
        let stall = if self.is_away() { AWAY } else { STALL };
        self.open.and(self.sources.heard_at()).map(|at| at + stall)
    }

    /// Whether the client that brings the sound itself is not there.
    fn is_away(&self) -> bool {
        self.socket().is_none() && self.sources.active() == MediaSource::Ws
    }

    // --- Telling ------------------------------------------------------------------------------

    /// Numbers and keeps a message where it has a place in the sequence, and sends it if anybody is
    /// there to hear it. A client of the `mentra` profile knows no numbers, and asks for nothing again.
    #[expect(clippy::needless_pass_by_value, reason = "a message is made to be told, and told once")]
    fn tell(&mut self, message: ToClient, now: Instant, effects: &mut Vec<Effect>) {
        let numbered = self.profile == Profile::EdgeV1 && message.is_sequenced();
        let seq = numbered.then(|| self.outbox.next_seq());
        if seq.is_none() && self.socket().is_none() {
            return;
        }
        let Some(frame) = self.encode(self.profile, &message, seq, now) else { return };
        if seq.is_some() {
            self.outbox.keep(frame.clone(), now);
        }
        if let Some(socket) = self.socket() {
            effects.push(Effect::Send(socket, frame));
        }
    }

    fn encode(
        &self,
        profile: Profile,
        message: &ToClient,
        seq: Option<u64>,
        now: Instant,
    ) -> Option<ByteString> {
        let text = match profile {
            Profile::EdgeV1 => message.encode(seq),
            Profile::Mentra => {
                let context =
                    mentra::Context { user_session: || self.user_session(), timestamp: self.timestamp(now) };
                mentra::encode(message, context)?
            }
        };
        Some(text.into())
    }

    fn timestamp(&self, now: Instant) -> String {
        clock::timestamp(self.facts.started_ms + self.elapsed_ms(now))
    }
}

/// Closes a socket in words that its client knows.
const fn closing(profile: Profile, socket: SocketId, close: Close, words: &'static str) -> Effect {
    Effect::Close(socket, profile.close(close), words)
}

#[cfg(test)]
mod tests;
