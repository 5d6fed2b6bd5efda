//! The session's machine, input by input, and under any order of inputs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
mod mentra;

use crate::{
    ids::Identity,
    protocol::{
        from_client::Resume,
        to_client::{Delivery, LivekitRole},
    },
};

const GRACE: Duration = Duration::from_secs(60);
const AGENT_IDLE: Duration = Duration::from_secs(300);

/// A session, its time, and what it told each socket.
struct Rig {
    session: Session,
    now: Instant,
    effects: Vec<Effect>,
}

impl Rig {
    fn new(voice: bool) -> Self {
        Self::with(voice.then_some(Voice { rate_hz: 16_000, delivery: Delivery::Ws }))
    }

    fn with(voice: Option<Voice>) -> Self {
        let now = clock::now();
        let settings = Settings {
            grace: GRACE,
            heartbeat: Duration::from_secs(10),
            dead_after: Duration::from_secs(30),
            language: "en-US".into(),
            system_prompt: "Be brief.".into(),
            transcriber: Ok("test"),
            voice,
            livekit: true,
            client_vad_percent: 100,
            agent_idle: AGENT_IDLE,
        };
        let user = UserId::parse("john").unwrap();
        let facts = Facts {
            id: SessionId::from_u128(7),
            room: RoomName::for_user(&user, "abc123"),
            user,
            started_ms: 1_700_000_000_000,
            incarnation: 0,
        };
        let session = Session::new(facts, Arc::new(settings), now, 1_700_000_000_000);
        Self { session, now, effects: Vec::new() }
    }

    fn attached() -> Self {
        let mut rig = Self::new(true);
        rig.attach(1, None);
        rig.effects.clear();
        rig
    }

    fn input(&mut self, input: Input) -> &mut Self {
        let effects = self.session.handle(input, self.now);
        self.effects.extend(effects);
        self
    }

    fn wait(&mut self, time: Duration) -> &mut Self {
        let until = self.now + time;
        while let Some(deadline) = self.session.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(deadline);
            self.input(Input::Tick);
        }
        self.now = until;
        self
    }

    /// Attaches with what a client says of itself.
    fn attach_with(&mut self, socket: SocketId, init: &str) -> &mut Self {
        let FromClient::ConnectionInit(init) = Said::decode(init).unwrap().message else { panic!("{init}") };
        self.input(Input::Attach(Box::new(Attach {
            socket,
            profile: Profile::EdgeV1,
            init: *init,
            may_resume: false,
            resume_token: "r".into(),
            livekit: None,
            last_audio_seq: None,
        })))
    }

    fn attach(&mut self, socket: SocketId, last_seq: Option<u64>) -> &mut Self {
        self.attach_as(Profile::EdgeV1, socket, last_seq)
    }

    fn attach_as(&mut self, profile: Profile, socket: SocketId, last_seq: Option<u64>) -> &mut Self {
        let resume = last_seq.map(|last_server_seq| Resume {
            session_id: SessionId::from_u128(7),
            resume_token: "r".into(),
            last_server_seq,
            last_audio_seq: 0,
        });
        self.input(Input::Attach(Box::new(Attach {
            socket,
            profile,
            may_resume: resume.is_some(),
            init: ConnectionInit { resume, ..ConnectionInit::default() },
            resume_token: "r".into(),
            livekit: Some(LivekitInfo {
                url: "ws://x".into(),
                room_name: RoomName::parse("r").unwrap(),
                token: "t".into(),
                identity: Identity::parse("john").unwrap(),
                expires_at: 1,
                track_name: "mic".into(),
                role: LivekitRole::Publish,
            }),
            last_audio_seq: None,
        })))
    }

    fn say(&mut self, text: &str) -> &mut Self {
        let said = Said::decode(text).unwrap();
        self.input(Input::Said(self.session.socket().unwrap(), said))
    }

    /// An utterance from beginning to end.
    fn speak(&mut self, text: &str) -> &mut Self {
        self.input(sound(MediaSource::Livekit));
        self.input(Input::SpeechStarted { at_ms: 100 });
        let utterance = self.session.last_utterance;
        self.input(Input::SpeechEnded { reason: speech::EndReason::Silence, at_ms: 900 });
        self.input(Input::Final(utterance, text.into()))
    }

    /// The messages to a socket since the last call, as JSON.
    fn told(&mut self, socket: SocketId) -> Vec<Value> {
        let mut told = Vec::new();
        self.effects.retain(|effect| {
            let Effect::Send(to, frame) = effect else { return true };
            if *to == socket {
                told.push(serde_json::from_str(frame).unwrap());
            }
            *to != socket
        });
        told
    }

    fn told_types(&mut self, socket: SocketId) -> Vec<String> {
        self.told(socket).iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect()
    }

    fn has(&self, wanted: impl Fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(wanted)
    }

    /// What was passed on.
    fn forwarded(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        self.effects.retain(|effect| {
            let Effect::Forward(message) = effect else { return true };
            all.push(Value::Object(message.clone().into_object()));
            false
        });
        all
    }

    fn remembered(&self) -> Vec<String> {
        self.effects
            .iter()
            .filter_map(|effect| {
                let Effect::Remember(line, _) = effect else { return None };
                Some(line.text().to_owned())
            })
            .collect()
    }
}

