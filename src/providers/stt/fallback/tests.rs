//! An utterance by scripted providers: each fault at each place.

use proptest::prelude::*;

use super::*;
use crate::{
    language::Language,
    providers::testing::{At, Fault, ScriptedStt, SttBy, any_fault, chunk, deadlines, faults, hanging_stt},
};

const WORDS: i16 = 6;

fn chain<const N: usize>(providers: [&Arc<ScriptedStt>; N]) -> SttChain {
    let providers = providers.into_iter().map(|stt| stt.clone() as Arc<dyn SpeechToText>);
    SttChain::new(providers.collect(), deadlines())
}

fn whole() -> String {
    (0..WORDS).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
}

/// The events of an utterance of these chunks, which come one after the other.
async fn transcribe(
    chain: &SttChain,
    request: SttRequest,
    chunks: Vec<Pcm>,
) -> Vec<Result<SttEvent, ProviderError>> {
    let (feed, audio) = mpsc::channel(1);
    let events = chain.open(request, audio);
    let speak = async move {
        for chunk in chunks {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            // The utterance may be over before its audio is.
            let _ = feed.send(chunk).await;
        }
    };
    tokio::join!(events.collect(), speak).0
}

async fn speak(chain: &SttChain) -> Vec<Result<SttEvent, ProviderError>> {
    transcribe(chain, SttRequest::default(), (0..WORDS).map(chunk).collect()).await
}

/// Checks that interims never become shorter. The last event's text.
fn checked(events: Vec<Result<SttEvent, ProviderError>>) -> Result<String, ProviderError> {
    let mut longest = 0;
    let count = events.len();
    for (at, event) in events.into_iter().enumerate() {
        match event? {
            SttEvent::Interim(heard) => {
                assert!(heard.text.len() >= longest, "an interim went back: {heard:?}");
                longest = heard.text.len();
            }
            SttEvent::Final(heard) => {
                assert_eq!(at + 1, count, "the final is the last event");
                return Ok(heard.text);
            }
        }
    }
    panic!("no final")
}

