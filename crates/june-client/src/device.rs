//! One session of a device, across as many connections as it takes.
//!
//! The owner of a [`Device`] sends and receives regardless of whether there is a connection at the moment. A task
//! keeps one: it reconnects and resumes the session, sends audio again that was lost, drops messages that were
//! received before, plays the response, reports how much was played, and renews the token.
//!
//! ```text
//!   owner ── send, send_audio ──▶ commands ─▶ task ─▶ ResendBuffer ─▶ WebSocket
//!     ▲                                        │ └──▶ Room ──────────▶ LiveKit
//!     └───────── next ◀── events ◀─────────────┴──◀── Player ◀──────── WebSocket
//! ```

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use june_protocol::{
    FromClient, Secret, ToClient,
    audio::DownlinkFrame,
    from_client::{
        Capabilities, ConnectionInit, LivekitInit, MicrophoneStateAck, Ping, Playhead, RenewToken, ResumeAck,
        SpeechCapabilities, Vad,
    },
    ids::DeviceId,
    parse_timestamp,
    to_client::{ConnectionAck, Delivery, MediaReason, StreamData},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    ClientError,
    channel::{Channel, Event, Writer},
    clock,
    player::Player,
    reconnect_policy::{Due, End, ReconnectPolicy, Retry},
    resend_buffer::ResendBuffer,
    room::{Room, RoomState},
    speech_decoder::SpeechDecoder,
    token_renewal::TokenRenewal,
};

/// Commands that wait for the task: five seconds of audio. [`Device::send_audio`] fails beyond that, other
/// commands wait.
const MAX_COMMANDS: usize = 256;

/// Events that wait for the owner. The task waits if there are more; the gateway then closes the connection as
/// a slow client's.
const MAX_EVENTS: usize = 256;

/// Messages that wait for a connection. The oldest is dropped beyond that.
const MAX_MESSAGES: usize = 64;

/// How long a handshake may take, up to `connection_ack`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often `playhead` is sent during playback (docs/PROTOCOL.md).
const PLAYHEAD_INTERVAL: Duration = Duration::from_millis(250);

/// How the microphone reaches the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// Published to the LiveKit room, and over the control channel while the room does not work. Needs the
    /// feature `livekit`.
    Livekit,
    /// Binary frames on the control channel.
    #[default]
    Ws,
}

/// The options of a [`Device`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How the microphone reaches the gateway.
    pub media: Media,
    /// Whether the client detects speech itself, and reports it by [`Device::set_speaking`].
    pub vad: bool,
    /// The codecs of spoken responses, best first, and the length of their frames. The device decodes them.
    pub speech: SpeechCapabilities,
    /// The device's id, unique per user.
    pub device_id: Option<DeviceId>,
    /// The subscribed streams. Defaults to the transcription in the session's language.
    pub subscriptions: Option<Vec<String>>,
    /// The backoff between attempts.
    pub retry: Retry,
    /// When the control token expires, in seconds since the Unix epoch, as `POST /api/sessions` says. The
    /// device renews it in time. None for a token of the user's own, which only the owner can renew
    /// ([`Device::renew_token`]).
    pub control_token_expires_at: Option<u64>,
    /// The seed of the backoff's jitter. Defaults to a random one.
    pub seed: Option<u64>,
}

