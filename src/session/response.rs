//! One response on its way: text as it is generated, split into sentences, synthesized one after the
//! other and paced to the client.
//!
//! ```text
//!   LLM ─delta─▶ text ─▶ sentences ─▶ queue ─▶ TTS ─samples─▶ Playback ─▶ frames or clips
//!                 └──▶ answer_delta … answer_done        speech_begin … speech_finish
//! ```
//!
//! Sentences wait here, not in the synthesizer. Only as many are handed out as the playback can use
//! soon, so that a barge-in discards little work and a long response holds little audio.
//!
//! A response may be *held*: it is generated, and its first sentence synthesized, and nobody learns of it until it is released.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    error::Code,
    ids::TurnId,
    language::Language,
    limits::Limit,
    protocol::{
        ToClient,
        edge_v1::{
            audio::DownlinkFrame,
            to_client::{Delivery, Finish, TurnMetrics},
        },
        mentra,
    },
    providers::tts::SpeechRequest,
    response::{
        clip_playback::ClipPlayback,
        playback::{FrameAudio, Playback, PlaybackEvent},
        sentence_splitter::SentenceSplitter,
        speech_format::{SpeechCodec, SpeechFormat},
        stream_playback::StreamPlayback,
    },
    session::{
        excuses::Excuse,
        out::{Effect, Out, is_due},
        question::{Asker, Failure, QuestionId},
    },
    turn::turn_manager::Turn,
};

/// No more sentences go to synthesis while this much speech waits to be sent.
const MAX_BUFFERED_SPEECH: Duration = Duration::from_secs(5);

/// How responses are spoken.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Sample rate of the synthesizer, in Hz.
    pub rate_hz: u32,
    /// Where the client hears it.
    pub delivery: Delivery,
}

/// The form in which a client plays responses.
#[derive(Clone, Copy, Debug)]
pub(super) enum SpeechForm {
    /// Frames, on the control channel or in the room.
    Frames(SpeechFormat),
    /// Files that it fetches.
    Clips,
}

/// What became of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The words that reached the user.
    pub(super) heard: String,
    /// How much speech was played, in milliseconds; none where it was not spoken.
    pub(super) played_ms: Option<u64>,
    /// How it ended.
    pub(super) finish: Finish,
}

/// What a step meant for the turn.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The first of the response reached the user.
    pub(super) started: bool,
    /// It was given to its end.
    pub(super) over: Option<Outcome>,
}

/// When things happened, for the latency waterfall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waterfall {
    /// When the endpointer decided that speech had ended; when a line was typed.
    pub(super) speech_end: Instant,
    /// The same, in milliseconds of the session.
    pub(super) speech_end_ms: u64,
    /// When the last final came; none for a typed line.
    pub(super) final_at: Option<Instant>,
}

/// The text of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextPhase {
    /// The language model is at work, no longer than until then.
    Generating { until: Instant },
    /// There is no more.
    Ended(Finish),
}

/// The synthesizer, as seen from this response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synthesis {
    Idle,
    /// It has a sentence.
    Busy,
    /// It failed before anything was spoken: the embedded voice speaks the excuse.
    Excusing,
    /// It failed: the rest stays unspoken.
    Failed,
    /// The client cannot play what it makes; likewise.
    Unplayable,
}

impl Synthesis {
    fn is_given_up(self) -> bool {
        matches!(self, Self::Failed | Self::Unplayable)
    }
}

/// The speech of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpeechPhase {
    /// Nothing was sent yet.
    Pending,
    /// `speech_begin` is out, or the first clip.
    Begun,
    /// The last frame is out, and `speech_finish`.
    Sent,
}