#[tokio::test(start_paused = true)]
async fn a_transcript_is_whole_whatever_fault_happens_wherever() {
    for at in faults(&[0, 1, 3, WORDS as usize - 1, WORDS as usize]) {
        let first = Arc::new(ScriptedStt::hearing_chunks("first", [Some(at.clone())]));
        let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
        let chain = chain([&first, &second]);

        let events = speak(&chain).await;

        assert_eq!(checked(events), Ok(whole()), "{at:?}");
        assert_eq!((first.calls(), second.calls()), (1, 1), "{at:?}");
        let taken_over_by = chain.state().status().taken_over_by;
        assert_eq!(taken_over_by, Some("second"), "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_that_does_not_come_in_time_comes_from_the_next_provider() {
    let first = Arc::new(ScriptedStt::hearing_chunks("first", [Some(At(WORDS as usize, Fault::Hangs))]));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let chain = chain([&first, &second]);
    let began = clock::now();

    assert_eq!(checked(speak(&chain).await), Ok(whole()));

    let speech = std::time::Duration::from_millis(500) * WORDS as u32;
    assert_eq!(clock::now() - began, speech + deadlines().stt_final);
}

#[tokio::test(start_paused = true)]
async fn an_empty_final_stands_if_the_next_provider_says_the_same_or_the_audio_is_not_loud() {
    let first =
        Arc::new(ScriptedStt::hearing_chunks("first", [Some(At(0, Fault::Ends)), Some(At(0, Fault::Ends))]));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", [Some(At(0, Fault::Ends))]));
    let chain = chain([&first, &second]);

    assert_eq!(checked(speak(&chain).await), Ok(String::new()));
    assert_eq!((first.calls(), second.calls()), (1, 1));

    let quiet = vec![Pcm::from(vec![9; 16_000])];
    assert_eq!(checked(transcribe(&chain, SttRequest::default(), quiet).await), Ok(String::new()));
    assert_eq!((first.calls(), second.calls()), (2, 1), "only speech is doubted");
    assert_eq!(chain.state().problems(), None, "nobody failed");
}

#[tokio::test(start_paused = true)]
async fn an_empty_final_stands_if_no_other_provider_can_say_more() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let first = Arc::new(ScriptedStt::hearing_chunks("first", [Some(At(0, Fault::Ends))]));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", [Some(At(0, lost))]));

    let events = transcribe(&chain([&first, &second]), SttRequest::default(), vec![chunk(0), chunk(1)]).await;

    assert_eq!(checked(events), Ok(String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_silent_from_the_start_is_replaced_while_the_utterance_goes_on() {
    let first = Arc::new(ScriptedStt::hearing_chunks("first", [Some(At(0, Fault::Hangs))]));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let chain = chain([&first, &second]);
    let began = clock::now();

    let events = speak(&chain).await;

    let interims = events.iter().filter(|event| matches!(event, Ok(SttEvent::Interim(_)))).count();
    assert!(interims > 1, "interims of what follows: {events:?}");
    assert_eq!(checked(events), Ok(whole()));
    let speech = std::time::Duration::from_millis(500) * WORDS as u32;
    assert_eq!(clock::now() - began, speech, "the final waits for no deadline");
    let status = chain.state().status();
    assert_eq!((status.taken_over_by, status.message), (Some("second"), Some("took too long".into())));
}

#[tokio::test(start_paused = true)]
async fn sound_that_nobody_understands_is_no_failure_of_those_that_were_silent() {
    let hears_nothing = |name| {
        let nothing = || Some(At(0, Fault::Ends));
        Arc::new(ScriptedStt::hearing_chunks(name, std::iter::repeat_with(nothing).take(5)))
    };
    let (first, second) = (hears_nothing("first"), hears_nothing("second"));
    let chain = chain([&first, &second]);

    for _ in 0..5 {
        assert_eq!(checked(speak(&chain).await), Ok(String::new()));
    }

    assert_eq!((first.calls(), second.calls()), (5, 5));
    assert_eq!(chain.state().problems(), None);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_silent_all_have_failed() {
    let hangs = |name| Arc::new(ScriptedStt::hearing_chunks(name, [Some(At(0, Fault::Hangs))]));
    let chain = chain([&hangs("first"), &hangs("second")]);

    assert_eq!(checked(speak(&chain).await), Err(ProviderError::TimedOut));

    let message = chain.state().status().message.unwrap();
    assert_eq!(message, "first: took too long; second: took too long");
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_interims_is_waited_for_until_the_utterance_is_over() {
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let scripted = ScriptedStt::hearing_chunks("batch", []);
    let batch = Arc::new(SttBy(move |request, audio| {
        let is_final = |event: &Result<SttEvent, _>| !matches!(event, Ok(SttEvent::Interim(_)));
        scripted.open(request, audio).filter(move |event| std::future::ready(is_final(event)))
    }));
    let chain = SttChain::new(vec![batch, second.clone()], deadlines());

    assert_eq!(checked(speak(&chain).await), Ok(whole()));

    assert_eq!(second.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_an_interim_of_what_is_not_loud_is_waited_for() {
    let first = Arc::new(ScriptedStt::hearing_chunks("first", [Some(At(0, Fault::Ends))]));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let quiet = vec![Pcm::from(vec![9; 8_000]); 20];

    let events = transcribe(&chain([&first, &second]), SttRequest::default(), quiet).await;

    assert_eq!((checked(events), second.calls()), (Ok(String::new()), 0));
}

#[tokio::test(start_paused = true)]
async fn a_final_of_a_part_of_the_audio_is_not_taken() {
    let premature = Arc::new(SttBy(|_, _| stream::iter([Ok(SttEvent::Final(Transcript::text("w0")))])));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let chain = SttChain::new(vec![premature, second], deadlines());

    assert_eq!(checked(speak(&chain).await), Ok(whole()));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_take_its_audio_is_replaced_while_the_utterance_goes_on() {
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let chain = SttChain::new(vec![hanging_stt(), second.clone()], deadlines());
    let (feed, audio) = mpsc::channel(1);
    let mut events = chain.open(SttRequest::default(), audio);
    let chunks = AUDIO_QUEUE + 1;

    for _ in 0..chunks {
        tokio::select! {
            sent = feed.send(vec![1_000; 160].into()) => sent.unwrap(),
            event = events.next() => panic!("{event:?}"),
        }
    }
    let interim = events.next().await;

    assert!(matches!(interim, Some(Ok(SttEvent::Interim(_)))), "{interim:?}");
    assert_eq!(second.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_an_utterance_that_is_too_long_to_be_kept_the_next_provider_gets_the_beginning() {
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let first = Arc::new(ScriptedStt::hearing_chunks("first", [Some(At(50, lost))]));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
    let chunks = (0..50).map(chunk).collect();

    let events = transcribe(&chain([&first, &second]), SttRequest::default(), chunks).await;

    let heard = checked(events).unwrap();
    assert!(heard.starts_with("w0 w1 ") && heard.ends_with(" w39"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn only_providers_of_the_language_are_asked() {
    let [english, german] = ["en", "de-AT"].map(|tag| Language::parse(tag).unwrap());
    let first = Arc::new(ScriptedStt::hearing_chunks("first", []).of(english));
    let second = Arc::new(ScriptedStt::hearing_chunks("second", []).of(german));
    let chain = chain([&first, &second]);
    let known = |tag: &str| SpokenLanguage::Known(Language::parse(tag).unwrap());
    let request = |language| SttRequest { language, ..SttRequest::default() };

    let heard = transcribe(&chain, request(known("de")), vec![chunk(0)]).await;

    assert_eq!(checked(heard), Ok("w0".to_owned()));
    assert_eq!((first.calls(), second.calls()), (0, 1));
    assert!(chain.transcribes(&known("de")) && !chain.transcribes(&known("fr")));
    let french = checked(transcribe(&chain, request(known("fr")), vec![chunk(0)]).await);
    assert!(matches!(french, Err(ProviderError::Unavailable(_))), "{french:?}");
}

proptest! {
    #[test]
    fn as_long_as_one_provider_works_the_transcript_is_whole(
        faults in proptest::collection::vec(proptest::collection::vec(any_fault(7), 12), 0..4),
        place in 0..4_usize,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut providers: Vec<Arc<dyn SpeechToText>> = Vec::new();
        for (faults, name) in faults.into_iter().zip(["a", "b", "c", "d"]) {
            // Two that hear nothing where there is something are believed.
            let faults = faults.into_iter().filter(|At(_, fault)| name == "a" || *fault != Fault::Ends);
            providers.push(Arc::new(ScriptedStt::hearing_chunks(name, faults.map(Some))));
        }
        providers.insert(place.min(providers.len()), Arc::new(ScriptedStt::hearing_chunks("works", [])));
        let chain = SttChain::new(providers, deadlines());

        for _ in 0..6 {
            let events = runtime.block_on(speak(&chain));

            prop_assert_eq!(checked(events), Ok(whole()));
        }
    }
}
