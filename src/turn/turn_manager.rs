//! Turn-taking: when a turn of the user is over and is answered, and when a response has to stop.
//!
//! ```text
//!             all finals there, nobody speaks
//!   listening ───────────────────────────────▶ answering
//!       ▲                                         │ speech starts before playback started:      
//!       ├─────────────────────────────────────────┤   cut; its words join the next turn      
//!       │                                         │ speech starts afterwards: cut (barge-in)
//!       └─────────────────────────────────────────┘ over: played to the end
//! ```
//!
//! A response may be *prepared* while the user is still listened to, in a pause that is probably the end. It is released if
//! the turn ends with the same words, and dropped if not:
//!
//! ```text
//!   listening ──likely end──▶ listening, prepared ──all finals there, the same words──▶ answering
//!       ▲                        │ other words, or the user goes on: dropped
//!       └────────────────────────┘
//! ```
//!
//! Pure: [`dialogue`](crate::session) feeds it and carries out its effects.

use std::collections::BTreeSet;

use crate::ids::{TurnId, UtteranceId};

/// How much of what was said and not answered is part of the next turn, in bytes; what came first goes first. Twice
/// the longest typed line, or about ten minutes of speech.
const MAX_TURN_BYTES: usize = 8_000;

/// How many responses are prepared for one turn: somebody who pauses after every sentence of a long turn must not cost a
/// call of the language model each time.
const MAX_PREPARED: u32 = 3;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An utterance opened.
    SpeechStarted(UtteranceId),
    /// The last utterance is probably over, with these words.
    LikelyEnd {
        /// The utterance.
        utterance: UtteranceId,
        /// Its words so far.
        text: String,
    },
    /// The user went on after a pause, or what was prepared is of no use any more.
    NotOver,
    /// An utterance ended; its transcript is still to come.
    SpeechEnded(UtteranceId),
    /// The final transcript of an utterance that ended; empty where there were no words in it, or where it
    /// could not be transcribed.
    Transcribed {
        /// The utterance.
        utterance: UtteranceId,
        /// Its words.
        text: String,
    },
    /// An utterance that was detected and transcribed elsewhere. It interrupts, since nothing is known of its start.
    Heard {
        /// The utterance.
        utterance: UtteranceId,
        /// Its words; nothing happens where there are none.
        text: String,
    },
    /// The user typed a line.
    Typed(String),
    /// The first of a response reached the user: speech, or text where it is not spoken.
    PlaybackStarted {
        /// The response.
        generation: u32,
    },
    /// A response was given to its end, or failed.
    Over {
        /// The response.
        generation: u32,
    },
    /// The client asked to stop, by a button or its own barge-in detection.
    Interrupted,
    /// What was said so far is not to be answered any more.
    Dismissed,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Respond to this turn.
    Answer(Turn),
    /// Prepare a response to this turn, of which nobody may learn.
    Prepare(Turn),
    /// The turn is over, and is this one: respond to it with what was prepared, whose generation it has.
    Release(Turn),
    /// Nobody needs what was prepared.
    Drop {
        /// The generation of what was prepared.
        generation: u32,
    },
    /// Stop responding at once.
    Cut {
        /// The turn whose response is cut.
        turn: TurnId,
        /// Its generation: its frames must not be played any more.
        generation: u32,
        /// Whether its words are part of the next turn, because playback had not started.
        merged_into_next_turn: bool,
    },
}

/// A turn of the user that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its id.
    pub id: TurnId,
    /// Grows with each response; an older one is stale.
    pub generation: u32,
    /// The utterances in it, in order.
    pub utterances: Vec<UtteranceId>,
    /// All that was said or typed.
    pub text: String,
}

/// One piece of what the user said.
#[derive(Clone, Debug)]
struct Piece {
    /// None where it was typed.
    utterance: Option<UtteranceId>,
    text: String,
}

/// The response that is being given.
#[derive(Debug)]
struct Answer {
    turn: TurnId,
    generation: u32,
    /// What it responds to, for the next turn if it is cut before playback started.
    pieces: Vec<Piece>,
    playback_started: bool,
}