#[derive(Debug)]
struct Speech {
    voice: Voice,
    playback: Playback,
    synthesis: Synthesis,
    phase: SpeechPhase,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Response {
    turn: Turn,
    /// Nobody may learn of it yet.
    is_held: bool,
    text: String,
    /// The length of the text.
    chars: usize,
    /// Where the text begins that was generated since tools were called.
    step_begin: usize,
    text_phase: TextPhase,
    splitter: SentenceSplitter,
    /// Sentences that the synthesizer has not got yet.
    queue: VecDeque<String>,
    /// What is said before the first of them, and is no part of the response.
    filler: Option<String>,
    /// What is said where there is no text.
    excuse: Option<String>,
    /// None where responses are text only.
    speech: Option<Speech>,
    /// Who waits for it over REST.
    asker: Option<Asker>,
    /// The language to speak; none for the session's.
    language: Option<Language>,
    waterfall: Waterfall,
    first_token: Option<Instant>,
    first_audio: Option<Instant>,
    first_played: Option<Instant>,
}

impl Response {
    /// The response to `turn`, spoken where there is a voice. The language model has until then for it.
    pub(super) fn new(
        turn: Turn,
        voice: Option<Voice>,
        form: SpeechForm,
        waterfall: Waterfall,
        until: Instant,
    ) -> Self {
        let speech = voice.map(|voice| Speech {
            voice,
            playback: match form {
                SpeechForm::Clips => Playback::Clips(ClipPlayback::new(voice.rate_hz)),
                SpeechForm::Frames(format) => Playback::Stream(StreamPlayback::new(voice.rate_hz, format)),
            },
            synthesis: Synthesis::Idle,
            phase: SpeechPhase::Pending,
        });
        Self {
            turn,
            is_held: false,
            text: String::new(),
            chars: 0,
            step_begin: 0,
            text_phase: TextPhase::Generating { until },
            splitter: SentenceSplitter::default(),
            queue: VecDeque::new(),
            filler: None,
            excuse: None,
            speech,
            asker: None,
            language: None,
            waterfall,
            first_token: None,
            first_audio: None,
            first_played: None,
        }
    }

    /// Nobody may learn of it until it is released.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// The turn is over, and is this one: what there is of the response goes out. The language model has until then for
    /// the rest.
    pub(super) fn release(
        &mut self,
        turn: Turn,
        waterfall: Waterfall,
        until: Instant,
        out: &mut Out<'_>,
    ) -> Progress {
        (self.turn, self.waterfall, self.is_held) = (turn, waterfall, false);
        if !self.text.is_empty() {
            out.tell(ToClient::AnswerDelta { turn_id: self.turn.id, text: self.text.clone() });
        }
        match &mut self.text_phase {
            TextPhase::Generating { until: deadline } => *deadline = until,
            TextPhase::Ended(finish) => {
                let finish = *finish;
                self.tell_done(finish, out);
            }
        }
        let mut progress = self.advance(out);
        progress.started |= !self.text.is_empty() && !self.is_played();
        progress
    }

    /// The answer goes to somebody who asked over REST as well; or to them alone.
    pub(super) fn asked_by(&mut self, asker: Asker, alone: bool) {
        if let Some(speech) = self.speech.as_mut().filter(|_| alone) {
            speech.playback = Playback::Recorded { is_complete: false };
        }
        self.language = asker.language().cloned();
        self.asker = Some(asker);
    }

    /// The question over REST that it answers.
    pub(super) fn question(&self) -> Option<QuestionId> {
        self.asker.as_ref().map(Asker::id)
    }

    /// The generation of its frames.
    pub(super) fn generation(&self) -> u32 {
        self.turn.generation
    }

    /// The turn it answers.
    pub(super) fn turn_id(&self) -> TurnId {
        self.turn.id
    }

    /// The codec of its frames on the channel.
    pub(super) fn codec(&self) -> Option<SpeechCodec> {
        match &self.speech {
            Some(Speech {
                playback: Playback::Stream(stream),
                voice: Voice { delivery: Delivery::Ws, .. },
                ..
            }) => Some(stream.codec()),
            Some(_) | None => None,
        }
    }

    // --- Text ---------------------------------------------------------------------------------

    /// The language model produced a piece of text.
    pub(super) fn text(&mut self, delta: &str, out: &mut Out<'_>) -> Progress {
        if !self.is_generating() || delta.is_empty() {
            return Progress::default();
        }
        let room = out.config().answer_chars - self.chars;
        let (delta, is_cut) = match delta.char_indices().nth(room) {
            Some((at, _)) => (&delta[..at], true),
            None => (delta, false),
        };
        self.chars += delta.chars().count();
        let first = self.first_token.is_none();
        self.first_token.get_or_insert(out.now);
        self.text.push_str(delta);
        if !self.is_held {
            out.tell(ToClient::AnswerDelta { turn_id: self.turn.id, text: delta.to_owned() });
        }
        if let Some(asker) = &self.asker {
            asker.tell(delta, out);
        }
        self.queue.extend(self.splitter.push(delta));
        let mut progress = if is_cut {
            Limit::AnswerChars.count();
            out.push(Effect::StopLlm);
            self.text_ended(Finish::Length, out)
        } else {
            self.advance(out)
        };
        progress.started |= first && !self.is_held && !self.is_played();
        progress
    }

