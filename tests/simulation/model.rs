//! The reference model: what clients, providers and the history may see of a session, in a few rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use june_edge::{protocol::edge_v1::to_client::Finish, session::Effect, store::history::HistoryItem};
use serde_json::Value;

/// Who speaks so soon after the first sound of an answer has not heard it.
const JOIN_WINDOW: Duration = Duration::from_millis(400);

/// What was said, and what became of it.
#[derive(Default)]
pub(crate) struct Model {
    /// Words that no response was begun for.
    unanswered: Vec<String>,
    /// The response that is being given.
    response: Option<Response>,
    /// The response that the current input cut; it is saved, or its words join the next turn.
    cut: Option<Response>,
    /// The newest generation.
    generation: u32,
    /// The utterance that is open.
    open: Option<u64>,
    /// Utterances that ended, and have no final yet.
    awaited: BTreeSet<u64>,
    /// The length of the last interim of each.
    interims: BTreeMap<u64, usize>,
    /// The last interim of each, told or not.
    words: BTreeMap<u64, String>,
    now: Option<Instant>,
    /// Finals that were told.
    finals: BTreeSet<u64>,
    /// Turns whose response was saved.
    saved: BTreeSet<u64>,
    answered: u64,
    released: u64,
}

struct Response {
    generation: u32,
    /// What it responds to.
    asked: Vec<String>,
    /// What the language model produced.
    text: String,
    /// What was given to the synthesizer.
    spoken: String,
    /// What of that was synthesized to its end.
    synthesized: String,
    /// The synthesizer has a sentence.
    synthesizing: bool,
    /// The synthesizer failed.
    failed: bool,
    /// The language model is at work.
    generating: bool,
    /// What it was prepared for, while nobody may learn of it.
    held: Option<String>,
    /// When its first frame was sent.
    started: Option<Instant>,
    /// The position of the next frame; none where the client has just resumed.
    position: Option<u64>,
}

impl Model {
    /// How many responses were given to their end.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// How many responses were prepared before the end of their turn, and given.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// The generation whose language model is at work.
    pub(crate) fn generating(&self) -> Option<u32> {
        self.response.as_ref().filter(|response| response.generating).map(|response| response.generation)
    }

    /// The generation that a sentence is synthesized of.
    pub(crate) fn synthesizing(&self) -> Option<u32> {
        self.response.as_ref().filter(|response| response.synthesizing).map(|response| response.generation)
    }

    /// The generation of the response that is being given.
    pub(crate) fn current(&self) -> Option<u32> {
        self.response.as_ref().map(|response| response.generation)
    }

    /// An utterance that is open, or ended without a final.
    pub(crate) fn transcribing(&self) -> Option<u64> {
        self.open.or_else(|| self.awaited())
    }

    pub(crate) fn interim(&self, utterance: u64) -> Option<String> {
        self.words.get(&utterance).cloned()
    }

    /// An utterance that ended without a final.
    pub(crate) fn awaited(&self) -> Option<u64> {
        self.awaited.first().copied()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Everything that was said was answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.response.is_none()
            && self.open.is_none()
            && self.awaited.is_empty()
            && self.unanswered.is_empty()
    }

    // --- Inputs -------------------------------------------------------------------------------

    /// The time of the next input.
    pub(crate) fn at(&mut self, now: Instant) {
        self.now = Some(now);
    }

    pub(crate) fn heard(&mut self, utterance: u64, text: &str) {
        self.words.insert(utterance, text.to_owned());
    }

    pub(crate) fn typed(&mut self, text: &str) {
        self.unanswered.push(text.to_owned());
    }

    pub(crate) fn transcribed(&mut self, utterance: u64, text: &str) {
        self.awaited.remove(&utterance);
        if !text.trim().is_empty() {
            self.unanswered.push(text.to_owned());
        }
        self.release();
    }

    /// The turn is over: a response that was prepared for these words is given.
    fn release(&mut self) {
        let is_over = self.open.is_none() && self.awaited.is_empty();
        if let Some(response) = self.response.as_mut().filter(|_| is_over)
            && let Some(held) = &response.held
            && words(held) == words(&self.unanswered.join(" "))
        {
            response.held = None;
            self.released += 1;
            response.asked = std::mem::take(&mut self.unanswered);
        }
    }

    pub(crate) fn generated(&mut self, text: &str) {
        self.response.as_mut().expect("a language model at work").text.push_str(text);
    }

    pub(crate) fn generated_all(&mut self) {
        self.response.as_mut().expect("a language model at work").generating = false;
    }

    pub(crate) fn synthesized(&mut self, worked: bool) {
        let response = self.response.as_mut().expect("a synthesizer at work");
        response.synthesizing = false;
        if worked {
            response.synthesized.clone_from(&response.spoken);
        } else {
            response.failed = true;
        }
    }

    /// The client is back: frames may start again from what it had played.
    pub(crate) fn reconnected(&mut self) {
        if let Some(response) = &mut self.response {
            response.position = None;
        }
    }

    /// Another process took over: what was under way is gone.
    pub(crate) fn restarted(&mut self) {
        let Self { answered, released, generation, .. } = *self;
        *self = Self { answered, released, generation, ..Self::default() };
    }

    // --- Effects ------------------------------------------------------------------------------

