//! A session and everything around it: clients, a network that fails, providers, a room. In virtual time.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use june_edge::{
    auth::Authenticator,
    clock,
    config::AuthConfig,
    ids::{RoomName, SessionId, UserId, UtteranceId},
    limits::Limits,
    livekit::agent::AgentState,
    protocol::{
        ClientMessage, DecodeError, Profile, SessionOptions,
        edge_v1::{
            audio::{Codec, DownlinkFrame},
            from_client::{ConnectionInit, Resume},
            to_client::{Delivery, MediaSource},
        },
    },
    providers::{
        ProviderError, StreamItem,
        llm::LlmEvent,
        stt::Transcript,
        vad::{Frame, SpeechDetector},
    },
    session::{
        Effect, Excuses, Input, Offer, Session, SessionConfig, SessionInfo, SocketId, Voice,
        messages::Attachment,
    },
    turn::{end_of_turn::EndOfTurnConfig, endpointer::EndpointerConfig},
};
use serde_json::Value;

use crate::model::Model;

const STARTED_MS: u64 = 1_700_000_000_000;

/// 20 ms at 24 kHz.
const OPUS_FRAME_SAMPLES: u64 = 480;

const GRACE: Duration = Duration::from_secs(60);

/// Takes a frame for speech where its first sample is loud.
struct LoudIsSpeech;

impl SpeechDetector for LoudIsSpeech {
    fn probability(&mut self, frame: &Frame) -> Option<f32> {
        Some(if frame[0].unsigned_abs() > 1000 { 0.9 } else { 0.1 })
    }

    fn reset(&mut self) {}
}

/// The client of the session, as it sees the channel.
#[derive(Default)]
struct Client {
    /// The socket it has opened last, while it has one.
    socket: Option<SocketId>,
    resume_token: Option<String>,
    /// The highest sequence number that arrived.
    last_seq: u64,
}

pub(crate) struct World {
    session: Session,
    config: Arc<SessionConfig>,
    info: SessionInfo,
    model: Model,
    client: Client,
    sockets: u64,
    now: Instant,
    began: Instant,
    over: bool,
    lines: u64,
    /// The pause that is to be judged.
    pause: Option<u64>,
    /// The last inputs, for whoever looks at a failure.
    log: VecDeque<String>,
}

impl Drop for World {
    #[expect(
        clippy::print_stderr,
        reason = "the last steps of a run that failed, for the person who looks at it"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.log {
                eprintln!("  {line}");
            }
        }
    }
}