    /// The language model waits for tools. What it said before is spoken meanwhile, and does not run into what it says
    /// then.
    pub(super) fn text_paused(&mut self, out: &mut Out<'_>) -> Progress {
        self.queue.extend(self.splitter.finish());
        match self.text.ends_with(|last: char| !last.is_whitespace()) {
            true => self.text(" ", out),
            false => self.advance(out),
        }
    }

    /// The response takes long. Where nothing of it was said, this is said meanwhile; it is no part of the response.
    pub(super) fn filler(&mut self, text: String, out: &mut Out<'_>) -> Progress {
        if self.text.is_empty() && self.speech.is_some() {
            self.filler = Some(text);
        }
        self.advance(out)
    }

    /// The text since tools were called.
    pub(super) fn take_step(&mut self) -> String {
        let step = self.text[self.step_begin..].trim().to_owned();
        self.step_begin = self.text.len();
        step
    }

    /// The language model has finished, or failed.
    pub(super) fn text_ended(&mut self, finish: Finish, out: &mut Out<'_>) -> Progress {
        if !self.is_generating() {
            return Progress::default();
        }
        self.text_phase = TextPhase::Ended(finish);
        self.queue.extend(self.splitter.finish());
        if !self.is_held {
            self.tell_done(finish, out);
        }
        if !self.is_recording() {
            self.answer_asker(finish, out);
        }
        self.advance(out)
    }

    /// The language model failed. Where it gave no text, the client is told an excuse, which is no part of the response.
    /// It is spoken unless the voice speaks another language.
    pub(super) fn failed(&mut self, out: &mut Out<'_>) -> Progress {
        if self.is_generating()
            && self.text.is_empty()
            && let Some(Excuse { text, language }) = self.excuse(out)
        {
            if let Some(language) = language
                && self.is_played()
                && out.options().check_speech(&language, &out.config().offer).is_ok()
            {
                self.queue.push_back(text.clone());
                self.language = Some(language);
            }
            self.excuse = Some(text);
        }
        self.text_ended(Finish::Error, out)
    }

    fn excuse(&self, out: &Out<'_>) -> Option<Excuse> {
        out.config().excuses.of(out.options().answer_language(self.language.as_ref()))
    }

    /// Whoever asked over REST gets no answer.
    pub(super) fn fail_asker(&mut self, failure: Failure, out: &mut Out<'_>) {
        if let Some(asker) = self.asker.take() {
            asker.fail(failure, out);
        }
    }

    fn answer_asker(&mut self, finish: Finish, out: &mut Out<'_>) {
        if let Some(asker) = self.asker.take() {
            asker.answer(self.turn.id, &self.text, finish, out);
        }
    }

    /// Whether its speech is recorded for whoever asked over REST.
    pub(super) fn is_recording(&self) -> bool {
        self.asker.as_ref().is_some_and(Asker::is_recording)
    }

    // --- Speech -------------------------------------------------------------------------------

    /// The synthesizer produced samples.
    pub(super) fn audio(&mut self, samples: &[i16], out: &mut Out<'_>) -> Progress {
        if let Some(asker) = &mut self.asker {
            asker.record(samples);
        }
        if let Some(speech) = &mut self.speech
            && !speech.synthesis.is_given_up()
        {
            speech.playback.push(samples);
        }
        self.advance(out)
    }

    /// The synthesizer is through with its sentence, or failed at it.
    pub(super) fn sentence_ended(&mut self, worked: bool, out: &mut Out<'_>) -> Progress {
        if let Some(asker) = self.asker.as_mut().filter(|_| !worked) {
            asker.recording_failed();
        }
        let excuse = if worked { None } else { self.excuse(out) };
        if let Some(speech) = &mut self.speech {
            speech.playback.end_sentence();
            match (worked, speech.synthesis) {
                (_, Synthesis::Failed | Synthesis::Unplayable) => {}
                (_, Synthesis::Excusing) => speech.synthesis = Synthesis::Failed,
                (true, Synthesis::Busy | Synthesis::Idle) => speech.synthesis = Synthesis::Idle,
                (false, Synthesis::Busy | Synthesis::Idle) => {
                    speech.playback.synthesis_failed();
                    speech.synthesis = match excuse {
                        Some(Excuse { text, language: language @ Some(_) }) if speech.playback.is_empty() => {
                            let request = SpeechRequest { language, ..SpeechRequest::text(text) };
                            out.push(Effect::Excuse(self.turn.generation, request));
                            Synthesis::Excusing
                        }
                        Some(_) | None => Synthesis::Failed,
                    };
                }
            }
        }
        self.advance(out)
    }

