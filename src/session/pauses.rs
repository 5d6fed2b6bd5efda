//! Pauses of the user: asks how finished a turn sounds, how long the pause has to be until it is over, and whether it
//! probably is.

use std::{collections::VecDeque, time::Duration};

use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    ids::UtteranceId,
    protocol::Mode,
    providers::ProviderError,
    session::out::{Effect, Out},
    turn::end_of_turn::EndOfTurn,
};

/// What is kept of a turn for the model, in samples: more than it listens to is of no use.
const MAX_KEPT: usize = 8 * SAMPLE_RATE_HZ as usize;

/// The machine.
#[derive(Debug)]
pub(super) struct Pauses {
    end_of_turn: EndOfTurn,
    /// The newest audio of the open utterance; empty where there is no model.
    heard: VecDeque<i16>,
    /// Counts pauses: what is known of an earlier one is stale.
    number: u64,
    phase: Phase,
    /// The last utterance, until its final is there.
    utterance: Option<UtteranceId>,
    /// Its newest interim.
    words: String,
    /// Whether that came since the user fell silent: then it probably has their last word.
    has_last_word: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Speaking,
    Paused,
    /// The utterance ended.
    Over,
}

impl Pauses {
    pub(super) fn new(end_of_turn: EndOfTurn) -> Self {
        Self {
            end_of_turn,
            heard: VecDeque::new(),
            number: 0,
            phase: Phase::Speaking,
            utterance: None,
            words: String::new(),
            has_last_word: false,
        }
    }

    /// An utterance began.
    pub(super) fn started(&mut self, utterance: UtteranceId) {
        self.utterance = Some(utterance);
        self.heard.clear();
        self.words.clear();
        self.speaking();
        self.end_of_turn.spoke();
    }

    /// More of it.
    pub(super) fn audio(&mut self, samples: &Pcm, out: &Out<'_>) {
        if !out.config().judges_pauses {
            return;
        }
        self.heard.extend(samples.iter());
        let surplus = self.heard.len().saturating_sub(MAX_KEPT);
        self.heard.drain(..surplus);
    }

    /// The user paused. How much silence ends the utterance, by what is known so far.
    pub(super) fn paused(&mut self, out: &mut Out<'_>) -> Option<Duration> {
        // Captions are not answered: nobody waits for the end of a turn, and nobody is interrupted.
        if out.options().mode() == Mode::Captions {
            return None;
        }
        self.number += 1;
        self.phase = Phase::Paused;
        if out.config().judges_pauses {
            let heard = Pcm::from(&*self.heard.make_contiguous());
            out.push(Effect::JudgePause(self.number, heard));
        }
        self.end_of_turn.transcribed(&self.words, out.options().answer_language(None));
        self.silence()
    }

    /// An interim. How much silence ends the utterance now.
    pub(super) fn interim(&mut self, utterance: UtteranceId, words: &str, out: &Out<'_>) -> Option<Duration> {
        if self.utterance != Some(utterance) {
            return None;
        }
        words.clone_into(&mut self.words);
        self.has_last_word = self.phase != Phase::Speaking;
        if self.has_last_word {
            self.end_of_turn.transcribed(words, out.options().answer_language(None));
        }
        self.silence()
    }

    /// The model's judgement of a pause. How much silence ends the utterance now; none if the pause is over.
    pub(super) fn judged(
        &mut self,
        number: u64,
        probability: Result<f32, ProviderError>,
    ) -> Option<Duration> {
        if number != self.number {
            return None;
        }
        match probability {
            Ok(probability) if self.phase == Phase::Paused => self.end_of_turn.judged(probability),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a pause was not judged: silence alone ends the turn"),
        }
        self.silence()
    }

    fn silence(&self) -> Option<Duration> {
        (self.phase == Phase::Paused).then(|| self.end_of_turn.silence())
    }

    /// The utterance that is probably the end of the turn, and its words.
    pub(super) fn likely_end(&self) -> Option<(UtteranceId, &str)> {
        let is_likely = self.phase != Phase::Speaking && self.has_last_word && self.end_of_turn.is_likely();
        self.utterance.filter(|_| is_likely).map(|utterance| (utterance, self.words.as_str()))
    }

    /// The user went on after a pause.
    pub(super) fn went_on(&mut self, silence: Duration) {
        self.speaking();
        self.end_of_turn.went_on_after(silence);
    }

    fn speaking(&mut self) {
        self.phase = Phase::Speaking;
        self.has_last_word = false;
    }

    /// The utterance is over.
    pub(super) fn ended(&mut self) {
        self.heard = VecDeque::new();
        self.phase = Phase::Over;
    }

    /// The final of an utterance is there.
    pub(super) fn transcribed(&mut self, utterance: UtteranceId) {
        self.utterance = self.utterance.filter(|last| *last != utterance);
    }
}
