//! Runs one [`Session`]: carries its effects out and wakes it when its deadline is due.
//!
//! It owns the I/O that the machine decides about: the sockets, the open transcription stream, the streams
//! of the language model and the synthesizer, and the agent in the LiveKit room. Everything slow is a
//! stream that it joins; what comes of it is one more input.

mod history;
mod providers;
mod questions;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, SpawnHandle, StreamHandler,
    WrapFuture,
};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

use self::providers::{Needs, Providers};
use crate::{
    audio::Pcm,
    clock,
    consumers::Consumers,
    error::Close,
    ids::{Identity, RoomName, SessionId, UserId, UtteranceId},
    limits::{ModelCall, Refusal},
    livekit::agent::{Agent, AgentEvent, Agents},
    protocol::{Profile, SessionOptions, edge_v1::to_client::EndReason, mentra::ToMentra},
    providers::{
        ProviderError, StreamItem,
        chain::{ChainState, ChainStatus, ProviderRole},
        llm::{LanguageModel, LlmEvent, Prompt},
        stt::{SpeechToText, SttEvent, SttRequest},
        terminated,
        tts::{SpeechRequest, TextToSpeech},
        turn::EndOfTurnModel,
        within,
    },
    response::clip_store::{ClipUse, Clips},
    room::{Rooms, SubscriberKind},
    session::{
        Effect, Input, Session, SessionConfig, SessionInfo, SocketId,
        messages::{
            Attach, Deliver, End, FromSocket, LivekitTokenIssued, MicrophonePublished, Removed, SocketEvent,
            SocketHandle, Taken, Undelivered,
        },
        question::{QuestionId, Reply},
    },
    store::history::HistoryStore,
    telemetry,
    tools::{Invocation, Target},
    ws::{frame, send_queue::SendError},
};

/// Audio that waits for the recogniser, in chunks of about 32 ms. A recogniser only has to copy them:
/// one that is this far behind has stopped, and loses what does not fit.
const AUDIO_QUEUE: usize = 256;

/// Messages that wait for a session: the five seconds of audio that a client may send when it comes
/// back, and the text messages of a burst.
const MAILBOX: usize = 512;

/// How long an STT may take from one event to the next: an utterance has at most 15 s.
const STT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a TTS may take from one piece of a sentence to the next.
const TTS_TIMEOUT: Duration = Duration::from_secs(30);

/// The shortest time between two messages about the state of a role.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client that did not read may take to learn why its connection was aborted.
const CLOSE_LINGER_TIMEOUT: Duration = Duration::from_secs(30);

/// What every session of the gateway uses.
pub struct Services {
    /// What is the same for all sessions.
    pub config: Arc<SessionConfig>,
    /// Joins LiveKit rooms; none where the gateway has no LiveKit.
    pub agents: Option<Agents>,
    /// Who is in which room.
    pub rooms: Rooms,
    /// Backends that receive what clients send.
    pub consumers: Consumers,
    /// Spoken responses as files.
    pub clips: Clips,
    /// The conversation history.
    pub history: Arc<dyn HistoryStore>,
    /// Speech to text.
    pub stt: Option<Arc<dyn SpeechToText>>,
    /// The language model; none where the configured one is not there.
    pub llm: Option<Arc<dyn LanguageModel>>,
    /// Text to speech.
    pub tts: Option<Arc<dyn TextToSpeech>>,
    /// The embedded voice, which speaks where no TTS does.
    pub excuse_voice: Option<Arc<dyn TextToSpeech>>,
    /// Judges whether a turn is complete; none where pauses are judged by their length and words.
    pub turn: Option<Arc<dyn EndOfTurnModel>>,
    /// The states of the three, as far as they are there.
    pub chains: Vec<Arc<ChainState>>,
}

/// Whoever started the actor, and what it has to know of it. Neither call blocks.
pub trait SessionOwner: Send + Sync {
    /// Devices of this user fight for their session: further ones are refused until then.
    fn refuse_takeovers(&self, user: &UserId, until: Instant);