/// An event of a [`Device`].
#[derive(Debug)]
pub enum DeviceEvent {
    /// Connected. Without `resumed`, open turns and utterances of an earlier connection are lost.
    Attached(Box<ConnectionAck>),
    /// Not connected. The device reconnects by itself.
    Disconnected {
        /// The close code (RFC 6455 §7.4); 1006 if the connection broke or was not established.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// A message of the gateway. One that is sent again after a reconnect is reported once.
    Message(Box<ToClient>),
    /// Audio of the response as PCM, in order and without gaps, for the loudspeaker.
    Audio(DownlinkFrame),
    /// A response was played to its end, or was interrupted.
    Played {
        /// The response's generation.
        generation: u32,
        /// How much of it was played, in milliseconds.
        played_ms: u64,
    },
    /// The state of the LiveKit room changed.
    Room(RoomState),
    /// The user's own token expires soon. Pass a new one to [`Device::renew_token`]; the session ends with the
    /// token otherwise. Control tokens are renewed without the owner.
    TokenExpiring {
        /// When it expires, in seconds since the Unix epoch.
        expires_at: u64,
    },
    /// The device stopped reconnecting. This is the last event.
    Ended(End),
}

enum Command {
    Audio(Vec<i16>),
    EndAudio,
    Speaking(bool),
    Message(FromClient),
    RenewToken(Secret),
}

/// A connected device. Dropping it closes the connection. The session goes on until its grace period ends.
pub struct Device {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<DeviceEvent>,
    task: JoinHandle<()>,
}

impl Device {
    /// Connects to the control channel at `url` and attaches to the session of `token`: a control token, or a
    /// token of the user's own.
    ///
    /// # Errors
    /// As [`Channel::open`]. The first connection is attempted once, without retries.
    pub async fn connect(
        url: &str,
        token: &str,
        options: Options,
    ) -> Result<(Self, ConnectionAck), ClientError> {
        let seed = options.seed.unwrap_or_else(rand::random);
        let (commands, new_commands) = mpsc::channel(MAX_COMMANDS);
        let (new_events, events) = mpsc::channel(MAX_EVENTS);
        let mut task = Task {
            url: url.to_owned(),
            tokens: TokenRenewal::new(Secret::new(token), options.control_token_expires_at),
            policy: ReconnectPolicy::new(options.retry, seed, clock::now()),
            outgoing: Outgoing::default(),
            player: Player::default(),
            playhead_at: None,
            room: Room::new(),
            agent_in_room: true,
            room_failed: false,
            speaking: false,
            started: Instant::now(),
            commands: new_commands,
            events: new_events,
            options,
        };
        let token = task.tokens.current().clone();
        let (channel, ack) = handshake(&task.url, &token, task.init()).await?;
        let connected = Connected { channel, ack: ack.clone(), token };
        let task = tokio::spawn(async move { task.run(connected).await });
        Ok((Self { commands, events, task }, ack))
    }

    /// Returns the next event; none after [`DeviceEvent::Ended`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<DeviceEvent> {
        self.events.recv().await
    }

    /// Sends samples of the microphone, 16 kHz mono. Without a connection the last five seconds are kept.
    /// Returns false if they were dropped, because the owner does not read its events or the device ended.
    pub fn send_audio(&self, samples: &[i16]) -> bool {
        self.commands.try_send(Command::Audio(samples.to_vec())).is_ok()
    }

    /// Marks the end of the audio: the microphone is turned off.
    pub async fn end_audio(&self) {
        self.command(Command::EndAudio).await;
    }

    /// The client's own voice activity detection changed. Applies from the next sample.
    pub async fn set_speaking(&self, speaking: bool) {
        self.command(Command::Speaking(speaking)).await;
    }

    /// Sends a message; without a connection, as soon as there is one.
    pub async fn send(&self, message: FromClient) {
        self.command(Command::Message(message)).await;
    }

    /// Supplies a new token of the same user, after [`DeviceEvent::TokenExpiring`] or at any other time. It
    /// extends the open connection, and opens the next one.
    pub async fn renew_token(&self, token: Secret) {
        self.command(Command::RenewToken(token)).await;
    }

    /// Sends what waits, and disconnects. The session waits for the client to reconnect.
    pub async fn disconnect(self) {
        let Self { commands, mut events, task } = self;
        drop(commands);
        // The task waits if the queue of events is full.
        while events.recv().await.is_some() {}
        let _ = task.await;
    }

    async fn command(&self, command: Command) {
        // The task reported its end by an event.
        let _ = self.commands.send(command).await;
    }
}

/// Opens a channel and attaches, within [`HANDSHAKE_TIMEOUT`].
async fn handshake(
    url: &str,
    token: &Secret,
    init: ConnectionInit,
) -> Result<(Channel, ConnectionAck), ClientError> {
    timeout(HANDSHAKE_TIMEOUT, Channel::open(url, token.expose(), init))
        .await
        .unwrap_or_else(|_| Err(ClientError::Unreachable("the handshake timed out".into())))
}

/// What is to be sent: messages first, then audio. `VAD` messages have their place among the audio frames.
#[derive(Default)]
struct Outgoing {
    messages: VecDeque<Message>,
    vad: VecDeque<(u32, Message)>,
    audio: ResendBuffer,
}

