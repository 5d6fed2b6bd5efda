//! Runs one [`Session`]: carries its effects out and wakes it when its deadline is due.
//!
//! It owns what the machine only decides about: the sockets, the listener with its VAD state, the
//! transcription that is open, the answer's streams and the agent in the LiveKit room. Everything slow
//! is a stream that it joins; what comes of it is one more input.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, SpawnHandle, StreamHandler,
    WrapFuture,
};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{
    directory::Directory,
    machine::{self, Effect, Facts, Input, Session, Settings, SocketId},
    messages::{
        Attach, Deliver, End, FromSocket, LivekitToken, MicrophonePublished, SocketHandle, SocketNews,
        Undelivered,
    },
    uplink::{Run, Uplink},
};
use crate::{
    agent::{Agent, AgentEvent, Agents},
    ai::{
        self, AiError, Line, Pcm, Piece, Role, Speaker, SpeechEvent, Thinker, Transcriber, minds::Detectors,
    },
    auth::Keys,
    clips::Clips,
    clock,
    consumers::Consumers,
    error::{ApiError, Close},
    history::{self, Entry, HistoryStore},
    ids::{RoomName, TurnId, UtteranceId},
    outlet::Refused,
    protocol::{
        FromClient, Profile, ToClient, frame,
        from_client::ParticipantsOf,
        mentra::{Join, ToMentra},
        to_client::{EndReason, LivekitInfo, MediaSource},
    },
    room::{Face, Rooms, passes::Passes},
    speech::{self, Heard, Listener, gate::GateSettings},
    telemetry,
};

/// Sound that waits for the transcriber, in chunks of about 32 ms. A transcriber only has to copy
/// them: one that is this far behind has stopped, and loses what does not fit.
const AUDIO_QUEUE: usize = 256;

/// Messages that wait for a session: the five seconds of sound that a client may bring when it comes
/// back, and what it may say in a burst.
const MAILBOX: usize = 512;

/// How long a client that did not read may take to learn that it was cut.
const LINGER: Duration = Duration::from_secs(30);

/// Lines of earlier conversations that a new session remembers.
const REMEMBERED_LINES: usize = 12;

/// What every session of the gateway uses.
pub struct Services {
    /// What is the same for all of them.
    pub settings: Arc<Settings>,
    /// Signs what a client needs to resume or to publish.
    pub keys: Keys,
    /// Goes into LiveKit rooms; none where the gateway has no LiveKit.
    pub agents: Option<Agents>,
    /// Who is in which room.
    pub rooms: Rooms,
    /// Reads LiveKit tokens that prove membership of a room.
    pub passes: Option<Passes>,
    /// Who else is told what clients say.
    pub consumers: Consumers,
    /// Spoken answers as files.
    pub clips: Clips,
    /// Keeps what was said.
    pub history: Arc<dyn HistoryStore>,
    /// Tell speech from everything else.
    pub detectors: Detectors,
    /// When an utterance opens and closes.
    pub gate: GateSettings,
    /// Turns speech into text.
    pub transcriber: Option<Arc<dyn Transcriber>>,
    /// Answers; none where the one that was chosen is not there.
    pub thinker: Option<Arc<dyn Thinker>>,
    /// Speaks.
    pub speaker: Option<Arc<dyn Speaker>>,
}

// --- State ------------------------------------------------------------------------------------

/// One session at work.
pub struct SessionActor {
    session: Session,
    services: Arc<Services>,
    /// Where to sign off.
    directory: Directory,
    /// The attached socket and those that are on their way out.
    sockets: Vec<SocketHandle>,
    /// None until sound, or its format, comes on the control channel: most sessions never need it.
    uplink: Option<Box<Uplink>>,
    /// None until the first sound.
    listener: Option<Listener>,
    /// The client's own detection decides what is speech.
    follows_client: bool,
    /// The utterance the transcriber is hearing.
    utterance: Option<mpsc::Sender<Pcm>>,
    /// The thinker's stream, to be dropped when the answer is cut.
    thinking: Option<SpawnHandle>,
    /// The speaker's stream, likewise.
    speaking: Option<SpawnHandle>,
    /// Our participant in the room; it leaves when it is dropped.
    agent: Option<Agent>,
    /// How often we went there: what an earlier one of us still has to tell does not count.
    visits: u64,
    /// It is to hear the microphone's track.
    hears_room: bool,
    /// The one timer, at the machine's deadline.
    wake: Option<(Instant, SpawnHandle)>,
    /// Who was there when the consumers were last told.
    shown: Option<(Profile, SocketId)>,
    /// The client that attached last wants to be told how to join the room.
    wants_livekit: bool,
    /// What is still to be done when the effects of the last input are carried out.
    todo: VecDeque<Todo>,
}

