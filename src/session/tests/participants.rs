//! Other participants of the room.

use super::*;
use crate::session::options::tests::offer;

fn ann() -> Identity {
    Identity::parse("ann").unwrap()
}

/// A session of John's with these options.
fn rig(options: &Value) -> Rig {
    let mut rig = Rig::with(SessionConfig { offer: offer(), ..config() });
    rig.attach(1, None);
    configure(&mut rig, options);
    rig.told(1);
    rig.effects.clear();
    rig
}

fn configure(rig: &mut Rig, options: &Value) {
    rig.say(&json!({"type": "configure_session", "options": options}).to_string());
}

fn audio<'a>(rig: &'a mut Rig, participant: &Identity, samples: &[i16]) -> &'a mut Rig {
    rig.input(Input::ParticipantAudio(participant.clone(), samples.into()))
}

/// A participant says something that is transcribed; gives its utterance.
fn speak(rig: &mut Rig, participant: &Identity, text: &str) -> UtteranceId {
    audio(rig, participant, &loud());
    let utterance = rig.session.recognition.last_utterance();
    audio(rig, participant, &[1; 16_000]);
    rig.input(Input::Final(utterance, text.into()));
    utterance
}

fn opened_beside(rig: &Rig) -> usize {
    rig.effects.iter().filter(|effect| matches!(effect, Effect::TranscribeBeside(..))).count()
}

fn answered(rig: &Rig) -> Option<String> {
    rig.effects.iter().find_map(|effect| {
        let Effect::Generate(_, prompt) = effect else { return None };
        prompt.messages.last().map(|message| message.text().to_owned())
    })
}

#[test]
fn what_another_participant_says_is_told_and_saved_with_their_identity_and_not_answered() {
    let mut rig = rig(&json!({"participants": "all"}));

    audio(&mut rig, &ann(), &loud());
    rig.input(Input::Interim(UtteranceId(1), "Hello".into()));
    audio(&mut rig, &ann(), &[1; 16_000]);
    rig.input(Input::Final(UtteranceId(1), "Hello John.".into()));

    let told = rig.told(1);
    let told: Vec<_> = told.iter().map(|message| (&message["type"], &message["data"])).collect();
    assert_eq!(told.len(), 2, "nothing of the user's own endpointing: {told:?}");
    for (kind, data) in told {
        assert_eq!(kind, "data_stream");
        assert_eq!((&data["participant"], &data["speakerId"]), (&json!("ann"), &json!("ann")));
    }
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::Save(HistoryItem::Utterance { text, participant: Some(participant), speaker: Some(speaker), .. }, _)
            if text == "Hello John." && *participant == ann() && speaker == "ann"
    )));
    assert!(rig.has(|effect| matches!(effect, Effect::EndUtterance(UtteranceId(1)))));
    assert_eq!(answered(&rig), None);
}

#[test]
fn only_who_is_asked_for_is_transcribed() {
    let bob = Identity::parse("bob").unwrap();
    for (participants, of_ann, of_bob) in
        [(json!(null), 0, 0), (json!("owner"), 0, 0), (json!("all"), 1, 1), (json!(["ann"]), 1, 0)]
    {
        let mut rig = rig(&json!({ "participants": participants }));
        audio(&mut rig, &ann(), &loud());
        assert_eq!(opened_beside(&rig), of_ann, "{participants}");
        audio(&mut rig, &bob, &loud());
        assert_eq!(opened_beside(&rig), of_ann + of_bob, "{participants}");
    }
}

#[test]
fn the_users_own_utterances_and_turns_are_the_same_whoever_speaks_meanwhile() {
    let of_user = |others: bool| {
        let mut rig = rig(&json!({"participants": "all"}));
        let other = |rig: &mut Rig, samples: &[i16]| {
            if others {
                audio(rig, &ann(), samples);
            }
        };
        rig.start_speech();
        other(&mut rig, &loud());
        rig.end_speech();
        other(&mut rig, &loud());
        let mine = UtteranceId(1);
        rig.input(Input::Final(mine, "Hello.".into())).llm(1, "Hi there.");
        // Somebody speaks over the answer.
        other(&mut rig, &[1; 16_000]);
        if others {
            rig.input(Input::Final(UtteranceId(2), "Not for June.".into()));
        }
        rig.llm_ends(1).tts(1, 320).tts_ends(1);
        let mut told = rig.told(1);
        told.retain(|message| message["data"]["participant"] != "ann");
        for message in &mut told {
            message.as_object_mut().unwrap().remove("seq");
        }
        (told, answered(&rig))
    };

    assert_eq!(of_user(true), of_user(false));
}

