//! The reference model: what clients, providers and the history may see of a session, in a few rules.

use std::collections::{BTreeMap, BTreeSet};

use june_edge::{protocol::edge_v1::to_client::Finish, session::Effect, store::history::HistoryItem};
use serde_json::Value;

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
    /// Finals that were told.
    finals: BTreeSet<u64>,
    /// Turns whose response was saved.
    saved: BTreeSet<u64>,
    answered: u64,
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
    /// Its first frame was sent.
    started: bool,
    /// The position of the next frame; none where the client has just resumed.
    position: Option<u64>,
}

impl Model {
    /// How many responses were given to their end.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
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

    pub(crate) fn typed(&mut self, text: &str) {
        self.unanswered.push(text.to_owned());
    }

    pub(crate) fn transcribed(&mut self, utterance: u64, text: &str) {
        self.awaited.remove(&utterance);
        if !text.trim().is_empty() {
            self.unanswered.push(text.to_owned());
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
        let (answered, generation) = (self.answered, self.generation);
        *self = Self { answered, generation, ..Self::default() };
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
            Effect::StopTts => self.cut = self.response.take(),
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
        let said = std::mem::take(&mut self.unanswered);
        assert_eq!(words(asked), words(&said.join(" ")), "all that was said is asked, once");
        self.generation = generation;
        self.response = Some(Response {
            generation,
            asked: said,
            text: String::new(),
            spoken: String::new(),
            synthesized: String::new(),
            synthesizing: false,
            failed: false,
            generating: true,
            started: false,
            position: Some(0),
        });
    }

    fn synthesize(&mut self, generation: u32, sentence: &str) {
        let response = self.response.as_mut().expect("a response is being given");
        assert_eq!(response.generation, generation, "only the current response is spoken");
        assert!(!response.synthesizing, "one sentence at a time");
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
            assert!(!response.started, "what was heard is saved");
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
                response.started = true;
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
        assert!(response.started, "speech_begin comes first");
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
