//! Answers that are hedged, by scripted providers.

use std::{sync::Mutex, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::providers::{
    chain::Condition,
    testing::{At, Fault, ScriptedLlm, any_fault, deadlines},
};

const ANSWER: &str = "It is five. Shall I wake you at six?";
const OTHER: &str = "Five o'clock. Good night.";

/// How long an answer usually takes, and how many it takes to know that.
const USUAL: Duration = Duration::from_millis(100);
const CALLS: usize = 20;

fn late(millis: u64) -> Option<At> {
    Some(At(0, Fault::Late(Duration::from_millis(millis))))
}

fn lost(after: usize) -> Option<At> {
    Some(At(after, Fault::Fails(ProviderError::Connection("lost".into()))))
}

/// A provider with these faults after its usual calls.
fn usual(answer: &str, faults: impl IntoIterator<Item = Option<At>>) -> ScriptedLlm {
    let usual = std::iter::repeat_n(late(USUAL.as_millis() as u64), CALLS);
    ScriptedLlm::new("first", answer, usual.chain(faults))
}

/// What came of an answer.
#[derive(Debug, PartialEq)]
struct Heard {
    events: Vec<Result<LlmEvent, ProviderError>>,
    took: Duration,
    /// Whether another call was asked for.
    asked: bool,
}

impl Heard {
    fn text(&self) -> String {
        let text = |event: &Result<LlmEvent, ProviderError>| match event {
            Ok(LlmEvent::TextDelta(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        self.events.iter().map(text).collect()
    }
}

async fn respond(chain: &LlmChain, may_hedge: bool) -> Heard {
    let (began, asked) = (clock::now(), Arc::new(Mutex::new(false)));
    let noted = asked.clone();
    let permit = move || {
        *noted.lock().unwrap() = true;
        may_hedge
    };
    let prompt = Prompt::new("", vec![ChatMessage::user("What time is it?")]);
    let events = chain.respond_hedged(prompt, Box::new(permit)).collect().await;
    let asked = *asked.lock().unwrap();
    Heard { events, took: clock::now() - began, asked }
}

/// The answer after the usual calls of the first provider, and how often each was called for it.
async fn hedged(first: ScriptedLlm, second: ScriptedLlm, may_hedge: bool) -> (Heard, [usize; 2], LlmChain) {
    let (first, second) = (Arc::new(first), Arc::new(second));
    let providers: Vec<Arc<dyn LanguageModel>> = vec![first.clone(), second.clone()];
    let chain = LlmChain::new(providers, deadlines()).hedging(true);
    for _ in 0..CALLS {
        assert!(!respond(&chain, true).await.asked, "it was not slow");
    }
    let heard = respond(&chain, may_hedge).await;
    let calls = [first.calls() - CALLS, second.calls()];
    (heard, calls, chain)
}

#[tokio::test(start_paused = true)]
async fn another_provider_that_is_faster_gives_the_answer_and_the_slow_one_has_not_failed() {
    let first = usual(ANSWER, [Some(At(0, Fault::Hangs))]);
    let second = ScriptedLlm::new("second", OTHER, [late(50)]);

    let (heard, calls, chain) = hedged(first, second, true).await;

    assert_eq!((heard.text().as_str(), calls), (OTHER, [1, 1]));
    assert_eq!(heard.took, USUAL + Duration::from_millis(50));
    assert_eq!(chain.state().status().condition, Condition::Ready);
    assert_eq!(chain.state().problems(), None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_that_is_first_all_the_same_gives_the_answer() {
    let first = usual(ANSWER, [late(140)]);
    let second = ScriptedLlm::new("second", OTHER, [late(50)]);

    let (heard, calls, chain) = hedged(first, second, true).await;

    assert_eq!((heard.text().as_str(), calls), (ANSWER, [1, 1]));
    assert_eq!(heard.took, Duration::from_millis(140));
    assert_eq!(chain.state().problems(), None);
}

#[tokio::test(start_paused = true)]
async fn without_room_in_the_budget_the_slow_provider_is_waited_for() {
    let second = ScriptedLlm::new("second", OTHER, []);

    let (heard, calls, _) = hedged(usual(ANSWER, [late(900)]), second, false).await;

    assert!(heard.asked);
    assert_eq!((heard.text().as_str(), calls), (ANSWER, [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_hedged_by_whoever_makes_it_or_by_the_settings_asks_one_provider() {
    for (hedging, with_permit) in [(true, false), (false, true)] {
        let (first, second) = (usual(ANSWER, [late(900)]), Arc::new(ScriptedLlm::new("second", OTHER, [])));
        let chain = LlmChain::new(vec![Arc::new(first), second.clone()], deadlines()).hedging(hedging);
        for _ in 0..=CALLS {
            let text = match with_permit {
                true => respond(&chain, true).await.text(),
                false => {
                    let events = chain.respond(Prompt::default()).collect().await;
                    Heard { events, took: USUAL, asked: false }.text()
                }
            };
            assert_eq!(text, ANSWER);
        }

        assert_eq!(second.calls(), 0, "{hedging} {with_permit}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_fails_leaves_the_answer_to_the_first_and_its_longer_time_as_the_last() {
    let deadline = deadlines().llm_first_sentence.as_millis() as u64;
    let first = usual(ANSWER, [late(3 * deadline)]);
    let second = ScriptedLlm::new("second", OTHER, [lost(0)]);

    let (heard, calls, chain) = hedged(first, second, true).await;

    assert_eq!((heard.text().as_str(), calls), (ANSWER, [1, 1]));
    assert_eq!(chain.state().problems(), Some("second: connection failed: lost".into()));
}

#[tokio::test(start_paused = true)]
async fn a_backup_goes_on_where_the_first_fails_and_is_asked_once() {
    let first = usual(ANSWER, [Some(At(0, Fault::Hangs))]);
    let deadline = deadlines().llm_first_sentence.as_millis() as u64;
    let second = ScriptedLlm::new("second", OTHER, [late(deadline)]);

    let (heard, calls, chain) = hedged(first, second, true).await;

    assert_eq!((heard.text().as_str(), calls), (OTHER, [1, 1]));
    assert_eq!(heard.took, USUAL + deadlines().llm_first_sentence);
    assert_eq!(chain.state().status().taken_over_by, Some("second"));
}

#[tokio::test(start_paused = true)]
async fn the_slow_provider_completes_the_answer_of_a_faster_one_that_fails() {
    let first = usual(ANSWER, [Some(At(0, Fault::Hangs))]);
    let second = ScriptedLlm::new("second", ANSWER, [lost(5)]);

    let (heard, calls, _) = hedged(first, second, true).await;

    assert_eq!((heard.text().as_str(), calls), (ANSWER, [2, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_called_by_the_faster_one_alone() {
    let call = |id: &str| {
        let (id, name) = (id.to_owned(), "take_photo".to_owned());
        LlmEvent::ToolCall(ToolCall { id, name, arguments: serde_json::json!({}), signature: None })
    };
    let first = usual("", [late(200)]).giving(vec![call("a")]);
    let second = ScriptedLlm::new("second", "", [late(50)]).giving(vec![call("b")]);

    let (heard, calls, _) = hedged(first, second, true).await;

    assert_eq!((heard.events, calls), (vec![Ok(call("b"))], [1, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_became_slower_is_hedged_until_that_is_usual() {
    let slow = std::iter::repeat_n(late(300), 200);
    let first = Arc::new(usual(ANSWER, slow));
    let second = Arc::new(ScriptedLlm::new("second", OTHER, std::iter::repeat_n(late(90), 200)));
    let providers: Vec<Arc<dyn LanguageModel>> = vec![first, second.clone()];
    let chain = LlmChain::new(providers, deadlines()).hedging(true);

    for _ in 0..CALLS + 150 {
        respond(&chain, true).await;
    }
    let hedges = second.calls();
    assert!(hedges > 0);
    for _ in 0..20 {
        assert_eq!(respond(&chain, true).await.text(), ANSWER);
    }

    assert_eq!(second.calls(), hedges);
}

proptest! {
    #[test]
    fn as_long_as_one_provider_works_no_word_of_a_hedged_answer_is_lost_or_said_twice(
        faults in proptest::collection::vec(proptest::collection::vec(slow_or_broken(), 8), 2),
        place in 0..3_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut providers: Vec<Arc<dyn LanguageModel>> = Vec::new();
        for (faults, name) in faults.into_iter().zip(["a", "b"]) {
            let usual = std::iter::repeat_n(late(100), CALLS);
            providers.push(Arc::new(ScriptedLlm::new(name, ANSWER, usual.chain(faults.into_iter().map(Some)))));
        }
        providers.insert(place, Arc::new(ScriptedLlm::new("works", ANSWER, std::iter::repeat_n(late(100), 100))));
        let chain = LlmChain::new(providers, deadlines()).hedging(true);

        for _ in 0..CALLS + 6 {
            let heard = runtime.block_on(respond(&chain, true));

            prop_assert_eq!(heard.text(), ANSWER);
        }
    }
}

/// A fault, or an answer that is slow.
fn slow_or_broken() -> impl Strategy<Value = At> {
    let broken = any_fault(14).prop_map(|At(after, fault)| {
        // An answer that ends too early cannot be told from a short one.
        if fault == Fault::Ends { At(0, fault) } else { At(after, fault) }
    });
    let slow = (0..3_usize, 0..400_u64)
        .prop_map(|(after, millis)| At(after, Fault::Late(Duration::from_millis(millis))));
    prop_oneof![broken, slow]
}
