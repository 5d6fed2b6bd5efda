//! What one input leads to: effects in order, and messages on the channel to the client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    audio::Pcm,
    clock,
    error::{Close, Code},
    ids::{Identity, RoomName, TurnId, UtteranceId},
    limits::Refusal,
    protocol::{
        FromClient, Profile, SessionOptions, ToClient,
        edge_v1::to_client::{EndReason, UserSession},
        mentra,
    },
    providers::{llm::Prompt, stt::SttRequest, tts::SpeechRequest},
    response::speech_format::SpeechFormat,
    secret::Secret,
    session::{
        SessionConfig, SessionInfo, SocketId,
        messages::{Taken, TokenEnd},
        options::Options,
        question::{QuestionId, Reply},
        resume_buffer::ResumeBuffer,
    },
    store::history::HistoryItem,
    tools::{Invocation, Target},
};

/// What the actor has to do.
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
    /// Verify a token that should prolong the channel; the answer is [`Input::TokenVerified`](super::Input).
    VerifyToken {
        /// The socket that sent it.
        socket: SocketId,
        /// The token.
        token: Secret,
        /// The `id` of the message.
        reply_to: Option<String>,
    },
    /// Open the transcription stream of an utterance of the user.
    Transcribe(UtteranceId, SttRequest),
    /// Judge whether a turn is complete, of which this is the newest audio; the number of the pause. The answer is
    /// [`Input::PauseJudged`](super::Input).
    JudgePause(u64, Pcm),
    /// Open one beside it: of another participant, or of the same speech in another language.
    TranscribeBeside(UtteranceId, SttRequest),
    /// The next samples of an open utterance.
    UtteranceAudio(UtteranceId, Pcm),
    /// The utterance is complete: close its transcription stream.
    EndUtterance(UtteranceId),
    /// Ask the language model; its generation.
    Generate(u32, Prompt),
    /// Cancel the language model's stream.
    StopLlm,
    /// Ask the language model for a translation; its number.
    Translate(u32, Prompt),
    /// Cancel it.
    StopTranslation,
    /// Synthesize a sentence of the response of this generation.
    Synthesize(u32, SpeechRequest),
    /// Speak a text that is no part of the response of this generation, by the embedded voice.
    Excuse(u32, SpeechRequest),
    /// Cancel speech synthesis, and clear what is queued for the room.
    StopTts,
    /// Publish samples in the room.
    PublishSpeech(Vec<i16>),
    /// Keep samples under a URL, and ask the client to fetch and play them.
    PlayClip {
        /// The client.
        socket: SocketId,
        /// Identifies the clip in the client's answer.
        request_id: String,
        /// Mono.
        samples: Vec<i16>,
        /// In Hz.
        rate_hz: u32,
    },
    /// Delete the clips of the response that the client plays.
    DropClips,
    /// Pass a client's message on to the consumers.
    Forward(FromClient),
    /// Pass a transcript on to the consumers.
    ForwardStream(ToClient),
    /// Two devices fight for the session: refuse further ones until then.
    RefuseUntil(Instant),
    /// Save an item; report [`Input::TurnSaved`](super::Input) where it completes a turn.
    Save(HistoryItem, Option<TurnId>),
    /// The options changed: choose the providers, and keep the options in the session's record.
    Configured(SessionOptions),
    /// Call a tool; report [`Input::ToolAnswered`](super::Input).
    CallTool(Target, Invocation),
    /// Stop that, by the call's id.
    CancelTool(String),
    /// Tell whoever asked over REST.
    Reply(QuestionId, Reply),
    /// What became of an STT service's message, for its webhook.
    Taken(Taken),
    /// Join the LiveKit room.
    JoinRoom,
    /// Leave it.
    LeaveRoom,
    /// Subscribe to the user's microphone track in the room, or unsubscribe.
    SubscribeMicrophone(bool),
    /// End the agent's wait before its next attempt to join.
    RetryJoin,
    /// Push a room's participants to the client, by the right of this participant.
    WatchRoom(RoomName, Identity),
    /// Stop that.
    UnwatchRoom(RoomName),
    /// The session is over: release everything.
    Ended(EndReason),
}

/// The channel to the client: its profile, its socket, and the messages kept for a resume.
pub(super) struct Downlink {
    info: SessionInfo,
    config: Arc<SessionConfig>,
    options: Options,
    /// When the session began, by the clock that `now` comes from.
    began: Instant,
    /// What the client speaks; while none is attached, what the last one spoke.
    profile: Profile,
    /// In what form it takes responses on the channel; likewise.
    speech_format: SpeechFormat,
    /// The attached socket.
    socket: Option<SocketId>,
    /// The end of everything that is issued to the client, in seconds since the Unix epoch; none where its token never
    /// ends.
    bound: Option<u64>,
    buffer: ResumeBuffer,
}