impl Outgoing {
    fn push(&mut self, message: &FromClient) {
        if self.messages.len() == MAX_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(Message::text(message.encode()));
    }

    /// Speech begins with the next frame, or ended with the last one.
    fn push_vad(&mut self, status: bool) {
        let first = self.audio.last_seq() + 1;
        let message = FromClient::Vad(Vad { status, audio_seq: status.then_some(first) });
        if self.vad.len() == MAX_MESSAGES {
            self.vad.pop_front();
        }
        self.vad.push_back((first, Message::text(message.encode())));
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.vad.is_empty() && !self.audio.has_next()
    }

    fn pop(&mut self) -> Option<Message> {
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }
        let next = self.audio.next_seq();
        if self.vad.front().is_some_and(|(before, _)| *before <= next) {
            return self.vad.pop_front().map(|(_, message)| message);
        }
        self.audio.pop().map(Message::Binary)
    }

    /// Sends what waits, until the connection breaks. Cancel-safe: what was not written still waits.
    async fn drive(&mut self, writer: &mut Writer) -> Result<Infallible, ClientError> {
        while !self.is_empty() {
            writer.ready().await?;
            if let Some(next) = self.pop() {
                writer.queue(next)?;
            }
        }
        writer.flush().await?;
        std::future::pending().await
    }
}

/// A connection, and the token that opened it.
struct Connected {
    channel: Channel,
    ack: ConnectionAck,
    token: Secret,
}

/// How a connection ended.
enum Lost {
    /// It closed or broke.
    Closed(u16, String),
    /// The owner disconnected.
    ByOwner,
}

struct Task {
    url: String,
    tokens: TokenRenewal,
    options: Options,
    policy: ReconnectPolicy,
    outgoing: Outgoing,
    player: Player,
    /// When the next `playhead` is due, during playback.
    playhead_at: Option<Instant>,
    room: Room,
    /// The gateway's agent is in the room.
    agent_in_room: bool,
    /// Joining the room failed.
    room_failed: bool,
    /// The client's own voice activity detection reports speech.
    speaking: bool,
    started: Instant,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<DeviceEvent>,
}

impl Task {
    async fn run(&mut self, first: Connected) {
        let mut next = Some(first);
        while let Some(Connected { mut channel, ack, token }) = next.take() {
            self.attached(ack, &token).await;
            let lost = self.serve(&mut channel).await;
            self.tokens.detached();
            match lost {
                Lost::ByOwner => {
                    let _ = timeout(HANDSHAKE_TIMEOUT, self.close(&mut channel)).await;
                    return;
                }
                Lost::Closed(code, reason) => {
                    drop(channel);
                    if let Some(end) = self.policy.lost(code, self.tokens.has_untried(), clock::now()) {
                        return self.emit(DeviceEvent::Ended(end)).await;
                    }
                    self.emit(DeviceEvent::Disconnected { code, reason }).await;
                }
            }
            next = self.reconnect().await;
        }
    }

    fn init(&self) -> ConnectionInit {
        let media = match self.options.media {
            Media::Livekit => vec!["livekit".into(), "ws".into()],
            Media::Ws => vec!["ws".into()],
        };
        ConnectionInit {
            device_id: self.options.device_id.clone(),
            capabilities: Capabilities {
                media,
                vad: self.options.vad,
                speech: self.options.speech.clone(),
                ..Capabilities::default()
            },
            subscriptions: self.options.subscriptions.clone(),
            resume: self.policy.resume(self.outgoing.audio.sent_seq()),
            ..ConnectionInit::default()
        }
    }

    async fn attached(&mut self, ack: ConnectionAck, token: &Secret) {
        let now = clock::now();
        self.tokens.attached(token, parse_timestamp(&ack.timestamp), now);
        if !self.policy.attached(&ack, now) {
            // The rest of a response that was being played will not come.
            self.stop_playing().await;
        }
        self.outgoing.audio.rewind();
        if self.speaking {
            // The message that speech began may be lost. That it ended is sent after the audio.
            self.outgoing.push(&FromClient::Vad(Vad { status: true, audio_seq: None }));
        } else if self.options.vad {
            self.outgoing.push_vad(false);
        }
        if self.options.media == Media::Livekit
            && self.room.is_out()
            && let Some(info) = &ack.livekit
        {
            self.room.join(info.clone());
        }
        self.emit(DeviceEvent::Attached(Box::new(ack))).await;
    }