    #[expect(clippy::wildcard_enum_match_arm, reason = "the model knows what it is about, not every effect")]
    pub(crate) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Transcribe(utterance, _) => {
                assert_eq!(self.open.replace(utterance.0), None, "utterances do not overlap");
            }
            Effect::UtteranceAudio(utterance, _) => {
                assert_eq!(self.open, Some(utterance.0), "audio belongs to the open utterance");
            }
            Effect::EndUtterance(utterance) => {
                assert_eq!(self.open.take(), Some(utterance.0), "the open utterance is the one that ends");
                self.awaited.insert(utterance.0);
            }
            Effect::Generate(generation, prompt) => {
                let last = prompt.messages.last().expect("the user's turn");
                self.begin(*generation, last.text());
            }
            // What was held has left no trace.
            Effect::StopTts => self.cut = self.response.take().filter(|response| response.held.is_none()),
            Effect::Synthesize(generation, request) => self.synthesize(*generation, &request.text),
            Effect::Save(HistoryItem::Response { turn_id, text, finish, .. }, _) => {
                self.save(turn_id.0, text, *finish);
            }
            _ => {}
        }
    }

    fn begin(&mut self, generation: u32, asked: &str) {
        self.merge();
        assert!(generation > self.generation, "generations grow");
        assert!(self.response.is_none(), "one response at a time");
        self.generation = generation;
        let said = self.unanswered.join(" ");
        let held = (words(asked) != words(&said)).then(|| asked.to_owned());
        let said = match &held {
            None => std::mem::take(&mut self.unanswered),
            Some(held) => {
                let last = self.transcribing().expect("an utterance whose end is likely");
                let likely = format!("{said} {}", self.words[&last]);
                assert_eq!(words(held), words(&likely), "all that was said is asked, once");
                Vec::new()
            }
        };
        self.response = Some(Response {
            generation,
            asked: said,
            text: String::new(),
            spoken: String::new(),
            synthesized: String::new(),
            synthesizing: false,
            failed: false,
            generating: true,
            held,
            started: None,
            position: Some(0),
        });
    }

    fn synthesize(&mut self, generation: u32, sentence: &str) {
        let response = self.response.as_mut().expect("a response is being given");
        assert_eq!(response.generation, generation, "only the current response is spoken");
        assert!(!response.synthesizing, "one sentence at a time");
        assert!(response.held.is_none() || response.spoken.is_empty(), "one sentence of what is held");
        response.synthesizing = true;
        response.spoken.push_str(sentence);
        let (spoken, text) = (squeezed(&response.spoken), squeezed(&response.text));
        assert!(text.starts_with(&spoken), "what is spoken was generated: {spoken} of {text}");
    }

    fn save(&mut self, turn: u64, text: &str, finish: Finish) {
        assert!(self.saved.insert(turn), "turn {turn} is saved once");
        match self.cut.take() {
            Some(response) => {
                // A response without text that is cut is the language model's failure.
                let is_empty_failure = finish == Finish::Error && response.text.is_empty();
                assert!(finish == Finish::Interrupted || is_empty_failure, "{finish:?}");
                let heard = squeezed(text);
                assert!(squeezed(&response.text).starts_with(&heard), "{heard} was generated");
            }
            None => {
                let response = self.response.take().expect("the response that is saved was being given");
                assert_eq!(response.held, None, "what is held is not saved");
                assert_ne!(finish, Finish::Interrupted);
                assert!(!response.generating, "it is complete");
                if response.failed {
                    assert_eq!(finish, Finish::Error);
                    // A client may have reported less than it was sent.
                    let (heard, spoken) = (squeezed(text), squeezed(&response.synthesized));
                    assert!(spoken.starts_with(&heard), "what was heard was spoken: {heard} of {spoken}");
                } else {
                    assert_eq!(text, response.text, "the whole text is saved");
                }
                self.answered += 1;
            }
        }
    }

    /// What was cut and not saved had not reached the user: its words join the next turn.
    fn merge(&mut self) {
        if let Some(response) = self.cut.take() {
            let heard = response.started.filter(|at| self.now.is_some_and(|now| now >= *at + JOIN_WINDOW));
            assert_eq!(heard, None, "what was heard is saved");
            self.unanswered.splice(0..0, response.asked);
        }
    }

    /// All effects of an input were seen.
    pub(crate) fn handled(&mut self) {
        self.merge();
    }

    // --- Messages and frames ------------------------------------------------------------------

    /// A message to the attached client.
    pub(crate) fn told(&mut self, message: &Value) {
        match message["type"].as_str().expect("a type") {
            "speech_begin" => {
                let response = self.response.as_mut().expect("a response is being given");
                assert_eq!(message["generation"], response.generation);
                assert_eq!(response.held, None, "what is held is not heard");
                response.started = self.now;
            }
            "turn_started" => {
                let held = self.response.as_ref().filter(|response| response.held.is_some());
                let is_held = held.is_some_and(|response| message["generation"] == response.generation);
                assert!(!is_held, "nobody learns of what is held");
            }
            "data_stream" => self.transcript(&message["data"]),
            _ => {}
        }
    }

    fn transcript(&mut self, data: &Value) {
        let id = data["utteranceId"].as_str().expect("an id");
        let id: u64 = id.rsplit('_').next().and_then(|number| number.parse().ok()).expect("a number");
        let length = data["text"].as_str().expect("text").len();
        if data["isFinal"] == true {
            assert!(self.finals.insert(id), "one final for utterance {id}");
        } else {
            assert!(!self.finals.contains(&id), "no interim after the final");
            let last = self.interims.insert(id, length).unwrap_or_default();
            assert!(length >= last, "interims do not shrink");
        }
    }

    /// A binary frame to the attached client.
    pub(crate) fn frame(&mut self, generation: u32, position: u64, samples: u64) {
        let response = self.response.as_mut().expect("frames belong to a response");
        assert_eq!(response.generation, generation, "frames of a response that was cut are not sent");
        assert!(response.started.is_some(), "speech_begin comes first");
        if let Some(expected) = response.position {
            assert_eq!(position, expected, "frames are gap-free");
        }
        response.position = Some(position + samples);
    }
}

/// The words, whatever their order: typed lines and transcripts are ordered by rules of their own.
fn words(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_whitespace()).collect()
}