impl World {
    pub(crate) fn new(livekit: bool) -> Self {
        let now = clock::now();
        let config = Arc::new(SessionConfig {
            grace: GRACE,
            heartbeat: Duration::from_secs(10),
            client_timeout: Duration::from_secs(30),
            offer: Offer::default(),
            system_prompt: String::new(),
            stt: Ok("simulated"),
            detectors: Arc::new(|| Box::new(LoudIsSpeech)),
            endpointer: EndpointerConfig::default(),
            end_of_turn: EndOfTurnConfig::default(),
            judges_pauses: true,
            preempts: true,
            voice: Some(Voice { rate_hz: 16_000, delivery: Delivery::Ws }),
            livekit,
            client_vad_percent: 0,
            agent_idle: Duration::from_secs(300),
            memory: 0,
            authenticator: Authenticator::new(&AuthConfig::default(), None, b"simulated", None),
            room_tokens: None,
            limits: Limits::default(),
            // The model of a session knows no end of an answer but the language model's.
            answer_time: Duration::from_secs(24 * 3600),
            excuses: Excuses::default(),
            answer_chars: 16_384,
            tools: june_edge::tools::ToolLimits::default(),
        });
        let user = UserId::parse("john").expect("a good name");
        let info = SessionInfo {
            id: SessionId::from_u128(7),
            room: RoomName::for_user(&user, "abc123"),
            user,
            started_ms: STARTED_MS,
            generation_base: 0,
            options: SessionOptions::default(),
        };
        Self {
            session: Session::new(info.clone(), config.clone(), now, STARTED_MS),
            config,
            info,
            model: Model::default(),
            client: Client::default(),
            sockets: 0,
            now,
            began: now,
            over: false,
            lines: 0,
            pause: None,
            log: VecDeque::new(),
        }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    // --- Time and inputs ----------------------------------------------------------------------

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((deadline, reason)) = self.session.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(deadline);
            self.input(&format!("{reason:?} is due"), Input::Tick);
            let next = self.session.deadline();
            assert!(
                next.is_none_or(|(at, again)| at > self.now || again != reason),
                "a deadline that is due makes progress: {reason:?}"
            );
        }
        self.now = until;
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the world knows what reaches it, not every effect")]
    fn input(&mut self, what: &str, input: Input) {
        if self.log.len() == 60 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>8} ms  {what}", (self.now - self.began).as_millis()));
        self.model.at(self.now);
        let effects = self.session.handle(input, self.now);
        if self.over {
            assert!(effects.is_empty(), "a session that has ended does nothing: {effects:?}");
        }
        for effect in effects {
            self.model.effect(&effect);
            match effect {
                Effect::Send(socket, text) => self.receive(socket, &text),
                Effect::SendBinary(socket, bytes) => {
                    assert_eq!(Some(socket), self.session.socket(), "frames go to the attached socket");
                    let frame = DownlinkFrame::decode(bytes).expect("a good frame");
                    let samples = match frame.codec {
                        Codec::Opus => OPUS_FRAME_SAMPLES,
                        Codec::Pcm16le | Codec::Lc3 => frame.payload.len() as u64 / 2,
                    };
                    self.model.frame(frame.generation, frame.position, samples);
                }
                Effect::Close(socket, ..) if self.client.socket == Some(socket) => self.client.socket = None,
                Effect::Ended(_) => self.over = true,
                Effect::JudgePause(number, _) => self.pause = Some(number),
                _ => {}
            }
        }
        self.model.handled();
    }

    /// A text frame arrives at a socket.
    fn receive(&mut self, socket: SocketId, text: &str) {
        let message: Value = serde_json::from_str(text).expect("messages are JSON");
        if self.client.socket != Some(socket) {
            let farewell = ["session_end", "connection_error", "auth_error"];
            let kind = message["type"].as_str().expect("a type");
            assert!(farewell.contains(&kind), "a stale socket is told {kind}");
            return;
        }
        if message["type"] == "connection_ack" {
            self.client.resume_token = message["resumeToken"].as_str().map(str::to_owned);
            if message["resumed"] == false {
                // What was missed is gone: the numbers go on from wherever they are.
                self.client.last_seq = 0;
            }
        }
        if let Some(seq) = message["seq"].as_u64() {
            let expected = self.client.last_seq + 1;
            assert!(
                self.client.last_seq == 0 || seq == expected,
                "numbers are gap-free: {seq}, not {expected}"
            );
            self.client.last_seq = seq;
        }
        self.model.told(&message);
    }

    // --- The network --------------------------------------------------------------------------

    /// The client opens a socket, resuming where it can and wants to.
    pub(crate) fn connect(&mut self, resumes: bool) {
        self.sockets += 1;
        let socket = self.sockets;
        let resume = self.client.resume_token.clone().filter(|_| resumes).map(|resume_token| Resume {
            session_id: self.info.id,
            resume_token,
            last_server_seq: self.client.last_seq,
            last_audio_seq: 0,
        });
        let older = self.client.socket.replace(socket);
        self.model.reconnected();
        let mut init = ConnectionInit { resume, ..ConnectionInit::default() };
        // In half of the worlds.
        if self.config.livekit {
            init.capabilities.speech.codecs = vec!["opus".into()];
        }
        let attachment = Attachment { profile: Profile::EdgeV1, init, token: None };
        self.input(
            &format!("socket {socket} attaches, resumes: {resumes}"),
            Input::Attach(socket, Box::new(attachment)),
        );
        // A takeover that is refused leaves the older socket attached.
        if self.client.socket.is_none() && self.session.socket() == older {
            self.client.socket = older;
        }
    }

    pub(crate) fn lose_connection(&mut self) {
        if let Some(socket) = self.client.socket.take() {
            self.input("the connection is lost", Input::SocketLost(socket));
        }
    }

    /// The close of an older socket arrives.
    pub(crate) fn late_close(&mut self) {
        if let Some(older) = self.sockets.checked_sub(1) {
            if self.client.socket == Some(older) {
                self.client.socket = None;
            }
            self.input("an older socket closes", Input::SocketLost(older));
        }
    }

    /// A message of an older socket arrives.
    pub(crate) fn stale_message(&mut self) {
        let Some(older) = self.sockets.checked_sub(1).filter(|older| Some(*older) != self.session.socket())
        else {
            return;
        };
        for text in [r#"{"type":"interrupt"}"#, r#"{"type":"goodbye"}"#, r#"{"type":"say","text":"stale"}"#] {
            let message = ClientMessage::decode(text).expect("a message");
            self.input("a stale message", Input::ClientMessage(older, message));
        }
        self.input("a stale frame", Input::Malformed(older, DecodeError::NoType));
    }

    // --- The user -----------------------------------------------------------------------------

    fn attached(&self) -> Option<SocketId> {
        self.client.socket.filter(|socket| self.session.socket() == Some(*socket))
    }

    pub(crate) fn say(&mut self, text: &str) {
        let Some(socket) = self.attached() else { return };
        self.input(text, Input::Alive(socket));
        let message = ClientMessage::decode(text).expect("a message");
        self.input(text, Input::ClientMessage(socket, message));
    }

    pub(crate) fn typed(&mut self) {
        if self.attached().is_none() {
            return;
        }
        self.lines += 1;
        let line = format!("typed {}", self.lines);
        self.model.typed(&line);
        self.say(&format!(r#"{{"type":"say","text":"{line}"}}"#));
    }

    pub(crate) fn report_playhead(&mut self) {
        if let Some(generation) = self.model.current() {
            self.say(&format!(r#"{{"type":"playhead","generation":{generation},"playedMs":100}}"#));
        }
    }

    pub(crate) fn room_audio(&mut self, speech: bool, frames: usize) {
        let samples = audio(speech, frames);
        self.input(
            &format!("{frames} frames from the room, speech: {speech}"),
            Input::RoomAudio(MediaSource::Livekit, samples.into()),
        );
    }

    pub(crate) fn channel_audio(&mut self, speech: bool, frames: usize) {
        let Some(socket) = self.attached() else { return };
        let bytes: Vec<u8> = audio(speech, frames).iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.input(
            &format!("{frames} frames on the channel, speech: {speech}"),
            Input::UplinkPcm(socket, bytes.into()),
        );
    }

    // --- The providers ------------------------------------------------------------------------

    pub(crate) fn interim(&mut self) {
        let Some(utterance) = self.model.transcribing() else { return };
        self.lines += 1;
        let text = "so far ".repeat(1 + self.lines as usize % 3);
        self.model.heard(utterance, &text);
        self.input("an interim", Input::Interim(UtteranceId(utterance), Transcript::text(text)));
    }

    /// The last pause is judged, perhaps too late.
    pub(crate) fn judge(&mut self, probability: Option<f32>) {
        let Some(pause) = self.pause.take() else { return };
        let judged = probability.ok_or(ProviderError::Busy);
        self.input(&format!("pause {pause} is judged: {judged:?}"), Input::PauseJudged(pause, judged));
        self.interim();
    }

    /// The final of an utterance that has ended: words, none, or a failure.
    pub(crate) fn transcribe(&mut self, kind: u32) {
        let Some(utterance) = self.model.awaited() else { return };
        self.lines += 1;
        let text = match kind {
            // What the last interim said.
            0..6 => self.model.interim(utterance).unwrap_or_else(|| format!("spoken {}", self.lines)),
            6..8 => format!("spoken {}", self.lines),
            _ => String::new(),
        };
        self.model.transcribed(utterance, &text);
        let utterance = UtteranceId(utterance);
        match kind {
            9 => self.input("STT fails", Input::SttFailed(utterance, "simulated".into())),
            _ => self.input(&format!("a final: {text}"), Input::Final(utterance, Transcript::text(text))),
        }
    }

    pub(crate) fn llm(&mut self, kind: u32) {
        let Some(generation) = self.model.generating() else { return };
        match kind {
            0..=4 => {
                let text = if kind == 0 { "A sentence. " } else { "some words, " };
                self.model.generated(text);
                let event = LlmEvent::TextDelta(text.into());
                self.input("text", Input::Llm(generation, StreamItem::More(event)));
            }
            _ => {
                self.model.generated_all();
                let result = if kind == 7 { Err(ProviderError::Busy) } else { Ok(()) };
                self.input("the text ends", Input::Llm(generation, StreamItem::Over(result)));
            }
        }
    }

    pub(crate) fn tts(&mut self, kind: u32) {
        let Some(generation) = self.model.synthesizing() else { return };
        match kind {
            0..=7 => self.input("speech", Input::Tts(generation, StreamItem::More(vec![1; 3_200]))),
            _ => {
                let result = if kind == 11 { Err(ProviderError::Busy) } else { Ok(()) };
                self.model.synthesized(result.is_ok());
                self.input("a sentence is spoken", Input::Tts(generation, StreamItem::Over(result)));
            }
        }
    }

    // --- The room, and deploys ----------------------------------------------------------------

    pub(crate) fn agent(&mut self, kind: u32) {
        let state = match kind {
            0 => AgentState::Joined,
            1 => AgentState::Unreachable,
            _ => AgentState::Displaced,
        };
        self.input(&format!("agent: {state:?}"), Input::AgentState(state));
    }

    pub(crate) fn source_gone(&mut self) {
        self.input("the track is gone", Input::SourceGone(MediaSource::Livekit));
    }

    /// Another process takes the session up, without what was in the memory of the first.
    pub(crate) fn restart(&mut self) {
        self.log.push_back("         restart".into());
        self.info.generation_base += 1;
        let unix_ms = STARTED_MS + (self.now - self.began).as_millis() as u64;
        self.session = Session::new(self.info.clone(), self.config.clone(), self.now, unix_ms);
        self.client.socket = None;
        self.model.restarted();
    }

    /// Everything comes to its end: the client is there, providers finish, nobody says anything more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            if self.over || self.model.is_quiet() {
                break;
            }
            if self.attached().is_none() {
                self.connect(true);
                // Where takeovers are limited, the client waits.
                self.wait(Duration::from_secs(5));
            }
            if let Some(socket) = self.attached() {
                self.input("alive", Input::Alive(socket));
            }
            if self.model.is_open() {
                self.room_audio(false, 1);
                self.channel_audio(false, 1);
            }
            self.transcribe(0);
            self.llm(6);
            self.tts(8);
            self.wait(Duration::from_secs(2));
        }
        assert!(self.over || self.model.is_quiet(), "everything that was said is answered in the end");
    }
}

/// Frames of 32 ms.
fn audio(speech: bool, frames: usize) -> Vec<i16> {
    vec![if speech { 5_000 } else { 1 }; 512 * frames]
}
