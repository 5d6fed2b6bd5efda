//! The conversation: whose turn it is, the response that is being given, and the history that the language
//! model sees.

mod held;
mod tools;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    error::Code,
    ids::TurnId,
    language::Language,
    protocol::{
        Mode, Profile, ToClient,
        edge_v1::{
            from_client::{AudioPlayResponse, Interrupt, Playhead},
            to_client::{Delivery, Finish},
        },
    },
    providers::{
        ProviderError, StreamItem,
        llm::{ChatMessage, Image, LlmEvent, Prompt},
    },
    response::speech_format::{SpeechCodec, SpeechFormat},
    session::{
        MAX_TYPED_BYTES,
        out::{Effect, Out, Reason, Soonest},
        question::{Asker, Failure, Question, QuestionId, Reply},
        response::{Outcome, Progress, Response, SpeechForm, Voice, Waterfall},
    },
    store::history::HistoryItem,
    telemetry,
    tools::tool_loop::ToolLoop,
    turn::turn_manager::{self, Turn, TurnManager},
};

/// How much of the conversation the language model gets to read, in messages and in bytes.
const MAX_DIALOGUE_MESSAGES: usize = 24;
const MAX_DIALOGUE_BYTES: usize = 6_000;

/// Images that one turn may have; the oldest go first.
const MAX_IMAGES: usize = 4;

/// Speech that is detected so soon after the first sound of an answer is no reaction to it: it took 100 ms to detect,
/// people take 200 ms and more to react, and the sound has to reach them.
const JOIN_WINDOW: Duration = Duration::from_millis(400);

/// In place of the images of earlier lines.
const IMAGES_NOTE: &str = "\n[With an image that is no longer shown.]";

/// The machine.
#[derive(Debug)]
pub(super) struct Dialogue {
    turns: TurnManager,
    /// The response that is being given.
    response: Option<Box<Response>>,
    /// What it answers, until it is known what was heard of it.
    asked: Option<String>,
    /// The tool calls of the response.
    tools: ToolLoop,
    /// Images that came with it.
    images: Vec<Image>,
    /// Who asked the line that is answered next, if they did over REST, and their images.
    asker: Option<(Asker, Vec<Image>)>,
    /// The newest tool calls that the client was asked for, over or not.
    client_calls: VecDeque<String>,
    /// The conversation so far.
    messages: VecDeque<ChatMessage>,
    /// When the last utterance ended, and the same in milliseconds of the session.
    speech_end: Option<(Instant, u64)>,
    /// When the first of the response reached the user, until the turn manager knows that they may have heard it.
    started_at: Option<Instant>,
    /// What the response was prepared with, while it is held.
    held: Option<Held>,
    /// Whether speech can be delivered in the room at the moment.
    room: bool,
}

/// A response that waits for the end of the turn.
#[derive(Debug)]
struct Held {
    /// The language that was spoken.
    language: Option<Language>,
    /// The language model waits for tools, which have effects and are not called until the end is certain.
    wants_tools: bool,
}

impl Dialogue {
    /// Numbers turns and generations after these.
    pub(super) fn new(last_turn: TurnId, last_generation: u32) -> Self {
        Self {
            turns: TurnManager::new(last_turn, last_generation),
            response: None,
            asked: None,
            tools: ToolLoop::default(),
            images: Vec::new(),
            asker: None,
            client_calls: VecDeque::new(),
            messages: VecDeque::new(),
            speech_end: None,
            started_at: None,
            held: None,
            room: false,
        }
    }

    /// Whether speech can be delivered in the room from now on.
    pub(super) fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// The generation of the response that is being given.
    #[cfg(test)]
    pub(super) fn generation(&self) -> Option<u32> {
        self.turns.answering()
    }

    // --- What the user says -------------------------------------------------------------------

    /// Speech ended, or a line was typed: responses are timed from here.
    pub(super) fn speech_ended(&mut self, out: &Out<'_>) {
        self.speech_end = Some((out.now, out.elapsed_ms()));
    }

    /// A turn that the user typed.
    pub(super) fn typed(&mut self, text: &str, id: Option<String>, out: &mut Out<'_>) {
        match accept(text, out) {
            Ok(text) => {
                let language = out.options().tag(None);
                self.line(text, language, out);
            }
            Err(Failure { code, message, retry_after }) => {
                out.tell(ToClient::error_after(code, message, retry_after, id));
            }
        }
    }

