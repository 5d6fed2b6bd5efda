//! One user's presence on the gateway.
//!
//! [`Session`] is pure: inputs and the time go in, effects come out, in order. It routes between four
//! machines, which decide:
//!
//! ```text
//!   Input ──▶ connection   which socket is attached, heartbeat, tokens
//!        ├──▶ media        audio sources, decoding, voice detection, the agent in the room
//!        │      └─ SpeechEvent ─▶ recognition   utterances, interims and finals
//!        │                           └─ turn input ─▶ dialogue   turns, the response, the conversation
//!        ├──▶ participants other microphones in the room, each with its own voice detection
//!        │      └─▶ recognition
//!        └──▶ dialogue     language model, speech synthesis, playback
//!   All of them write to one Out { now, effects }.
//! ```
//!
//! [`actor::SessionActor`] carries the effects out.

pub mod actor;
pub mod audio_source_selector;
pub mod audio_watchdog;
mod connection;
mod dialogue;
mod elsewhere;
pub(crate) mod excuses;
mod media;
pub mod messages;
pub mod microphone_control;
mod options;
mod out;
mod participants;
mod pauses;
mod provider_states;
pub(crate) mod question;
mod recognition;
pub mod registry;
mod response;
pub mod resume_buffer;
mod speech_routing;
mod streams;
pub mod subscriptions;
pub mod takeover_limiter;
#[cfg(test)]
pub(crate) mod tests;
mod translation;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(crate) use self::options::Options;
use self::{
    connection::{Connection, Due},
    dialogue::Dialogue,
    media::Media,
    messages::{Attachment, ClosedCall, Taken, Transcribed},
    out::{Downlink, Out, Soonest},
    participants::ParticipantMicrophones,
    pauses::Pauses,
    provider_states::ProviderStates,
    question::{Question, QuestionId},
    recognition::Recognition,
};
pub use self::{
    excuses::Excuses,
    options::Offer,
    out::{Effect, Reason},
    response::Voice,
};
use crate::{
    audio::{Pcm, opus_encoder::OPUS_SPEECH_RATE_HZ},
    auth::{AuthError, Authenticator, Principal, room_token::RoomTokenVerifier},
    error::Code,
    ids::{DeviceId, Identity, RoomName, SessionId, TurnId, UserId, UtteranceId},
    limits::Limits,
    livekit::agent::AgentState,
    protocol::{
        ClientMessage, DecodeError, EDGE_V1, FromClient, Mode, Profile, SessionOptions, ToClient, ToolKind,
        edge_v1::{
            audio::{Codec, UplinkFrame},
            from_client::ConfigureSession,
            to_client::{
                AudioFormat, ConnectionAck, EndReason, LivekitInfo, MediaOffer, MediaSource, PartState,
            },
        },
    },
    providers::{
        ProviderError, StreamItem,
        chain::{ChainStatus, ProviderRole},
        llm::{ChatMessage, LlmEvent},
        stt::Transcript,
        vad::DetectorFactory,
    },
    response::speech_format::{SpeechCodec, SpeechFormat},
    telemetry,
    tools::{ToolLimits, ToolOutput},
    turn::{
        end_of_turn::{EndOfTurn, EndOfTurnConfig},
        endpointer::EndpointerConfig,
        utterance_detector::SpeechEvent,
    },
};

/// Sockets of one session, told apart by when they came: an older number is stale.
pub type SocketId = u64;

/// The longest line a client may type or transcribe by itself, in bytes.
pub(crate) const MAX_TYPED_BYTES: usize = 4_000;