fn sound(source: MediaSource) -> Input {
    Input::Sound(source, [1; 320].into())
}

#[test]
fn an_attached_client_gets_its_session_the_state_of_the_media_and_the_wish_for_its_microphone() {
    let mut rig = Rig::new(true);
    rig.attach(1, None);

    assert!(rig.has(|effect| matches!(effect, Effect::JoinRoom)));
    let told = rig.told(1);
    let types: Vec<_> = told.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["connection_ack", "media_state", "microphone_state_change"]);
    assert_eq!(told[0]["resumed"], false);
    assert_eq!(told[0]["epoch"], 1);
    assert_eq!(told[0]["livekit"]["trackName"], "mic");
    assert_eq!(told[0]["userSession"]["startTime"], "2023-11-14T22:13:20.000Z");
    assert_eq!(told[2]["isMicrophoneEnabled"], true);
    assert_eq!(told[2]["requiredData"], json!(["pcm"]));
}

#[test]
fn a_session_whose_socket_comes_back_within_the_grace_resumes_with_what_it_missed() {
    let mut rig = Rig::attached();
    let seen = rig.session.outbox.last_seq();
    rig.input(Input::SocketLost(1)).speak("Hello.");
    rig.wait(GRACE - Duration::from_secs(1)).attach(2, Some(seen));

    let types = rig.told_types(2);
    assert_eq!(types[0], "connection_ack");
    assert_eq!(&types[1..5], ["media_state", "speech_started", "speech_ended", "data_stream"]);
    assert!(!rig.has(|effect| matches!(effect, Effect::Ended(_))));
}

#[test]
fn a_session_whose_client_stays_away_ends_after_the_grace() {
    let mut rig = Rig::attached();
    rig.input(Input::SocketLost(1)).wait(GRACE);
    assert!(rig.has(|effect| matches!(effect, Effect::Ended(EndReason::GraceExpired))));
    assert_eq!(rig.session.deadline(), None);
}

#[test]
fn a_client_whose_token_ends_is_told_so_and_let_go_and_its_session_waits() {
    let mut rig = Rig::attached();
    let ends = rig.now + Duration::from_secs(7);
    rig.input(Input::TokenEnds(1, ends)).wait(Duration::from_secs(6));
    assert!(rig.session.socket().is_some());
    rig.told(1);

    rig.wait(Duration::from_secs(1));

    assert_eq!(rig.told_types(1), ["auth_error"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Unauthorized, _))));
    assert_eq!(rig.session.socket(), None);
    rig.wait(GRACE - Duration::from_secs(1)).attach(2, Some(0));
    assert_eq!(rig.told_types(2)[0], "connection_ack");
}

#[test]
fn the_end_of_an_older_sockets_token_is_nothing_to_a_newer_one() {
    let mut rig = Rig::attached();
    let soon = rig.now + Duration::from_secs(5);
    rig.input(Input::TokenEnds(1, soon)).attach(2, None).input(Input::TokenEnds(1, soon));
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.session.socket(), Some(2));
}

#[test]
fn the_late_close_of_an_older_socket_does_not_end_the_session() {
    let mut rig = Rig::attached();
    rig.attach(2, None);
    assert_eq!(rig.told_types(1), ["session_end"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Superseded, _))));

    rig.input(Input::SocketLost(1));
    assert_eq!(rig.session.socket(), Some(2));
}

#[test]
fn a_client_that_shows_no_life_is_let_go_and_one_that_does_is_pinged() {
    let mut rig = Rig::attached();
    rig.wait(Duration::from_secs(25));
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::Ping(1))).count(), 2);
    rig.input(Input::Alive(1)).wait(Duration::from_secs(29));
    assert_eq!(rig.session.socket(), Some(1));
    rig.wait(Duration::from_secs(1));
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::GoingAway, _))));
    assert_eq!(rig.session.socket(), None);
}