    /// A line that is asked over REST.
    pub(super) fn asked(&mut self, id: QuestionId, question: Question, out: &mut Out<'_>) {
        let Question { text, images, language, with_audio } = question;
        let spoken = language.as_ref().filter(|_| with_audio);
        let accepted = spoken
            .map_or(Ok(()), |language| out.options().check_speech(language, &out.config().offer))
            .map_err(|problem| Failure::new(Code::InvalidRequest, format!("language: {problem}")))
            .and_then(|()| accept(&text, out));
        match accepted {
            Ok(text) => {
                let tag = language.as_ref().map_or_else(|| out.options().tag(None), ToString::to_string);
                self.asker = Some((Asker::new(id, language, with_audio, out.config().voice), images));
                self.line(text, tag, out);
            }
            Err(failure) => out.push(Effect::Reply(id, Reply::Failed(failure))),
        }
    }

    /// Whoever asked over REST does not wait any more: the response is given up.
    pub(super) fn withdrawn(&mut self, id: QuestionId, out: &mut Out<'_>) {
        if self.response.as_ref().and_then(|response| response.question()) == Some(id) {
            self.interrupt(out);
        }
    }

    /// Whether a response is being given.
    pub(super) fn is_answering(&self) -> bool {
        self.turns.answering().is_some()
    }

    /// Whether somebody waits for an answer over REST.
    pub(super) fn is_awaited(&self) -> bool {
        self.response.as_ref().is_some_and(|response| response.question().is_some())
    }

    /// Whether the response is recorded for them.
    pub(super) fn is_recording(&self) -> bool {
        self.response.as_ref().is_some_and(|response| response.is_recording())
    }

    fn line(&mut self, text: &str, language: String, out: &mut Out<'_>) {
        self.speech_ended(out);
        let at = out.elapsed_ms();
        out.push(Effect::Save(
            HistoryItem::Utterance {
                utterance_id: None,
                text: text.to_owned(),
                start_ms: at,
                end_ms: at,
                language,
                participant: None,
                speaker: None,
            },
            None,
        ));
        self.turn(turn_manager::Input::Typed(text.to_owned()), out);
    }

    /// What was said before this session.
    pub(super) fn remember(&mut self, earlier: Vec<ChatMessage>) {
        for message in earlier.into_iter().rev() {
            self.messages.push_front(message);
        }
        self.shorten();
    }

    // --- Turns --------------------------------------------------------------------------------

    pub(super) fn turn(&mut self, mut input: turn_manager::Input, out: &mut Out<'_>) {
        if let turn_manager::Input::Transcribed { text, .. } | turn_manager::Input::Heard { text, .. } =
            &mut input
            && out.options().mode() == Mode::Captions
        {
            // Captions are not answered, like an utterance without words.
            text.clear();
        }
        self.note_playback(&input, out);
        self.check_held(&input, out);
        self.pass_turn(input, out);
    }

    fn pass_turn(&mut self, input: turn_manager::Input, out: &mut Out<'_>) {
        for effect in self.turns.handle(input) {
            match effect {
                turn_manager::Effect::Answer(turn) => self.begin(turn, out),
                turn_manager::Effect::Prepare(turn) => self.prepare(turn, out),
                turn_manager::Effect::Release(turn) => self.release(turn, out),
                turn_manager::Effect::Drop { .. } => self.drop_held(out),
                turn_manager::Effect::Cut { merged_into_next_turn, .. } => {
                    self.cut(merged_into_next_turn, out)
                }
            }
        }
    }

    /// Before something interrupts a response: whether the user may have heard it. If not, their words join its turn.
    fn note_playback(&mut self, input: &turn_manager::Input, out: &mut Out<'_>) {
        let Some((response, at)) = self.response.as_ref().zip(self.started_at) else { return };
        let generation = response.generation();
        let is_unheard = response.is_spoken()
            && matches!(input, turn_manager::Input::SpeechStarted(_))
            && out.now < at + JOIN_WINDOW;
        if !is_unheard {
            self.pass_turn(turn_manager::Input::PlaybackStarted { generation }, out);
        }
    }