    /// The options of the session changed.
    fn configured(&self, id: SessionId, options: SessionOptions);

    /// The session ended, and its actor stops.
    fn ended(&self, id: SessionId, reason: EndReason, actor: &Addr<SessionActor>);
}

// --- State ------------------------------------------------------------------------------------

/// One session at work.
pub struct SessionActor {
    session: Session,
    services: Arc<Services>,
    owner: Arc<dyn SessionOwner>,
    /// The attached socket and those that are being closed.
    sockets: Vec<SocketHandle>,
    /// The transcription streams of the open utterances.
    utterances: BTreeMap<UtteranceId, mpsc::Sender<Pcm>>,
    /// The judgement of a pause that is under way.
    judgement: Option<SpawnHandle>,
    /// The language model's stream; dropping it cancels the work.
    llm: Option<SpawnHandle>,
    /// The call behind it, and its generation. Not part of the stream: actix drops a cancelled one a while later.
    call: Option<(u32, ModelCall)>,
    /// The stream of the translation, and the call behind it with its number; likewise.
    translation: Option<SpawnHandle>,
    translation_call: Option<(u32, ModelCall)>,
    /// The synthesizer's stream, likewise.
    tts: Option<SpawnHandle>,
    /// Calls of tools that are not the client's, by id; at most those of one step.
    tools: HashMap<String, SpawnHandle>,
    /// The agent in the room; it leaves when it is dropped.
    agent: Option<Agent>,
    /// Counts agents: what an earlier one still reports does not count.
    agent_number: u64,
    /// Whether the agent subscribes to the microphone's track.
    subscribes: bool,
    /// The one timer, at the machine's deadline.
    wake: Option<(Instant, SpawnHandle)>,
    providers: Providers,
    /// Who asked over REST and waits: the last, and one that is told at this moment that it is not answered.
    askers: Vec<(QuestionId, mpsc::Sender<Reply>)>,
    last_question: QuestionId,
    /// What became of the STT service's message that is being handled.
    taken: Option<Taken>,
    /// The client that consumers were last told of.
    announced: Option<(Profile, SocketId)>,
}

impl SessionActor {
    /// The actor of a session that no client is attached to yet.
    pub fn new(info: SessionInfo, services: Arc<Services>, owner: Arc<dyn SessionOwner>) -> Self {
        let session = Session::new(info, services.config.clone(), clock::now(), clock::unix_ms());
        let providers = Providers::of(&services, session.options(), Needs::default());
        Self {
            session,
            services,
            owner,
            sockets: Vec::new(),
            utterances: BTreeMap::new(),
            judgement: None,
            llm: None,
            call: None,
            translation: None,
            translation_call: None,
            tts: None,
            tools: HashMap::new(),
            agent: None,
            agent_number: 0,
            subscribes: true,
            wake: None,
            providers,
            askers: Vec::new(),
            last_question: 0,
            taken: None,
            announced: None,
        }
    }

