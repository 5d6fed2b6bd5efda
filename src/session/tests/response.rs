//! One response, step by step.

use super::{
    super::response::{Outcome, Progress, Response, SpeechForm, Waterfall},
    *,
};
use crate::{response::speech_format::SpeechFormat, turn::turn_manager::Turn};

const RATE: u32 = 16_000;

const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A response with a channel to an attached client.
struct Bench {
    response: Response,
    downlink: Downlink,
    now: Instant,
    over: Option<Outcome>,
}

fn turn() -> Turn {
    Turn { id: TurnId(1), generation: 1, utterances: vec![UtteranceId(1)], text: "Hi".into() }
}

impl Bench {
    fn new(spoken: bool, in_clips: bool) -> Self {
        let form = if in_clips { SpeechForm::Clips } else { SpeechForm::Frames(SpeechFormat::default()) };
        Self::with(spoken, form)
    }

    fn with(spoken: bool, form: SpeechForm) -> Self {
        let now = crate::clock::now();
        let voice = spoken.then_some(Voice { rate_hz: RATE, delivery: Delivery::Ws });
        let waterfall = Waterfall { speech_end: now, speech_end_ms: 1000, final_at: Some(now) };
        let mut downlink = Downlink::new(info(), Arc::new(config()), now, 0);
        Out::new(now, &mut downlink).attach(1, Profile::EdgeV1);
        Self {
            response: Response::new(turn(), voice, form, waterfall, now + ANSWER_TIME),
            downlink,
            now,
            over: None,
        }
    }