    /// The user, or the end of the session, interrupts the response.
    pub(super) fn interrupt(&mut self, out: &mut Out<'_>) {
        self.turn(turn_manager::Input::Interrupted, out);
    }

    /// Nothing is answered any more: captions begin.
    pub(super) fn dismiss(&mut self, out: &mut Out<'_>) {
        self.turn(turn_manager::Input::Dismissed, out);
    }

    /// The client asks to stop the response of a generation, or the current one.
    pub(super) fn interrupted_by_client(&mut self, interrupt: &Interrupt, out: &mut Out<'_>) {
        let current = self.turns.answering();
        if interrupt.generation.is_none_or(|generation| current == Some(generation)) {
            self.interrupt(out);
        }
    }

    /// The codec of the response that is being given, where that is on the channel.
    pub(super) fn codec(&self) -> Option<SpeechCodec> {
        self.response.as_ref().and_then(|response| response.codec())
    }

    fn begin(&mut self, turn: Turn, out: &mut Out<'_>) {
        tell_started(&turn, out);
        self.respond_to(turn, false, out);
    }

    /// Has a response generated; nobody learns of one that is `held`.
    fn respond_to(&mut self, turn: Turn, held: bool, out: &mut Out<'_>) {
        let waterfall = self.waterfall(&turn, out);
        self.started_at = None;
        self.asked = Some(turn.text.clone());
        let (asker, images) = self.asker.take().unzip();
        self.images.extend(images.into_iter().flatten());
        let old = self.images.len().saturating_sub(MAX_IMAGES);
        self.images.drain(..old);
        let (tools, limits) = (out.options().tools(&out.config().offer), out.config().tools.clone());
        self.tools = ToolLoop::new(turn.generation, tools, limits);
        self.generate(turn.generation, out);
        let alone = asker.is_some() && out.socket().is_none();
        let voice = match &asker {
            Some(asker) if alone => out.config().voice.filter(|_| asker.is_recording()),
            Some(_) | None => self.voice(out),
        };
        let form = match (voice.map_or(Delivery::Ws, |voice| voice.delivery), out.profile()) {
            (Delivery::Room, _) => SpeechForm::Frames(SpeechFormat::default()),
            // A client of that profile takes no binary frames.
            (Delivery::Ws, Profile::Mentra) => SpeechForm::Clips,
            (Delivery::Ws, Profile::EdgeV1) => SpeechForm::Frames(out.speech_format()),
        };
        let until = out.now + out.config().answer_time;
        let mut response = Response::new(turn, voice, form, waterfall, until);
        if let Some(asker) = asker {
            response.asked_by(asker, alone);
        }
        if held {
            response.hold();
        }
        if out.socket().is_none() {
            response.pause(out.now);
        }
        self.response = Some(Box::new(response));
    }

    fn waterfall(&self, turn: &Turn, out: &Out<'_>) -> Waterfall {
        let (speech_end, speech_end_ms) = self.speech_end.unwrap_or_else(|| (out.now, out.elapsed_ms()));
        let final_at = (!turn.utterances.is_empty()).then_some(out.now);
        Waterfall { speech_end, speech_end_ms, final_at }
    }

    /// Has the next step of the response generated, from all that was said and done before it.
    fn generate(&self, generation: u32, out: &mut Out<'_>) {
        let mut messages: Vec<ChatMessage> = self.messages.iter().cloned().collect();
        let asked = |text| ChatMessage::User { text, images: self.images.clone() };
        messages.extend(self.asked.clone().map(asked));
        messages.extend_from_slice(self.tools.messages());
        let system = out.options().instructions().unwrap_or(&out.config().system_prompt).to_owned();
        let prompt = Prompt { system, messages, tools: self.tools.specs() };
        out.push(Effect::Generate(generation, prompt));
    }

    /// How a response is spoken now: in the room only while the agent is there.
    fn voice(&self, out: &Out<'_>) -> Option<Voice> {
        out.config().voice.map(|voice| match voice.delivery {
            Delivery::Room if !self.room => Voice { delivery: Delivery::Ws, ..voice },
            Delivery::Room | Delivery::Ws => voice,
        })
    }