    /// Feeds one input to the machine, carries out its effects, and re-arms the one timer.
    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        for effect in self.session.handle(input, clock::now()) {
            self.perform(effect, ctx);
        }
        self.providers.need(self.needs());
        self.announce();
        self.rearm(ctx);
    }

    /// Without a client on the channel and an agent in the room, nobody speaks, and only recordings are spoken.
    fn needs(&self) -> Needs {
        let has_audio = self.session.socket().is_some() || self.agent.is_some();
        Needs { stt: has_audio, tts: has_audio || self.session.is_recording() }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Send(socket, text) => self.send(socket, frame::text(&text), ctx),
            Effect::SendBinary(socket, payload) => self.send(socket, frame::binary(&payload), ctx),
            Effect::Ping(socket) => self.send(socket, frame::ping(), ctx),
            Effect::Close(socket, close, reason) => self.close(socket, close, reason),
            Effect::VerifyToken { socket, token, reply_to } => {
                let authenticator = self.services.config.authenticator.clone();
                let verified = async move { authenticator.verify(token.expose()).await };
                ctx.spawn(verified.into_actor(self).map(move |verified, actor, ctx| {
                    actor.step(Input::TokenVerified(socket, reply_to, verified), ctx);
                }));
            }
            Effect::Transcribe(utterance, request) => {
                let place = self.services.config.limits.transcribe(&self.session.info().user);
                self.transcribe(utterance, request, place, ctx);
            }
            Effect::TranscribeBeside(utterance, request) => {
                let places = self.services.config.limits.transcribe_beside(&self.session.info().user);
                self.transcribe(utterance, request, places, ctx);
            }
            Effect::UtteranceAudio(utterance, samples) => self.utterance_audio(utterance, samples),
            Effect::JudgePause(number, heard) => self.judge_pause(number, heard, ctx),
            Effect::EndUtterance(utterance) => _ = self.utterances.remove(&utterance),
            Effect::Generate(generation, prompt) => {
                let items = terminated(self.generate(generation, prompt));
                self.llm = Some(ctx.add_stream(items.map(move |item| LlmItem(generation, item))));
            }
            Effect::StopLlm => {
                self.call = None;
                cancel(&mut self.llm, ctx);
            }
            Effect::Translate(id, prompt) => {
                let items = terminated(self.translate(id, prompt));
                self.translation = Some(ctx.add_stream(items.map(move |item| TranslationItem(id, item))));
            }
            Effect::StopTranslation => {
                self.translation_call = None;
                cancel(&mut self.translation, ctx);
            }
            Effect::Synthesize(generation, request) => {
                let Some(tts) = &self.providers.tts else { return };
                let items = terminated(speech(&**tts, request));
                self.tts = Some(ctx.add_stream(items.map(move |item| TtsItem(generation, item))));
            }
            Effect::Excuse(generation, request) => {
                let items = match &self.services.excuse_voice {
                    Some(voice) => speech(&**voice, request),
                    None => ProviderError::Unavailable("there is no embedded voice".into()).into_stream(),
                };
                let items = terminated(items);
                self.tts = Some(ctx.add_stream(items.map(move |item| TtsItem(generation, item))));
            }
            Effect::StopTts => {
                cancel(&mut self.tts, ctx);
                if let Some(agent) = &self.agent {
                    agent.clear_speech();
                }
            }
            Effect::PublishSpeech(samples) => {
                if let Some(agent) = &self.agent {
                    agent.publish(&samples);
                }
            }
            Effect::PlayClip { socket, request_id, samples, rate_hz } => {
                let Some(handle) = self.sockets.iter().find(|handle| handle.id == socket) else {
                    return;
                };
                let info = self.session.info();
                let (clips, playback) = (&self.services.clips, ClipUse::Playback);
                let name = clips.keep(playback, info.id, &info.user, &samples, rate_hz);
                let url = format!("{}/clips/{name}.wav", handle.base_url);
                self.send(socket, frame::text(&ToMentra::play(request_id, url).encode()), ctx);
            }
            Effect::DropClips => self.services.clips.forget_playback(self.session.info().id),
            Effect::Forward(message) => {
                let info = self.session.info();
                self.services.consumers.client_message(info.id, &info.user, message.into_object());
            }
            Effect::ForwardStream(message) => {
                self.services.consumers.publish(&self.session.info().user, || serde_json::json!(message));
            }
            Effect::RefuseUntil(until) => self.owner.refuse_takeovers(&self.session.info().user, until),
            Effect::Save(item, turn) => self.save(item, turn, ctx),
            Effect::Configured(options) => {
                if let Some(agent) = &self.agent {
                    agent.listen_to(options.participants.clone());
                }
                self.providers = Providers::of(&self.services, &options, self.needs());
                self.owner.configured(self.session.info().id, options);
            }
            Effect::CallTool(target, invocation) => self.call_tool(target, invocation, ctx),
            Effect::CancelTool(call_id) => {
                cancel(&mut self.tools.remove(&call_id), ctx);
            }
            Effect::Reply(question, reply) => self.reply(question, reply),
            Effect::Taken(taken) => self.taken = Some(taken),
            Effect::JoinRoom => self.join_room(ctx),
            Effect::LeaveRoom => self.agent = None,
            Effect::SubscribeMicrophone(subscribe) => {
                self.subscribes = subscribe;
                if let Some(agent) = &self.agent {
                    agent.subscribe_microphone(subscribe);
                }
            }
            Effect::RetryJoin => {
                if let Some(agent) = &self.agent {
                    agent.retry_now();
                }
            }
            Effect::WatchRoom(room, holder) => self.watch(&room, &holder),
            Effect::UnwatchRoom(room) => {
                if let Some(socket) = self.session.socket() {
                    self.services.rooms.unsubscribe(&room, socket);
                }
            }
            Effect::Ended(reason) => self.ended(reason, ctx),
        }
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let deadline = self.session.deadline();
        if self.wake.map(|(at, _)| at) == deadline.map(|(at, _)| at) {
            return;
        }
        if let Some((_, handle)) = self.wake.take() {
            ctx.cancel_future(handle);
        }
        self.wake = deadline.map(|(at, reason)| {
            let wait = at.saturating_duration_since(clock::now());
            tracing::trace!(session.id = %self.session.info().id, ?reason, ?wait, "timer set");
            let handle = ctx.run_later(wait, |actor, ctx| {
                actor.wake = None;
                actor.step(Input::Tick, ctx);
            });
            (at, handle)
        });
    }

    // --- Sockets ---

    /// Tells the consumers that a client came or went.
    fn announce(&mut self) {
        let attached = self.session.socket().map(|socket| (self.session.profile(), socket));
        if attached != self.announced {
            self.announced = attached;
            let info = self.session.info();
            let profile = self.session.profile();
            self.services.consumers.presence(info.id, &info.user, profile, attached.is_some());
        }
    }

    fn send(&mut self, socket: SocketId, frame: bytes::Bytes, ctx: &mut Context<Self>) {
        let Some(handle) = self.sockets.iter().find(|handle| handle.id == socket) else {
            return;
        };
        match handle.send(frame) {
            Ok(()) | Err(SendError::Closed) => {}
            Err(SendError::Full) => self.abort_slow_client(socket, ctx),
        }
    }

    /// The client does not read. Its connection is aborted, and it can resume with what it missed. Should
    /// it read again, the first that it gets is the reason.
    fn abort_slow_client(&mut self, socket: SocketId, ctx: &mut Context<Self>) {
        metrics::counter!(telemetry::SLOW_CLIENTS).increment(1);
        tracing::warn!(session.id = %self.session.info().id, "client does not read, connection aborted");
        let close = self.session.profile().close(Close::SlowClient);
        for handle in self.sockets.extract_if(.., |handle| handle.id == socket) {
            let send_queue = handle.send_queue().clone();
            send_queue.abort_with(frame::close(close, "does not take what it is sent"));
            actix::spawn(async move {
                tokio::time::sleep(CLOSE_LINGER_TIMEOUT).await;
                send_queue.abort();
            });
        }
        ctx.notify(FromSocket { id: socket, event: SocketEvent::Closed });
    }

    fn close(&mut self, socket: SocketId, close: Close, reason: &str) {
        if let Some(at) = self.sockets.iter().position(|handle| handle.id == socket) {
            let handle = self.sockets.swap_remove(at);
            // A socket whose queue is full cannot be told why; it is closed all the same.
            let _ = handle.send(frame::close(close, reason));
            handle.send_queue().finish();
        }
    }

    // --- Recognition ---

    /// Opens a transcription stream that holds its `place` until it ends.
    fn transcribe<P: Send + 'static>(
        &mut self,
        utterance: UtteranceId,
        request: SttRequest,
        place: Result<P, Refusal>,
        ctx: &mut Context<Self>,
    ) {
        let Some(stt) = &self.providers.stt else { return };
        let (audio, queue) = mpsc::channel(AUDIO_QUEUE);
        let events = match place {
            // The gateway's own language, or that of a session of earlier providers.
            Ok(_) if !stt.transcribes(&request.language) => {
                let problem = format!("{} does not transcribe this language", stt.name());
                ProviderError::Refused(problem).into_stream()
            }
            Ok(place) => {
                self.utterances.insert(utterance, audio);
                within(stt.open(request, queue), STT_TIMEOUT).inspect(move |_| _ = &place).boxed()
            }
            Err(refusal) => ProviderError::Limited(refusal).into_stream(),
        };
        ctx.add_stream(events.map(move |event| Transcript { utterance, event }));
    }

    /// Asks how finished a turn sounds.
    fn judge_pause(&mut self, number: u64, heard: Pcm, ctx: &mut Context<Self>) {
        let Some(model) = &self.services.turn else { return };
        let judged = model.judge(heard);
        // One of an earlier pause is dropped, and with it the work.
        cancel(&mut self.judgement, ctx);
        self.judgement = Some(ctx.spawn(judged.into_actor(self).map(move |judged, actor, ctx| {
            actor.judgement = None;
            actor.step(Input::PauseJudged(number, judged), ctx);
        })));
    }

    // --- The language model ---

    /// The model's events, if the user's budget allows another call.
    fn generate(
        &mut self,
        generation: u32,
        prompt: Prompt,
    ) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.call = None;
        let Some(llm) = &self.providers.llm else {
            return ProviderError::Unavailable("no language model".into()).into_stream();
        };
        match self.services.config.limits.call_model(&self.session.info().user, prompt.bytes()) {
            Ok(call) => {
                self.call = Some((generation, call));
                let limits = self.services.config.limits.clone();
                let (user, bytes) = (self.session.info().user.clone(), prompt.bytes());
                llm.respond_hedged(prompt, Box::new(move || limits.hedge(&user, bytes)))
            }
            Err(refusal) => ProviderError::Limited(refusal).into_stream(),
        }
    }

    /// The same for a translation.
    fn translate(&mut self, id: u32, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.translation_call = None;
        let Some(llm) = &self.providers.translator else {
            return ProviderError::Unavailable("no language model translates".into()).into_stream();
        };
        match self.services.config.limits.translate(&self.session.info().user, prompt.bytes()) {
            Ok(call) => {
                self.translation_call = Some((id, call));
                llm.respond(prompt)
            }
            Err(refusal) => ProviderError::Limited(refusal).into_stream(),
        }
    }

    fn call_tool(&mut self, target: Target, invocation: Invocation, ctx: &mut Context<Self>) {
        let (call_id, kind) = (invocation.call_id.clone(), target.kind());
        let called = self.services.config.offer.tools.call(target, invocation);
        let answered = call_id.clone();
        let handle = ctx.spawn(called.into_actor(self).map(move |result, actor, ctx| {
            actor.tools.remove(&answered);
            actor.step(Input::ToolAnswered(answered, kind, result), ctx);
        }));
        self.tools.insert(call_id, handle);
    }

    fn utterance_audio(&self, utterance: UtteranceId, samples: Pcm) {
        if let Some(utterance) = self.utterances.get(&utterance)
            && utterance.try_send(samples).is_err()
        {
            metrics::counter!(telemetry::STT_AUDIO_DROPPED).increment(1);
        }
    }

    // --- The room ---

    fn join_room(&mut self, ctx: &mut Context<Self>) {
        let Some(agents) = &self.services.agents else { return };
        if self.agent.as_ref().is_some_and(|agent| !agent.has_given_up()) {
            return;
        }
        let listened_to = self.session.options().participants.clone();
        let info = self.session.info();
        let (agent, events) = agents.join(&info.user, &info.room, self.subscribes, listened_to);
        self.agent = Some(agent);
        self.agent_number += 1;
        let agent_number = self.agent_number;
        let events = tokio_stream::wrappers::ReceiverStream::new(events);
        ctx.add_stream(events.map(move |event| FromAgent { agent_number, event }));
    }

    fn watch(&self, room: &RoomName, holder: &Identity) {
        let attached = self.session.socket();
        if let Some(handle) = self.sockets.iter().find(|handle| Some(handle.id) == attached) {
            self.services.rooms.subscribe(
                room,
                handle.id,
                handle.send_queue(),
                SubscriberKind::Channel,
                Some(holder),
                None,
            );
        }
    }

    fn ended(&mut self, reason: EndReason, ctx: &mut Context<Self>) {
        self.agent = None;
        self.utterances.clear();
        let id = self.session.info().id;
        if reason.is_for_good() {
            self.services.clips.forget(id);
        } else {
            // Who asked over REST may still fetch a recording: no client of theirs keeps the session alive.
            self.services.clips.forget_playback(id);
        }
        self.services.consumers.session_ended(id);
        self.owner.ended(id, reason, &ctx.address());
        // Items on their way to the disk get there without this actor: the store has them already.
        ctx.stop();
    }
}