    /// Lets the response do something; what came of it in a short form, frames counted.
    fn step(&mut self, act: impl FnOnce(&mut Response, &mut Out<'_>) -> Progress) -> Vec<String> {
        let mut out = Out::new(self.now, &mut self.downlink);
        let Progress { started, over } = act(&mut self.response, &mut out);
        let mut brief = brief(&out.into_effects());
        if started {
            brief.push("started".into());
        }
        if let Some(outcome) = over {
            brief.push(format!("over {:?} {}", outcome.finish, outcome.heard));
            self.over = Some(outcome);
        }
        brief
    }

    fn text(&mut self, delta: &str) -> Vec<String> {
        self.step(|response, out| response.text(delta, out))
    }

    fn text_ends(&mut self) -> Vec<String> {
        self.step(|response, out| response.text_ended(Finish::Stop, out))
    }

    fn audio(&mut self, samples: usize) -> Vec<String> {
        self.step(|response, out| response.audio(&vec![1; samples], out))
    }

    fn sentence_ends(&mut self, worked: bool) -> Vec<String> {
        self.step(|response, out| response.sentence_ended(worked, out))
    }

    fn clip_played(&mut self, request_id: &str, worked: bool) -> Option<Vec<String>> {
        let clip = self.response.clip(request_id)?;
        Some(self.step(|response, out| response.clip_played(clip, worked, out)))
    }

    fn tick(&mut self) -> Vec<String> {
        self.step(Response::tick)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a response has a few effects; any other is a failure")]
fn brief(effects: &[Effect]) -> Vec<String> {
    let mut brief: Vec<String> = Vec::new();
    let mut frames = 0;
    for effect in effects {
        if matches!(effect, Effect::SendBinary(..)) {
            frames += 1;
            continue;
        }
        if frames > 0 {
            brief.push(format!("{frames} frames"));
            frames = 0;
        }
        brief.push(match effect {
            Effect::Send(_, frame) => {
                let message: Value = serde_json::from_str(frame).unwrap();
                let field = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
                match field("type").as_str() {
                    "answer_delta" => format!("delta {}", field("text")),
                    "answer_done" => format!("done {} {}", field("finish"), field("text")),
                    "speech_begin" => "begin".into(),
                    "speech_finish" => format!("finish {}", field("finish")),
                    "turn_metrics" => "metrics".into(),
                    other => other.to_owned(),
                }
            }
            Effect::Synthesize(1, request) => format!("synthesize {}", request.text),
            Effect::StopLlm => "stop llm".into(),
            Effect::PlayClip { request_id, .. } => format!("play {request_id}"),
            other => panic!("{other:?}"),
        });
    }
    if frames > 0 {
        brief.push(format!("{frames} frames"));
    }
    brief
}

#[test]
fn for_a_client_that_plays_files_sentences_are_clips_and_it_says_when_they_are_played() {
    let mut bench = Bench::new(true, true);
    bench.text("One. ");
    bench.text("Two.");
    bench.text_ends();
    bench.audio(16_000);
    assert_eq!(bench.sentence_ends(true), ["synthesize Two.", "play june-1-1", "started"]);
    bench.audio(16_000);
    assert_eq!(bench.sentence_ends(true), [""; 0]);
    assert!(bench.clip_played("somebody-else-s", true).is_none());
    assert_eq!(bench.clip_played("june-1-1", true).unwrap(), ["play june-1-2"]);
    assert_eq!(bench.clip_played("june-1-2", true).unwrap(), ["metrics", "over Stop One. Two."]);
}

#[test]
fn a_client_that_cannot_play_a_clip_is_not_asked_to_play_another_one() {
    let mut bench = Bench::new(true, true);
    bench.text("One. ");
    bench.text("Two.");
    bench.audio(16_000);
    bench.sentence_ends(true);
    bench.audio(16_000);
    bench.sentence_ends(true);

    assert_eq!(bench.clip_played("june-1-1", false).unwrap(), [""; 0]);
    assert_eq!(
        bench.text_ends(),
        ["done stop One. Two.", "metrics", "over Stop One. Two."],
        "it has the text"
    );
}

#[test]
fn a_response_of_which_no_sentence_is_synthesized_is_not_heard_and_announces_no_sound() {
    let mut bench = Bench::new(true, false);
    bench.text("One. ");
    bench.sentence_ends(false);
    bench.text("Two. Three. ");

    assert_eq!(
        bench.text_ends(),
        ["done stop One. Two. Three. ", "finish error", "metrics", "over Error "],
        "the client has the text, and nobody heard it"
    );
    assert_eq!(bench.over.unwrap().played_ms, None);
}

#[test]
fn of_a_response_whose_synthesis_fails_in_the_middle_the_sentences_before_are_kept() {
    for form in [SpeechForm::Clips, SpeechForm::Frames(SpeechFormat::default())] {
        let mut bench = Bench::with(true, form);
        bench.text("One two. Three four. Five.");
        bench.audio(8_000);
        bench.sentence_ends(true);
        bench.audio(1_600);
        let mut brief = bench.sentence_ends(false);
        brief.extend(bench.text_ends());
        while let Some(deadline) = bench.response.deadline() {
            bench.now = deadline;
            brief.extend(bench.tick());
        }

        assert!(!brief.iter().any(|what| what.starts_with("synthesize")), "{brief:?}");
        let outcome = bench.over.unwrap();
        assert_eq!((outcome.heard.as_str(), outcome.finish), ("One two.", Finish::Error), "{form:?}");
        assert_eq!(outcome.played_ms, Some(600), "half of a sentence was heard, and is not in the text");
        let says_so = brief.contains(&"finish error".to_owned());
        assert_eq!(says_so, matches!(form, SpeechForm::Frames(_)), "{brief:?}");
    }
}

#[test]
fn a_response_without_a_voice_is_over_with_its_text() {
    let mut bench = Bench::new(false, false);
    assert_eq!(bench.text("Hello."), ["delta Hello.", "started"]);
    assert_eq!(bench.text_ends(), ["done stop Hello.", "metrics", "over Stop Hello."]);
}

#[test]
fn sentences_are_synthesized_one_after_the_other_while_the_text_still_grows() {
    let mut bench = Bench::new(true, false);
    assert_eq!(
        bench.text("You said: Hello there. And"),
        ["delta You said: Hello there. And", "synthesize You said:"]
    );
    assert_eq!(bench.audio(1600), ["begin", "5 frames", "started"]);
    assert_eq!(bench.sentence_ends(true), ["synthesize Hello there."]);
    assert_eq!(bench.sentence_ends(true), Vec::<String>::new());
    assert_eq!(bench.text_ends(), ["done stop You said: Hello there. And", "synthesize And"]);
    assert_eq!(bench.audio(320), ["1 frames"]);
    assert_eq!(bench.sentence_ends(true), ["1 frames", "finish stop"]);

    let end = bench.response.deadline().unwrap();
    assert_eq!(end - bench.now, Duration::from_millis(120));
    bench.now = end;
    assert_eq!(bench.tick(), ["metrics", "over Stop You said: Hello there. And"]);
}

#[test]
fn a_response_that_is_cut_keeps_the_words_that_were_heard() {
    let mut bench = Bench::new(true, false);
    bench.text("One two three four. ");
    bench.audio(16_000);
    bench.now += Duration::from_millis(200);
    bench.tick();

    let mut out = Out::new(bench.now + Duration::from_millis(320), &mut bench.downlink);
    let outcome = bench.response.cut(&mut out);

    assert_eq!(
        brief(&out.into_effects()),
        ["audio_stop_request", "done interrupted One two three four. ", "finish interrupted", "metrics"]
    );
    assert_eq!(
        outcome,
        Outcome { heard: "One two".into(), played_ms: Some(520), finish: Finish::Interrupted }
    );
}

#[test]
fn a_model_that_does_not_stop_is_stopped() {
    let mut bench = Bench::new(true, false);
    let text = "word ".repeat(4000);
    let told = bench.text(&text);
    assert!(told.contains(&"stop llm".to_owned()));
    assert!(
        told.contains(&format!("done length {}", &text[..config().answer_chars])),
        "it says that it was cut"
    );
    assert!(bench.text("more").is_empty());
}

#[test]
fn an_answer_that_has_no_end_is_cut_when_its_time_is_up() {
    let mut bench = Bench::new(false, false);
    bench.text("One");
    bench.now = bench.response.text_deadline().unwrap();

    assert_eq!(bench.tick(), ["stop llm", "done length One", "metrics", "over Length One"]);
    assert_eq!(bench.response.text_deadline(), None);
    assert!(bench.text(" two").is_empty());
}

#[test]
fn a_model_that_says_nothing_in_its_time_is_an_error() {
    let mut bench = Bench::new(false, false);
    bench.now += ANSWER_TIME;

    assert_eq!(bench.tick(), ["stop llm", "error", "done error ", "metrics", "over Error "]);
}
