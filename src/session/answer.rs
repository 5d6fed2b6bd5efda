//! One answer on its way: text as it is thought, cut into sentences, spoken one after the other and
//! paced to the client.
//!
//! ```text
//!   thinker ─delta─▶ text ─▶ sentences ─▶ waiting ─▶ speaker ─samples─▶ playout ─▶ frames
//!                      └──▶ answer_delta … answer_done        speech_begin … speech_finish
//! ```
//!
//! Pure. Sentences wait here, not in the speaker: only as many are given out as the play-out can
//! use soon, so that a barge-in throws little work away and a long answer holds little sound.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    ids::TurnId,
    protocol::{
        ToClient,
        audio::{Codec, Down},
        mentra,
        to_client::{Delivery, Finish, TurnMetrics},
    },
    speech::{
        clips::{self, Clips},
        playout::{self, Playout},
        sentences::Sentences,
        turn::Turn,
    },
};

/// No more sentences go to the speaker while this much sound waits to be sent.
const ENOUGH_SOUND: Duration = Duration::from_secs(5);

/// An answer that grows beyond this many bytes is cut there: no client wants to hear more, and a
/// model that runs away must not fill the memory.
const LONGEST_TEXT: usize = 16 * 1024;

/// How answers are spoken.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Sample rate of the speaker, in Hz.
    pub rate_hz: u32,
    /// Where the client hears it.
    pub delivery: Delivery,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Tell the client.
    Tell(ToClient),
    /// Send a frame of sound.
    Sound(Bytes),
    /// Say samples in the room.
    SayInRoom(Vec<i16>),
    /// Let the client fetch samples and play them; [`Answer::clip_played`] says when it has.
    PlayClip {
        /// What it is asked for under.
        request_id: String,
        /// The samples.
        samples: Vec<i16>,
        /// In Hz.
        rate_hz: u32,
    },
    /// Let the speaker speak this; [`Answer::sentence_spoken`] says when it is through.
    Speak(String),
    /// The model need not go on.
    StopThinking,
    /// The first of it reached the user.
    Noticed,
    /// The answer was given to its end.
    Over(Outcome),
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The words that reached the user.
    pub heard: String,
    /// How much of the sound was played, in milliseconds; none where it was not spoken.
    pub played_ms: Option<u64>,
    /// How it ended.
    pub finish: Finish,
}

/// When things happened, for the latency waterfall.
#[derive(Clone, Copy, Debug)]
pub struct Waterfall {
    /// When the gate decided that speech had ended; when a line was typed.
    pub speech_end: Instant,
    /// The same, in milliseconds of the session.
    pub speech_end_ms: u64,
    /// When the last final came; none for a typed line.
    pub final_at: Option<Instant>,
}

/// How the sound gets to the client.
#[derive(Debug)]
enum Player {
    /// In frames, a little ahead of what is heard: on the control channel, or in the room.
    Frames(Playout),
    /// In files that it fetches.
    Clips(Clips),
}

/// The machine.
#[derive(Debug)]
pub struct Answer {
    turn: Turn,
    text: String,
    /// How the text ended, once it did.
    text_finish: Option<Finish>,
    sentences: Sentences,
    /// Sentences the speaker has not got yet.
    waiting: VecDeque<String>,
    /// The speaker is at work.
    speaking: bool,
    /// None where answers are text only.
    voice: Option<(Voice, Player)>,
    /// `speech_begin` is out.
    begun: bool,
    /// `speech_finish` is out.
    finished: bool,
    /// The speaker failed: what is left stays unspoken.
    mute: bool,
    waterfall: Waterfall,
    first_token: Option<Instant>,
    first_sound: Option<Instant>,
    first_played: Option<Instant>,
}

impl Answer {
    /// The answer to `turn`. It is spoken where there is a voice.
    pub fn new(turn: Turn, voice: Option<Voice>, waterfall: Waterfall) -> Self {
        Self {
            turn,
            text: String::new(),
            text_finish: None,
            sentences: Sentences::default(),
            waiting: VecDeque::new(),
            speaking: false,
            voice: voice.map(|voice| (voice, Player::Frames(Playout::new(voice.rate_hz)))),
            begun: false,
            finished: false,
            mute: false,
            waterfall,
            first_token: None,
            first_sound: None,
            first_played: None,
        }
    }

    /// The same for a client that plays nothing but files.
    pub fn in_clips(mut self) -> Self {
        self.voice = self.voice.map(|(voice, _)| (voice, Player::Clips(Clips::new(voice.rate_hz))));
        self
    }