/// Each change of the state; of several in a short time the last.
fn changes(chain: &ChainState) -> impl Stream<Item = ChainStatus> + use<> {
    let mut seen = chain.subscribe();
    // A state that is not ready is news for a session that begins.
    seen.mark_changed();
    let told = (chain.ready(), false);
    stream::unfold((seen, told), |(mut seen, (told, wait))| async move {
        if wait {
            tokio::time::sleep(STATE_INTERVAL).await;
        }
        loop {
            seen.changed().await.ok()?;
            let status = seen.borrow_and_update().clone();
            if !status.is_like(&told) {
                return Some((status.clone(), (seen, (status, true))));
            }
        }
    })
}

/// A sentence as speech, if the TTS speaks its language.
fn speech(
    tts: &dyn TextToSpeech,
    request: SpeechRequest,
) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
    match &request.language {
        Some(language) if !tts.speaks(language) => {
            ProviderError::Refused(format!("{} does not speak {language}", tts.name())).into_stream()
        }
        Some(_) | None => within(tts.synthesize(request), TTS_TIMEOUT),
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
        self.remember(ctx);
        for chain in &self.services.chains {
            let role = chain.role();
            ctx.add_stream(changes(chain).map(move |status| ProviderChanged(role, status)));
        }
        self.rearm(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::gauge!(telemetry::SESSIONS).decrement(1);
    }
}