    /// Gives the response up. Where its turn goes on, nothing of it is kept.
    fn cut(&mut self, merged_into_next_turn: bool, out: &mut Out<'_>) {
        let Some(response) = self.response.take() else { return };
        out.push(Effect::StopLlm);
        out.push(Effect::StopTts);
        out.push(Effect::DropClips);
        let turn = response.turn_id();
        self.cancel_tools(turn, out);
        let outcome = response.cut(out);
        if merged_into_next_turn {
            self.asked = None;
        } else {
            self.keep(turn, outcome, out);
        }
    }

    // --- The response -------------------------------------------------------------------------

    /// What the language model produced for a generation.
    pub(super) fn llm(&mut self, generation: u32, item: StreamItem<LlmEvent>, out: &mut Out<'_>) {
        match item {
            StreamItem::More(LlmEvent::TextDelta(text)) => {
                self.respond(generation, out, |response, out| response.text(&text, out));
            }
            StreamItem::More(LlmEvent::Truncated) => {
                self.respond(generation, out, |response, out| response.text_ended(Finish::Length, out));
            }
            StreamItem::More(LlmEvent::Usage(usage)) => {
                tracing::debug!(session.id = %out.info().id, ?usage, "language model usage");
            }
            StreamItem::More(LlmEvent::ToolCall(call)) => {
                if self.is_generating(generation) {
                    self.tools.called(call);
                }
            }
            StreamItem::Over(result) => self.llm_ended(generation, result, out),
        }
    }

    fn llm_ended(&mut self, generation: u32, result: Result<(), ProviderError>, out: &mut Out<'_>) {
        if self.response.as_ref().is_none_or(|response| response.generation() != generation) {
            return;
        }
        if self.is_held() && self.held_ended(&result, out) {
            return;
        }
        let finish = match result {
            Ok(()) if self.tools.has_calls() && self.is_generating(generation) => {
                return self.step_ended(generation, out);
            }
            Ok(()) => Finish::Stop,
            Err(ProviderError::Limited(refusal)) => {
                self.fail_asker(refusal.into(), out);
                out.refuse(refusal, None);
                Finish::Error
            }
            Err(cause) => {
                tracing::warn!(session.id = %out.info().id, %cause, "no response");
                let failure = Failure::of_model(&cause);
                out.error(failure.code, failure.message.clone(), None);
                self.fail_asker(failure, out);
                return self.respond(generation, out, Response::failed);
            }
        };
        self.respond(generation, out, |response, out| response.text_ended(finish, out));
    }

    fn fail_asker(&mut self, failure: Failure, out: &mut Out<'_>) {
        if let Some(response) = &mut self.response {
            response.fail_asker(failure, out);
        }
    }

    /// What speech synthesis produced for a generation.
    pub(super) fn tts(&mut self, generation: u32, item: StreamItem<Vec<i16>>, out: &mut Out<'_>) {
        if let StreamItem::Over(Err(error)) = &item
            && self.is_held()
            && self.response.as_ref().is_some_and(|response| response.generation() == generation)
        {
            return self.held_failed(error, out);
        }
        self.respond(generation, out, |response, out| match item {
            StreamItem::More(samples) => response.audio(&samples, out),
            StreamItem::Over(result) => response.sentence_ended(result.is_ok(), out),
        });
    }

    /// The client says how much it played.
    pub(super) fn playhead(&mut self, playhead: &Playhead, out: &mut Out<'_>) {
        self.respond(playhead.generation, out, |response, out| response.played(playhead.played_ms, out.now));
    }

    /// A client played a file, or could not: one of the response's, or one of a consumer's. Gives the
    /// message back in the latter case.
    pub(super) fn clip_played(
        &mut self,
        played: AudioPlayResponse,
        out: &mut Out<'_>,
    ) -> Option<AudioPlayResponse> {
        let Some(clip) = self.response.as_ref().and_then(|response| response.clip(&played.request_id)) else {
            return Some(played);
        };
        if !played.success {
            metrics::counter!(telemetry::CLIPS_FAILED).increment(1);
            tracing::warn!(
                session.id = %out.info().id, cause = played.error.unwrap_or_default(),
                "the client cannot play a clip: does it reach PUBLIC_URL?"
            );
        }
        self.respond_now(out, |response, out| response.clip_played(clip, played.success, out));
        None
    }

    /// The client is gone for now.
    pub(super) fn pause(&mut self, now: Instant) {
        if let Some(response) = &mut self.response {
            response.pause(now);
        }
    }

