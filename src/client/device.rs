//! A pair of glasses: one session, over as many connections as it takes.
//!
//! What the owner of a [`Device`] says and hears does not depend on whether there is a connection at the
//! moment. A task of its own keeps one: it resumes the session when it breaks, sends the sound again that
//! was spoken meanwhile, takes no message twice, plays the answer and tells the gateway how far.
//!
//! ```text
//!   owner ── speak, say ──▶ orders ─▶ task ─▶ ResendBuffer ─────────▶ WebSocket    Link: when to connect, resume,
//!     ▲                                │ └──▶ Room ──────────▶ LiveKit            ping, give up
//!     └──────── next ◀── events ◀──────┴──◀── Player ◀──────── WebSocket
//! ```

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{
        Channel, ClientError,
        channel::{Event, Writer},
        player::Player,
        reconnect_policy::{Due, End, ReconnectPolicy, Retry},
        resend_buffer::ResendBuffer,
        room::{Room, RoomState},
    },
    clock,
    ids::DeviceId,
    protocol::{
        FromClient, ToClient,
        edge_v1::{
            audio::DownlinkFrame,
            from_client::{
                Capabilities, ConnectionInit, LivekitInit, MicrophoneStateAck, Ping, Playhead, ResumeAck, Vad,
            },
            to_client::{ConnectionAck, Delivery, MediaReason, StreamData},
        },
    },
};

/// What the owner may be ahead of the task: five seconds of sound.
const ORDERS: usize = 256;

/// Events that wait for the owner. One who does not take them stops the connection, and the gateway cuts it.
const EVENTS: usize = 256;

/// Messages that wait for a connection.
const MESSAGES: usize = 64;

/// How long a handshake may take, up to `connection_ack`.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often the player says how far it is (docs/PROTOCOL.md).
const PLAYHEAD: Duration = Duration::from_millis(250);

/// How the microphone gets to the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// Published into the LiveKit room; over the control channel while the gateway cannot hear it there.
    Livekit,
    /// Binary frames on the control channel.
    #[default]
    Ws,
}

/// What a client is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How its microphone gets to the gateway.
    pub media: Media,
    /// It detects speech by itself, and says so by [`Device::vad`].
    pub vad: bool,
    /// Which of the user's devices it is.
    pub device_id: Option<DeviceId>,
    /// The streams it wants; none for the transcription of the session's language.
    pub subscriptions: Option<Vec<String>>,
    /// How it comes back.
    pub retry: Retry,
    /// What its chances are drawn from; none for the system's.
    pub seed: Option<u64>,
}

/// What happened.
#[derive(Debug)]
pub enum DeviceEvent {
    /// There is a connection. Where it does not say `resumed`, what was known of the session is void, but
    /// for its history.
    Attached(Box<ConnectionAck>),
    /// There is none at the moment; the device comes back by itself.
    Away {
        /// The close code (RFC 6455 §7.4); 1006 where it broke, or was not reached.
        code: u16,
        /// Why.
        reason: String,
    },
    /// The gateway said something. What is sent again after a cut is here once.
    Message(Box<ToClient>),
    /// Sound of the answer, in order and without gaps, as the loudspeaker gets it.
    Sound(DownlinkFrame),
    /// An answer was played to its end, or cut.
    Played {
        /// Which.
        generation: u32,
        /// How much of it was heard.
        played_ms: u64,
    },
    /// The LiveKit room.
    Room(RoomState),
    /// The device does not come back.
    Over(End),
}

enum Command {
    Speak(Vec<i16>),
    Mute,
    Vad(bool),
    Say(FromClient),
}

/// A device. Dropping it ends its connection, and not the session.
pub struct Device {
    orders: mpsc::Sender<Command>,
    events: mpsc::Receiver<DeviceEvent>,
    task: JoinHandle<()>,
}

impl Device {
    /// Connects. The first attempt is made once: who is refused or finds nobody there is told.
    pub async fn connect(
        url: &str,
        token: &str,
        options: Options,
    ) -> Result<(Self, ConnectionAck), ClientError> {
        let seed = options.seed.unwrap_or_else(rand::random);
        let (orders, new_orders) = mpsc::channel(ORDERS);
        let (tell, events) = mpsc::channel(EVENTS);
        let mut task = Task {
            url: url.to_owned(),
            token: token.to_owned(),
            link: ReconnectPolicy::new(options.retry, seed, clock::now()),
            outgoing: Outgoing::default(),
            player: Player::default(),
            playhead_at: None,
            room: Room::new(),
            heard_in_room: true,
            room_failed: false,
            speaking: false,
            began: Instant::now(),
            orders: new_orders,
            events: tell,
            options,
        };
        let (channel, ack) = handshake(&task.url, &task.token, task.init()).await?;
        let (told, task) = (ack.clone(), tokio::spawn(async move { task.run(channel, ack).await }));
        Ok((Self { orders, events, task }, told))
    }