    /// The generation of its frames.
    pub fn generation(&self) -> u32 {
        self.turn.generation
    }

    /// The turn it answers.
    pub fn turn_id(&self) -> TurnId {
        self.turn.id
    }

    /// The model gave a piece of text.
    pub fn thought(&mut self, delta: &str, now: Instant) -> Vec<Effect> {
        if self.text_finish.is_some() || delta.is_empty() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        let first = self.first_token.is_none();
        self.first_token.get_or_insert(now);
        self.text.push_str(delta);
        effects.push(Effect::Tell(ToClient::AnswerDelta { turn_id: self.turn.id, text: delta.to_owned() }));
        if first && self.voice.is_none() {
            effects.push(Effect::Noticed);
        }
        self.waiting.extend(self.sentences.push(delta));
        if self.text.len() > LONGEST_TEXT {
            effects.push(Effect::StopThinking);
            effects.extend(self.text_over(Finish::Stop, now));
        } else {
            effects.extend(self.advance(now));
        }
        effects
    }

    /// The model has finished, or failed.
    pub fn text_over(&mut self, finish: Finish, now: Instant) -> Vec<Effect> {
        if self.text_finish.is_some() {
            return Vec::new();
        }
        self.text_finish = Some(finish);
        self.waiting.extend(self.sentences.finish());
        let mut effects = vec![self.answer_done(finish)];
        effects.extend(self.advance(now));
        effects
    }

    /// The speaker gave samples.
    pub fn spoken(&mut self, samples: &[i16], now: Instant) -> Vec<Effect> {
        match &mut self.voice {
            None => return Vec::new(),
            Some((_, Player::Frames(playout))) => playout.push(samples),
            Some((_, Player::Clips(clips))) => clips.push(samples),
        }
        self.advance(now)
    }

    /// The speaker is through with its sentence, or failed at it.
    pub fn sentence_spoken(&mut self, worked: bool, now: Instant) -> Vec<Effect> {
        self.speaking = false;
        if let Some((_, Player::Clips(clips))) = &mut self.voice {
            clips.end_sentence();
        }
        if !worked {
            self.fall_silent();
        }
        self.advance(now)
    }

    /// The client is through with a clip, or could not play it; nothing of ours where it is another's.
    pub fn clip_played(&mut self, request_id: &str, worked: bool, now: Instant) -> Option<Vec<Effect>> {
        let clip = request_id.strip_prefix(&self.clip_prefix())?.parse().ok()?;
        let Some((_, Player::Clips(clips))) = &mut self.voice else { return None };
        clips.played(clip);
        if !worked {
            // One that cannot fetch this clip will not fetch the next one either.
            self.fall_silent();
        }
        Some(self.advance(now))
    }

    /// What every clip of this answer is asked for under, before its number.
    fn clip_prefix(&self) -> String {
        format!("{}-{}-", mentra::APP, self.turn.generation)
    }

    fn fall_silent(&mut self) {
        self.mute = true;
        if let Some((voice, Player::Clips(clips))) = &mut self.voice {
            *clips = Clips::new(voice.rate_hz);
        }
    }

    /// The client says how much it played.
    pub fn played(&mut self, played_ms: u64, now: Instant) {
        if let Some((_, Player::Frames(playout))) = &mut self.voice {
            playout.reported(played_ms);
            if played_ms > 0 {
                self.first_played.get_or_insert(now);
            }
        }
    }

    /// The client went away.
    pub fn pause(&mut self, now: Instant) {
        match &mut self.voice {
            None => {}
            Some((_, Player::Frames(playout))) => playout.pause(now),
            Some((_, Player::Clips(clips))) => clips.pause(now),
        }
    }

    /// The client is back.
    pub fn resume(&mut self, now: Instant) -> Vec<Effect> {
        match &mut self.voice {
            None => {}
            Some((_, Player::Frames(playout))) => playout.resume(now),
            Some((_, Player::Clips(clips))) => clips.resume(),
        }
        self.advance(now)
    }