    /// The client is back.
    pub(super) fn resume(&mut self, out: &mut Out<'_>) {
        self.respond_now(out, Response::resume);
    }

    /// Lets the current response do something, if it is of this generation.
    fn respond(
        &mut self,
        generation: u32,
        out: &mut Out<'_>,
        act: impl FnOnce(&mut Response, &mut Out<'_>) -> Progress,
    ) {
        if self.response.as_ref().is_some_and(|response| response.generation() == generation) {
            self.respond_now(out, act);
        }
    }

    fn respond_now(&mut self, out: &mut Out<'_>, act: impl FnOnce(&mut Response, &mut Out<'_>) -> Progress) {
        let Some(response) = &mut self.response else { return };
        let generation = response.generation();
        let Progress { started, over } = act(response, out);
        let (turn, is_generating) = (response.turn_id(), response.is_generating());
        if !is_generating {
            self.cancel_tools(turn, out);
        }
        if started {
            self.started_at.get_or_insert(out.now);
        }
        if let Some(outcome) = over
            && let Some(response) = self.response.take()
        {
            self.keep(response.turn_id(), outcome, out);
            self.turn(turn_manager::Input::Over { generation }, out);
        }
    }

    /// Puts what was asked and what was heard into the conversation and the history.
    fn keep(&mut self, turn_id: TurnId, outcome: Outcome, out: &mut Out<'_>) {
        if let Some(text) = self.asked.take() {
            // The images stay out of the conversation: each would be sent again with every later line.
            let note = if self.images.is_empty() { "" } else { IMAGES_NOTE };
            self.messages.push_back(ChatMessage::user(format!("{text}{note}")));
        }
        self.keep_tools();
        self.images.clear();
        let Outcome { heard, played_ms, finish } = outcome;
        if !heard.is_empty() {
            self.messages.push_back(ChatMessage::assistant(heard.clone()));
        }
        self.shorten();
        out.push(Effect::Save(
            HistoryItem::Response { turn_id, text: heard, finish, played_ms },
            Some(turn_id),
        ));
    }

    fn shorten(&mut self) {
        let mut bytes: usize = self.messages.iter().map(|message| message.bytes()).sum();
        while self.messages.len() > MAX_DIALOGUE_MESSAGES
            || bytes > MAX_DIALOGUE_BYTES
            || self.begins_in_tools()
        {
            match self.messages.pop_front() {
                Some(message) => bytes -= message.bytes(),
                None => break,
            }
        }
    }

    /// Whether the conversation begins with a call or a result whose question is gone.
    fn begins_in_tools(&self) -> bool {
        match self.messages.front() {
            Some(ChatMessage::Assistant { tool_calls, .. }) => !tool_calls.is_empty(),
            Some(ChatMessage::ToolResult(_)) => true,
            Some(ChatMessage::User { .. }) | None => false,
        }
    }

    // --- Time ---------------------------------------------------------------------------------

    pub(super) fn deadline(&self) -> Soonest {
        let response = self.response.as_deref();
        Soonest::default()
            .or(response.and_then(Response::deadline), Reason::Playback)
            .or(response.and_then(Response::text_deadline), Reason::AnswerTime)
            .or(self.tools.deadline(), Reason::ToolTime)
    }

    pub(super) fn tick(&mut self, out: &mut Out<'_>) {
        self.respond_now(out, Response::tick);
        self.tick_tools(out);
    }
}

fn tell_started(turn: &Turn, out: &mut Out<'_>) {
    out.tell(ToClient::TurnStarted {
        turn_id: turn.id,
        generation: turn.generation,
        utterance_ids: turn.utterances.clone(),
    });
}

/// A line that is typed or asked, if it may be answered.
fn accept<'a>(text: &'a str, out: &Out<'_>) -> Result<&'a str, Failure> {
    if out.options().mode() == Mode::Captions {
        let message = "nothing is answered in captions; configure_session changes the mode";
        return Err(Failure::new(Code::SessionError, message));
    }
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_TYPED_BYTES {
        return Err(Failure::new(
            Code::InvalidRequest,
            format!("text: must have 1 to {MAX_TYPED_BYTES} bytes"),
        ));
    }
    out.config().limits.type_line(&out.info().user, out.now)?;
    Ok(text)
}
