use super::*;
use crate::providers::{
    llm::LanguageModel,
    scripted::fault::{At, Fault},
    stt::{SpeechToText, SpokenLanguage},
    testing::{ScriptedLlm, ScriptedStt, ScriptedTts, deadlines},
    tts::TextToSpeech,
};

const ANSWER: &str = "One, two, three, four, five, six, seven, eight, nine, ten.";

fn llms<const N: usize>(names: [&'static str; N]) -> Vec<Arc<dyn LanguageModel>> {
    names.map(|name| Arc::new(ScriptedLlm::new(name, ANSWER, [])) as _).into()
}

/// Every fault, who took over, and whether it was within the deadline.
fn takeovers(trials: &[Trial]) -> Vec<(&'static str, Vec<&'static str>, Option<&'static str>)> {
    let faults = trials.iter().filter_map(|trial| Some((trial.fault?, trial)));
    faults.map(|(fault, trial)| (fault, trial.providers.clone(), trial.taken_over_by)).collect()
}

fn every_fault(
    failed: &[&'static str],
    taken_over_by: &'static str,
) -> Vec<(&'static str, Vec<&'static str>, Option<&'static str>)> {
    let names = FaultKind::ALL.into_iter().map(FaultKind::name);
    names.map(|fault| (fault, failed.to_vec(), Some(taken_over_by))).collect()
}

fn assert_survived_in_time(trials: &[Trial]) {
    for trial in trials {
        assert!(trial.survived, "{trial:?}");
        let fault = trial.fault.is_some();
        assert_eq!(trial.takeover_ms.is_some(), fault, "{trial:?}");
        assert!(trial.takeover_ms.unwrap_or_default() <= trial.deadline_ms, "{trial:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_an_stt_is_survived_by_the_next_one() {
    let names = ["one", "two"];
    let providers = names.map(|name| Arc::new(ScriptedStt::new(name, [])) as Arc<dyn SpeechToText>);
    let speech: Vec<i16> = (0..48_000).map(|n| (n * 7_919 % 20_001) as i16 - 10_000).collect();
    let mut seen = 0;

    let language = SpokenLanguage::default();
    let trials = stt(&providers, deadlines(), &speech, &language, &mut |_| seen += 1).await;

    assert_eq!(takeovers(&trials), every_fault(&["one"], "two"));
    assert_survived_in_time(&trials);
    assert_eq!((trials.len(), seen), (9, 9), "both alone, and each fault");
    let texts: Vec<_> = trials.iter().map(|trial| &trial.result).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_an_llm_is_survived_by_the_next_one_and_the_one_after_it() {
    let trials = llm(&llms(["one", "two", "three"]), deadlines(), &mut |_| {}).await;

    let expected = [every_fault(&["one"], "two"), every_fault(&["one", "two"], "three")].concat();
    assert_eq!(takeovers(&trials), expected);
    assert_survived_in_time(&trials);
    assert!(trials.iter().all(|trial| trial.result == ANSWER), "{trials:?}");
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_a_tts_is_survived_by_the_next_one() {
    let names = ["one", "two"];
    let providers = names.map(|name| Arc::new(ScriptedTts::new(name, 16_000, [])) as Arc<dyn TextToSpeech>);

    let trials = tts(&providers, deadlines(), &mut |_| {}).await;

    assert_eq!(takeovers(&trials), every_fault(&["one"], "two"));
    assert_survived_in_time(&trials);
}

#[tokio::test(start_paused = true)]
async fn a_next_provider_that_fails_too_is_no_survivor() {
    let lost = || Some(At(0, Fault::Fails(ProviderError::Connection("lost".into()))));
    let dead = ScriptedLlm::new("two", ANSWER, (0..100).map(|_| lost()));
    let providers = [llms(["one"]), vec![Arc::new(dead) as _]].concat();

    let trials = llm(&providers, deadlines(), &mut |_| {}).await;

    let (alone, faults) = trials.split_at(2);
    assert_eq!([alone[0].survived, alone[1].survived], [true, false]);
    for trial in faults {
        assert!(!trial.survived && trial.result.contains("lost"), "{trial:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_nobody_can_take_over_from_is_tried_alone() {
    let trials = llm(&llms(["one"]), deadlines(), &mut |_| {}).await;

    assert_eq!(takeovers(&trials), []);
    assert_eq!(trials.iter().map(|trial| trial.survived).collect::<Vec<_>>(), [true]);
}