/// The effects of one input are carried out before the next one is decided about, so that messages
/// leave in the order of their numbers; what an effect brings about waits here meanwhile.
enum Todo {
    Input(Input),
    /// Samples of the open utterance: between its beginning and its end.
    Audio(Pcm),
}

impl SessionActor {
    /// The actor of a session that nobody is attached to yet.
    pub fn new(facts: Facts, services: Arc<Services>, directory: Directory) -> Self {
        let session = Session::new(facts, services.settings.clone(), clock::now(), clock::unix_ms());
        Self {
            session,
            services,
            directory,
            sockets: Vec::new(),
            uplink: None,
            listener: None,
            follows_client: false,
            utterance: None,
            thinking: None,
            speaking: None,
            agent: None,
            visits: 0,
            hears_room: true,
            wake: None,
            shown: None,
            wants_livekit: false,
            todo: VecDeque::new(),
        }
    }

    /// Feeds one input to the machine, carries out its effects, and re-arms the one timer.
    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.todo.push_back(Todo::Input(input));
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Input(input) => {
                    for effect in self.session.handle(input, clock::now()) {
                        self.perform(effect, ctx);
                    }
                }
                Todo::Audio(pcm) => self.transcribe_audio(pcm),
            }
        }
        self.show();
        self.rearm(ctx);
    }

    /// Tells the consumers that a client came or went.
    fn show(&mut self) {
        let here = self.session.socket().map(|socket| (self.session.profile(), socket));
        if here != self.shown {
            self.shown = here;
            let facts = self.session.facts();
            let profile = self.session.profile();
            self.services.consumers.presence(facts.id, &facts.user, profile, here.is_some());
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Send(socket, text) => self.send(socket, frame::text(&text), ctx),
            Effect::SendBinary(socket, payload) => self.send(socket, frame::binary(&payload), ctx),
            Effect::Ping(socket) => self.send(socket, frame::ping(), ctx),
            Effect::Close(socket, close, reason) => {
                if let Some(at) = self.sockets.iter().position(|handle| handle.id == socket) {
                    let handle = self.sockets.swap_remove(at);
                    // A socket that is full cannot be told why; it is closed all the same.
                    let _ = handle.send(frame::close(close, reason));
                    handle.outlet().finish();
                }
            }
            Effect::SendLivekitInfo(socket, _mode) => {
                let facts = self.session.facts();
                let info = self.services.keys.livekit_info(&facts.user, &facts.room);
                let said = match (info, self.session.profile()) {
                    (Ok(info), Profile::EdgeV1) => ToClient::LivekitInfo(info).encode(None),
                    (Ok(info), Profile::Mentra) => ToMentra::LivekitInfo(Join::from(&info)).encode(),
                    (Err(why), profile) => {
                        let why = ApiError::from(why);
                        profile.refusal(why.code, why.message)
                    }
                };
                self.send(socket, frame::text(&said), ctx);
            }
            Effect::Listen(samples) => self.listener(|listener| listener.hear(&samples)),
            Effect::ResetListener => self.listener(Listener::stall),
            Effect::FollowClient(follow) => {
                self.follows_client = follow;
                if let Some(listener) = &mut self.listener {
                    listener.follow(follow);
                }
            }
            Effect::OpenGate => self.listener(Listener::open),
            Effect::CloseGate(speech::EndReason::Muted) => self.listener(Listener::stall),
            Effect::CloseGate(_) => self.listener(Listener::close),
            Effect::Transcribe(utterance) => self.transcribe(utterance, ctx),
            Effect::EndUtterance(_) => self.utterance = None,
            Effect::Think(generation, prompt) => {
                let thoughts = match &self.services.thinker {
                    Some(thinker) => thinker.answer(prompt),
                    None => AiError::Unavailable("no thinker".into()).into_stream(),
                };
                let thoughts = ai::pieces(thoughts).map(move |piece| Thought(generation, piece));
                self.thinking = Some(ctx.add_stream(thoughts));
            }
            Effect::StopThinking => cancel(&mut self.thinking, ctx),
            Effect::Speak(generation, sentence) => self.speak(generation, sentence, ctx),
            Effect::StopSpeaking => {
                cancel(&mut self.speaking, ctx);
                if let Some(agent) = &self.agent {
                    agent.hush();
                }
            }
            Effect::SayInRoom(samples) => {
                if let Some(agent) = &self.agent {
                    agent.say(&samples);
                }
            }
            Effect::PlayClip { socket, request_id, samples, rate_hz } => {
                let Some(handle) = self.sockets.iter().find(|handle| handle.id == socket) else {
                    return;
                };
                let name = self.services.clips.keep(self.session.facts().id, &samples, rate_hz);
                let url = format!("{}/clips/{name}.wav", handle.base_url);
                self.send(socket, frame::text(&ToMentra::play(request_id, url).encode()), ctx);
            }
            Effect::DropClips => self.services.clips.forget(self.session.facts().id),
            Effect::Forward(message) => {
                let facts = self.session.facts();
                self.services.consumers.said(facts.id, &facts.user, message.into_object());
            }
            Effect::ForwardStream(message) => {
                self.services.consumers.tell(&self.session.facts().user, || serde_json::json!(message));
            }
            Effect::RefuseUntil(until) => {
                self.directory.refuse_until(&self.session.facts().user, until);
            }
            Effect::Remember(line, turn) => self.remember(line, turn, ctx),
            Effect::JoinRoom => self.join_room(ctx),
            Effect::LeaveRoom => self.agent = None,
            Effect::HearRoom(hear) => {
                self.hears_room = hear;
                if let Some(agent) = &self.agent {
                    agent.hear(hear);
                }
            }
            Effect::HurryAgent => {
                if let Some(agent) = &self.agent {
                    agent.hurry();
                }
            }
            Effect::WatchRoom(room) => self.watch(&room),
            Effect::UnwatchRoom(room) => {
                if let Some(socket) = self.session.socket() {
                    self.services.rooms.unwatch(&room, socket);
                }
            }
            Effect::Ended(reason) => self.ended(reason, ctx),
        }
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let waiting = self.uplink.as_deref().and_then(Uplink::deadline);
        let deadline = self.session.deadline().into_iter().chain(waiting).min();
        if self.wake.map(|(at, _)| at) == deadline {
            return;
        }
        if let Some((_, handle)) = self.wake.take() {
            ctx.cancel_future(handle);
        }
        self.wake = deadline.map(|at| {
            let handle = ctx.run_later(at.saturating_duration_since(clock::now()), |actor, ctx| {
                actor.wake = None;
                let due = actor.uplink.as_mut().map(|uplink| uplink.due(clock::now())).unwrap_or_default();
                actor.hear_channel(due, ctx);
                actor.step(Input::Tick, ctx);
            });
            (at, handle)
        });
    }

    fn send(&mut self, socket: SocketId, frame: bytes::Bytes, ctx: &mut Context<Self>) {
        let Some(handle) = self.sockets.iter().find(|handle| handle.id == socket) else {
            return;
        };
        match handle.send(frame) {
            Ok(()) | Err(Refused::Closed) => {}
            Err(Refused::Full) => {
                // The client does not read. It is let go, and can resume with what it missed. Should it
                // read again, the first that it gets is the reason; else the connection is ended hard.
                metrics::counter!(telemetry::SLOW_CLIENTS).increment(1);
                tracing::warn!(session.id = %self.session.facts().id, "client does not read, connection cut");
                let outlet = handle.outlet().clone();
                let close = self.session.profile().close(Close::SlowClient);
                outlet.cut_saying(frame::close(close, "does not take what it is sent"));
                actix::spawn(async move {
                    tokio::time::sleep(LINGER).await;
                    outlet.cut();
                });
                self.sockets.retain(|handle| handle.id != socket);
                ctx.notify(FromSocket { id: socket, news: SocketNews::Closed });
            }
        }
    }

    // --- Hearing ---

    /// Lets the listener do something, and takes up what it heard.
    fn listener(&mut self, act: impl FnOnce(&mut Listener) -> Vec<Heard>) {
        if self.services.transcriber.is_none() {
            return;
        }
        let detectors = &self.services.detectors;
        let (gate, follow) = (self.services.gate, self.follows_client);
        let listener = self.listener.get_or_insert_with(|| {
            let mut listener = Listener::new(detectors.detector(), gate);
            listener.follow(follow);
            listener
        });
        let heard = act(listener);
        for event in heard {
            let todo = match event {
                Heard::Started { at_sample } => {
                    Todo::Input(Input::SpeechStarted { at_ms: self.session_ms(at_sample) })
                }
                Heard::Audio(pcm) => Todo::Audio(pcm),
                Heard::Ended { reason, at_sample } => {
                    Todo::Input(Input::SpeechEnded { reason, at_ms: self.session_ms(at_sample) })
                }
            };
            self.todo.push_back(todo);
        }
    }

    /// Hears what the client sent on the control channel.
    fn hear_channel(&mut self, runs: Vec<Run>, ctx: &mut Context<Self>) {
        for Run { pre_roll, samples } in runs {
            let samples = samples.into();
            let input =
                if pre_roll { Input::PreRoll(samples) } else { Input::Sound(MediaSource::Ws, samples) };
            self.step(input, ctx);
        }
    }

    fn transcribe_audio(&self, pcm: Pcm) {
        if let Some(utterance) = &self.utterance
            && utterance.try_send(pcm).is_err()
        {
            metrics::counter!(telemetry::STT_AUDIO_DROPPED).increment(1);
        }
    }

    /// When a sample was heard, in milliseconds of the session: counted back from now, because the
    /// listener's own count stands still while no sound arrives.
    fn session_ms(&self, at_sample: u64) -> u64 {
        let position = self.listener.as_ref().map_or(at_sample, Listener::position);
        let ago_ms = position.saturating_sub(at_sample) * 1000 / u64::from(ai::LISTEN_RATE_HZ);
        self.session.elapsed_ms(clock::now()).saturating_sub(ago_ms)
    }

    fn transcribe(&mut self, utterance: UtteranceId, ctx: &mut Context<Self>) {
        let Some(transcriber) = &self.services.transcriber else {
            return;
        };
        let (audio, queue) = mpsc::channel(AUDIO_QUEUE);
        self.utterance = Some(audio);
        ctx.add_stream(transcriber.open(queue).map(move |event| Transcript { utterance, event }));
    }

    // --- Answering ---

    fn speak(&mut self, generation: u32, sentence: String, ctx: &mut Context<Self>) {
        let Some(speaker) = &self.services.speaker else {
            return;
        };
        let spoken = ai::pieces(speaker.speak(sentence));
        self.speaking = Some(ctx.add_stream(spoken.map(move |piece| Spoken(generation, piece))));
    }

    fn remember(&self, line: history::Line, turn: Option<TurnId>, ctx: &mut Context<Self>) {
        let facts = self.session.facts();
        let entry =
            Entry { user_id: facts.user.clone(), session_id: facts.id, at_ms: clock::unix_ms(), line };
        let saved = self.services.history.append(entry);
        ctx.spawn(saved.into_actor(self).map(move |saved, actor, ctx| match (saved, turn) {
            (Ok(seq), Some(turn)) => actor.step(Input::Saved(turn, seq), ctx),
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::error!(session.id = %actor.session.facts().id, %error, "a line is not saved");
            }
        }));
    }

    // --- The room ---

    /// How the client joins the room, with a fresh token, if it wants to and may.
    fn livekit_info(&self) -> Option<LivekitInfo> {
        let facts = self.session.facts();
        let info = || self.services.keys.livekit_info(&facts.user, &facts.room).ok();
        self.wants_livekit.then(info).flatten()
    }

    fn join_room(&mut self, ctx: &mut Context<Self>) {
        let Some(agents) = &self.services.agents else {
            return;
        };
        if self.agent.as_ref().is_some_and(|agent| !agent.has_given_up()) {
            return;
        }
        let facts = self.session.facts();
        let (agent, events) = agents.join(&facts.user, &facts.room, self.hears_room);
        self.agent = Some(agent);
        self.visits += 1;
        let visit = self.visits;
        let events = tokio_stream::wrappers::ReceiverStream::new(events);
        ctx.add_stream(events.map(move |event| FromAgent { visit, event }));
    }

    fn watch(&self, room: &RoomName) {
        let current = self.session.socket();
        if let Some(handle) = self.sockets.iter().find(|handle| Some(handle.id) == current) {
            self.services.rooms.watch(room, handle.id, handle.outlet(), Face::Channel, None);
        }
    }

    /// The room that a subscription's LiveKit token is for, if it is the one that is asked for.
    fn opened(&self, of: &ParticipantsOf) -> Option<RoomName> {
        let pass = self.services.passes.as_ref()?.read(of.token.as_ref()?.expose())?;
        of.room.as_ref().is_none_or(|room| *room == pass.room).then_some(pass.room)
    }

    fn ended(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        self.agent = None;
        self.utterance = None;
        let id = self.session.facts().id;
        self.services.clips.forget(id);
        self.services.consumers.ended(id);
        self.directory.ended(self.session.facts().id, reason, &ctx.address());
        // Lines that are on their way to the disk get there without us: the store has them already.
        ctx.stop();
    }
}