#[test]
fn who_is_to_be_answered_is_answered_by_name_and_interrupts_nobody() {
    let mut rig = rig(&json!({"participants": "all", "answers": ["ann"]}));

    speak(&mut rig, &Identity::parse("bob").unwrap(), "I am hungry.");
    assert_eq!(answered(&rig), None);
    let utterance = speak(&mut rig, &ann(), "What time is it?");
    assert_eq!(answered(&rig).as_deref(), Some("ann: What time is it?"));
    let started = rig.told(1).into_iter().find(|message| message["type"] == "turn_started").unwrap();
    assert_eq!(started["utteranceIds"], json!([utterance]));

    rig.llm(1, "Five.").effects.clear();
    speak(&mut rig, &ann(), "And now?");
    assert_eq!(answered(&rig), None, "the answer that is being given goes on");
    assert!(!rig.has(|effect| matches!(effect, Effect::StopLlm)));
    rig.tts(1, 320).llm_ends(1).tts_ends(1).wait(Duration::from_secs(5));
    assert_eq!(answered(&rig).as_deref(), Some("ann: And now?"));
}

#[test]
fn a_label_of_the_provider_is_told_apart_by_the_microphone() {
    let mut rig = rig(&json!({"participants": "all"}));
    audio(&mut rig, &ann(), &loud());

    let heard = Transcript { speaker: Some("0".into()), ..Transcript::text("Hello.") };
    rig.input(Input::Final(UtteranceId(1), heard));

    assert_eq!(rig.told(1)[0]["data"]["speakerId"], "ann:0");
}

#[test]
fn an_utterance_ends_when_the_microphone_goes_stalls_or_is_not_wanted_any_more() {
    let gone: [fn(&mut Rig); 3] = [
        |rig| _ = rig.input(Input::ParticipantGone(ann())),
        |rig| _ = rig.wait(AUDIO_STALL_TIMEOUT),
        |rig| configure(rig, &json!({"participants": "owner"})),
    ];
    for gone in gone {
        let mut rig = rig(&json!({"participants": "all"}));
        audio(&mut rig, &ann(), &loud());
        assert!(!rig.closed());

        gone(&mut rig);

        assert!(rig.closed());
        assert_eq!(rig.session.participants.deadline().get(), None);
    }
}

#[test]
fn only_so_many_are_transcribed_and_who_is_not_is_named() {
    let mut rig = rig(&json!({"participants": "all"}));

    for n in 0..6 {
        audio(&mut rig, &Identity::parse(&format!("guest-{n}")).unwrap(), &loud());
    }
    rig.input(Input::ParticipantRefused(ann()));

    assert_eq!(opened_beside(&rig), 4);
    let error = rig.told(1).into_iter().find(|message| message["type"] == "error").unwrap();
    assert_eq!(error["code"], "RATE_LIMITED");
    assert_eq!(error["message"], "ann is not transcribed: at most 4 participants are, at the same time");
}

#[test]
fn audio_faster_than_it_can_be_spoken_is_dropped() {
    let mut rig = rig(&json!({"participants": "all"}));
    let minute = vec![1; 16_000 * 60];
    audio(&mut rig, &ann(), &minute);

    audio(&mut rig, &ann(), &loud());
    assert_eq!(opened_beside(&rig), 0);

    rig.wait(Duration::from_secs(2));
    audio(&mut rig, &ann(), &loud());
    assert_eq!(opened_beside(&rig), 1);
}

#[test]
fn the_agent_joins_for_others_too_and_stays_while_they_are_heard() {
    let mut rig = Rig::with(SessionConfig { offer: offer(), ..config() });
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"media":["ws"]}}"#);
    let joins = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::JoinRoom));
    assert!(!joins(&rig));

    configure(&mut rig, &json!({"participants": ["ann"]}));
    assert!(joins(&rig));
    rig.input(Input::AgentState(AgentState::Joined));
    for _ in 0..60 {
        rig.wait(AGENT_IDLE / 30).input(Input::Alive(1));
        audio(&mut rig, &ann(), &QUIET);
    }
    assert!(!rig.has(|effect| matches!(effect, Effect::LeaveRoom)));
    rig.effects.clear();
    rig.attach_with(2, r#"{"type":"connection_init","capabilities":{"media":["ws"]}}"#);
    assert!(joins(&rig), "for a client that comes back, too");
}
