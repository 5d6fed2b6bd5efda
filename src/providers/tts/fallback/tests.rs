//! A sentence by scripted providers: each fault at each place.

use proptest::prelude::*;

use super::*;
use crate::{
    audio::SAMPLE_RATE_HZ,
    providers::testing::{At, Fault, ScriptedTts, any_fault, deadlines, faults, heard},
};

const SENTENCE: &str = "w1 w20 w3 w14, w5 w16 w7 w28 w9 w30.";

fn chain<const N: usize>(providers: [&Arc<ScriptedTts>; N]) -> TtsChain {
    let providers = providers.into_iter().map(|tts| tts.clone() as Arc<dyn TextToSpeech>);
    TtsChain::new(providers.collect(), deadlines())
}

async fn speak(chain: &TtsChain) -> (Vec<i16>, Result<(), ProviderError>) {
    let mut samples = Vec::new();
    let mut pieces = chain.synthesize(SpeechRequest::text(SENTENCE));
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => samples.extend(piece),
            Err(error) => return (samples, Err(error)),
        }
    }
    (samples, Ok(()))
}

/// Every word, and all of it.
fn whole() -> Vec<(String, usize)> {
    SENTENCE.split(' ').map(|word| (word.to_owned(), 100)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_sentence_is_spoken_once_and_whole_whatever_fault_happens_wherever() {
    let pieces = SENTENCE.len() * 2;
    for at in faults(&[0, 1, 3, 8, 21, 30, 43, pieces - 1]) {
        // The end of a stream without an error, after some sound, is the end of the sentence.
        if at.1 == Fault::Ends && at.0 > 0 {
            continue;
        }
        let first = Arc::new(ScriptedTts::new("first", SAMPLE_RATE_HZ, [Some(at.clone())]));
        let second = Arc::new(ScriptedTts::new("second", SAMPLE_RATE_HZ, []));
        let chain = chain([&first, &second]);

        let (samples, result) = speak(&chain).await;

        assert_eq!(result, Ok(()), "{at:?}");
        assert_eq!(heard(&samples, SENTENCE), whole(), "{at:?}");
        assert!(second.calls() == 1 || at.0 == pieces - 1, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_no_sound_in_time_is_replaced() {
    let first = Arc::new(ScriptedTts::new("first", SAMPLE_RATE_HZ, [Some(At(0, Fault::Hangs))]));
    let second = Arc::new(ScriptedTts::new("second", SAMPLE_RATE_HZ, []));
    let chain = chain([&first, &second]);
    let began = clock::now();

    let (samples, _) = speak(&chain).await;

    assert_eq!(heard(&samples, SENTENCE), whole());
    assert_eq!(clock::now() - began, deadlines().tts_first_sound);
    assert_eq!(chain.state().status().taken_over_by, Some("second"));
}

/// Silence is no speech, however much of it there is.
struct Silent;

impl TextToSpeech for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn sample_rate_hz(&self) -> u32 {
        SAMPLE_RATE_HZ
    }

    fn speaks(&self, _: &Language) -> bool {
        true
    }

    fn synthesize(&self, _: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        stream::iter([Ok(vec![0; 16_000])]).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_silence_only_is_replaced() {
    let second = Arc::new(ScriptedTts::new("second", SAMPLE_RATE_HZ, []));
    let chain = TtsChain::new(vec![Arc::new(Silent), second], deadlines());

    let (samples, result) = speak(&chain).await;

    assert_eq!((heard(&samples, SENTENCE), result), (whole(), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn the_next_provider_speaks_at_the_rate_of_the_first_and_in_its_own_voice() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let first = Arc::new(ScriptedTts::new("first", 22_050, [Some(At(0, lost))]));
    let second = Arc::new(ScriptedTts::new("second", 44_100, []));
    let chain = chain([&first, &second]);
    let request = SpeechRequest { voice: Some("anna".into()), ..SpeechRequest::text(SENTENCE) };

    let samples: Vec<i16> = chain.synthesize(request).map(Result::unwrap).concat().await;

    assert_eq!(chain.sample_rate_hz(), 22_050);
    let seconds = samples.len() as f32 / 22_050.0;
    let expected = SENTENCE.len() as f32 / 15.0;
    assert!((expected..expected + 0.05).contains(&seconds), "{seconds} {expected}");
    assert_eq!(first.said.lock()[0].voice.as_deref(), Some("anna"));
    assert_eq!(second.said.lock()[0].voice, None);
}

#[tokio::test(start_paused = true)]
async fn the_only_provider_passes_its_sound_on_at_once() {
    let only = Arc::new(ScriptedTts::new("only", SAMPLE_RATE_HZ, [Some(At(1, Fault::Hangs))]));
    let chain = chain([&only]);

    let first = chain.synthesize(SpeechRequest::text(SENTENCE)).next().await.unwrap();

    assert!(!first.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_last_reason_is_given() {
    let fails = |why: &str| Some(At(12, Fault::Fails(ProviderError::Connection(why.into()))));
    let first = Arc::new(ScriptedTts::new("first", SAMPLE_RATE_HZ, [fails("one")]));
    let second = Arc::new(ScriptedTts::new("second", SAMPLE_RATE_HZ, [fails("two")]));

    let (samples, result) = speak(&chain([&first, &second])).await;

    assert_eq!(result, Err(ProviderError::Connection("two".into())));
    let words: Vec<String> = heard(&samples, SENTENCE).into_iter().map(|(word, _)| word).collect();
    assert!(SENTENCE.starts_with(&words.join(" ")), "{words:?}");
}

proptest! {
    #[test]
    fn as_long_as_one_provider_works_no_word_is_lost_or_spoken_twice(
        faults in proptest::collection::vec(proptest::collection::vec(any_fault(72), 12), 0..4),
        place in 0..4_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut providers: Vec<Arc<dyn TextToSpeech>> = Vec::new();
        for (faults, name) in faults.into_iter().zip(["a", "b", "c", "d"]) {
            let faults = faults.into_iter().map(|At(after, fault)| {
                Some(if fault == Fault::Ends { At(0, fault) } else { At(after, fault) })
            });
            providers.push(Arc::new(ScriptedTts::new(name, SAMPLE_RATE_HZ, faults)));
        }
        let place = place.min(providers.len());
        providers.insert(place, Arc::new(ScriptedTts::new("works", SAMPLE_RATE_HZ, [])));
        let chain = TtsChain::new(providers, deadlines());

        for _ in 0..6 {
            let (samples, result) = runtime.block_on(speak(&chain));

            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(heard(&samples, SENTENCE), whole());
        }
    }
}