    /// The next event; none after [`DeviceEvent::Over`].
    pub async fn next(&mut self) -> Option<DeviceEvent> {
        self.events.recv().await
    }

    /// Samples of the microphone, 16 kHz mono. They wait where there is no connection, up to five seconds.
    /// Nothing is taken while the owner does not take its events either.
    pub fn speak(&self, samples: &[i16]) -> bool {
        self.orders.try_send(Command::Speak(samples.to_vec())).is_ok()
    }

    /// The microphone goes off.
    pub async fn mute(&self) {
        self.order(Command::Mute).await;
    }

    /// The device's own voice detection opened or closed.
    pub async fn vad(&self, status: bool) {
        self.order(Command::Vad(status)).await;
    }

    /// Says something. It waits where there is no connection.
    pub async fn say(&self, message: FromClient) {
        self.order(Command::Say(message)).await;
    }

    /// Leaves, as a client does that will come back. Everything said before is sent.
    pub async fn leave(self) {
        let Self { orders, mut events, task } = self;
        drop(orders);
        // Events that nobody wants must not hold the task up.
        while events.recv().await.is_some() {}
        let _ = task.await;
    }

    async fn order(&self, order: Command) {
        // A task that is over has told so.
        let _ = self.orders.send(order).await;
    }
}

/// Opens a channel and attaches, within [`HANDSHAKE`].
async fn handshake(
    url: &str,
    token: &str,
    init: ConnectionInit,
) -> Result<(Channel, ConnectionAck), ClientError> {
    timeout(HANDSHAKE, Channel::open(url, token, init))
        .await
        .unwrap_or_else(|_| Err(ClientError::Unreachable("no answer to the handshake".into())))
}

/// What is to be sent: what was said, then sound. What the client's voice detection says has its place
/// among the sound.
#[derive(Default)]
struct Outgoing {
    messages: VecDeque<Message>,
    vad: VecDeque<(u32, Message)>,
    voice: ResendBuffer,
}

impl Outgoing {
    fn say(&mut self, message: &FromClient) {
        if self.messages.len() == MESSAGES {
            // Away for long, and talkative: the oldest matters least.
            self.messages.pop_front();
        }
        self.messages.push_back(Message::text(message.encode()));
    }

    /// Speech begins with the next frame, or ended with the last one.
    fn say_vad(&mut self, status: bool) {
        let first = self.voice.last_seq() + 1;
        let message = FromClient::Vad(Vad { status, audio_seq: status.then_some(first) });
        if self.vad.len() == MESSAGES {
            self.vad.pop_front();
        }
        self.vad.push_back((first, Message::text(message.encode())));
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.vad.is_empty() && !self.voice.waits()
    }

    fn pop(&mut self) -> Option<Message> {
        if let Some(message) = self.messages.pop_front() {
            return Some(message);
        }
        let next = self.voice.next_seq();
        if self.vad.front().is_some_and(|(before, _)| *before <= next) {
            return self.vad.pop_front().map(|(_, message)| message);
        }
        self.voice.pop().map(Message::Binary)
    }

    /// Sends what waits, for as long as there is a connection. It can be dropped at any time: what was not
    /// taken by the connection still waits.
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

/// How a connection ended.
enum Lost {
    /// It closed or broke.
    Closed(u16, String),
    /// The owner left.
    Left,
}

struct Task {
    url: String,
    token: String,
    options: Options,
    link: ReconnectPolicy,
    outgoing: Outgoing,
    player: Player,
    /// When the next playhead is due, while something is played.
    playhead_at: Option<Instant>,
    room: Room,
    /// The gateway is in the room too.
    heard_in_room: bool,
    /// We could not get into the room.
    room_failed: bool,
    /// The client's own voice detection is open.
    speaking: bool,
    began: Instant,
    orders: mpsc::Receiver<Command>,
    events: mpsc::Sender<DeviceEvent>,
}

impl Task {
    async fn run(&mut self, channel: Channel, ack: ConnectionAck) {
        let mut next = Some((channel, ack));
        loop {
            let Some((mut channel, ack)) = next.take() else { return };
            self.attached(ack).await;
            match self.talk(&mut channel).await {
                Lost::Left => {
                    let _ = timeout(HANDSHAKE, self.part(&mut channel)).await;
                    return;
                }
                Lost::Closed(code, reason) => {
                    drop(channel);
                    if let Some(end) = self.link.lost(code, clock::now()) {
                        return self.tell(DeviceEvent::Over(end)).await;
                    }
                    self.tell(DeviceEvent::Away { code, reason }).await;
                }
            }
            next = self.come_back().await;
        }
    }

