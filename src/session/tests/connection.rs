//! Attaching, resuming, tokens, heartbeat and the end of a session.

use super::*;

#[test]
fn an_attached_client_gets_its_session_the_state_of_the_media_and_the_wish_for_its_microphone() {
    let mut rig = Rig::new();
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
    let seen = rig.session.downlink.last_seq();
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
    rig.attach_until(2, 7, false).wait(Duration::from_secs(6));
    assert!(rig.session.socket().is_some());
    rig.told(2);

    rig.wait(Duration::from_secs(1));

    assert_eq!(rig.told_types(2), ["auth_error"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(2, Close::Unauthorized, _))));
    assert_eq!(rig.session.socket(), None);
    rig.wait(GRACE - Duration::from_secs(1)).attach(3, Some(0));
    assert_eq!(rig.told_types(3)[0], "connection_ack");
}

#[test]
fn the_end_of_an_older_sockets_token_is_nothing_to_a_newer_one() {
    let mut rig = Rig::attached();
    rig.attach_until(2, 5, false).attach(3, None);
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.session.socket(), Some(3));
}

#[test]
fn a_control_token_is_renewed_on_the_open_channel_before_it_ends_and_on_request() {
    let mut rig = Rig::new();
    rig.attach_until(1, 3600, true);
    rig.told(1);

    let mut tokens = Vec::new();
    for _ in 0..3 * 360 {
        rig.input(Input::Alive(1)).wait(Duration::from_secs(10));
        tokens.extend(rig.told(1).into_iter().filter(|message| message["type"] == "control_token"));
    }

    assert_eq!(rig.session.socket(), Some(1), "three hours later the channel is open");
    assert_eq!(tokens.len(), 3);
    let renewed_s = STARTED_MS / 1000 + 3600 - RENEWAL_LEAD.as_secs();
    assert_eq!(tokens[0]["expiresAt"], renewed_s + 3600);
    assert!(tokens.iter().all(|token| token.get("seq").is_none()), "a token is not sent again");

    rig.say(r#"{"type":"renew_token"}"#).say(r#"{"type":"renew_token","id":"7"}"#);
    let told = rig.told(1);
    assert_eq!(told[0]["type"], "control_token");
    assert_eq!((&told[1]["code"], &told[1]["replyTo"]), (&json!("RATE_LIMITED"), &json!("7")));
}

#[test]
fn a_client_with_a_token_of_its_own_is_told_before_it_ends_and_brings_a_new_one() {
    let mut rig = Rig::new();
    rig.attach_until(1, 60, false);
    rig.told(1);

    for _ in 0..2 {
        rig.input(Input::Alive(1)).wait(Duration::from_secs(15));
    }
    let told: Vec<Value> =
        rig.told(1).into_iter().filter(|message| message["type"] == "token_expiring").collect();
    assert_eq!(told, [json!({"type": "token_expiring", "expiresAt": STARTED_MS / 1000 + 60})]);

    rig.say(r#"{"type":"renew_token","id":"8"}"#);
    assert_eq!(rig.told(1)[0]["code"], "FORBIDDEN", "the gateway cannot renew it");
    rig.wait(TOKEN_REQUEST_INTERVAL).say(r#"{"type":"renew_token","id":"9","token":"fresh"}"#);
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::VerifyToken { socket: 1, token, .. } if token.expose() == "fresh"
    )));
    let fresh = |user: &str| Principal {
        user: UserId::parse(user).unwrap(),
        session: None,
        room: None,
        expires_at: Some(STARTED_MS / 1000 + 600),
        until: Some(STARTED_MS / 1000 + 600),
    };
    rig.input(Input::TokenVerified(1, Some("9".into()), Ok(fresh("ann"))));
    assert_eq!(rig.told(1)[0]["code"], "FORBIDDEN", "another user's token");
    rig.input(Input::TokenVerified(1, Some("9".into()), Ok(fresh("john"))));
    assert_eq!(rig.told(1)[0]["type"], "token_renewed");

    for _ in 0..20 {
        rig.input(Input::Alive(1)).wait(Duration::from_secs(10));
    }
    assert_eq!(rig.session.socket(), Some(1), "the channel outlives the first token");
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
fn a_livekit_token_is_signed_once_a_second_at_most() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"livekit_init"}"#);
    rig.say(r#"{"type":"livekit_init","id":"again"}"#);
    let told = rig.told(1);
    assert_eq!(told.iter().filter(|message| message["type"] == "livekit_info").count(), 1);
    let refused = told.iter().find(|message| message["type"] == "error").unwrap();
    assert_eq!((&refused["code"], &refused["replyTo"]), (&json!("RATE_LIMITED"), &json!("again")));

    rig.wait(TOKEN_REQUEST_INTERVAL).say(r#"{"type":"livekit_init"}"#);
    assert!(rig.told_types(1).contains(&"livekit_info".to_owned()));
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
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(..))));
}