    /// The answer is given up: what is to be told, and what became of it.
    pub fn cut(self, now: Instant) -> (Vec<Effect>, Outcome) {
        let mut effects = Vec::new();
        if self.begun && !self.over() {
            effects.push(Effect::Tell(ToClient::AudioStopRequest { app_id: "june".into() }));
        }
        if self.text_finish.is_none() {
            effects.push(self.answer_done(Finish::Interrupted));
        }
        if self.begun && !self.finished && self.is_in_frames() {
            effects.push(self.speech_finish(Finish::Interrupted));
        }
        effects.push(self.metrics());
        (effects, self.outcome(Finish::Interrupted, now))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Vec<Effect> {
        self.advance(now)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.voice.as_ref().map(|(_, player)| player)? {
            Player::Frames(playout) => playout.deadline(),
            Player::Clips(clips) => clips.deadline(),
        }
    }

    fn is_in_frames(&self) -> bool {
        matches!(self.voice, Some((_, Player::Frames(_))))
    }

    /// Does everything that can be done by now.
    fn advance(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some((_, player)) = &mut self.voice else {
            if let Some(finish) = self.text_finish {
                effects.push(self.metrics());
                effects.push(Effect::Over(self.outcome(finish, now)));
            }
            return effects;
        };

        if self.mute {
            // The text may go on for a while.
            self.waiting.clear();
        }
        let waiting = match player {
            Player::Frames(playout) => playout.waiting(),
            Player::Clips(clips) => clips.waiting(),
        };
        if !self.speaking
            && !self.mute
            && waiting < ENOUGH_SOUND
            && let Some(sentence) = self.waiting.pop_front()
        {
            self.speaking = true;
            match player {
                Player::Frames(playout) => playout.begin_sentence(sentence.clone()),
                Player::Clips(clips) => clips.begin_sentence(sentence.clone()),
            }
            effects.push(Effect::Speak(sentence));
        }
        if self.text_finish.is_some() && self.waiting.is_empty() && !self.speaking {
            match player {
                Player::Frames(playout) => playout.complete(),
                Player::Clips(clips) => clips.complete(),
            }
        }
        let over = match player {
            Player::Frames(_) => self.send_frames(now, &mut effects),
            Player::Clips(_) => self.play_clip(now, &mut effects),
        };
        if over {
            effects.push(self.metrics());
            effects.push(Effect::Over(self.outcome(self.text_finish.unwrap_or(Finish::Stop), now)));
        }
        effects
    }

    /// Sends the frames that are due; true where the answer was played to its end.
    fn send_frames(&mut self, now: Instant, effects: &mut Vec<Effect>) -> bool {
        let Some((voice, Player::Frames(playout))) = &mut self.voice else { return false };
        for effect in playout.handle(now) {
            match effect {
                playout::Effect::Frame { position, samples, end } => {
                    if !self.begun {
                        self.begun = true;
                        self.first_sound = Some(now);
                        effects.push(Effect::Tell(ToClient::SpeechBegin {
                            turn_id: self.turn.id,
                            generation: self.turn.generation,
                            codec: Codec::Pcm16le,
                            sample_rate: voice.rate_hz,
                            channels: 1,
                            delivery: voice.delivery,
                        }));
                        effects.push(Effect::Noticed);
                    }
                    effects.push(match voice.delivery {
                        Delivery::Ws => {
                            Effect::Sound(Down::encode_pcm(self.turn.generation, position, end, &samples))
                        }
                        Delivery::Room => Effect::SayInRoom(samples),
                    });
                    if end && !self.finished {
                        self.finished = true;
                        effects.push(Effect::Tell(ToClient::SpeechFinish {
                            turn_id: self.turn.id,
                            generation: self.turn.generation,
                            finish: Finish::Stop,
                        }));
                    }
                }
                playout::Effect::Over => return true,
            }
        }
        false
    }

    /// Lets the client play the clip that is due; true where the answer was played to its end.
    fn play_clip(&mut self, now: Instant, effects: &mut Vec<Effect>) -> bool {
        let prefix = self.clip_prefix();
        let Some((voice, Player::Clips(clips))) = &mut self.voice else { return false };
        match clips.handle(now) {
            Some(clips::Effect::Play { clip, samples }) => {
                let request_id = format!("{prefix}{clip}");
                effects.push(Effect::PlayClip { request_id, samples, rate_hz: voice.rate_hz });
                if !self.begun {
                    self.begun = true;
                    self.first_sound = Some(now);
                    effects.push(Effect::Noticed);
                }
                false
            }
            Some(clips::Effect::Over) => true,
            None => false,
        }
    }

    fn over(&self) -> bool {
        self.finished && self.deadline().is_none()
    }

    fn answer_done(&self, finish: Finish) -> Effect {
        Effect::Tell(ToClient::AnswerDone { turn_id: self.turn.id, text: self.text.clone(), finish })
    }

    fn speech_finish(&self, finish: Finish) -> Effect {
        Effect::Tell(ToClient::SpeechFinish {
            turn_id: self.turn.id,
            generation: self.turn.generation,
            finish,
        })
    }

    fn metrics(&self) -> Effect {
        let since_end = |at: Option<Instant>| {
            at.map(|at| at.saturating_duration_since(self.waterfall.speech_end).as_millis() as u64)
        };
        Effect::Tell(ToClient::TurnMetrics(TurnMetrics {
            turn_id: self.turn.id,
            speech_end_ms: self.waterfall.speech_end_ms,
            final_ms: since_end(self.waterfall.final_at),
            first_token_ms: since_end(self.first_token),
            first_audio_ms: since_end(self.first_sound),
            first_played_ms: since_end(self.first_played),
        }))
    }

    /// What reached the user. A voice that failed is made up for by the text, which was delivered.
    fn outcome(&self, finish: Finish, now: Instant) -> Outcome {
        match &self.voice {
            Some((_, player)) if !self.mute => {
                let (heard_text, heard_ms) = match player {
                    Player::Frames(playout) => (playout.heard_text(now), playout.heard_ms(now)),
                    Player::Clips(clips) => (clips.heard_text(now), clips.heard_ms(now)),
                };
                let heard = match finish {
                    Finish::Interrupted => heard_text,
                    Finish::Stop | Finish::Error => self.text.clone(),
                };
                Outcome { heard, played_ms: self.begun.then_some(heard_ms), finish }
            }
            Some(_) | None => Outcome { heard: self.text.clone(), played_ms: None, finish },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::UtteranceId};

    const RATE: u32 = 16_000;

    fn answer(voice: bool, now: Instant) -> Answer {
        let turn = Turn { id: TurnId(1), generation: 1, utterances: vec![UtteranceId(1)], text: "Hi".into() };
        let voice = voice.then_some(Voice { rate_hz: RATE, delivery: Delivery::Ws });
        Answer::new(turn, voice, Waterfall { speech_end: now, speech_end_ms: 1000, final_at: Some(now) })
    }

    /// The effects in a short form, sound frames counted.
    fn brief(effects: &[Effect]) -> Vec<String> {
        let mut brief: Vec<String> = Vec::new();
        let mut frames = 0;
        let flush = |brief: &mut Vec<String>, frames: &mut usize| {
            if *frames > 0 {
                brief.push(format!("{frames} frames"));
                *frames = 0;
            }
        };
        for effect in effects {
            if matches!(effect, Effect::Sound(_)) {
                frames += 1;
                continue;
            }
            flush(&mut brief, &mut frames);
            brief.push(match effect {
                Effect::Tell(ToClient::AnswerDelta { text, .. }) => format!("delta {text}"),
                Effect::Tell(ToClient::AnswerDone { text, finish, .. }) => format!("done {finish:?} {text}"),
                Effect::Tell(ToClient::SpeechBegin { .. }) => "begin".into(),
                Effect::Tell(ToClient::SpeechFinish { finish, .. }) => format!("finish {finish:?}"),
                Effect::Tell(ToClient::TurnMetrics(_)) => "metrics".into(),
                Effect::Tell(other) => {
                    format!("{other:?}").split([' ', '{']).next().unwrap_or_default().into()
                }
                Effect::Speak(sentence) => format!("speak {sentence}"),
                Effect::StopThinking => "stop thinking".into(),
                Effect::Noticed => "noticed".into(),
                Effect::Over(outcome) => format!("over {:?} {}", outcome.finish, outcome.heard),
                Effect::PlayClip { request_id, .. } => format!("play {request_id}"),
                Effect::Sound(_) | Effect::SayInRoom(_) => unreachable!("counted above"),
            });
        }
        flush(&mut brief, &mut frames);
        brief
    }

    #[test]
    fn for_a_client_that_plays_files_sentences_are_clips_and_it_says_when_they_are_played() {
        let now = clock::now();
        let mut answer = answer(true, now).in_clips();
        answer.thought("One. ", now);
        answer.thought("Two.", now);
        answer.text_over(Finish::Stop, now);
        answer.spoken(&[1; 16_000], now);
        assert_eq!(brief(&answer.sentence_spoken(true, now)), ["speak Two.", "play june-1-1", "noticed"]);
        answer.spoken(&[1; 16_000], now);
        assert_eq!(brief(&answer.sentence_spoken(true, now)), [""; 0]);
        assert!(answer.clip_played("somebody-else-s", true, now).is_none());
        assert_eq!(brief(&answer.clip_played("june-1-1", true, now).unwrap()), ["play june-1-2"]);
        assert_eq!(
            brief(&answer.clip_played("june-1-2", true, now).unwrap()),
            ["metrics", "over Stop One. Two."]
        );
    }

    #[test]
    fn a_client_that_cannot_play_a_clip_is_not_asked_to_play_another_one() {
        let now = clock::now();
        let mut answer = answer(true, now).in_clips();
        answer.thought("One. ", now);
        answer.thought("Two.", now);
        answer.spoken(&[1; 16_000], now);
        answer.sentence_spoken(true, now);
        answer.spoken(&[1; 16_000], now);
        answer.sentence_spoken(true, now);

        assert_eq!(brief(&answer.clip_played("june-1-1", false, now).unwrap()), [""; 0]);
        assert_eq!(
            brief(&answer.text_over(Finish::Stop, now)),
            ["done Stop One. Two.", "metrics", "over Stop One. Two."],
            "it has the text"
        );
    }

    #[test]
    fn an_answer_whose_voice_fails_before_its_text_is_over_comes_to_an_end() {
        let now = clock::now();
        let mut answer = answer(true, now);
        answer.thought("One. ", now);
        answer.sentence_spoken(false, now);
        answer.thought("Two. Three. ", now);
        let mut effects = answer.text_over(Finish::Stop, now);
        while let Some(deadline) = answer.deadline() {
            effects.extend(answer.tick(deadline));
        }
        assert!(brief(&effects).contains(&"over Stop One. Two. Three. ".to_owned()), "{:?}", brief(&effects));
    }

    #[test]
    fn an_answer_without_a_voice_is_over_with_its_text() {
        let now = clock::now();
        let mut answer = answer(false, now);
        assert_eq!(brief(&answer.thought("Hello.", now)), ["delta Hello.", "noticed"]);
        assert_eq!(
            brief(&answer.text_over(Finish::Stop, now)),
            ["done Stop Hello.", "metrics", "over Stop Hello."]
        );
    }

    #[test]
    fn sentences_are_spoken_one_after_the_other_while_the_text_still_grows() {
        let now = clock::now();
        let mut answer = answer(true, now);
        assert_eq!(
            brief(&answer.thought("You said: Hello there. And", now)),
            ["delta You said: Hello there. And", "speak You said:"]
        );
        assert_eq!(brief(&answer.spoken(&[1; 1600], now)), ["begin", "noticed", "5 frames"]);
        assert_eq!(brief(&answer.sentence_spoken(true, now)), ["speak Hello there."]);
        assert_eq!(brief(&answer.sentence_spoken(true, now)), Vec::<String>::new());
        assert_eq!(
            brief(&answer.text_over(Finish::Stop, now)),
            ["done Stop You said: Hello there. And", "speak And"]
        );
        assert_eq!(brief(&answer.spoken(&[1; 320], now)), ["1 frames"]);
        assert_eq!(brief(&answer.sentence_spoken(true, now)), ["1 frames", "finish Stop"]);

        let end = answer.deadline().unwrap();
        assert_eq!(end - now, Duration::from_millis(120));
        assert_eq!(brief(&answer.tick(end)), ["metrics", "over Stop You said: Hello there. And"]);
    }

    #[test]
    fn an_answer_that_is_cut_keeps_the_words_that_were_heard() {
        let now = clock::now();
        let mut answer = answer(true, now);
        answer.thought("One two three four. ", now);
        answer.spoken(&[1; 16_000], now);
        let later = now + Duration::from_millis(200);
        answer.tick(later);

        let at = later + Duration::from_millis(320);
        let (effects, outcome) = answer.cut(at);

        assert_eq!(
            brief(&effects),
            ["AudioStopRequest", "done Interrupted One two three four. ", "finish Interrupted", "metrics"]
        );
        assert_eq!(
            outcome,
            Outcome { heard: "One two".into(), played_ms: Some(520), finish: Finish::Interrupted }
        );
    }

    #[test]
    fn a_voice_that_fails_leaves_the_text() {
        let now = clock::now();
        let mut answer = answer(true, now);
        answer.thought("Hello there. ", now);
        answer.text_over(Finish::Stop, now);
        let effects = answer.sentence_spoken(false, now);
        let Some(Effect::Over(outcome)) = effects.last() else { panic!("{effects:?}") };
        assert_eq!(outcome.heard, "Hello there. ");
        assert_eq!(outcome.played_ms, None);
    }

    #[test]
    fn a_model_that_runs_away_is_stopped() {
        let now = clock::now();
        let mut answer = answer(true, now);
        let effects = answer.thought(&"word ".repeat(4000), now);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::StopThinking)));
        assert!(answer.thought("more", now).is_empty());
    }
}