impl Downlink {
    pub(super) fn new(info: SessionInfo, config: Arc<SessionConfig>, began: Instant, last_seq: u64) -> Self {
        Self {
            options: Options::of_record(info.options.clone(), &config.offer),
            info,
            config,
            began,
            profile: Profile::default(),
            speech_format: SpeechFormat::default(),
            socket: None,
            bound: None,
            buffer: ResumeBuffer::starting_after(last_seq),
        }
    }

    pub(super) fn info(&self) -> &SessionInfo {
        &self.info
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    pub(super) fn socket(&self) -> Option<SocketId> {
        self.socket
    }

    #[cfg(test)]
    pub(super) fn last_seq(&self) -> u64 {
        self.buffer.last_seq()
    }
}

/// Collects what one input leads to.
pub(super) struct Out<'a> {
    /// When the input was handled.
    pub(super) now: Instant,
    effects: Vec<Effect>,
    downlink: &'a mut Downlink,
}

impl<'a> Out<'a> {
    pub(super) fn new(now: Instant, downlink: &'a mut Downlink) -> Self {
        Self { now, effects: Vec::new(), downlink }
    }

    pub(super) fn into_effects(self) -> Vec<Effect> {
        self.effects
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn info(&self) -> &SessionInfo {
        &self.downlink.info
    }

    pub(super) fn config(&self) -> &Arc<SessionConfig> {
        &self.downlink.config
    }

    /// The options in force.
    pub(super) fn options(&self) -> &Options {
        &self.downlink.options
    }

    pub(super) fn options_mut(&mut self) -> &mut Options {
        &mut self.downlink.options
    }

    pub(super) fn profile(&self) -> Profile {
        self.downlink.profile
    }

    /// In what form the client takes responses on the channel.
    pub(super) fn speech_format(&self) -> SpeechFormat {
        self.downlink.speech_format
    }

    pub(super) fn set_speech_format(&mut self, format: SpeechFormat) {
        self.downlink.speech_format = format;
    }

    pub(super) fn socket(&self) -> Option<SocketId> {
        self.downlink.socket
    }

    /// The end of everything that is issued to the client, in seconds since the Unix epoch.
    pub(super) fn bound(&self) -> Option<u64> {
        self.downlink.bound
    }

    /// The client is known by this token from now on.
    pub(super) fn set_token(&mut self, token: Option<&TokenEnd>) {
        let info = &self.downlink.info;
        let session_end = self.downlink.config.authenticator.session_end(info.started_ms);
        self.downlink.bound = token.and_then(|token| token.bound(session_end));
    }

    /// Milliseconds since the session began.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.now.saturating_duration_since(self.downlink.began).as_millis() as u64
    }

    /// The calendar time of `now`, in milliseconds since the Unix epoch.
    pub(super) fn unix_ms(&self) -> u64 {
        self.downlink.info.started_ms + self.elapsed_ms()
    }

    /// The calendar time of `now` as messages carry it.
    pub(super) fn timestamp(&self) -> String {
        clock::timestamp(self.unix_ms())
    }

    // --- The channel --------------------------------------------------------------------------

    /// Messages go to this socket from now on, in this profile. What was kept for a client of another
    /// profile is forgotten, since it cannot be resumed by this one.
    pub(super) fn attach(&mut self, socket: SocketId, profile: Profile) {
        if profile != self.downlink.profile {
            self.downlink.buffer.forget();
            self.downlink.profile = profile;
        }
        self.downlink.socket = Some(socket);
    }

    /// No socket is attached.
    pub(super) fn detach(&mut self) {
        self.downlink.socket = None;
    }