#[test]
fn a_watched_room_is_watched_again_for_the_next_client_until_it_says_otherwise() {
    let mut rig = Rig::attached();
    let own = rig.session.info().room.clone();
    rig.say(r#"{"type":"subscribe:participants"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(room, _) if *room == own)));
    rig.effects.clear();

    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(room, _) if *room == own)));
    rig.say(r#"{"type":"unsubscribe:participants"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::UnwatchRoom(room) if *room == own)));
}

#[test]
fn a_restarted_gateway_does_not_reuse_numbers_and_does_not_pretend_to_know_what_was_missed() {
    let mut rig = Rig::attached();
    let seen = rig.session.downlink.last_seq();
    let info = SessionInfo { generation_base: 1, ..info() };
    rig.session = Session::new(info, Arc::new(config()), rig.now, STARTED_MS);
    rig.attach(9, Some(seen)).speak("Hello.");
    let told = rig.told(9);
    assert_eq!(told[0]["resumed"], false);
    let numbers: Vec<u64> = told.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert!(numbers.iter().all(|seq| *seq > 1 << 32), "{numbers:?}");
}

#[test]
fn the_acknowledgement_comes_before_what_an_attachment_ended() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    rig.attach(2, None);
    let types = rig.told_types(2);
    assert_eq!(types[0], "connection_ack");
    assert!(types.contains(&"speech_ended".to_owned()), "{types:?}");
}

/// Conformance case 4: the minute of grace, to the second.
#[test]
fn a_client_that_returns_after_59_s_resumes_and_after_61_s_there_is_nothing_to_resume() {
    for (away, alive) in [(59, true), (61, false)] {
        let mut rig = Rig::attached();
        let seen = rig.session.downlink.last_seq();
        rig.input(Input::SocketLost(1)).wait(Duration::from_secs(away));
        rig.attach(2, Some(seen));
        assert_eq!(rig.told(2).first().map(|ack| ack["resumed"].clone()), alive.then_some(json!(true)));
    }
}

#[test]
fn a_control_token_is_renewed_until_the_end_of_what_it_was_issued_on_and_no_longer() {
    let mut rig = Rig::new();
    rig.attach_issued(1, 60, 200);
    let mut told = Vec::new();
    while rig.session.socket() == Some(1) {
        told.extend(rig.input(Input::Alive(1)).wait(Duration::from_secs(10)).told(1));
        assert!(told.len() < 100, "the channel never ends");
    }

    let of_type = |kind: &str| told.iter().filter(|message| message["type"] == kind).collect::<Vec<_>>();
    let end = json!(STARTED_MS / 1000 + 200);
    let [renewed] = of_type("control_token")[..] else { panic!("{told:?}") };
    let [expiring] = of_type("token_expiring")[..] else { panic!("{told:?}") };
    assert_eq!((&renewed["expiresAt"], &expiring["expiresAt"]), (&end, &end));
    assert_eq!(of_type("auth_error").len(), 1);
}

#[test]
fn a_user_who_is_removed_is_told_and_let_go_and_the_agent_leaves() {
    let mut rig = Rig::attached();
    rig.effects.clear();

    rig.input(Input::Removed);

    let told = rig.told(1);
    let last = told.last().unwrap();
    assert_eq!((&last["type"], &last["code"]), (&json!("connection_error"), &json!("FORBIDDEN")));
    assert_eq!(last["retryable"], false);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Policy, _))));
    assert!(rig.has(|effect| matches!(effect, Effect::LeaveRoom)));
    assert_eq!(rig.session.socket(), None);
    rig.effects.clear();
    rig.input(Input::MicrophonePublished);
    assert!(!rig.has(|effect| matches!(effect, Effect::JoinRoom)), "it stays away");
}