/// The machine.
#[derive(Debug)]
pub struct TurnManager {
    /// The open utterance.
    speaking: Option<UtteranceId>,
    /// Utterances whose transcripts are still to come.
    outstanding: BTreeSet<UtteranceId>,
    /// What was said since the last response.
    pieces: Vec<Piece>,
    answer: Option<Answer>,
    /// What a response is prepared for; never beside an answer.
    prepared: Option<Turn>,
    /// How many were prepared for the turn that is going on.
    preparations: u32,
    /// The last turn's id.
    last_turn: TurnId,
    /// The last response's generation.
    last_generation: u32,
}

impl TurnManager {
    /// Numbers turns and generations after these (0 for a new session).
    pub fn new(last_turn: TurnId, last_generation: u32) -> Self {
        Self {
            speaking: None,
            outstanding: BTreeSet::new(),
            pieces: Vec::new(),
            answer: None,
            prepared: None,
            preparations: 0,
            last_turn,
            last_generation,
        }
    }

    /// The generation of the response that is being given.
    pub fn answering(&self) -> Option<u32> {
        self.answer.as_ref().map(|answer| answer.generation)
    }

    /// The turn whose response is being given.
    pub fn turn(&self) -> Option<TurnId> {
        self.answer.as_ref().map(|answer| answer.turn)
    }

    /// Takes one input; returns what to do, in order.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::SpeechStarted(utterance) => {
                self.speaking = Some(utterance);
                effects.extend(self.drop_prepared());
                effects.extend(self.cut(true));
            }
            Input::LikelyEnd { utterance, text } => self.prepare(utterance, text, &mut effects),
            Input::NotOver => effects.extend(self.drop_prepared()),
            Input::SpeechEnded(utterance) => {
                if self.speaking == Some(utterance) {
                    self.speaking = None;
                }
                self.outstanding.insert(utterance);
            }
            Input::Transcribed { utterance, text } => {
                self.outstanding.remove(&utterance);
                if !text.trim().is_empty() {
                    add(&mut self.pieces, utterance, text);
                }
                self.answer_if_due(&mut effects);
            }
            Input::Heard { utterance, text } => {
                if !text.trim().is_empty() {
                    effects.extend(self.drop_prepared());
                    effects.extend(self.cut(true));
                    self.pieces.push(Piece { utterance: Some(utterance), text });
                    shorten(&mut self.pieces);
                    self.answer_if_due(&mut effects);
                }
            }
            Input::Typed(text) => {
                effects.extend(self.drop_prepared());
                effects.extend(self.cut(true));
                self.pieces.push(Piece { utterance: None, text });
                shorten(&mut self.pieces);
                self.answer_now(&mut effects);
            }
            Input::PlaybackStarted { generation } => {
                if let Some(answer) = self.current(generation) {
                    answer.playback_started = true;
                }
            }
            Input::Over { generation } => {
                if self.current(generation).is_some() {
                    self.answer = None;
                    self.answer_if_due(&mut effects);
                }
            }
            Input::Interrupted => {
                effects.extend(self.drop_prepared());
                effects.extend(self.cut(false));
                // Words whose final came while something else was answered are not what was interrupted.
                self.answer_if_due(&mut effects);
            }
            Input::Dismissed => {
                effects.extend(self.drop_prepared());
                effects.extend(self.cut(false));
                self.pieces.clear();
            }
        }
        effects
    }

    fn current(&mut self, generation: u32) -> Option<&mut Answer> {
        self.answer.as_mut().filter(|answer| answer.generation == generation)
    }

    /// Cuts the current response. `merge`: if its playback has not started, its words count as part of what
    /// the user is saying now.
    fn cut(&mut self, merge: bool) -> Option<Effect> {
        let answer = self.answer.take()?;
        let merged_into_next_turn = merge && !answer.playback_started;
        if merged_into_next_turn {
            self.pieces.splice(0..0, answer.pieces);
        }
        Some(Effect::Cut { turn: answer.turn, generation: answer.generation, merged_into_next_turn })
    }

    /// Prepares a response to all that was said, if `utterance` is the only one whose final is still to come.
    fn prepare(&mut self, utterance: UtteranceId, text: String, effects: &mut Vec<Effect>) {
        let is_last = match self.speaking {
            Some(speaking) => speaking == utterance && self.outstanding.is_empty(),
            None => self.outstanding.iter().eq([&utterance]),
        };
        if self.answer.is_some() || !is_last || text.trim().is_empty() {
            return;
        }
        let mut pieces = self.pieces.clone();
        add(&mut pieces, utterance, text);
        if self.prepared.as_ref().is_some_and(|prepared| has_words_of(prepared, &pieces)) {
            return;
        }
        effects.extend(self.drop_prepared());
        if self.preparations < MAX_PREPARED {
            self.preparations += 1;
            let turn = self.next_turn(&pieces);
            self.prepared = Some(turn.clone());
            effects.push(Effect::Prepare(turn));
        }
    }

    fn drop_prepared(&mut self) -> Option<Effect> {
        self.prepared.take().map(|prepared| Effect::Drop { generation: prepared.generation })
    }

    fn answer_if_due(&mut self, effects: &mut Vec<Effect>) {
        if self.answer.is_some() || self.speaking.is_some() || !self.outstanding.is_empty() {
            return;
        }
        match self.pieces.is_empty() {
            // There were no words in it after all.
            true => effects.extend(self.drop_prepared()),
            false => self.answer_now(effects),
        }
    }

    fn answer_now(&mut self, effects: &mut Vec<Effect>) {
        let pieces = std::mem::take(&mut self.pieces);
        self.preparations = 0;
        let prepared = self.prepared.take_if(|prepared| has_words_of(prepared, &pieces));
        effects.extend(self.drop_prepared());
        let effect = match prepared {
            Some(prepared) => Effect::Release(Turn::new(prepared.id, prepared.generation, &pieces)),
            None => Effect::Answer(self.next_turn(&pieces)),
        };
        if let Effect::Answer(turn) | Effect::Release(turn) = &effect {
            self.last_turn = turn.id;
            let (turn, generation) = (turn.id, turn.generation);
            self.answer = Some(Answer { turn, generation, pieces, playback_started: false });
        }
        effects.push(effect);
    }

    /// The generation is spent. The id is not until the turn is answered: nobody learns of one that is not.
    fn next_turn(&mut self, pieces: &[Piece]) -> Turn {
        self.last_generation = self.last_generation.wrapping_add(1);
        Turn::new(self.last_turn.next(), self.last_generation, pieces)
    }
}