#[test]
fn the_microphone_is_asked_for_until_sound_comes() {
    let mut rig = Rig::attached();
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.told_types(1), ["microphone_state_change"]);
    rig.input(Input::Alive(1)).input(sound(MediaSource::Ws));
    rig.told(1);
    rig.wait(Duration::from_secs(15));
    assert_eq!(rig.told_types(1), Vec::<String>::new());
}

#[test]
fn a_sentence_is_transcribed_answered_spoken_and_remembered() {
    let mut rig = Rig::attached();
    rig.speak("What time is it?");
    let types = rig.told_types(1);
    assert_eq!(types, ["media_state", "speech_started", "speech_ended", "data_stream", "turn_started"]);
    let Some(Effect::Think(1, prompt)) =
        rig.effects.iter().find(|effect| matches!(effect, Effect::Think(..)))
    else {
        panic!("{:?}", rig.effects)
    };
    assert_eq!(prompt.system, "Be brief.");
    assert_eq!(prompt.lines, [Line { role: Role::User, text: "What time is it?".into() }]);

    rig.input(Input::Thought(1, "It is five.".into())).input(Input::ThoughtOver(1, Ok(())));
    assert!(rig.has(|effect| matches!(effect, Effect::Speak(1, text) if text == "It is five.")));
    rig.input(Input::Spoken(1, vec![1; 1600])).input(Input::SentenceSpoken(1, Ok(())));
    rig.wait(Duration::from_millis(200));
    assert_eq!(
        rig.told_types(1),
        ["answer_delta", "answer_done", "speech_begin", "speech_finish", "turn_metrics"]
    );
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::SendBinary(..))).count(), 6);
    assert_eq!(rig.remembered(), ["What time is it?", "It is five."]);

    rig.input(Input::Saved(TurnId(1), 2));
    assert_eq!(rig.told(1)[0]["historySeq"], 2);
}

#[test]
fn speaking_over_the_answer_stops_it_and_only_what_was_heard_is_kept() {
    let mut rig = Rig::attached();
    rig.speak("Tell me a story.");
    rig.input(Input::Thought(1, "Once upon a time there was a king. ".into()));
    rig.input(Input::Spoken(1, vec![1; 16_000])).wait(Duration::from_millis(500));
    rig.told(1);
    rig.effects.clear();

    rig.input(Input::SpeechStarted { at_ms: 5_000 });

    assert!(rig.has(|effect| matches!(effect, Effect::StopThinking)));
    assert!(rig.has(|effect| matches!(effect, Effect::StopSpeaking)));
    assert_eq!(rig.remembered(), ["Once upon a time"]);
    assert_eq!(
        rig.told_types(1),
        ["speech_started", "audio_stop_request", "answer_done", "speech_finish", "turn_metrics"]
    );
    rig.input(Input::Thought(1, "late".into())).input(Input::Spoken(1, vec![1; 1600]));
    assert_eq!(rig.told_types(1), Vec::<String>::new(), "what comes late from the cut answer is dropped");
}

#[test]
fn an_answer_goes_on_where_it_was_when_the_client_comes_back() {
    let mut rig = Rig::attached();
    rig.speak("Hello.");
    rig.input(Input::Thought(1, "Hello yourself. ".into())).input(Input::ThoughtOver(1, Ok(())));
    rig.input(Input::Spoken(1, vec![1; 32_000])).input(Input::SentenceSpoken(1, Ok(())));
    rig.say(r#"{"type":"playhead","generation":1,"playedMs":300}"#);
    rig.wait(Duration::from_millis(500));
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(20));
    rig.effects.clear();

    let seen = rig.session.outbox.last_seq();
    rig.attach(2, Some(seen));

    let first = rig.effects.iter().find_map(|effect| {
        let Effect::SendBinary(2, frame) = effect else { return None };
        crate::protocol::audio::Down::decode(frame.clone()).ok()
    });
    assert_eq!(first.unwrap().position, 300 * 16);
}