    fn init(&self) -> ConnectionInit {
        let media = match self.options.media {
            Media::Livekit => vec!["livekit".into(), "ws".into()],
            Media::Ws => vec!["ws".into()],
        };
        ConnectionInit {
            device_id: self.options.device_id.clone(),
            capabilities: Capabilities { media, vad: self.options.vad, ..Capabilities::default() },
            subscriptions: self.options.subscriptions.clone(),
            resume: self.link.resume(self.outgoing.voice.sent_seq()),
            ..ConnectionInit::default()
        }
    }

    async fn attached(&mut self, ack: ConnectionAck) {
        if !self.link.attached(&ack, clock::now()) {
            // The rest of an answer that was being heard will not come.
            self.stop_playing().await;
        }
        self.outgoing.voice.rewind();
        if self.speaking {
            // It may be lost that speech began; that it ended is said after the sound that is sent again.
            self.outgoing.say(&FromClient::Vad(Vad { status: true, audio_seq: None }));
        } else if self.options.vad {
            self.outgoing.say_vad(false);
        }
        if self.options.media == Media::Livekit
            && self.room.is_out()
            && let Some(info) = &ack.livekit
        {
            self.room.join(info.clone());
        }
        self.tell(DeviceEvent::Attached(Box::new(ack))).await;
    }

    /// Lives on a connection until it is over.
    async fn talk(&mut self, channel: &mut Channel) -> Lost {
        loop {
            let deadline = self.deadline();
            let (reader, writer) = channel.halves();
            tokio::select! {
                event = reader.next() => {
                    self.link.heard(clock::now());
                    match event {
                        Some(Event::Closed { code, reason }) => return Lost::Closed(code, reason),
                        Some(Event::Message(seq, message)) => self.message(seq, message).await,
                        Some(Event::Sound(frame)) => self.sound(frame).await,
                        None => {}
                    }
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.order(order),
                    None => return Lost::Left,
                },
                Err(error) = self.outgoing.drive(writer) => return Lost::Closed(1006, error.to_string()),
                state = self.room.changed() => self.room(state).await,
                () = sleep_until(deadline) => match self.link.due(clock::now()) {
                    Due::Dead => return Lost::Closed(1006, "no sign of life from the gateway".into()),
                    Due::Ping(number) => self.outgoing.say(&FromClient::Ping(Ping { t: Some(number.into()) })),
                    Due::Nothing | Due::Connect => self.playhead().await,
                }
            }
        }
    }

    /// Tries until there is a connection; none where there will be none. What is said meanwhile waits.
    async fn come_back(&mut self) -> Option<(Channel, ConnectionAck)> {
        loop {
            match self.link.due(clock::now()) {
                Due::Connect => {}
                Due::Nothing | Due::Ping(_) | Due::Dead => {
                    let deadline = self.deadline();
                    tokio::select! {
                        order = self.orders.recv() => self.order(order?),
                        state = self.room.changed() => self.room(state).await,
                        () = sleep_until(deadline) => {}
                    }
                    continue;
                }
            }
            let (url, token, init) = (self.url.clone(), self.token.clone(), self.init());
            let mut connecting = Box::pin(handshake(&url, &token, init));
            let connected = loop {
                tokio::select! {
                    connected = &mut connecting => break connected,
                    order = self.orders.recv() => self.order(order?),
                }
            };
            match connected {
                Ok(connected) => return Some(connected),
                Err(error) => {
                    if let Some(end) = self.link.not_attached(&error, clock::now()) {
                        self.tell(DeviceEvent::Over(end)).await;
                        return None;
                    }
                    self.tell(DeviceEvent::Away { code: 1006, reason: error.to_string() }).await;
                }
            }
        }
    }