// --- Messages of its own streams --------------------------------------------------------------

/// From the agent in the room.
struct FromAgent {
    agent_number: u64,
    event: AgentEvent,
}

/// From the recogniser, about an utterance.
struct Transcript {
    utterance: UtteranceId,
    event: Result<SttEvent, ProviderError>,
}

/// From the providers of a role.
struct ProviderChanged(ProviderRole, ChainStatus);

/// From the language model, for a generation.
struct LlmItem(u32, StreamItem<LlmEvent>);

/// From the language model, for a translation.
struct TranslationItem(u32, StreamItem<LlmEvent>);

/// From the synthesizer, for a generation.
struct TtsItem(u32, StreamItem<Vec<i16>>);

// --- Handlers ---------------------------------------------------------------------------------

impl Handler<Attach> for SessionActor {
    type Result = ();

    fn handle(&mut self, Attach { socket, attachment }: Attach, ctx: &mut Self::Context) {
        let id = socket.id;
        self.sockets.push(socket);
        self.step(Input::Attach(id, Box::new(attachment)), ctx);
    }
}

impl Handler<FromSocket> for SessionActor {
    type Result = ();

    fn handle(&mut self, FromSocket { id, event }: FromSocket, ctx: &mut Self::Context) {
        let input = match event {
            SocketEvent::Message(message) => Input::ClientMessage(id, message),
            SocketEvent::Audio(frame) => Input::UplinkFrame(id, frame),
            SocketEvent::Pcm(payload) => Input::UplinkPcm(id, payload),
            SocketEvent::Malformed(error) => Input::Malformed(id, error),
            SocketEvent::Alive => Input::Alive(id),
            SocketEvent::Closed => {
                self.sockets.retain(|handle| handle.id != id);
                Input::SocketLost(id)
            }
        };
        self.step(input, ctx);
    }
}