    /// The clip of this response that a client's answer is about, if it is about one.
    pub(super) fn clip(&self, request_id: &str) -> Option<u32> {
        let number = request_id.strip_prefix(&self.clip_prefix())?.parse().ok()?;
        matches!(self.speech, Some(Speech { playback: Playback::Clips(_), .. })).then_some(number)
    }

    /// The client has played a clip, or could not: then it cannot play the next one either.
    pub(super) fn clip_played(&mut self, clip: u32, worked: bool, out: &mut Out<'_>) -> Progress {
        if let Some(speech) = &mut self.speech {
            speech.playback.clip_played(clip);
            if !worked {
                speech.synthesis = Synthesis::Unplayable;
                speech.playback.clear();
            }
        }
        self.advance(out)
    }

    /// What the `requestId` of every clip of this response begins with.
    fn clip_prefix(&self) -> String {
        format!("{}-{}-", mentra::APP, self.turn.generation)
    }

    /// The client says how much it played.
    pub(super) fn played(&mut self, played_ms: u64, now: Instant) -> Progress {
        if let Some(speech) = &mut self.speech
            && speech.playback.reported(played_ms)
            && played_ms > 0
        {
            self.first_played.get_or_insert(now);
        }
        Progress::default()
    }

    /// The client is disconnected.
    pub(super) fn pause(&mut self, now: Instant) {
        if let Some(speech) = &mut self.speech {
            speech.playback.pause(now);
        }
    }

    /// The client is back.
    pub(super) fn resume(&mut self, out: &mut Out<'_>) -> Progress {
        if let Some(speech) = &mut self.speech {
            speech.playback.resume(out.now);
        }
        self.advance(out)
    }

    /// Gives the response up.
    pub(super) fn cut(mut self, out: &mut Out<'_>) -> Outcome {
        self.answer_asker(Finish::Interrupted, out);
        let phase = self.speech.as_ref().map_or(SpeechPhase::Pending, |speech| speech.phase);
        let played_out = phase == SpeechPhase::Sent && self.deadline().is_none();
        if phase != SpeechPhase::Pending && !played_out {
            out.tell(ToClient::AudioStopRequest { app_id: mentra::APP.into() });
        }
        if self.is_generating() {
            self.tell_done(Finish::Interrupted, out);
        }
        if phase == SpeechPhase::Begun && self.is_streamed() {
            self.tell_speech_finish(Finish::Interrupted, out);
        }
        self.tell_metrics(out);
        self.outcome(Finish::Interrupted, out.now)
    }

    /// When [`advance`](Self::advance) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.speech.as_ref().filter(|_| !self.is_held).and_then(|speech| speech.playback.deadline())
    }

    /// When [`tick`](Self::tick) cuts the text, if it has not ended by then.
    pub(super) fn text_deadline(&self) -> Option<Instant> {
        match self.text_phase {
            TextPhase::Generating { until } if !self.is_held => Some(until),
            TextPhase::Generating { .. } | TextPhase::Ended(_) => None,
        }
    }

    /// What time brings.
    pub(super) fn tick(&mut self, out: &mut Out<'_>) -> Progress {
        if !is_due(self.text_deadline(), out.now) {
            return self.advance(out);
        }
        Limit::AnswerTime.count();
        out.push(Effect::StopLlm);
        if self.text.is_empty() {
            let message = "the answer could not be made: it took too long";
            out.error(Code::AiUnavailable, message, None);
            self.fail_asker(Failure::new(Code::AiUnavailable, message), out);
            return self.failed(out);
        }
        self.text_ended(Finish::Length, out)
    }

    /// Whether more text may come.
    pub(super) fn is_generating(&self) -> bool {
        matches!(self.text_phase, TextPhase::Generating { .. })
    }