/// Drops a stream, and with it the work behind it.
fn cancel(handle: &mut Option<SpawnHandle>, ctx: &mut Context<SessionActor>) {
    if let Some(handle) = handle.take() {
        ctx.cancel_future(handle);
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        metrics::gauge!(telemetry::SESSIONS).increment(1);
        let earlier = self.services.history.newest(&self.session.facts().user, REMEMBERED_LINES);
        ctx.spawn(earlier.into_actor(self).map(|earlier, actor, ctx| match earlier {
            Ok(saved) => actor.step(Input::Remembered(saved.into_iter().filter_map(line_of).collect()), ctx),
            Err(error) => tracing::warn!(%error, "earlier conversation not remembered"),
        }));
        self.rearm(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::gauge!(telemetry::SESSIONS).decrement(1);
    }
}

/// A line of the history as a thinker reads it.
fn line_of(saved: history::Saved) -> Option<Line> {
    let (role, text) = match saved.entry.line {
        history::Line::Utterance { text, .. } => (Role::User, text),
        history::Line::Answer { text, .. } => (Role::Assistant, text),
    };
    (!text.is_empty()).then_some(Line { role, text })
}

// --- Messages ---------------------------------------------------------------------------------

/// What our participant in the room has to tell.
struct FromAgent {
    visit: u64,
    event: AgentEvent,
}

/// What the transcriber says of an utterance.
struct Transcript {
    utterance: UtteranceId,
    event: Result<SpeechEvent, AiError>,
}

/// What the thinker gives to the answer of a generation.
struct Thought(u32, Piece<String>);

/// What the speaker gives to the answer of a generation.
struct Spoken(u32, Piece<Vec<i16>>);

// --- Handlers ---------------------------------------------------------------------------------

impl Handler<Attach> for SessionActor {
    type Result = ();

    fn handle(&mut self, attach: Attach, ctx: &mut Self::Context) {
        let facts = self.session.facts();
        let keys = &self.services.keys;
        let resume_token = keys.resume_token(facts.id);
        let may_resume =
            attach.init.resume.as_ref().is_some_and(|resume| keys.may_resume(facts.id, &resume.resume_token));
        self.wants_livekit = attach.init.capabilities.media.iter().any(|media| media == "livekit");
        let livekit = self.livekit_info();
        let sent = attach.init.resume.as_ref().filter(|resume| may_resume && resume.session_id == facts.id);
        let sent = sent.map(|resume| resume.last_audio_seq);
        let (socket, token_ends_at) = (attach.socket.id, attach.token_ends_at);
        self.sockets.push(attach.socket);
        // What is known of a client's sound is what arrived, before it says what it sent.
        let last_audio_seq = sent.and(self.uplink.as_ref()).and_then(|uplink| uplink.last_seq());
        let attach = machine::Attach {
            socket,
            profile: attach.profile,
            init: attach.init,
            may_resume,
            resume_token,
            livekit,
            last_audio_seq,
        };
        self.step(Input::Attach(Box::new(attach)), ctx);
        if self.uplink.is_some() || sent.is_some() {
            let waited = self.uplink.get_or_insert_default().attached(sent, clock::now());
            self.hear_channel(waited, ctx);
            self.rearm(ctx);
        }
        if let Some(at) = token_ends_at {
            self.step(Input::TokenEnds(socket, at), ctx);
        }
    }
}

impl Handler<FromSocket> for SessionActor {
    type Result = ();

    fn handle(&mut self, FromSocket { id, news }: FromSocket, ctx: &mut Self::Context) {
        match news {
            SocketNews::Said(said) => {
                if let FromClient::AudioConfig(format) = &said.message
                    && let Err(error) = self.uplink.get_or_insert_default().configure(format.clone())
                {
                    return self.step(Input::Malformed(id, error), ctx);
                }
                if let FromClient::ConnectionInit(_) = &said.message
                    && self.session.profile() == Profile::Mentra
                {
                    let livekit = self.livekit_info();
                    return self.step(Input::Greeted(id, livekit), ctx);
                }
                if let FromClient::SubscribeParticipants(of) = &said.message
                    && let Some(room) = self.opened(of)
                {
                    return self.step(Input::MayWatch(id, room, said.id), ctx);
                }
                self.step(Input::Said(id, said), ctx);
            }
            SocketNews::Audio(_) | SocketNews::Pcm(_) if self.session.socket() != Some(id) => {}
            SocketNews::Pcm(payload) => {
                self.step(Input::Alive(id), ctx);
                match self.uplink.get_or_insert_default().take_bare(&payload) {
                    Ok(samples) if samples.is_empty() => {}
                    Ok(samples) => self.step(Input::Sound(MediaSource::Ws, samples.into()), ctx),
                    Err(error) => self.step(Input::Malformed(id, error), ctx),
                }
            }
            SocketNews::Audio(frame) => {
                self.step(Input::Alive(id), ctx);
                match self.uplink.get_or_insert_default().take(frame, clock::now()) {
                    Ok(runs) => self.hear_channel(runs, ctx),
                    Err(error) => self.step(Input::Malformed(id, error), ctx),
                }
                // Sound that waits for earlier sound has a deadline of its own.
                self.rearm(ctx);
            }
            SocketNews::Malformed(error) => self.step(Input::Malformed(id, error), ctx),
            SocketNews::Alive => self.step(Input::Alive(id), ctx),
            SocketNews::Closed => {
                self.sockets.retain(|handle| handle.id != id);
                self.step(Input::SocketLost(id), ctx);
            }
        }
    }
}

impl Handler<MicrophonePublished> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: MicrophonePublished, ctx: &mut Self::Context) {
        self.step(Input::MicrophonePublished, ctx);
    }
}