impl Turn {
    fn new(id: TurnId, generation: u32, pieces: &[Piece]) -> Self {
        Self {
            id,
            generation,
            utterances: pieces.iter().filter_map(|piece| piece.utterance).collect(),
            text: text_of(pieces),
        }
    }
}

/// Adds what was said in an utterance to pieces, in order.
fn add(pieces: &mut Vec<Piece>, utterance: UtteranceId, text: String) {
    pieces.push(Piece { utterance: Some(utterance), text });
    pieces.sort_by_key(|piece| piece.utterance);
    shorten(pieces);
}

/// Drops the earliest of what is too much for one turn; the last is kept.
fn shorten(pieces: &mut Vec<Piece>) {
    let mut bytes = 0;
    let fitting = pieces.iter().rev().take_while(|piece| {
        bytes += piece.text.len() + 1;
        bytes <= MAX_TURN_BYTES
    });
    let kept = fitting.count().max(1);
    pieces.drain(..pieces.len().saturating_sub(kept));
}

fn text_of(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.trim()).collect::<Vec<_>>().join(" ")
}

/// Whether a turn has the words of these pieces. Interims and finals differ in case and punctuation.
fn has_words_of(turn: &Turn, pieces: &[Piece]) -> bool {
    let text = text_of(pieces);
    let [said, prepared] = [&text, &turn.text].map(|text| words(text));
    said.eq(prepared)
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—'));
    let letters =
        |word: &str| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    words.map(letters).filter(|word: &String| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: UtteranceId = UtteranceId(1);
    const B: UtteranceId = UtteranceId(2);

    fn new() -> TurnManager {
        TurnManager::new(TurnId(0), 0)
    }

    fn said(turns: &mut TurnManager, utterance: UtteranceId, text: &str) -> Vec<Effect> {
        let mut effects = turns.handle(Input::SpeechStarted(utterance));
        effects.extend(turns.handle(Input::SpeechEnded(utterance)));
        effects.extend(turns.handle(Input::Transcribed { utterance, text: text.into() }));
        effects
    }

    fn answer(id: u64, generation: u32, utterances: &[UtteranceId], text: &str) -> Effect {
        Effect::Answer(Turn { id: TurnId(id), generation, utterances: utterances.into(), text: text.into() })
    }

    #[test]
    fn a_sentence_is_answered_once_its_final_is_there() {
        let mut turns = new();
        assert_eq!(turns.handle(Input::SpeechStarted(A)), []);
        assert_eq!(turns.handle(Input::SpeechEnded(A)), []);
        assert_eq!(
            turns.handle(Input::Transcribed { utterance: A, text: "Hello.".into() }),
            [answer(1, 1, &[A], "Hello.")]
        );
    }

    #[test]
    fn a_cough_is_not_answered() {
        assert_eq!(said(&mut new(), A, " "), []);
    }

    #[test]
    fn a_long_sentence_in_two_pieces_is_one_turn_though_its_finals_come_in_the_wrong_order() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        turns.handle(Input::SpeechEnded(A));
        turns.handle(Input::SpeechStarted(B));
        turns.handle(Input::SpeechEnded(B));
        assert_eq!(turns.handle(Input::Transcribed { utterance: B, text: "of times.".into() }), []);
        assert_eq!(
            turns.handle(Input::Transcribed { utterance: A, text: "It was the best".into() }),
            [answer(1, 1, &[A, B], "It was the best of times.")]
        );
    }

    #[test]
    fn speech_before_the_answer_was_noticed_takes_the_words_up_again() {
        let mut turns = new();
        said(&mut turns, A, "Turn on");
        assert_eq!(
            turns.handle(Input::SpeechStarted(B)),
            [Effect::Cut { turn: TurnId(1), generation: 1, merged_into_next_turn: true }]
        );
        turns.handle(Input::SpeechEnded(B));
        assert_eq!(
            turns.handle(Input::Transcribed { utterance: B, text: "the light.".into() }),
            [answer(2, 2, &[A, B], "Turn on the light.")]
        );
    }

    #[test]
    fn words_whose_final_came_while_a_typed_line_was_answered_are_answered_after_an_interruption() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        turns.handle(Input::SpeechEnded(A));
        turns.handle(Input::Typed("Hi.".into()));
        turns.handle(Input::Transcribed { utterance: A, text: "Hello.".into() });

        let effects = turns.handle(Input::Interrupted);

        let cut = Effect::Cut { turn: TurnId(1), generation: 1, merged_into_next_turn: false };
        assert_eq!(effects, [cut, answer(2, 2, &[A], "Hello.")]);
    }

    #[test]
    fn a_cough_while_the_answer_is_made_only_delays_it() {
        let mut turns = new();
        said(&mut turns, A, "Hello.");
        assert_eq!(
            said(&mut turns, B, ""),
            [
                Effect::Cut { turn: TurnId(1), generation: 1, merged_into_next_turn: true },
                answer(2, 2, &[A], "Hello.")
            ]
        );
    }

    #[test]
    fn speech_over_an_answer_that_is_heard_stops_it_and_is_a_new_turn() {
        let mut turns = new();
        said(&mut turns, A, "Tell me a story.");
        turns.handle(Input::PlaybackStarted { generation: 1 });
        assert_eq!(
            said(&mut turns, B, "Stop."),
            [
                Effect::Cut { turn: TurnId(1), generation: 1, merged_into_next_turn: false },
                answer(2, 2, &[B], "Stop.")
            ]
        );
    }

    #[test]
    fn an_interruption_by_a_button_does_not_bring_the_words_back() {
        let mut turns = new();
        said(&mut turns, A, "Hello.");
        assert_eq!(
            turns.handle(Input::Interrupted),
            [Effect::Cut { turn: TurnId(1), generation: 1, merged_into_next_turn: false }]
        );
        assert_eq!(said(&mut turns, B, "Bye."), [answer(2, 2, &[B], "Bye.")]);
    }

    #[test]
    fn a_typed_line_is_answered_at_once_even_while_somebody_speaks() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        assert_eq!(
            turns.handle(Input::Typed("What time is it?".into())),
            [answer(1, 1, &[], "What time is it?")]
        );
    }

    #[test]
    fn lines_that_were_not_answered_join_the_next_turn_up_to_a_limit_and_the_newest_stay() {
        let mut turns = new();
        let mut asked = String::new();
        for n in 0..200 {
            let line = format!("{n:04} {}", "x".repeat(995));
            for effect in turns.handle(Input::Typed(line)) {
                if let Effect::Answer(turn) = effect {
                    asked = turn.text;
                }
            }
        }

        assert!(asked.len() <= MAX_TURN_BYTES, "{}", asked.len());
        let numbers: Vec<&str> = asked.split(' ').step_by(2).collect();
        assert_eq!(numbers, ["0193", "0194", "0195", "0196", "0197", "0198", "0199"]);
    }

    #[test]
    fn news_of_an_older_answer_changes_nothing() {
        let mut turns = new();
        said(&mut turns, A, "One.");
        said(&mut turns, B, "Two.");
        assert_eq!(turns.handle(Input::Over { generation: 1 }), []);
        assert_eq!(turns.answering(), Some(2));
    }

    fn likely_end(turns: &mut TurnManager, utterance: UtteranceId, text: &str) -> Vec<Effect> {
        turns.handle(Input::LikelyEnd { utterance, text: text.into() })
    }

    fn prepare(id: u64, generation: u32, utterances: &[UtteranceId], text: &str) -> Effect {
        let Effect::Answer(turn) = answer(id, generation, utterances, text) else { unreachable!() };
        Effect::Prepare(turn)
    }

    #[test]
    fn what_was_prepared_at_a_likely_end_is_released_if_the_final_has_the_same_words() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));

        assert_eq!(
            likely_end(&mut turns, A, "where are you from"),
            [prepare(1, 1, &[A], "where are you from")]
        );
        assert_eq!(likely_end(&mut turns, A, "Where are you from?"), []);
        assert_eq!(turns.answering(), None);
        assert_eq!(turns.handle(Input::SpeechEnded(A)), []);
        let Effect::Answer(turn) = answer(1, 1, &[A], "Where are you from?") else { unreachable!() };
        assert_eq!(
            turns.handle(Input::Transcribed { utterance: A, text: "Where are you from?".into() }),
            [Effect::Release(turn)]
        );
        assert_eq!(turns.answering(), Some(1));
    }

    #[test]
    fn what_was_prepared_for_other_words_is_dropped_and_the_turn_keeps_its_number() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        likely_end(&mut turns, A, "Where are you");
        turns.handle(Input::SpeechEnded(A));

        assert_eq!(
            turns.handle(Input::Transcribed { utterance: A, text: "Where are you from?".into() }),
            [Effect::Drop { generation: 1 }, answer(1, 2, &[A], "Where are you from?")]
        );
    }

    #[test]
    fn where_there_were_no_words_after_all_nothing_is_answered() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        likely_end(&mut turns, A, "You");
        turns.handle(Input::SpeechEnded(A));

        let effects = turns.handle(Input::Transcribed { utterance: A, text: String::new() });

        assert_eq!(effects, [Effect::Drop { generation: 1 }]);
    }

    #[test]
    fn who_goes_on_after_a_likely_end_is_answered_once_with_all_words() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        likely_end(&mut turns, A, "Turn on");
        assert_eq!(turns.handle(Input::NotOver), [Effect::Drop { generation: 1 }]);
        likely_end(&mut turns, A, "Turn on the");
        turns.handle(Input::SpeechEnded(A));
        assert_eq!(turns.handle(Input::SpeechStarted(B)), [Effect::Drop { generation: 2 }]);
        turns.handle(Input::Transcribed { utterance: A, text: "Turn on the".into() });

        assert_eq!(likely_end(&mut turns, B, "light."), [prepare(1, 3, &[A, B], "Turn on the light.")]);
    }

    #[test]
    fn a_turn_with_many_pauses_is_prepared_for_a_few_times_only() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        let mut prepared = 0;
        for n in 1..10 {
            let text = "word ".repeat(n);
            let effects = likely_end(&mut turns, A, &text);
            prepared += effects.iter().filter(|effect| matches!(effect, Effect::Prepare(_))).count();
            turns.handle(Input::NotOver);
        }
        assert_eq!(prepared, MAX_PREPARED as usize);

        turns.handle(Input::SpeechEnded(A));
        turns.handle(Input::Transcribed { utterance: A, text: "word".into() });
        turns.handle(Input::Interrupted);
        turns.handle(Input::SpeechStarted(B));
        assert_eq!(likely_end(&mut turns, B, "another").len(), 1, "it is another turn");
    }

    #[test]
    fn nothing_is_prepared_while_another_final_is_to_come_or_an_answer_is_given() {
        let mut turns = new();
        turns.handle(Input::SpeechStarted(A));
        turns.handle(Input::SpeechEnded(A));
        turns.handle(Input::SpeechStarted(B));
        assert_eq!(likely_end(&mut turns, B, "and"), []);
        assert_eq!(likely_end(&mut turns, A, "One"), []);

        turns.handle(Input::Typed("Hello.".into()));
        turns.handle(Input::Transcribed { utterance: A, text: "One".into() });
        assert_eq!(likely_end(&mut turns, B, "and"), []);
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            (1..6u64, prop_oneof![Just(""), Just("Word"), Just("other")])
                .prop_map(|(n, text)| Input::LikelyEnd { utterance: UtteranceId(n), text: text.into() }),
            Just(Input::NotOver),
            (1..6u64).prop_map(|n| Input::SpeechStarted(UtteranceId(n))),
            (1..6u64).prop_map(|n| Input::SpeechEnded(UtteranceId(n))),
            (1..6u64, prop_oneof![Just(""), Just("word")])
                .prop_map(|(n, text)| Input::Transcribed { utterance: UtteranceId(n), text: text.into() }),
            Just(Input::Typed("typed".into())),
            (1..6u32).prop_map(|generation| Input::PlaybackStarted { generation }),
            (1..6u32).prop_map(|generation| Input::Over { generation }),
            Just(Input::Interrupted),
        ]
    }

    proptest! {
        /// Under any order of inputs there is never more than one response at a time, prepared or given, and its
        /// generation is the newest. What is prepared is released or dropped once.
        #[test]
        fn answers_never_overlap_and_generations_only_grow(inputs in proptest::collection::vec(any_input(), 0..60)) {
            let mut turns = new();
            let mut current = None;
            let mut prepared = None;
            let mut newest = 0;
            let mut last_turn = TurnId(0);
            for input in inputs {
                if let Input::Over { generation } = input
                    && current == Some(generation)
                {
                    current = None;
                }
                for effect in turns.handle(input) {
                    match effect {
                        Effect::Answer(turn) => {
                            prop_assert_eq!((current, prepared), (None, None));
                            prop_assert!(turn.generation > newest);
                            prop_assert_eq!(turn.id, last_turn.next());
                            last_turn = turn.id;
                            newest = turn.generation;
                            current = Some(turn.generation);
                        }
                        Effect::Prepare(turn) => {
                            prop_assert_eq!((current, prepared), (None, None));
                            prop_assert!(turn.generation > newest);
                            newest = turn.generation;
                            prepared = Some(turn.generation);
                        }
                        Effect::Release(turn) => {
                            prop_assert_eq!(prepared.take(), Some(turn.generation));
                            prop_assert_eq!(turn.id, last_turn.next());
                            last_turn = turn.id;
                            current = Some(turn.generation);
                        }
                        Effect::Drop { generation } => {
                            prop_assert_eq!(prepared.take(), Some(generation));
                        }
                        Effect::Cut { generation, .. } => {
                            prop_assert_eq!(current, Some(generation));
                            current = None;
                        }
                    }
                }
                prop_assert_eq!(turns.answering(), current);
            }
        }
    }
}
