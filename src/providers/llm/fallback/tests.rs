//! An answer by scripted providers: each fault at each place.

use proptest::prelude::*;

use super::*;
use crate::providers::llm::echo::EchoModel;
use crate::providers::testing::{At, Continues, Fault, ScriptedLlm, any_fault, deadlines, faults};

const ANSWER: &str = "It is five. Shall I wake you at six? Then good night, and sleep well.";

fn prompt() -> Prompt {
    Prompt::new("Be brief.", vec![ChatMessage::user("What time is it?")])
}

fn chain<const N: usize>(providers: [&Arc<ScriptedLlm>; N]) -> LlmChain {
    let providers = providers.into_iter().map(|llm| llm.clone() as Arc<dyn LanguageModel>);
    LlmChain::new(providers.collect(), deadlines())
}

/// The text of an answer, and how it ended.
async fn answer(chain: &LlmChain) -> (String, Result<(), ProviderError>) {
    let mut text = String::new();
    let mut events = chain.respond(prompt());
    while let Some(event) = events.next().await {
        match event {
            Ok(LlmEvent::TextDelta(delta)) => text.push_str(&delta),
            Ok(LlmEvent::ToolCall(_) | LlmEvent::Usage(_) | LlmEvent::Truncated) => {}
            Err(error) => return (text, Err(error)),
        }
    }
    (text, Ok(()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_whole_and_says_nothing_twice_whatever_fault_happens_wherever() {
    let pieces = ANSWER.split(' ').count() * 2;
    for at in faults(&[0, 1, 2, 7, 12, pieces - 1]) {
        // The end of a stream without an error is the end of an answer.
        if at.1 == Fault::Ends && at.0 > 0 {
            continue;
        }
        for continues in [Continues::Exactly, Continues::Repeating(2), Continues::Repeating(100)] {
            let first = Arc::new(ScriptedLlm::new("first", ANSWER, [Some(at.clone())]));
            let second = Arc::new(ScriptedLlm::new("second", ANSWER, []).continuing(continues));

            let answered = answer(&chain([&first, &second])).await;

            assert_eq!(answered, (ANSWER.to_owned(), Ok(())), "{at:?} {continues:?}");
            assert_eq!((first.calls(), second.calls()), (1, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_provider_gets_the_conversation_and_what_was_said() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let first = Arc::new(ScriptedLlm::new("first", ANSWER, [Some(At(5, lost))]));
    let second = Arc::new(ScriptedLlm::new("second", ANSWER, []));

    answer(&chain([&first, &second])).await.1.unwrap();

    assert_eq!(*first.asked.lock(), [prompt()]);
    let asked = second.asked.lock();
    let texts: Vec<_> = asked[0].messages.iter().map(ChatMessage::text).collect();
    assert_eq!(texts, ["What time is it?", "It is", CONTINUE_TURN]);
    assert!(asked[0].system.starts_with("Be brief.") && asked[0].system.ends_with(CONTINUE_SYSTEM));
}

#[tokio::test(start_paused = true)]
async fn a_first_sentence_that_is_not_complete_in_time_is_completed_by_the_next_provider() {
    let first = Arc::new(ScriptedLlm::new("first", ANSWER, [Some(At(3, Fault::Hangs))]));
    let second = Arc::new(ScriptedLlm::new("second", ANSWER, []));
    let chain = chain([&first, &second]);
    let began = clock::now();

    let answered = answer(&chain).await;

    assert_eq!(answered, (ANSWER.to_owned(), Ok(())));
    assert_eq!(clock::now() - began, deadlines().llm_first_sentence);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_broke_off_after_a_whole_sentence_may_have_been_complete() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let first = Arc::new(ScriptedLlm::new("first", "It is five. ", [Some(At(6, lost))]));
    let second = Arc::new(ScriptedLlm::new("second", "It is five.", []));

    assert_eq!(answer(&chain([&first, &second])).await, ("It is five. ".to_owned(), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_last_reason_is_given_and_all_that_was_said_stands() {
    let lost = |after, why: &str| Some(At(after, Fault::Fails(ProviderError::Connection(why.into()))));
    let first = Arc::new(ScriptedLlm::new("first", ANSWER, [lost(4, "one")]));
    let second = Arc::new(ScriptedLlm::new("second", ANSWER, [lost(2, "two")]));
    let chain = chain([&first, &second]);

    let (text, result) = answer(&chain).await;

    assert_eq!((text.as_str(), result), ("It is five. ", Err(ProviderError::Connection("two".into()))));
    let message = chain.state().status().message.unwrap();
    assert_eq!(message, "first: connection failed: one; second: connection failed: two");
}

#[tokio::test(start_paused = true)]
async fn when_all_give_nothing_that_is_no_answer() {
    let nothing = |name| Arc::new(ScriptedLlm::new(name, ANSWER, [Some(At(0, Fault::Ends))]));

    let answered = answer(&chain([&nothing("first"), &nothing("second")])).await;

    assert_eq!(answered, (String::new(), Err(ProviderError::Empty)));
}

#[tokio::test(start_paused = true)]
async fn the_only_provider_has_longer_than_its_deadlines() {
    let slow = Arc::new(ScriptedLlm::new("slow", ANSWER, [Some(At(0, Fault::Hangs))]));
    let chain = chain([&slow]);
    let began = clock::now();

    assert_eq!(answer(&chain).await, (String::new(), Err(ProviderError::TimedOut)));

    assert!(clock::now() - began > 5 * deadlines().llm_first_sentence);
}

#[tokio::test(start_paused = true)]
async fn the_only_provider_passes_its_text_on_at_once() {
    let only = Arc::new(ScriptedLlm::new("only", "Yes.", [Some(At(2, Fault::Hangs))]));

    let pieces: Vec<_> = chain([&only]).respond(prompt()).take(2).collect().await;

    assert_eq!(pieces, ["Ye", "s."].map(|text| Ok(LlmEvent::TextDelta(text.into()))));
}

fn tool_call(id: &str, city: &str) -> LlmEvent {
    let arguments = serde_json::json!({ "city": city });
    LlmEvent::ToolCall(ToolCall { id: id.into(), name: "weather".into(), arguments, signature: None })
}

#[tokio::test(start_paused = true)]
async fn a_tool_call_that_was_given_is_not_given_again() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let with = |name, events, fault| Arc::new(ScriptedLlm::new(name, "", [fault]).giving(events));
    let first = with("first", vec![tool_call("a", "Oslo"), tool_call("b", "Oslo")], Some(At(2, lost)));
    let calls = [("c", "Oslo"), ("d", "Oslo"), ("e", "Oslo"), ("f", "Rome")];
    let second = with("second", calls.map(|(id, city)| tool_call(id, city)).into(), None);

    let events: Vec<_> = chain([&first, &second]).respond(prompt()).collect().await;

    let expected = [("a", "Oslo"), ("b", "Oslo"), ("e", "Oslo"), ("f", "Rome")];
    assert_eq!(events, expected.map(|(id, city)| Ok(tool_call(id, city))));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_answer_says_nothing_about_the_provider() {
    let first = Arc::new(ScriptedLlm::new("first", ANSWER, vec![Some(At(0, Fault::Hangs)); 5]));
    let second = Arc::new(ScriptedLlm::new("second", ANSWER, []));
    let chain = chain([&first, &second]);

    for _ in 0..5 {
        let mut events = chain.respond(prompt());
        assert!(tokio::time::timeout(deadlines().stall, events.next()).await.is_err());
    }

    assert_eq!((first.calls(), second.calls()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn an_echo_that_takes_over_within_an_answer_repeats_the_users_line() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let first = Arc::new(ScriptedLlm::new("first", ANSWER, [Some(At(5, lost))]));
    let chain = LlmChain::new(vec![first, Arc::new(EchoModel)], deadlines());

    let (text, result) = answer(&chain).await;

    assert_eq!(result, Ok(()));
    assert!(text.starts_with("It is ") && text.ends_with("You said: What time is it?"), "{text}");
}

proptest! {
    #[test]
    fn as_long_as_one_provider_works_no_word_is_lost_or_said_twice(
        faults in proptest::collection::vec(proptest::collection::vec(any_fault(28), 12), 0..4),
        repeating in 0..20_usize,
        place in 0..4_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut providers: Vec<Arc<dyn LanguageModel>> = Vec::new();
        for (faults, name) in faults.into_iter().zip(["a", "b", "c", "d"]) {
            // An answer that ends too early, and says so by no error, cannot be told from a short one.
            let faults = faults.into_iter().map(|At(after, fault)| {
                Some(if fault == Fault::Ends { At(0, fault) } else { At(after, fault) })
            });
            let continues = Continues::Repeating(repeating);
            providers.push(Arc::new(ScriptedLlm::new(name, ANSWER, faults).continuing(continues)));
        }
        let place = place.min(providers.len());
        providers.insert(place, Arc::new(ScriptedLlm::new("works", ANSWER, [])));
        let chain = LlmChain::new(providers, deadlines());

        for _ in 0..6 {
            let answered = runtime.block_on(answer(&chain));

            prop_assert_eq!(answered, (ANSWER.to_owned(), Ok(())));
        }
    }
}