    /// Whether speech of the user is answered by speech.
    pub(super) fn is_spoken(&self) -> bool {
        self.is_played() && !self.turn.utterances.is_empty()
    }

    /// Whether a client hears it.
    fn is_played(&self) -> bool {
        self.speech.as_ref().is_some_and(|speech| !matches!(speech.playback, Playback::Recorded { .. }))
    }

    fn is_streamed(&self) -> bool {
        matches!(self.speech, Some(Speech { playback: Playback::Stream(_), .. }))
    }

    /// Does everything that can be done by now.
    pub(super) fn advance(&mut self, out: &mut Out<'_>) -> Progress {
        let mut progress = Progress::default();
        let is_recording = self.is_recording();
        let Some(speech) = &mut self.speech else {
            if self.is_held {
                return progress;
            }
            if let TextPhase::Ended(finish) = self.text_phase {
                self.tell_metrics(out);
                progress.over = Some(self.outcome(finish, out.now));
            }
            return progress;
        };

        match speech.synthesis {
            // The text may go on for a while.
            Synthesis::Excusing | Synthesis::Failed | Synthesis::Unplayable => self.queue.clear(),
            // One sentence is enough for a quick start.
            Synthesis::Idle if self.is_held && !speech.playback.is_empty() => {}
            // Who waits for a recording does not wait until it was played.
            Synthesis::Idle if is_recording || speech.playback.buffered() < MAX_BUFFERED_SPEECH => {
                let filler = self.filler.take();
                let counts = filler.is_none();
                if let Some(sentence) = filler.or_else(|| self.queue.pop_front()) {
                    speech.synthesis = Synthesis::Busy;
                    speech.playback.begin_sentence(if counts { sentence.clone() } else { String::new() });
                    let language = self.language.as_ref();
                    let request = out.options().speech(sentence, language, &out.config().offer);
                    out.push(Effect::Synthesize(self.turn.generation, request));
                }
            }
            Synthesis::Idle | Synthesis::Busy => {}
        }
        if self.is_held {
            return progress;
        }
        let is_working = matches!(speech.synthesis, Synthesis::Busy | Synthesis::Excusing);
        if let TextPhase::Ended(finish) = self.text_phase
            && self.queue.is_empty()
            && !is_working
        {
            speech.playback.complete();
            self.answer_asker(finish, out);
        }
        let is_played = self.is_played();
        let Some(speech) = &mut self.speech else { return progress };
        if let TextPhase::Ended(finish) = self.text_phase
            && speech.synthesis == Synthesis::Failed
            && speech.playback.is_empty()
            && is_played
        {
            // No sound is announced that there is none of.
            self.tell_speech_finish(Finish::Error, out);
            self.tell_metrics(out);
            progress.over = Some(self.outcome(finish, out.now));
            return progress;
        }
        for event in speech.playback.poll(out.now) {
            let begins = self.speech.as_ref().is_some_and(|speech| speech.phase == SpeechPhase::Pending);
            match event {
                PlaybackEvent::Frame { position, audio, end } => self.send(position, audio, end, out),
                PlaybackEvent::Clip { number, samples } => self.play_clip(number, samples, out),
                PlaybackEvent::Finished => {
                    self.tell_metrics(out);
                    let TextPhase::Ended(finish) = self.text_phase else { continue };
                    progress.over = Some(self.outcome(finish, out.now));
                    continue;
                }
            }
            progress.started |= begins;
        }
        progress
    }