    /// Serves a connection until it is lost.
    async fn serve(&mut self, channel: &mut Channel) -> Lost {
        loop {
            let deadline = self.deadline();
            let (reader, writer) = channel.halves();
            tokio::select! {
                event = reader.next() => {
                    self.policy.received(clock::now());
                    match event {
                        Some(Event::Closed { code, reason }) => return Lost::Closed(code, reason),
                        Some(Event::Message(seq, message)) => self.message(seq, message).await,
                        Some(Event::Audio(frame)) => self.audio(frame).await,
                        None => {}
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return Lost::ByOwner,
                },
                Err(error) = self.outgoing.drive(writer) => return Lost::Closed(1006, error.to_string()),
                state = self.room.changed() => self.room(state).await,
                () = sleep_until(deadline) => {
                    let now = clock::now();
                    if self.tokens.due(now) {
                        self.outgoing.push(&FromClient::RenewToken(RenewToken::default()));
                    }
                    match self.policy.due(now) {
                        Due::Dead => return Lost::Closed(1006, "the gateway does not respond".into()),
                        Due::Ping(number) => {
                            self.outgoing.push(&FromClient::Ping(Ping { t: Some(number.into()) }));
                        }
                        Due::Nothing | Due::Connect => self.playhead().await,
                    }
                }
            }
        }
    }

    /// Retries until there is a connection; none if the owner disconnected or another attempt cannot succeed.
    async fn reconnect(&mut self) -> Option<Connected> {
        loop {
            match self.policy.due(clock::now()) {
                Due::Connect => {}
                Due::Nothing | Due::Ping(_) | Due::Dead => {
                    let deadline = self.deadline();
                    tokio::select! {
                        command = self.commands.recv() => self.command(command?),
                        state = self.room.changed() => self.room(state).await,
                        () = sleep_until(deadline) => {}
                    }
                    continue;
                }
            }
            let (url, token, init) = (self.url.clone(), self.tokens.current().clone(), self.init());
            let mut connecting = Box::pin(handshake(&url, &token, init));
            let connected = loop {
                tokio::select! {
                    connected = &mut connecting => break connected,
                    command = self.commands.recv() => self.command(command?),
                }
            };
            drop(connecting);
            match connected {
                Ok((channel, ack)) => return Some(Connected { channel, ack, token }),
                Err(error) => {
                    let replaced = token != *self.tokens.current();
                    if let Some(end) = self.policy.not_attached(&error, replaced, clock::now()) {
                        self.emit(DeviceEvent::Ended(end)).await;
                        return None;
                    }
                    self.emit(DeviceEvent::Disconnected { code: 1006, reason: error.to_string() }).await;
                }
            }
        }
    }

    /// Sends what still waits, and closes.
    async fn close(&mut self, channel: &mut Channel) -> Result<(), ClientError> {
        let (_, writer) = channel.halves();
        while !self.outgoing.is_empty() {
            tokio::select! {
                biased;
                Err(error) = self.outgoing.drive(writer) => return Err(error),
                () = tokio::task::yield_now() => {}
            }
        }
        writer.close().await
    }

    fn deadline(&self) -> Instant {
        let policy = self.policy.deadline().map(Instant::from_std);
        let renewal = self.tokens.deadline().map(Instant::from_std);
        let idle = Instant::now() + HANDSHAKE_TIMEOUT;
        [policy, renewal, self.playhead_at].into_iter().flatten().min().unwrap_or(idle)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Audio(samples) if self.room.is_in() && self.agent_in_room => self.room.send(samples),
            Command::Audio(samples) => self.outgoing.audio.push(&samples, self.capture_ms()),
            Command::EndAudio => self.outgoing.audio.end(self.capture_ms()),
            Command::Speaking(speaking) => {
                self.speaking = speaking;
                self.outgoing.push_vad(speaking);
            }
            Command::Message(message) => self.outgoing.push(&message),
            Command::RenewToken(token) => {
                self.tokens.replace(token.clone());
                self.outgoing.push(&FromClient::RenewToken(RenewToken { token: Some(token) }));
            }
        }
    }