/// What is the same for every session of this gateway.
#[derive(Clone)]
pub struct SessionConfig {
    /// How long a session waits for its client to come back.
    pub grace: Duration,
    /// How often an attached client is pinged.
    pub heartbeat: Duration,
    /// After how much silence an attached client counts as gone.
    pub client_timeout: Duration,
    /// What sessions choose from.
    pub offer: Offer,
    /// Standing instructions of the language model.
    pub system_prompt: String,
    /// The name of the STT provider; or why there is none.
    pub stt: Result<&'static str, String>,
    /// Creates voice detectors.
    pub detectors: DetectorFactory,
    /// When an utterance opens and closes.
    pub endpointer: EndpointerConfig,
    /// How long a pause has to be until a turn is over.
    pub end_of_turn: EndOfTurnConfig,
    /// Whether there is a model that judges pauses.
    pub judges_pauses: bool,
    /// Whether responses are prepared at a likely end of a turn.
    pub preempts: bool,
    /// How responses are spoken; none where they are text only.
    pub voice: Option<Voice>,
    /// Whether this gateway has a LiveKit.
    pub livekit: bool,
    /// Of how many users in a hundred the clients' own voice detection is trusted.
    pub client_vad_percent: u8,
    /// How long the agent stays in a room without a microphone.
    pub agent_idle: Duration,
    /// Items of earlier conversations that a new session remembers; 0 for none.
    pub memory: usize,
    /// Signs what a client needs to go on, or to publish.
    pub authenticator: Authenticator,
    /// Reads LiveKit tokens that prove membership of a room.
    pub room_tokens: Option<RoomTokenVerifier>,
    /// How much each user may use.
    pub limits: Limits,
    /// How long an answer may be generated.
    pub answer_time: Duration,
    /// The longest answer, in characters.
    pub answer_chars: usize,
    /// What is said where there is no answer.
    pub excuses: Excuses,
    /// How long and how often tools may be called.
    pub tools: ToolLimits,
}

/// What is true of one session from its beginning.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// Its LiveKit room.
    pub room: RoomName,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// How many gateway processes ran it before: keeps the numbers of turns and utterances apart.
    pub generation_base: u32,
    /// The options that it starts with.
    pub options: SessionOptions,
}

/// What happened.
pub enum Input {
    /// A socket wants the session; its client is authenticated.
    Attach(SocketId, Box<Attachment>),
    /// A socket closed, by whichever side.
    SocketLost(SocketId),
    /// A socket showed a sign of life.
    Alive(SocketId),
    /// A client sent a message.
    ClientMessage(SocketId, ClientMessage),
    /// A client sent something that could not be read.
    Malformed(SocketId, DecodeError),
    /// A client sent audio with a header.
    UplinkFrame(SocketId, UplinkFrame),
    /// A client sent audio without one.
    UplinkPcm(SocketId, Bytes),
    /// The answer to [`Effect::VerifyToken`]; with the `id` of the client's message.
    TokenVerified(SocketId, Option<String>, Result<Principal, AuthError>),
    /// A client was given a LiveKit token over REST.
    LivekitTokenIssued,
    /// The user's microphone is in the room, as LiveKit says.
    MicrophonePublished,
    /// Audio from the room: 16 kHz mono.
    RoomAudio(MediaSource, Pcm),
    /// A source of the room will bring nothing more.
    SourceGone(MediaSource),
    /// Audio of another participant: 16 kHz mono.
    ParticipantAudio(Identity, Pcm),
    /// Another participant's microphone will bring nothing more.
    ParticipantGone(Identity),
    /// Another participant's microphone is one too many.
    ParticipantRefused(Identity),
    /// The agent's state in the room.
    AgentState(AgentState),
    /// The answer to [`Effect::JudgePause`]: the probability that the turn is complete.
    PauseJudged(u64, Result<f32, ProviderError>),
    /// An interim transcript.
    Interim(UtteranceId, Transcript),
    /// The final transcript.
    Final(UtteranceId, Transcript),
    /// An utterance could not be transcribed.
    SttFailed(UtteranceId, String),
    /// From the language model, for this generation.
    Llm(u32, StreamItem<LlmEvent>),
    /// From the language model, for a translation.
    Translation(u32, StreamItem<LlmEvent>),
    /// From speech synthesis, for a sentence of this generation.
    Tts(u32, StreamItem<Vec<i16>>),
    /// The state of a role's providers has changed.
    ProviderState(ProviderRole, ChainStatus),
    /// A turn is on disk, under this sequence number of the history.
    TurnSaved(TurnId, u64),
    /// A tool has its result, which does not come over the channel; with the call's id.
    ToolAnswered(String, ToolKind, Result<ToolOutput, String>),
    /// The conversation before this session.
    Remembered(Vec<ChatMessage>),
    /// A line is asked over REST; the answer is [`Effect::Reply`].
    Asked(QuestionId, Question),
    /// Whoever asked does not wait any more.
    Withdrawn(QuestionId),
    /// An STT service transcribed the user elsewhere; the answer is [`Effect::Taken`].
    Transcribed(Transcribed),
    /// An STT service hears that the user begins to speak; likewise.
    VoiceOnset,
    /// The user was removed from the room.
    Removed,
    /// The session is to end.
    End(EndReason),
    /// The deadline is due.
    Tick,
}