impl Handler<LivekitToken> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: LivekitToken, ctx: &mut Self::Context) {
        self.step(Input::LivekitToken, ctx);
    }
}

impl Handler<Deliver> for SessionActor {
    type Result = Result<(), Undelivered>;

    fn handle(&mut self, Deliver(message): Deliver, _: &mut Self::Context) -> Self::Result {
        let here = self.session.socket();
        let handle = self.sockets.iter().find(|handle| Some(handle.id) == here).ok_or(Undelivered::Away)?;
        // A consumer that says too much must not cost the client its connection.
        handle.send(frame::text(&message)).map_err(|refused| match refused {
            Refused::Full => Undelivered::Busy,
            Refused::Closed => Undelivered::Away,
        })
    }
}

impl Handler<End> for SessionActor {
    type Result = ();

    fn handle(&mut self, End(reason): End, ctx: &mut Self::Context) {
        self.step(Input::End(reason), ctx);
    }
}

impl StreamHandler<FromAgent> for SessionActor {
    fn handle(&mut self, FromAgent { visit, event }: FromAgent, ctx: &mut Self::Context) {
        if visit != self.visits || self.agent.is_none() {
            return;
        }
        match event {
            AgentEvent::Sound(source, samples) => self.step(Input::Sound(source, samples), ctx),
            AgentEvent::Gone(source) => self.step(Input::SourceGone(source), ctx),
            AgentEvent::Sight(event) => self.services.rooms.seen(&self.session.facts().room, event),
            AgentEvent::News(news) => self.step(Input::Agent(news), ctx),
        }
    }