#[test]
fn an_interim_never_gets_shorter_and_there_is_one_final() {
    let mut rig = Rig::attached();
    rig.input(Input::SpeechStarted { at_ms: 0 });
    let utterance = rig.session.last_utterance;
    rig.told(1);
    for text in ["go", "go for", "go", "go forward"] {
        rig.input(Input::Interim(utterance, text.into()));
    }
    rig.input(Input::SpeechEnded { reason: speech::EndReason::Silence, at_ms: 900 });
    rig.input(Input::Final(utterance, "Go forward ten meters.".into()));
    rig.input(Input::Final(utterance, "again".into()))
        .input(Input::Interim(utterance, "late interim".into()));

    let texts: Vec<_> = rig
        .told(1)
        .into_iter()
        .filter(|message| message["type"] == "data_stream")
        .map(|message| (message["data"]["text"].clone(), message["data"]["isFinal"].clone()))
        .collect();
    assert_eq!(
        texts,
        [
            (json!("go"), json!(false)),
            (json!("go for"), json!(false)),
            (json!("go forward"), json!(false)),
            (json!("Go forward ten meters."), json!(true)),
        ]
    );
}

#[test]
fn an_utterance_whose_sound_stops_arriving_is_ended() {
    let mut rig = Rig::attached();
    rig.input(sound(MediaSource::Ws));
    rig.input(Input::SpeechStarted { at_ms: 0 }).wait(STALL);
    let closed = |effect: &&Effect| matches!(effect, Effect::CloseGate(speech::EndReason::Muted));
    assert_eq!(rig.effects.iter().filter(closed).count(), 1);
}

#[test]
fn an_utterance_waits_for_the_client_that_brings_its_sound_itself() {
    let mut rig = Rig::attached();
    rig.input(sound(MediaSource::Ws)).input(Input::SpeechStarted { at_ms: 0 });
    rig.effects.clear();
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(4));
    rig.attach(2, Some(0)).wait(Duration::from_secs(1));
    assert!(!rig.has(|effect| matches!(effect, Effect::CloseGate(_) | Effect::ResetListener)));

    rig.input(sound(MediaSource::Ws)).input(Input::SocketLost(2)).wait(Duration::from_secs(6));
    assert!(rig.has(|effect| matches!(effect, Effect::CloseGate(speech::EndReason::Muted))));
}

#[test]
fn another_client_does_not_go_on_in_the_middle_of_a_sentence() {
    let mut rig = Rig::attached();
    rig.input(sound(MediaSource::Ws)).input(Input::SpeechStarted { at_ms: 0 });
    rig.effects.clear();
    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::ResetListener)));
}

#[test]
fn a_transcriber_that_fails_ends_the_utterance_with_an_empty_final_and_says_so() {
    let mut rig = Rig::attached();
    rig.input(Input::SpeechStarted { at_ms: 0 });
    rig.input(Input::SpeechEnded { reason: speech::EndReason::Silence, at_ms: 900 });
    rig.told(1);
    rig.input(Input::Unheard(rig.session.last_utterance, "too busy".into()));
    let told = rig.told(1);
    assert_eq!(told[0]["type"], "stt_state");
    assert_eq!((&told[1]["data"]["text"], &told[1]["data"]["isFinal"]), (&json!(""), &json!(true)));
    assert_eq!(told.len(), 2, "nothing is answered");
}

#[test]
fn frames_that_cannot_be_read_are_answered_and_the_tenth_in_a_row_closes_the_channel() {
    let mut rig = Rig::attached();
    for _ in 0..9 {
        rig.input(Input::Malformed(1, DecodeError::NoType));
    }
    rig.say(r#"{"type":"pong"}"#);
    for _ in 0..9 {
        rig.input(Input::Malformed(1, DecodeError::NoType));
    }
    assert_eq!(rig.session.socket(), Some(1));
    assert!(rig.told(1).iter().all(|message| message["code"] == "MALFORMED_MESSAGE"));
    rig.input(Input::Malformed(1, DecodeError::NoType));
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Policy, _))));
}

#[test]
fn an_unknown_message_is_passed_on_as_it_is_and_is_no_error() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"make_coffee","id":"c1","cups":2}"#);
    let forwarded = rig.forwarded();
    assert_eq!(forwarded, [json!({"type": "make_coffee", "id": "c1", "cups": 2})]);
    assert_eq!(rig.told(1), [] as [Value; 0]);
    assert_eq!(rig.session.socket(), Some(1));
}

