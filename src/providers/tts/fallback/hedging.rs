//! Sentences that are hedged, by scripted providers.

use proptest::prelude::*;

use super::*;
use crate::{
    audio::SAMPLE_RATE_HZ,
    providers::testing::{At, Fault, ScriptedTts, any_fault, deadlines, heard},
};

const SENTENCE: &str = "w1 w20 w3 w14, w5 w16 w7 w28.";

/// How long the first sound usually takes, and how many sentences it takes to know that.
const USUAL: Duration = Duration::from_millis(100);
const CALLS: usize = 20;

fn late(millis: u64) -> Option<At> {
    Some(At(0, Fault::Late(Duration::from_millis(millis))))
}

/// A provider with these faults after its usual calls.
fn usual(name: &'static str, faults: impl IntoIterator<Item = Option<At>>) -> ScriptedTts {
    let usual = std::iter::repeat_n(late(USUAL.as_millis() as u64), CALLS);
    ScriptedTts::new(name, SAMPLE_RATE_HZ, usual.chain(faults))
}

async fn speak(chain: &TtsChain) -> (Result<Vec<(String, usize)>, ProviderError>, Duration) {
    let began = clock::now();
    let request = SpeechRequest { voice: Some("anna".into()), ..SpeechRequest::text(SENTENCE) };
    let (mut samples, mut pieces) = (Vec::new(), chain.synthesize(request));
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => samples.extend(piece),
            Err(error) => return (Err(error), clock::now() - began),
        }
    }
    (Ok(heard(&samples, SENTENCE)), clock::now() - began)
}

/// Every word, and all of it.
fn whole() -> Vec<(String, usize)> {
    SENTENCE.split(' ').map(|word| (word.to_owned(), 100)).collect()
}

/// How long the sentence after the usual ones took, and how often each provider was called for it.
async fn hedged(
    first: ScriptedTts,
    second: ScriptedTts,
    hedging: bool,
) -> (Duration, [usize; 2], Option<String>, Arc<ScriptedTts>) {
    let (first, second) = (Arc::new(first), Arc::new(second));
    let providers: Vec<Arc<dyn TextToSpeech>> = vec![first.clone(), second.clone()];
    let chain = TtsChain::new(providers, deadlines()).hedging(hedging);
    for _ in 0..CALLS {
        assert_eq!(speak(&chain).await.0, Ok(whole()));
    }
    assert_eq!(second.calls(), 0, "the first was not slow");

    let (spoken, took) = speak(&chain).await;

    assert_eq!(spoken, Ok(whole()));
    (took, [first.calls() - CALLS, second.calls()], chain.state().problems(), second)
}

fn second(fault: Option<At>) -> ScriptedTts {
    ScriptedTts::new("second", SAMPLE_RATE_HZ, [fault])
}

#[tokio::test(start_paused = true)]
async fn another_provider_that_is_faster_speaks_the_sentence_and_the_slow_one_has_not_failed() {
    let first = usual("first", [Some(At(0, Fault::Hangs))]);

    let (took, calls, problems, second) = hedged(first, second(late(50)), true).await;

    assert_eq!((took, calls), (USUAL + Duration::from_millis(50), [1, 1]));
    assert_eq!(problems, None);
    assert_eq!(second.said.lock()[0].voice, None, "the voice that was asked for is the first provider's");
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_that_is_first_all_the_same_speaks_the_sentence() {
    let (took, calls, problems, _) = hedged(usual("first", [late(140)]), second(late(50)), true).await;

    assert_eq!((took, calls, problems), (Duration::from_millis(140), [1, 1], None));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_does_not_hedge_waits_for_the_slow_provider() {
    let (took, calls, _, _) = hedged(usual("first", [late(400)]), second(None), false).await;

    assert_eq!((took, calls), (Duration::from_millis(400), [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_fails_leaves_the_sentence_to_the_first_and_its_longer_time_as_the_last() {
    let deadline = deadlines().tts_first_sound.as_millis() as u64;
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));

    let (took, calls, problems, _) =
        hedged(usual("first", [late(3 * deadline)]), second(Some(At(0, lost))), true).await;

    assert_eq!((took, calls), (3 * deadlines().tts_first_sound, [1, 1]));
    assert_eq!(problems, Some("second: connection failed: lost".into()));
}

#[tokio::test(start_paused = true)]
async fn a_backup_goes_on_where_the_first_fails_and_is_asked_once() {
    let deadline = deadlines().tts_first_sound;
    let backup = second(late(deadline.as_millis() as u64));

    let (took, calls, problems, _) = hedged(usual("first", [Some(At(0, Fault::Hangs))]), backup, true).await;

    assert_eq!((took, calls), (USUAL + deadline, [1, 1]));
    assert_eq!(problems, Some("first: took too long; second has taken over".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn as_long_as_one_provider_works_no_word_of_a_hedged_sentence_is_lost_or_spoken_twice(
        faults in proptest::collection::vec(proptest::collection::vec(slow_or_broken(), 8), 2),
        place in 0..3_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut providers: Vec<Arc<dyn TextToSpeech>> = Vec::new();
        for (faults, name) in faults.into_iter().zip(["a", "b"]) {
            providers.push(Arc::new(usual(name, faults.into_iter().map(Some))));
        }
        providers.insert(place, Arc::new(usual("works", std::iter::repeat_n(late(100), 80))));
        let chain = TtsChain::new(providers, deadlines()).hedging(true);

        for _ in 0..CALLS + 6 {
            prop_assert_eq!(runtime.block_on(speak(&chain)).0, Ok(whole()));
        }
    }
}

/// A fault, or a sentence that is slow.
fn slow_or_broken() -> impl Strategy<Value = At> {
    let broken = any_fault(56)
        .prop_map(|At(after, fault)| if fault == Fault::Ends { At(0, fault) } else { At(after, fault) });
    let slow = (0..3_usize, 0..400_u64)
        .prop_map(|(after, millis)| At(after, Fault::Late(Duration::from_millis(millis))));
    prop_oneof![broken, slow]
}