    /// The agent left for good; the session goes on without it.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Transcript> for SessionActor {
    fn handle(&mut self, Transcript { utterance, event }: Transcript, ctx: &mut Self::Context) {
        self.step(
            match event {
                Ok(SpeechEvent::Interim(text)) => Input::Interim(utterance, text),
                Ok(SpeechEvent::Final(text)) => Input::Final(utterance, text),
                Err(error) => Input::Unheard(utterance, error.to_string()),
            },
            ctx,
        );
    }

    /// One utterance is through; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Thought> for SessionActor {
    fn handle(&mut self, Thought(generation, piece): Thought, ctx: &mut Self::Context) {
        self.step(
            match piece {
                Piece::More(text) => Input::Thought(generation, text),
                Piece::Over(result) => {
                    Input::ThoughtOver(generation, result.map_err(|error| error.to_string()))
                }
            },
            ctx,
        );
    }

    /// One answer is thought out; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Spoken> for SessionActor {
    fn handle(&mut self, Spoken(generation, piece): Spoken, ctx: &mut Self::Context) {
        self.step(
            match piece {
                Piece::More(samples) => Input::Spoken(generation, samples),
                Piece::Over(result) => {
                    Input::SentenceSpoken(generation, result.map_err(|error| error.to_string()))
                }
            },
            ctx,
        );
    }

    /// One sentence is spoken; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}