#[test]
fn who_takes_the_session_again_and_again_without_its_secret_is_refused() {
    let mut rig = Rig::attached();
    for socket in 2..=4 {
        rig.attach(socket, None);
        assert_eq!(rig.session.socket(), Some(socket));
    }
    rig.effects.clear();

    rig.attach(5, None);
    assert_eq!(rig.session.socket(), Some(4));
    assert!(rig.has(|effect| matches!(effect, Effect::Close(5, Close::Overloaded, _))));
    assert!(rig.has(|effect| matches!(effect, Effect::RefuseUntil(_))));
    let told = rig.told(5);
    assert_eq!((&told[0]["type"], &told[0]["code"]), (&json!("connection_error"), &json!("RATE_LIMITED")));

    rig.attach(6, Some(0));
    assert_eq!(rig.session.socket(), Some(6), "the same device comes back");
}

#[test]
fn a_token_is_signed_once_a_second_at_most() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"livekit_init"}"#);
    rig.say(r#"{"type":"livekit_init","id":"again"}"#);
    let signed =
        |rig: &Rig| rig.effects.iter().filter(|effect| matches!(effect, Effect::SendLivekitInfo(..))).count();
    assert_eq!(signed(&rig), 1);
    let told = rig.told(1);
    assert_eq!((&told[0]["code"], &told[0]["replyTo"]), (&json!("RATE_LIMITED"), &json!("again")));
    rig.wait(TOKEN_EVERY);
    rig.effects.clear();
    rig.say(r#"{"type":"livekit_init"}"#);
    assert_eq!(signed(&rig), 1);
}

#[test]
fn goodbye_ends_the_session_without_grace() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"goodbye"}"#);
    assert_eq!(rig.told_types(1), ["session_end"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Ended(EndReason::Logout))));
}

#[test]
fn another_room_than_ones_own_cannot_be_watched() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"subscribe:participants","room":"room-other"}"#);
    assert_eq!(rig.told(1)[0]["code"], "FORBIDDEN");
    rig.say(r#"{"type":"subscribe:participants"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(_))));
}

#[test]
fn a_room_that_the_client_showed_a_token_for_is_watched_until_it_says_otherwise() {
    let mut rig = Rig::attached();
    let other = RoomName::parse("room-other").unwrap();
    rig.input(Input::MayWatch(1, other.clone(), None));
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(room) if *room == other)));
    rig.effects.clear();

    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(room) if *room == other)));
    rig.say(r#"{"type":"unsubscribe:participants","room":"room-other"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::UnwatchRoom(room) if *room == other)));
}

#[test]
fn only_so_many_rooms_are_watched_at_once() {
    let mut rig = Rig::attached();
    for n in 0..=MOST_WATCHED {
        let room = RoomName::parse(&format!("room-{n}")).unwrap();
        rig.input(Input::MayWatch(1, room, None));
    }
    assert_eq!(
        rig.effects.iter().filter(|effect| matches!(effect, Effect::WatchRoom(_))).count(),
        MOST_WATCHED
    );
    assert_eq!(rig.told(1)[0]["code"], "RATE_LIMITED");
}

#[test]
fn a_microphone_in_the_room_hurries_an_agent_that_is_not_there() {
    let mut rig = Rig::attached();
    let hurried = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::HurryAgent));
    for (news, wanted) in [
        (AgentNews::Unreachable, true),
        (AgentNews::Joined, false),
        // Another gateway's agent is there: this one does not fight for the place.
        (AgentNews::Displaced, false),
    ] {
        rig.input(Input::Agent(news.clone()));
        rig.effects.clear();
        rig.input(Input::MicrophonePublished);
        assert_eq!(hurried(&rig), wanted, "{news:?}");
    }
}

#[test]
fn a_restarted_gateway_does_not_reuse_numbers_and_does_not_pretend_to_know_what_was_missed() {
    let mut rig = Rig::attached();
    let seen = rig.session.outbox.last_seq();
    let mut facts = rig.session.facts.clone();
    facts.incarnation = 1;
    rig.session = Session::new(facts, rig.session.settings.clone(), rig.now, 1_700_000_000_000);
    rig.attach(9, Some(seen)).speak("Hello.");
    let told = rig.told(9);
    assert_eq!(told[0]["resumed"], false);
    let numbers: Vec<u64> = told.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert!(numbers.iter().all(|seq| *seq > 1 << 32), "{numbers:?}");
}

/// A client whose own voice detection is trusted, with the agent in its room.
fn trusted() -> Rig {
    let mut rig = Rig::new(true);
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true,"media":["livekit","ws"]}}"#);
    rig.input(Input::Agent(AgentNews::Joined));
    rig
}