/// The machine.
pub struct Session {
    config: Arc<SessionConfig>,
    /// Shown by a client that resumes.
    resume_token: String,
    downlink: Downlink,
    connection: Connection,
    media: Media,
    participants: ParticipantMicrophones,
    recognition: Recognition,
    pauses: Pauses,
    dialogue: Dialogue,
    providers: ProviderStates,
}

impl Session {
    /// A session that no client is attached to yet; it waits for its grace. `unix_ms` is the calendar
    /// time of `now`.
    pub fn new(info: SessionInfo, config: Arc<SessionConfig>, now: Instant, unix_ms: u64) -> Self {
        // A gateway that was killed may have told its clients numbers that are in no store: each process
        // counts from a place of its own.
        let first = u64::from(info.generation_base) << 32;
        let began = now - Duration::from_millis(unix_ms.saturating_sub(info.started_ms));
        let last_generation = info.generation_base << 20;
        let resume_token = config.authenticator.resume_token(info.id);
        let downlink = Downlink::new(info, config.clone(), began, first);
        Self {
            resume_token,
            connection: Connection::new(first, now + config.grace),
            media: Media::new(now, downlink.options().mode() == Mode::PushToTalk),
            participants: ParticipantMicrophones::default(),
            recognition: Recognition::new(UtteranceId(first)),
            pauses: Pauses::new(EndOfTurn::new(config.end_of_turn)),
            dialogue: Dialogue::new(TurnId(first), last_generation),
            providers: ProviderStates::default(),
            downlink,
            config,
        }
    }

    /// What is true of it from its beginning.
    pub fn info(&self) -> &SessionInfo {
        self.downlink.info()
    }

    /// What was asked of it.
    pub(crate) fn options(&self) -> &SessionOptions {
        self.downlink.options().given()
    }

    /// The attached socket.
    pub fn socket(&self) -> Option<SocketId> {
        self.downlink.socket()
    }

    /// What the client speaks.
    pub fn profile(&self) -> Profile {
        self.downlink.profile()
    }

    /// Whether the response is recorded for somebody who asked over REST.
    pub(crate) fn is_recording(&self) -> bool {
        self.dialogue.is_recording()
    }

    /// Whether a tool call that the client was asked for waits for its result.
    pub(crate) fn client_call(&self, call_id: &str) -> Result<(), ClosedCall> {
        self.dialogue.client_call(call_id)
    }

    /// When [`Input::Tick`] has something to do, and why.
    pub fn deadline(&self) -> Option<(Instant, Reason)> {
        if self.connection.is_ended() {
            return None;
        }
        Soonest::default()
            .or_soonest(self.connection.deadline(&self.config))
            .or_soonest(self.media.deadline(self.socket(), &self.config))
            .or_soonest(self.participants.deadline())
            .or_soonest(self.recognition.deadline())
            .or_soonest(self.dialogue.deadline())
            .get()
    }

    /// Takes one input; returns what is to be done, in order.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        if self.connection.is_ended() {
            return Vec::new();
        }
        let Self {
            config: _,
            resume_token,
            downlink,
            connection,
            media,
            participants,
            recognition,
            pauses,
            dialogue,
            providers,
        } = self;
        dialogue.set_room(media.speaks_in_room());
        let out = Out::new(now, downlink);
        if dialogue.is_awaited() {
            connection.keep_waiting(&out);
        }
        let mut router = Router {
            resume_token,
            connection,
            media,
            participants,
            recognition,
            pauses,
            dialogue,
            providers,
            out,
        };
        router.input(input);
        router.tick();
        router.out.into_effects()
    }
}

