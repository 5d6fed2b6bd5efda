//! Pauses: how much silence ends a turn.

use super::*;
use crate::providers::ProviderError;

/// 32 ms of silence.
pub(super) const SILENCE: [i16; 512] = [1; 512];

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, None);
    rig.effects.clear();
    rig
}

/// So many frames of silence.
pub(super) fn silence(rig: &mut Rig, frames: usize) {
    for _ in 0..frames {
        rig.room_audio(&SILENCE).wait(Duration::from_millis(32));
    }
}

/// Speech, and 160 ms of silence. (Speech ends within a frame, which is no silence yet.)
pub(super) fn speech_and_pause(rig: &mut Rig) {
    rig.start_speech();
    silence(rig, 6);
}

/// The number of the last pause that is to be judged, and the audio that goes with it.
fn judged_pause(rig: &Rig) -> Option<(u64, Pcm)> {
    rig.effects.iter().rev().find_map(|effect| {
        let Effect::JudgePause(number, heard) = effect else { return None };
        Some((*number, heard.clone()))
    })
}

pub(super) fn judge(rig: &mut Rig, probability: f32) {
    let (number, _) = judged_pause(rig).expect("the pause is to be judged");
    rig.input(Input::PauseJudged(number, Ok(probability)));
}

#[test]
fn a_pause_is_judged_once_with_the_audio_so_far() {
    let mut rig = rig();

    speech_and_pause(&mut rig);
    silence(&mut rig, 5);

    let judged = rig.effects.iter().filter(|effect| matches!(effect, Effect::JudgePause(..))).count();
    assert_eq!(judged, 1);
    let (_, heard) = judged_pause(&rig).unwrap();
    assert_eq!(heard.len(), 21 * 512);
    assert!(!rig.closed());
}

#[test]
fn of_a_long_utterance_the_newest_eight_seconds_are_judged() {
    let mut rig = rig();
    for _ in 0..20 {
        rig.start_speech();
    }

    speech_and_pause(&mut rig);

    assert_eq!(judged_pause(&rig).unwrap().1.len(), 128_000);
}

#[test]
fn a_turn_that_sounds_finished_ends_after_200_ms_and_one_that_does_not_after_two_and_a_half_seconds() {
    for (probability, frames) in [(1.0, 7), (0.0, 79)] {
        let mut rig = rig();
        speech_and_pause(&mut rig);
        judge(&mut rig, probability);

        silence(&mut rig, frames - 5 - 1);
        assert!(!rig.closed(), "{probability}");
        silence(&mut rig, 1);
        assert!(rig.closed(), "{probability}");
    }
}

#[test]
fn a_judgement_that_comes_late_ends_the_turn_at_once() {
    let mut rig = rig();
    speech_and_pause(&mut rig);
    silence(&mut rig, 7);
    assert!(!rig.closed());

    judge(&mut rig, 0.99);

    assert!(rig.closed());
}

#[test]
fn a_judgement_of_a_pause_that_is_over_has_no_effect() {
    let mut rig = rig();
    speech_and_pause(&mut rig);
    let (first, _) = judged_pause(&rig).unwrap();
    speech_and_pause(&mut rig);

    rig.input(Input::PauseJudged(first, Ok(1.0)));
    silence(&mut rig, 5);

    assert!(!rig.closed());
}

#[test]
fn words_that_want_to_go_on_are_waited_for() {
    let mut rig = rig();
    rig.start_speech();
    let utterance = rig.session.recognition.last_utterance();
    rig.input(Input::Interim(utterance, "I would like to go to".into()));
    speech_and_pause(&mut rig);
    judge(&mut rig, 0.95);

    silence(&mut rig, 40);
    assert!(!rig.closed());
    rig.input(Input::Interim(utterance, "I would like to go to Rome.".into()));

    assert!(rig.closed());
}

#[test]
fn where_the_model_fails_the_usual_silence_ends_the_turn() {
    let mut rig = rig();
    speech_and_pause(&mut rig);
    let (number, _) = judged_pause(&rig).unwrap();

    rig.input(Input::PauseJudged(number, Err(ProviderError::Busy)));

    silence(&mut rig, 10);
    assert!(!rig.closed());
    silence(&mut rig, 1);
    assert!(rig.closed());
}

#[test]
fn captions_end_with_the_usual_silence_and_nothing_is_judged() {
    let mut rig = rig();
    rig.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#);

    speech_and_pause(&mut rig);
    silence(&mut rig, 11);

    assert!(judged_pause(&rig).is_none());
    assert!(rig.closed());
}

#[test]
fn where_the_button_or_the_client_decides_nothing_is_judged() {
    let mut with_button = rig();
    with_button.say(r#"{"type":"configure_session","options":{"mode":"push_to_talk"}}"#);
    let mut with_client = Rig::new();
    with_client.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true}}"#);

    for mut rig in [with_button, with_client] {
        rig.say(r#"{"type":"VAD","status":true}"#);
        speech_and_pause(&mut rig);
        silence(&mut rig, 100);

        assert!(rig.opened() && !rig.closed());
        assert!(judged_pause(&rig).is_none());
    }
}