#[test]
fn a_client_with_a_detection_of_its_own_is_followed_and_told_to_send_only_speech() {
    let mut rig = trusted();
    assert!(rig.has(|effect| matches!(effect, Effect::FollowClient(true))));
    assert!(rig.has(|effect| matches!(effect, Effect::HearRoom(false))));
    let told = rig.told(1);
    let wish = told.iter().find(|message| message["type"] == "microphone_state_change").unwrap();
    assert_eq!(wish["bypassVad"], false);
    rig.effects.clear();

    rig.say(r#"{"type":"VAD","status":true}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::OpenGate)));
    assert!(rig.has(|effect| matches!(effect, Effect::HearRoom(true))));
    rig.input(sound(MediaSource::Ws)).input(Input::SpeechStarted { at_ms: 1 });
    rig.say(r#"{"type":"VAD","status":false}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::CloseGate(speech::EndReason::ClientVad))));
    rig.effects.clear();
    rig.input(Input::SpeechEnded { reason: speech::EndReason::ClientVad, at_ms: 2 });
    rig.wait(vad::HANG_OVER);
    assert!(rig.has(|effect| matches!(effect, Effect::HearRoom(false))));

    // The next client of the session hears without.
    rig.effects.clear();
    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::FollowClient(false))));
    assert!(rig.has(|effect| matches!(effect, Effect::HearRoom(true))));
}

#[test]
fn outside_of_the_rollout_a_client_is_always_listened_to() {
    let mut rig = Rig::new(true);
    let settings = Settings { client_vad_percent: 0, ..(*rig.session.settings).clone() };
    rig.session.settings = Arc::new(settings);
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true}}"#);
    assert!(!rig.has(|effect| matches!(effect, Effect::FollowClient(_) | Effect::HearRoom(_))));
    let told = rig.told(1);
    let wish = told.iter().find(|message| message["type"] == "microphone_state_change").unwrap();
    assert_eq!(wish["bypassVad"], true);
}

#[test]
fn a_detection_that_stays_open_for_ten_minutes_is_closed() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.input(Input::SpeechStarted { at_ms: 1 });
    for _ in 0..600 {
        rig.input(Input::Alive(1)).input(sound(MediaSource::Ws));
        rig.wait(Duration::from_secs(1));
    }
    let closed = |effect: &Effect| matches!(effect, Effect::CloseGate(speech::EndReason::ClientVad));
    assert!(rig.has(closed));
}

#[test]
fn sound_that_comes_back_while_the_client_hears_speech_opens_the_gate_again() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.input(sound(MediaSource::Ws)).input(Input::SpeechStarted { at_ms: 1 }).wait(STALL);
    rig.input(Input::SpeechEnded { reason: speech::EndReason::Muted, at_ms: 2 });
    rig.effects.clear();
    rig.input(sound(MediaSource::Ws));
    let order: Vec<bool> = rig.effects.iter().map(|effect| matches!(effect, Effect::OpenGate)).collect();
    assert_eq!(order, [true, false]);
}

#[test]
fn pre_roll_is_heard_before_the_room_and_does_not_take_its_place() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.told(1);
    rig.effects.clear();
    rig.input(Input::PreRoll([2; 320].into())).input(sound(MediaSource::Livekit));
    let heard: Vec<i16> = rig
        .effects
        .iter()
        .filter_map(|effect| if let Effect::Listen(pcm) = effect { Some(pcm[0]) } else { None })
        .collect();
    assert_eq!(heard, [2, 1]);
    assert!(!rig.has(|effect| matches!(effect, Effect::ResetListener)));
    assert_eq!(rig.told(1)[0]["active"], "livekit");
}

#[test]
fn a_room_without_sound_is_joined_again_and_then_given_up_for_the_control_channel() {
    let mut rig = Rig::attached();
    rig.input(Input::Agent(AgentNews::Joined));
    rig.told(1);
    rig.wait(gap::GAP);
    assert!(rig.has(|effect| matches!(effect, Effect::SendLivekitInfo(1, LivekitMode::Publish))));
    assert_eq!(rig.told_types(1), Vec::<String>::new());
    rig.wait(gap::GAP);
    let told: Vec<_> = rig.told(1).into_iter().filter(|message| message["type"] == "media_state").collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["active"], &told[0]["reason"]), (&json!("ws"), &json!("livekit_silent")));
}