/// The machines while they handle one input.
struct Router<'a> {
    resume_token: &'a str,
    connection: &'a mut Connection,
    media: &'a mut Media,
    participants: &'a mut ParticipantMicrophones,
    recognition: &'a mut Recognition,
    pauses: &'a mut Pauses,
    dialogue: &'a mut Dialogue,
    providers: &'a mut ProviderStates,
    out: Out<'a>,
}

impl Router<'_> {
    fn input(&mut self, input: Input) {
        let out = &mut self.out;
        match input {
            Input::Attach(socket, attachment) => self.attach(socket, *attachment),
            Input::SocketLost(socket) => self.socket_lost(socket),
            // What a socket sends that is not, or no longer, attached does not count.
            Input::Alive(socket)
            | Input::ClientMessage(socket, _)
            | Input::Malformed(socket, _)
            | Input::UplinkFrame(socket, _)
            | Input::UplinkPcm(socket, _)
            | Input::TokenVerified(socket, ..)
                if out.socket() != Some(socket) => {}
            Input::Alive(_) => self.connection.alive(out.now),
            Input::ClientMessage(socket, message) => self.client_message(socket, message),
            Input::Malformed(socket, error) => self.malformed(socket, &error),
            Input::UplinkFrame(socket, frame) => {
                self.connection.alive(out.now);
                let events = self.media.uplink_frame(frame, out);
                self.uplink(socket, events);
            }
            Input::UplinkPcm(socket, payload) => {
                self.connection.alive(out.now);
                let events = self.media.uplink_pcm(&payload, out);
                self.uplink(socket, events);
            }
            Input::TokenVerified(_, id, result) => self.connection.token_verified(result, id, out),
            Input::LivekitTokenIssued => self.media.join_room(out),
            Input::MicrophonePublished => self.media.microphone_in_room(out),
            Input::RoomAudio(source, samples) => {
                let events = self.media.audio(source, &samples, out);
                self.speech(events);
            }
            Input::SourceGone(source) => {
                let events = self.media.source_gone(source, out);
                self.speech(events);
            }
            Input::ParticipantAudio(participant, samples) => {
                let events = self.participants.audio(&participant, &samples, out);
                self.media.participant_in_room(out.now);
                self.participant(&participant, events);
            }
            Input::ParticipantGone(participant) => self.participant_gone(&participant),
            Input::ParticipantRefused(participant) => ParticipantMicrophones::refused(&participant, out),
            Input::AgentState(state) => {
                let events = self.media.agent_state(state, out);
                self.speech(events);
            }
            Input::PauseJudged(number, probability) => {
                let silence = self.pauses.judged(number, probability);
                self.pause_known(silence);
            }
            Input::Interim(utterance, heard) => {
                let silence = self.pauses.interim(utterance, &heard.text, out);
                self.recognition.interim(utterance, heard, out);
                self.pause_known(silence);
            }
            Input::Final(utterance, heard) => {
                self.pauses.transcribed(utterance);
                let turn = self.recognition.finished(utterance, heard, out);
                self.turn(turn);
            }
            Input::SttFailed(utterance, cause) => {
                self.pauses.transcribed(utterance);
                let state =
                    if self.providers.stt_has_failed() { PartState::Failed } else { PartState::Degraded };
                let turn = self.recognition.failed(utterance, cause, state, out);
                self.turn(turn);
            }
            Input::Llm(generation, item) => self.dialogue.llm(generation, item, out),
            Input::Translation(id, item) => self.recognition.translations.llm(id, item, out),
            Input::Tts(generation, item) => self.dialogue.tts(generation, item, out),
            Input::ProviderState(role, status) => self.providers.changed(role, status, out),
            Input::TurnSaved(turn_id, history_seq) => out.tell(ToClient::TurnSaved { turn_id, history_seq }),
            Input::ToolAnswered(call_id, by, result) => {
                self.dialogue.tool_answered(&call_id, by, result, out);
            }
            Input::Remembered(earlier) => self.dialogue.remember(earlier),
            Input::Asked(id, question) => self.dialogue.asked(id, question, out),
            Input::Withdrawn(id) => self.dialogue.withdrawn(id, out),
            Input::Transcribed(transcribed) => {
                let turn = self.recognition.transcribed_elsewhere(transcribed, out);
                if turn.is_some() {
                    self.dialogue.speech_ended(out);
                }
                self.turn(turn);
            }
            Input::VoiceOnset => {
                let is_answering = self.dialogue.is_answering();
                out.push(Effect::Taken(if is_answering { Taken::Interrupted } else { Taken::Nothing }));
                self.dialogue.interrupt(out);
            }
            Input::Removed => self.removed(),
            Input::End(reason) => self.end(reason),
            Input::Tick => {}
        }
    }

    fn uplink(&mut self, socket: SocketId, events: Result<Vec<SpeechEvent>, DecodeError>) {
        match events {
            Ok(events) => self.speech(events),
            Err(error) => self.malformed(socket, &error),
        }
    }

    fn malformed(&mut self, socket: SocketId, error: &DecodeError) {
        if self.connection.malformed(socket, error, &mut self.out) {
            self.socket_lost(socket);
        }
    }

    fn socket_lost(&mut self, socket: SocketId) {
        if self.connection.socket_lost(socket, &mut self.out) {
            self.dialogue.pause(self.out.now);
        }
    }

    /// The client is told and let go, and the agent leaves. The session waits for its grace, as after every close;
    /// its client is refused until its user may be in the room again.
    fn removed(&mut self) {
        self.dialogue.interrupt(&mut self.out);
        self.media.leave_removed(&mut self.out);
        if let Some(socket) = self.out.socket() {
            connection::refuse_removed(socket, self.out.profile(), &mut self.out);
            self.socket_lost(socket);
        }
    }

    fn end(&mut self, reason: EndReason) {
        self.dialogue.interrupt(&mut self.out);
        self.connection.end(reason, &mut self.out);
    }

    /// What time brings, after every input.
    fn tick(&mut self) {
        if self.dialogue.is_awaited() {
            self.connection.keep_waiting(&self.out);
        }
        match self.connection.tick(&mut self.out) {
            Due::Nothing => {}
            Due::SocketLost(socket) => self.socket_lost(socket),
            Due::GraceExpired => return self.end(EndReason::GraceExpired),
        }
        if self.connection.is_ended() {
            return;
        }
        self.recognition.tick(&mut self.out);
        for participant in self.participants.stalled(self.out.now) {
            self.participant_gone(&participant);
        }
        let events = self.media.tick(&mut self.out);
        self.speech(events);
        self.dialogue.tick(&mut self.out);
    }

    // --- Attaching ----------------------------------------------------------------------------

    fn attach(&mut self, socket: SocketId, attachment: Attachment) {
        let Attachment { profile, init, token } = attachment;
        let info = self.out.info();
        let session = info.id;
        if self.out.config().authenticator.is_removed(&info.room, &Identity::from(&info.user)) {
            // They were removed after their session was found.
            return connection::refuse_removed(socket, profile, &mut self.out);
        }
        let resume = init.resume.filter(|resume| {
            resume.session_id == session && constant_time_eq(&resume.resume_token, self.resume_token)
        });
        if !self.connection.admit(socket, profile, resume.is_some(), &mut self.out) {
            return;
        }
        if profile != self.out.profile() {
            // A client of one profile cannot go on with a response of the other.
            self.dialogue.interrupt(&mut self.out);
        }
        let (speech_format, problem) = SpeechFormat::negotiate(&init.capabilities.speech);
        if self.dialogue.codec().is_some_and(|codec| codec != speech_format.codec) {
            // Nor can it with one in another codec.
            self.dialogue.interrupt(&mut self.out);
        }
        self.out.set_speech_format(speech_format);
        self.connection.attached(socket, profile, token, &mut self.out);

        // What is known of a client's audio is what arrived, before it says what it sent.
        let sent = resume.as_ref().map(|resume| resume.last_audio_seq);
        let last_audio_seq = sent.and(self.media.last_audio_seq());
        let ended = self.media.attaching(resume.is_some(), &mut self.out);
        let missed = resume.and_then(|resume| self.out.missed(resume.last_server_seq));
        let resumed = missed.is_some();
        self.acknowledge(resumed, init.capabilities.wants_livekit(), last_audio_seq);
        for frame in missed.into_iter().flatten() {
            self.out.push(Effect::Send(socket, frame));
        }
        if let Some(problem) = problem {
            self.out.error(Code::Unsupported, problem, None);
        }
        if !resumed {
            self.media.tell_media_state(self.media.media_reason(&self.out), &mut self.out);
        }
        Recognition::tell_unavailable(&mut self.out);
        self.recognition.attached(init.subscriptions, &mut self.out);
        self.providers.attached(&mut self.out);
        let events = self.media.attached(&init.capabilities, &mut self.out);
        self.speech(events);
        self.connection.watch_again(&mut self.out);
        self.media.capabilities(&init.capabilities, &mut self.out);
        self.dialogue.resume(&mut self.out);
        let device = init.device_id.unwrap_or_else(DeviceId::unnamed);
        let epoch = self.connection.epoch();
        tracing::info!(session.id = %session, device.id = %device, epoch, resumed, "client attached");

        // The acknowledgement comes first, whatever the attachment ended.
        self.speech(ended);
        let events = self.media.uplink_attached(sent, &mut self.out);
        self.speech(events);
    }

    fn acknowledge(&mut self, resumed: bool, livekit: bool, last_audio_seq: Option<u32>) {
        let out = &self.out;
        let config = out.config();
        let mut offered = vec![MediaSource::Ws];
        if config.livekit {
            offered.insert(0, MediaSource::Livekit);
        }
        let ack = ConnectionAck {
            session_id: out.info().id,
            timestamp: out.timestamp(),
            livekit: livekit.then(|| livekit_info(out)).flatten(),
            user_session: out.user_session(),
            protocol: EDGE_V1.into(),
            epoch: self.connection.epoch(),
            resumed,
            resume_token: self.resume_token.to_owned(),
            grace_ms: config.grace.as_millis() as u64,
            heartbeat_ms: config.heartbeat.as_millis() as u64,
            media: MediaOffer { active: self.media.active(), offered },
            audio: AudioFormat {
                codec: Codec::Pcm16le,
                sample_rate: crate::audio::SAMPLE_RATE_HZ,
                frame_ms: 20,
                last_seq: last_audio_seq,
            },
            speech: config.voice.map(|voice| speech_on_channel(voice, out.speech_format())),
            options: out.options().in_force(&config.offer),
        };
        self.out.tell(ToClient::ConnectionAck(Box::new(ack)));
    }

    // --- Options ------------------------------------------------------------------------------

    fn configure(&mut self, ConfigureSession { options }: ConfigureSession, id: Option<String>) {
        let out = &mut self.out;
        if let Err(refusal) = out.config().limits.configure(&out.info().user, out.now) {
            return out.refuse(refusal, id);
        }
        let mut given = out.options().given().clone();
        let options = given.set(options).and_then(|()| Options::new(given, &out.config().offer));
        let options = match options {
            Ok(options) => options,
            Err(invalid) => return out.error(Code::InvalidRequest, invalid.to_string(), id),
        };
        out.push(Effect::Configured(options.given().clone()));
        out.tell(ToClient::SessionConfigured {
            options: Box::new(options.in_force(&out.config().offer)),
            reply_to: id,
        });
        let mode = options.mode();
        *out.options_mut() = options;
        self.dialogue.reconfigured(out);
        if mode == Mode::Captions {
            self.dialogue.dismiss(out);
        }
        let events = self.media.set_push_to_talk(mode == Mode::PushToTalk);
        self.speech(events);
        self.recognition.serve(None, &mut self.out);
        for participant in self.participants.unwanted(&self.out) {
            self.participant_gone(&participant);
        }
        self.media.listen_to_room(&mut self.out);
    }

    // --- Messages -----------------------------------------------------------------------------

    fn client_message(&mut self, socket: SocketId, message: ClientMessage) {
        let out = &mut self.out;
        self.connection.readable(out.now);
        let ClientMessage { id, message } = message;
        match message {
            FromClient::ConnectionInit(_) => match out.profile() {
                Profile::EdgeV1 => {
                    let message = "the session is attached already; open a new socket to attach again";
                    out.error(Code::SessionError, message, id);
                }
                // Phones repeat it, and expect to be acknowledged again.
                Profile::Mentra => {
                    self.acknowledge(false, self.media.brings_livekit(), None);
                    self.media.ask_microphone_soon(self.out.now);
                }
            },
            FromClient::Ping(_) | FromClient::Pong => {}
            FromClient::RenewToken(request) => self.connection.renew(socket, request, id, out),
            FromClient::ConfigureSession(changes) => self.configure(changes, id),
            FromClient::Vad(vad) => {
                let events = self.media.client_vad(vad.status, out);
                self.speech(events);
            }
            FromClient::MicrophoneStateAck(ack) => self.media.microphone_acknowledged(&ack),
            FromClient::LivekitInit(_) => {
                if self.connection.may_have_livekit_token(out.now) {
                    self.media.livekit_init(id, out);
                } else {
                    out.error(Code::RateLimited, "a token can be asked for once a second", id);
                }
            }
            FromClient::AudioConfig(format) => {
                if let Err(error) = self.media.configure_uplink(format) {
                    self.malformed(socket, &error);
                }
            }
            FromClient::Subscriptions(update) => {
                self.recognition.subscribe(update.subscriptions, id, out);
            }
            FromClient::LocalTranscription(local) => {
                if local.is_final {
                    self.dialogue.speech_ended(out);
                }
                let turn = self.recognition.local_transcription(local, out);
                self.turn(turn);
            }
            FromClient::GlassesConnectionState(state) => {
                self.media.glasses(&state.status, out);
                out.push(Effect::Forward(FromClient::GlassesConnectionState(state)));
            }
            FromClient::AudioPlayResponse(response) => {
                if let Some(response) = self.dialogue.clip_played(response, out) {
                    out.push(Effect::Forward(FromClient::AudioPlayResponse(response)));
                }
            }
            FromClient::ResumeAck(ack) => out.acknowledge(ack.last_server_seq),
            FromClient::Goodbye => self.end(EndReason::Logout),
            FromClient::Playhead(playhead) => self.dialogue.playhead(&playhead, out),
            FromClient::Interrupt(interrupt) => self.dialogue.interrupted_by_client(&interrupt, out),
            FromClient::Say(say) => self.dialogue.typed(&say.text, id, out),
            FromClient::ToolResult(result) => self.dialogue.tool_result(result, id, out),
            FromClient::SubscribeParticipants(of) => self.connection.subscribe_participants(&of, id, out),
            FromClient::UnsubscribeParticipants(of) => self.connection.unsubscribe_participants(of, out),
            other @ FromClient::Other { .. } => {
                metrics::counter!(telemetry::UNKNOWN_MESSAGES).increment(1);
                out.push(Effect::Forward(other));
            }
        }
    }
}

/// What the client needs to join the room, with a fresh token; none where it may not, or cannot.
fn livekit_info(out: &Out<'_>) -> Option<LivekitInfo> {
    out.config().authenticator.livekit_info(&out.info().user, &out.info().room, out.bound()).ok()
}

/// How responses sound on the channel.
fn speech_on_channel(voice: Voice, format: SpeechFormat) -> AudioFormat {
    let sample_rate = match format.codec {
        SpeechCodec::Pcm => voice.rate_hz,
        SpeechCodec::Opus => OPUS_SPEECH_RATE_HZ,
    };
    AudioFormat { codec: format.codec.into(), sample_rate, frame_ms: format.frame_ms, last_seq: None }
}

fn constant_time_eq(a: &str, b: &str) -> bool {
    subtle::ConstantTimeEq::ct_eq(a.as_bytes(), b.as_bytes()).into()
}