    /// Sends what still waits, and closes.
    async fn part(&mut self, channel: &mut Channel) -> Result<(), ClientError> {
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
        let link = self.link.deadline().map(Instant::from_std);
        let far = Instant::now() + HANDSHAKE;
        [link, self.playhead_at].into_iter().flatten().min().unwrap_or(far)
    }

    fn order(&mut self, order: Command) {
        match order {
            Command::Speak(samples) if self.room.is_in() && self.heard_in_room => self.room.send(samples),
            Command::Speak(samples) => self.outgoing.voice.push(&samples, self.capture_ms()),
            Command::Mute => self.outgoing.voice.end(self.capture_ms()),
            Command::Vad(status) => {
                self.speaking = status;
                self.outgoing.say_vad(status);
            }
            Command::Say(message) => self.outgoing.say(&message),
        }
    }

    fn capture_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what concerns only the owner is the owner's")]
    async fn message(&mut self, seq: Option<u64>, message: ToClient) {
        if !self.link.take(seq) {
            return;
        }
        if let Some(last_server_seq) = self.link.acknowledge() {
            self.outgoing.say(&FromClient::ResumeAck(ResumeAck { last_server_seq }));
        }
        match &message {
            ToClient::SessionEnd { reason } => self.link.session_end(*reason),
            ToClient::MicrophoneStateChange { version, is_microphone_enabled, .. } => {
                let ack = MicrophoneStateAck {
                    version: *version,
                    is_microphone_enabled: *is_microphone_enabled,
                    error: None,
                };
                self.outgoing.say(&FromClient::MicrophoneStateAck(ack));
            }
            ToClient::MediaState { reason, .. } => match reason {
                MediaReason::AgentJoined => {
                    self.heard_in_room = true;
                    if std::mem::take(&mut self.room_failed) {
                        // LiveKit is there again: a token is an attempt.
                        self.outgoing.say(&FromClient::LivekitInit(LivekitInit::default()));
                    }
                }
                MediaReason::LivekitUnreachable
                | MediaReason::DuplicateIdentity
                | MediaReason::LivekitOff => {
                    self.heard_in_room = false;
                }
                _ => {}
            },
            ToClient::LivekitInfo(info) if self.options.media == Media::Livekit => {
                self.room.join(info.clone());
            }
            ToClient::SpeechEnded { utterance_id, .. } => {
                self.outgoing.voice.utterance_ended(*utterance_id);
            }
            ToClient::DataStream {
                data: StreamData::Transcription { utterance_id, is_final: true, .. },
                ..
            } => self.outgoing.voice.utterance_told(*utterance_id),
            ToClient::SpeechBegin { generation, sample_rate, delivery: Delivery::Ws, .. } => {
                self.stop_playing().await;
                self.player.begin(*generation, *sample_rate);
                self.playhead_at = Some(Instant::now() + PLAYHEAD);
            }
            ToClient::AudioStopRequest { .. } => self.stop_playing().await,
            _ => {}
        }
        self.tell(DeviceEvent::Message(Box::new(message))).await;
    }

    async fn sound(&mut self, frame: DownlinkFrame) {
        if let Some(news) = self.player.take(frame, clock::now()) {
            self.tell(DeviceEvent::Sound(news)).await;
        }
    }

    async fn room(&mut self, state: RoomState) {
        self.room_failed = matches!(state, RoomState::Failed(_));
        self.tell(DeviceEvent::Room(state)).await;
    }

    /// Tells how far the player is, if it is time for that.
    async fn playhead(&mut self) {
        let Some(at) = self.playhead_at.filter(|at| Instant::now() >= *at) else { return };
        self.playhead_at = Some(at + PLAYHEAD);
        if self.player.is_over(clock::now()) {
            self.stop_playing().await;
        } else {
            self.report_playhead();
        }
    }

    /// The answer is over, by its end or before.
    async fn stop_playing(&mut self) {
        if self.playhead_at.take().is_none() {
            return;
        }
        self.player.stop(clock::now());
        let played_ms = self.report_playhead();
        self.tell(DeviceEvent::Played { generation: self.player.generation(), played_ms }).await;
    }

    fn report_playhead(&mut self) -> u64 {
        let generation = self.player.generation();
        let played_ms = self.player.played_ms(clock::now());
        self.outgoing.say(&FromClient::Playhead(Playhead { generation, played_ms }));
        played_ms
    }

    async fn tell(&self, news: DeviceEvent) {
        // An owner that is gone wants to know nothing.
        let _ = self.events.send(news).await;
    }
}