#[test]
fn no_sound_is_missed_where_none_is_expected() {
    let asked = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::SendLivekitInfo(..)));
    // A trusted client that hears nobody speak; an agent that is not there; a client that is not.
    let mut rig = trusted();
    rig.wait(Duration::from_secs(20));
    assert!(!asked(&rig));
    rig.say(r#"{"type":"VAD","status":true}"#).wait(gap::GAP);
    assert!(asked(&rig), "somebody speaks");
    let mut rig = Rig::attached();
    rig.input(Input::Agent(AgentNews::Unreachable)).wait(Duration::from_secs(20));
    assert!(!asked(&rig));
    let mut rig = Rig::attached();
    rig.input(Input::Agent(AgentNews::Joined)).input(Input::SocketLost(1)).wait(Duration::from_secs(20));
    assert!(!asked(&rig));
    // A microphone that is muted sends silence: that is no gap.
    let mut rig = Rig::attached();
    rig.input(Input::Agent(AgentNews::Joined));
    for _ in 0..20 {
        rig.input(Input::Sound(MediaSource::Livekit, [0; 320].into())).wait(Duration::from_secs(1));
    }
    assert!(!asked(&rig));
}

#[test]
fn where_the_agent_is_not_in_the_room_sound_is_expected_on_the_control_channel() {
    for (news, reason) in
        [(AgentNews::Unreachable, "livekit_unreachable"), (AgentNews::Displaced, "duplicate_identity")]
    {
        let mut rig = Rig::attached();
        rig.input(sound(MediaSource::Livekit)).input(Input::SourceGone(MediaSource::Livekit));
        rig.told(1);
        rig.input(Input::Agent(news));
        let told = rig.told(1);
        assert_eq!((&told[0]["active"], &told[0]["reason"]), (&json!("ws"), &json!(reason)));
        rig.input(Input::Agent(AgentNews::Joined));
        assert_eq!(rig.told(1)[0]["active"], "none", "the room may be tried again");
    }
}

#[test]
fn an_agent_in_a_room_without_a_microphone_leaves_and_comes_back_with_the_microphone() {
    let signs: [fn(&mut Rig) -> &mut Rig; 4] = [
        |rig| rig.input(Input::MicrophonePublished),
        |rig| rig.say(r#"{"type":"VAD","status":true}"#),
        |rig| rig.say(r#"{"type":"livekit_init"}"#),
        |rig| rig.attach(2, None),
    ];
    for sign in signs {
        let mut rig = Rig::attached();
        rig.input(Input::Agent(AgentNews::Joined));
        let joined = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::JoinRoom));
        let left = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::LeaveRoom));
        for _ in 0..AGENT_IDLE.as_secs() / 20 {
            assert!(!left(&rig));
            rig.input(Input::Alive(1)).wait(Duration::from_secs(20));
        }
        assert!(left(&rig));
        assert!(rig.told(1).iter().any(|message| message["reason"] == "agent_idle"));
        rig.effects.clear();

        sign(&mut rig);

        assert!(joined(&rig));
    }
}

#[test]
fn a_silent_microphone_keeps_the_agent_in_the_room() {
    let mut rig = Rig::attached();
    rig.input(Input::Agent(AgentNews::Joined));
    for _ in 0..AGENT_IDLE.as_secs() / 10 {
        rig.input(Input::Alive(1)).input(Input::Sound(MediaSource::Livekit, [0; 320].into()));
        rig.wait(Duration::from_secs(20));
    }
    assert!(!rig.has(|effect| matches!(effect, Effect::LeaveRoom)));
}

#[test]
fn an_utterance_goes_on_when_its_client_is_back_within_five_seconds() {
    let mut rig = Rig::attached();
    rig.input(sound(MediaSource::Ws)).input(Input::SpeechStarted { at_ms: 0 });
    let seen = rig.session.outbox.last_seq();
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(4));
    rig.attach(2, Some(seen)).wait(Duration::from_secs(1));
    rig.input(sound(MediaSource::Ws)).wait(Duration::from_secs(1));
    let ended = |effect: &Effect| matches!(effect, Effect::CloseGate(_) | Effect::ResetListener);
    assert!(!rig.has(ended));

    rig.input(Input::SocketLost(2)).wait(Duration::from_secs(5));
    assert!(rig.has(ended), "it does not wait for ever");
}