    /// Sends a frame, on the control channel or in the room.
    fn send(&mut self, position: u64, audio: FrameAudio, end: bool, out: &mut Out<'_>) {
        let Some(speech) = &mut self.speech else { return };
        let Playback::Stream(stream) = &speech.playback else { return };
        let (turn_id, generation) = (self.turn.id, self.turn.generation);
        if speech.phase == SpeechPhase::Pending {
            speech.phase = SpeechPhase::Begun;
            self.first_audio = Some(out.now);
            out.tell(ToClient::SpeechBegin {
                turn_id,
                generation,
                codec: stream.codec().into(),
                sample_rate: stream.rate_hz(),
                pre_skip: stream.pre_skip(),
                channels: 1,
                delivery: speech.voice.delivery,
            });
        }
        match (audio, speech.voice.delivery, out.socket()) {
            (FrameAudio::Samples(samples), Delivery::Room, _) => out.push(Effect::PublishSpeech(samples)),
            (FrameAudio::Samples(samples), Delivery::Ws, Some(socket)) => {
                let frame = DownlinkFrame::encode_pcm(generation, position, end, &samples);
                out.push(Effect::SendBinary(socket, frame));
            }
            // The room gets samples.
            (FrameAudio::Packet { packet, padding }, _, Some(socket)) => {
                let padding = end.then_some(padding);
                let frame = DownlinkFrame::encode_opus(generation, position, padding, &packet);
                out.push(Effect::SendBinary(socket, frame));
            }
            (FrameAudio::Samples(_) | FrameAudio::Packet { .. }, _, None) => {}
        }
        if end && speech.phase == SpeechPhase::Begun {
            speech.phase = SpeechPhase::Sent;
            let finish = match (speech.synthesis, self.text_phase) {
                (Synthesis::Failed, _) => Finish::Error,
                (_, TextPhase::Ended(Finish::Length)) => Finish::Length,
                (_, TextPhase::Ended(_) | TextPhase::Generating { .. }) => Finish::Stop,
            };
            self.tell_speech_finish(finish, out);
        }
    }

    /// Lets the client play a clip.
    fn play_clip(&mut self, number: u32, samples: Vec<i16>, out: &mut Out<'_>) {
        let request_id = format!("{}{number}", self.clip_prefix());
        let Some(speech) = &mut self.speech else { return };
        if speech.phase == SpeechPhase::Pending {
            speech.phase = SpeechPhase::Begun;
            self.first_audio = Some(out.now);
        }
        if let Some(socket) = out.socket() {
            out.push(Effect::PlayClip { socket, request_id, samples, rate_hz: speech.voice.rate_hz });
        }
    }

    // --- Telling ------------------------------------------------------------------------------

    fn tell_done(&self, finish: Finish, out: &mut Out<'_>) {
        let (turn_id, text, excuse) = (self.turn.id, self.text.clone(), self.excuse.clone());
        out.tell(ToClient::AnswerDone { turn_id, text, finish, excuse });
    }

    fn tell_speech_finish(&self, finish: Finish, out: &mut Out<'_>) {
        let (turn_id, generation) = (self.turn.id, self.turn.generation);
        out.tell(ToClient::SpeechFinish { turn_id, generation, finish });
    }

    fn tell_metrics(&self, out: &mut Out<'_>) {
        let since_end = |at: Option<Instant>| {
            at.map(|at| at.saturating_duration_since(self.waterfall.speech_end).as_millis() as u64)
        };
        out.tell(ToClient::TurnMetrics(TurnMetrics {
            turn_id: self.turn.id,
            speech_end_ms: self.waterfall.speech_end_ms,
            final_ms: since_end(self.waterfall.final_at),
            first_token_ms: since_end(self.first_token),
            first_audio_ms: since_end(self.first_audio),
            first_played_ms: since_end(self.first_played),
        }));
    }

    /// What reached the user; an excuse does not count. Where synthesis failed that is what was heard of it; a client that
    /// cannot play has the text.
    fn outcome(&self, finish: Finish, now: Instant) -> Outcome {
        if self.text.is_empty() {
            let finish =
                if self.text_phase == TextPhase::Ended(Finish::Error) { Finish::Error } else { finish };
            return Outcome { heard: String::new(), played_ms: None, finish };
        }
        // Where nobody hears it, or nobody can, the text was delivered.
        let is_heard = self.is_played();
        let Some(speech) =
            self.speech.as_ref().filter(|speech| is_heard && speech.synthesis != Synthesis::Unplayable)
        else {
            return Outcome { heard: self.text.clone(), played_ms: None, finish };
        };
        let heard = speech.playback.heard(now);
        let is_unspoken =
            heard.text.is_empty() && matches!(speech.synthesis, Synthesis::Excusing | Synthesis::Failed);
        let played_ms = (speech.phase != SpeechPhase::Pending && !is_unspoken).then_some(heard.ms);
        let (heard, finish) = match (finish, speech.synthesis) {
            (Finish::Interrupted, _) => (heard.text, finish),
            (_, Synthesis::Failed) => (heard.text, Finish::Error),
            (Finish::Stop | Finish::Error | Finish::Length, _) => (self.text.clone(), finish),
        };
        Outcome { heard, played_ms, finish }
    }
}