    /// The client has everything up to this sequence number.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        self.downlink.buffer.acknowledge(seq);
    }

    /// The messages after this sequence number; none where some of them are gone.
    pub(super) fn missed(&mut self, last_seq: u64) -> Option<Vec<ByteString>> {
        self.downlink.buffer.after(last_seq, self.now)
    }

    /// Numbers and keeps a message where it has a place in the sequence, and sends it if a client is
    /// attached. The `mentra` profile has no numbers and no resume.
    #[expect(clippy::needless_pass_by_value, reason = "a message is made to be sent, and sent once")]
    pub(super) fn tell(&mut self, message: ToClient) {
        let numbered = self.downlink.profile == Profile::EdgeV1 && message.is_sequenced();
        let seq = numbered.then(|| self.downlink.buffer.next_seq());
        if seq.is_none() && self.downlink.socket.is_none() {
            return;
        }
        let Some(frame) = self.encode(self.downlink.profile, &message, seq) else { return };
        if seq.is_some() {
            self.downlink.buffer.keep(frame.clone(), self.now);
        }
        if let Some(socket) = self.downlink.socket {
            self.push(Effect::Send(socket, frame));
        }
    }

    /// Sends a message without a number to a socket that need not be the attached one.
    pub(super) fn tell_socket(&mut self, socket: SocketId, profile: Profile, message: &ToClient) {
        if let Some(frame) = self.encode(profile, message, None) {
            self.push(Effect::Send(socket, frame));
        }
    }

    /// Reports what is wrong with a message; `reply_to` is its `id`.
    pub(super) fn error(&mut self, code: Code, message: impl Into<String>, reply_to: Option<String>) {
        self.tell(ToClient::error(code, message, reply_to));
    }

    /// Reports that a limit is reached.
    pub(super) fn refuse(&mut self, refusal: Refusal, reply_to: Option<String>) {
        let message = refusal.to_string();
        self.tell(ToClient::error_after(refusal.code(), message, Some(refusal.retry_after), reply_to));
    }

    /// Closes a socket with a close code that a client of this profile knows.
    pub(super) fn close(&mut self, socket: SocketId, profile: Profile, close: Close, reason: &'static str) {
        self.push(Effect::Close(socket, profile.close(close), reason));
    }

    fn encode(&self, profile: Profile, message: &ToClient, seq: Option<u64>) -> Option<ByteString> {
        let text = match profile {
            Profile::EdgeV1 => message.encode(seq),
            Profile::Mentra => {
                let context =
                    mentra::Context { user_session: || self.user_session(), timestamp: self.timestamp() };
                mentra::encode(message, context)?
            }
        };
        Some(text.into())
    }

    /// The session as MentraOS clients know it.
    pub(super) fn user_session(&self) -> UserSession {
        let Downlink { info, config, options, .. } = &*self.downlink;
        UserSession {
            user_id: info.user.clone(),
            start_time: clock::timestamp(info.started_ms),
            active_app_sessions: Vec::new(),
            loading_apps: Vec::new(),
            app_subscriptions: serde_json::Map::new(),
            requires_audio: true,
            minimum_transcription_languages: options.tags(),
            is_transcribing: config.stt.is_ok(),
        }
    }
}

/// Why the session wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The next WebSocket ping is due.
    Ping,
    /// The client has shown no sign of life for too long.
    ClientTimeout,
    /// The client's token ends soon: renew it.
    TokenRenewal,
    /// The client's token ends.
    TokenEnd,
    /// Nobody came back: the session ends.
    Grace,
    /// An empty set of subscriptions takes effect.
    Subscriptions,
    /// Ask for the microphone (again), or turn it off.
    Microphone,
    /// Frames have waited long enough for the ones before them.
    Reorder,
    /// The open utterance got no audio for too long.
    AudioStall,
    /// The client's voice detection: its delay or its limit.
    ClientVad,
    /// Audio was expected from the room, and none came.
    AudioWatchdog,
    /// No microphone was in the room for too long: the agent leaves.
    AgentIdle,
    /// The next frames of speech are due.
    Playback,
    /// The answer has been generated for too long.
    AnswerTime,
    /// A translation takes too long.
    Translation,
    /// A tool has not answered in time.
    ToolTime,
}

/// The earliest of some deadlines, and why it is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Soonest(Option<(Instant, Reason)>);

impl Soonest {
    pub(super) fn or(self, at: Option<Instant>, reason: Reason) -> Self {
        match (self.0, at) {
            (Some((soonest, _)), Some(at)) if soonest <= at => self,
            (_, Some(at)) => Self(Some((at, reason))),
            (_, None) => self,
        }
    }

    pub(super) fn or_soonest(self, other: Self) -> Self {
        match other.0 {
            Some((at, reason)) => self.or(Some(at), reason),
            None => self,
        }
    }

    pub(super) fn get(self) -> Option<(Instant, Reason)> {
        self.0
    }
}

/// Whether a deadline has come.
pub(super) fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|at| now >= at)
}

/// When something may happen again that may happen once in `interval`.
pub(super) fn may_repeat(last: &mut Option<Instant>, interval: Duration, now: Instant) -> bool {
    let may = last.is_none_or(|at| now >= at + interval);
    if may {
        *last = Some(now);
    }
    may
}