impl Handler<MicrophonePublished> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: MicrophonePublished, ctx: &mut Self::Context) {
        self.step(Input::MicrophonePublished, ctx);
    }
}

impl Handler<Removed> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Removed, ctx: &mut Self::Context) {
        self.step(Input::Removed, ctx);
    }
}

impl Handler<LivekitTokenIssued> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: LivekitTokenIssued, ctx: &mut Self::Context) {
        self.step(Input::LivekitTokenIssued, ctx);
    }
}

impl Handler<Deliver> for SessionActor {
    type Result = Result<(), Undelivered>;

    fn handle(&mut self, Deliver(message): Deliver, _: &mut Self::Context) -> Self::Result {
        let attached = self.session.socket();
        let handle =
            self.sockets.iter().find(|handle| Some(handle.id) == attached).ok_or(Undelivered::Away)?;
        // A consumer that sends too much must not cost the client its connection.
        handle.send(frame::text(&message)).map_err(|error| match error {
            SendError::Full => Undelivered::Busy,
            SendError::Closed => Undelivered::Away,
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
    fn handle(&mut self, FromAgent { agent_number, event }: FromAgent, ctx: &mut Self::Context) {
        if agent_number != self.agent_number || self.agent.is_none() {
            return;
        }
        match event {
            AgentEvent::Audio(source, samples) => self.step(Input::RoomAudio(source, samples), ctx),
            AgentEvent::SourceGone(source) => self.step(Input::SourceGone(source), ctx),
            AgentEvent::ParticipantAudio(participant, samples) => {
                self.step(Input::ParticipantAudio(participant, samples), ctx);
            }
            AgentEvent::ParticipantGone(participant) => self.step(Input::ParticipantGone(participant), ctx),
            AgentEvent::ParticipantRefused(participant) => {
                self.step(Input::ParticipantRefused(participant), ctx);
            }
            AgentEvent::Observed(event) => self.services.rooms.observed(&self.session.info().room, event),
            AgentEvent::State(state) => self.step(Input::AgentState(state), ctx),
        }
    }

    /// The agent left for good; the session goes on without it.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Transcript> for SessionActor {
    fn handle(&mut self, Transcript { utterance, event }: Transcript, ctx: &mut Self::Context) {
        let input = match event {
            Ok(SttEvent::Interim(heard)) => Input::Interim(utterance, heard),
            Ok(SttEvent::Final(heard)) => Input::Final(utterance, heard),
            Err(error) => Input::SttFailed(utterance, error.to_string()),
        };
        self.step(input, ctx);
    }

    /// One utterance is transcribed; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<ProviderChanged> for SessionActor {
    fn handle(&mut self, ProviderChanged(role, status): ProviderChanged, ctx: &mut Self::Context) {
        self.step(Input::ProviderState(role, status), ctx);
    }

    /// The gateway stops.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<LlmItem> for SessionActor {
    fn handle(&mut self, LlmItem(generation, item): LlmItem, ctx: &mut Self::Context) {
        if let Some((_, call)) = self.call.as_mut().filter(|(of, _)| *of == generation) {
            match &item {
                StreamItem::More(event) => call.observe(event),
                StreamItem::Over(_) => self.call = None,
            }
        }
        self.step(Input::Llm(generation, item), ctx);
    }

    /// One response is generated; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<TranslationItem> for SessionActor {
    fn handle(&mut self, TranslationItem(id, item): TranslationItem, ctx: &mut Self::Context) {
        if let Some((_, call)) = self.translation_call.as_mut().filter(|(of, _)| *of == id) {
            match &item {
                StreamItem::More(event) => call.observe(event),
                StreamItem::Over(_) => self.translation_call = None,
            }
        }
        self.step(Input::Translation(id, item), ctx);
    }

    /// One final is translated; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<TtsItem> for SessionActor {
    fn handle(&mut self, TtsItem(generation, item): TtsItem, ctx: &mut Self::Context) {
        self.step(Input::Tts(generation, item), ctx);
    }

    /// One sentence is synthesized; the session goes on.
    fn finished(&mut self, _: &mut Self::Context) {}
}

#[cfg(test)]
mod tests;