    fn capture_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other messages are the owner's alone")]
    async fn message(&mut self, seq: Option<u64>, message: ToClient) {
        if !self.policy.accept(seq) {
            return;
        }
        if let Some(last_server_seq) = self.policy.acknowledge() {
            self.outgoing.push(&FromClient::ResumeAck(ResumeAck { last_server_seq }));
        }
        match &message {
            ToClient::SessionEnd { reason } => self.policy.session_end(*reason),
            ToClient::MicrophoneStateChange { version, is_microphone_enabled, .. } => {
                let ack = MicrophoneStateAck {
                    version: *version,
                    is_microphone_enabled: *is_microphone_enabled,
                    error: None,
                };
                self.outgoing.push(&FromClient::MicrophoneStateAck(ack));
            }
            ToClient::MediaState { reason, .. } => match reason {
                MediaReason::AgentJoined => {
                    self.agent_in_room = true;
                    if std::mem::take(&mut self.room_failed) {
                        // LiveKit is reachable again. Request a token to join with.
                        self.outgoing.push(&FromClient::LivekitInit(LivekitInit::default()));
                    }
                }
                MediaReason::LivekitUnreachable
                | MediaReason::DuplicateIdentity
                | MediaReason::LivekitOff => {
                    self.agent_in_room = false;
                }
                _ => {}
            },
            ToClient::LivekitInfo(info) if self.options.media == Media::Livekit => {
                self.room.join(info.clone());
            }
            ToClient::SpeechEnded { utterance_id, .. } => {
                self.outgoing.audio.utterance_ended(*utterance_id);
            }
            ToClient::DataStream {
                data: StreamData::Transcription { utterance_id, is_final: true, .. },
                ..
            } => self.outgoing.audio.utterance_transcribed(*utterance_id),
            ToClient::SpeechBegin {
                generation,
                codec,
                sample_rate,
                pre_skip,
                delivery: Delivery::Ws,
                ..
            } => {
                self.stop_playing().await;
                match SpeechDecoder::new(*codec, *sample_rate, *pre_skip) {
                    Ok(decoder) => {
                        self.player.begin(*generation, *sample_rate, decoder);
                        self.playhead_at = Some(Instant::now() + PLAYHEAD_INTERVAL);
                    }
                    Err(error) => tracing::warn!(%error, "the response is not played"),
                }
            }
            ToClient::AudioStopRequest { .. } => self.stop_playing().await,
            ToClient::ControlToken { control_token, expires_at } => {
                self.tokens.issued(control_token.clone(), *expires_at, clock::now());
            }
            ToClient::TokenRenewed { .. } => self.tokens.confirmed(),
            ToClient::TokenExpiring { expires_at } => {
                return self.emit(DeviceEvent::TokenExpiring { expires_at: *expires_at }).await;
            }
            _ => {}
        }
        self.emit(DeviceEvent::Message(Box::new(message))).await;
    }

    async fn audio(&mut self, frame: DownlinkFrame) {
        if let Some(frame) = self.player.push(frame, clock::now()) {
            self.emit(DeviceEvent::Audio(frame)).await;
        }
    }

    async fn room(&mut self, state: RoomState) {
        self.room_failed = matches!(state, RoomState::Failed(_));
        self.emit(DeviceEvent::Room(state)).await;
    }

    /// Sends a `playhead` if it is due.
    async fn playhead(&mut self) {
        let Some(at) = self.playhead_at.filter(|at| Instant::now() >= *at) else { return };
        self.playhead_at = Some(at + PLAYHEAD_INTERVAL);
        if self.player.is_over(clock::now()) {
            self.stop_playing().await;
        } else {
            self.report_playhead();
        }
    }

    /// Ends playback, at the end of the response or before.
    async fn stop_playing(&mut self) {
        if self.playhead_at.take().is_none() {
            return;
        }
        self.player.stop(clock::now());
        let played_ms = self.report_playhead();
        self.emit(DeviceEvent::Played { generation: self.player.generation(), played_ms }).await;
    }

    fn report_playhead(&mut self) -> u64 {
        let generation = self.player.generation();
        let played_ms = self.player.played_ms(clock::now());
        self.outgoing.push(&FromClient::Playhead(Playhead { generation, played_ms }));
        played_ms
    }

    async fn emit(&self, event: DeviceEvent) {
        // The receiver is gone if the owner dropped the device.
        let _ = self.events.send(event).await;
    }
}