/// Conformance case 4: the minute of grace, to the second.
#[test]
fn a_client_that_returns_after_59_s_resumes_and_after_61_s_there_is_nothing_to_resume() {
    for (away, alive) in [(59, true), (61, false)] {
        let mut rig = Rig::attached();
        let seen = rig.session.outbox.last_seq();
        rig.input(Input::SocketLost(1)).wait(Duration::from_secs(away));
        rig.attach(2, Some(seen));
        assert_eq!(rig.told(2).first().map(|ack| ack["resumed"].clone()), alive.then_some(json!(true)));
    }
}

fn any_input() -> impl Strategy<Value = u8> {
    0..22u8
}

proptest! {
    /// Whatever happens in whatever order: sequence numbers are gap-free per session, stale sockets
    /// get nothing, every utterance has one final, and a deadline that is due makes progress.
    #[test]
    fn a_session_keeps_its_promises(inputs in proptest::collection::vec((any_input(), 0..3_000u64), 0..80)) {
        let mut rig = Rig::new(true);
        let mut socket = 0;
        let mut seqs: Vec<u64> = Vec::new();
        for (kind, wait_ms) in inputs {
            let generation = rig.session.turns.answering().unwrap_or(1);
            let utterance = rig.session.last_utterance;
            let current = rig.session.socket();
            match kind {
                0 => { socket += 1; rig.attach(socket, None); }
                1 => { rig.input(Input::SocketLost(socket)); }
                2 => { rig.input(Input::SocketLost(socket.saturating_sub(1))); }
                3 => { rig.input(sound(MediaSource::Livekit)); }
                4 => { rig.input(sound(MediaSource::Ws)); }
                5 if rig.session.open.is_none() => { rig.input(Input::SpeechStarted { at_ms: 1 }); }
                6 => { rig.input(Input::SpeechEnded { reason: speech::EndReason::Silence, at_ms: 2 }); }
                7 => { rig.input(Input::Interim(utterance, "some words".into())); }
                8 if rig.session.open.is_none() => { rig.input(Input::Final(utterance, "some words".into())); }
                9 => { rig.input(Input::Thought(generation, "An answer. ".into())); }
                10 => { rig.input(Input::ThoughtOver(generation, Ok(()))); }
                11 => { rig.input(Input::Spoken(generation, vec![1; 4000])); }
                12 => { rig.input(Input::SentenceSpoken(generation, Ok(()))); }
                13 if current.is_some() => { rig.say(r#"{"type":"interrupt"}"#); }
                14 if current.is_some() => { rig.say(r#"{"type":"say","text":"typed"}"#); }
                15 => { rig.input(Input::SourceGone(MediaSource::Livekit)); }
                16 if current.is_some() => { rig.say(r#"{"type":"VAD","status":true}"#); }
                17 if current.is_some() => { rig.say(r#"{"type":"VAD","status":false}"#); }
                18 => { rig.input(Input::Agent(AgentNews::Joined)); }
                19 => { rig.input(Input::Agent(AgentNews::Unreachable)); }
                20 => { rig.input(Input::PreRoll([3; 320].into())); }
                21 => { socket += 1; rig.attach_with(socket, r#"{"type":"connection_init","capabilities":{"vad":true}}"#); }
                _ => {}
            }
            rig.wait(Duration::from_millis(wait_ms));
            if let Some(current) = rig.session.socket() {
                for message in rig.told(current) {
                    seqs.extend(message["seq"].as_u64());
                }
            }
        }
        let mut sorted = seqs.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(seqs.len(), sorted.len(), "a number was told twice");
        prop_assert!(seqs.is_sorted());
    }
}

#[test]
fn an_answer_is_spoken_in_the_room_only_while_somebody_is_there_to_say_it() {
    for (news, in_room) in [(AgentNews::Joined, true), (AgentNews::Unreachable, false)] {
        let mut rig = Rig::with(Some(Voice { rate_hz: 16_000, delivery: Delivery::Room }));
        rig.attach(1, None).input(Input::Agent(news)).speak("Hello.");
        rig.effects.clear();

        rig.input(Input::Thought(1, "Hi there.".into())).input(Input::ThoughtOver(1, Ok(())));
        rig.input(Input::Spoken(1, vec![1; 320]));

        assert_eq!(rig.has(|effect| matches!(effect, Effect::SayInRoom(_))), in_room);
        assert_eq!(rig.has(|effect| matches!(effect, Effect::SendBinary(..))), !in_room);
        let begin = rig.told(1).into_iter().find(|message| message["type"] == "speech_begin").unwrap();
        assert_eq!(begin["delivery"], if in_room { "room" } else { "ws" });
    }
}
