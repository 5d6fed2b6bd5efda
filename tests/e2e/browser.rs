//! The talk page in a real browser. What is done on it is in browser/scenarios.js, what is right is here.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{June, LivekitServer, clips, free_port, repository, soon, word_errors, words};

/// Runs a scenario of browser/scenarios.js and gives what the page showed.
async fn browse(scenario: &'static str, options: Value) -> Value {
    let mut command = Command::new("node");
    command.arg(repository("tests/e2e/browser/main.js")).arg(scenario).arg(options.to_string());
    let output = soon(actix_web::web::block(move || command.output())).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {errors}");
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["problems"], json!([]), "{scenario}");
    shown
}

/// A gateway without LiveKit and without models, which answers what is typed, and the page on it.
struct Site {
    june: June,
    _data: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let data = tempfile::tempdir().unwrap();
        let nowhere = data.path().join("no-models").display().to_string();
        let bare = [("JUNE_MODELS", nowhere.as_str()), ("LIVEKIT_URL", "off")];
        let settings = [&bare, settings].concat();
        let june = June::with(&LivekitServer::prepare(port), data.path(), port, &settings).await;
        Self { june, _data: data }
    }

    /// Where the page is.
    fn page(&self) -> String {
        format!("{}/", self.june.url())
    }

    /// Runs a scenario where there is no microphone.
    async fn browse(&self, scenario: &'static str, more: Value) -> Value {
        let mut options = json!({ "url": self.page(), "microphone": "none" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        browse(scenario, options).await
    }
}

fn nothing() -> Value {
    json!({ "contexts": 0, "tracks": 0, "intervals": 0 })
}

fn contains(value: &Value, part: &str) -> bool {
    value.as_str().unwrap().contains(part)
}

#[actix_web::test]
async fn a_person_talks_to_the_page_and_hears_the_answer() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let clip = clips().into_iter().find(|clip| clip.path.ends_with("goforward.wav")).unwrap();

    for (query, source) in [("", "livekit"), ("?media=ws", "ws")] {
        let recording = repository("tests/fixtures/audio/goforward.wav");
        let url = format!("{}/{query}", june.url());
        let options = json!({ "url": url, "microphone": "recording", "recording": recording });
        let shown = browse("conversation", options).await;

        let said = shown["said"].as_str().unwrap();
        assert_eq!(word_errors(&clip.words, said), 0, "{said} by {source}");
        assert!(words(shown["answer"].as_str().unwrap()).ends_with(&words(said)), "{shown}");
        assert!(shown["media"].as_str().unwrap().starts_with(source), "{shown}");
        assert!(shown["played"].as_u64().unwrap() > 1000, "the answer was heard: {shown}");
        assert_eq!(shown["stillOpen"], nothing(), "after Stop by {source}");
    }
}

#[actix_web::test]
async fn a_person_whose_microphone_is_denied_or_missing_types_and_gets_an_answer() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;

    for (microphone, reason) in [("denied", "may not use"), ("none", "No microphone")] {
        let shown = browse("noMicrophone", json!({ "url": june.url(), "microphone": microphone })).await;

        assert!(contains(&shown["note"], reason) && contains(&shown["note"], "type"), "{shown}");
        assert_eq!(shown["typed"], "What is new?", "{shown}");
        assert!(contains(&shown["answer"], "What is new?"), "{shown}");
        assert_eq!((&shown["status"], &shown["offersMicrophone"]), (&json!("Typing only"), &json!(true)));
        assert_eq!((&shown["sessionsAtWork"], &shown["openSockets"]), (&json!(1), &json!(1)), "{shown}");
        assert_eq!(shown["stillOpen"], nothing(), "after Stop");
    }
}

#[actix_web::test]
async fn a_person_who_types_is_not_asked_for_the_microphone_and_keeps_what_earlier_sessions_said() {
    let shown = Site::start().await.browse("typing", json!({ "microphone": "denied" })).await;

    assert!(contains(&shown["hint"], "Press Talk and speak, or type below"), "{shown}");
    assert_eq!((&shown["hintBefore"], &shown["hintAfter"]), (&json!(true), &json!(false)), "{shown}");
    assert_eq!(shown["typed"], json!(["Good morning.", "Good evening."]));
    let answers = shown["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 2, "{shown}");
    assert!(contains(&answers[0], "Good morning.") && contains(&answers[1], "Good evening."), "{shown}");
    let notes = shown["notes"].as_array().unwrap();
    assert!(!notes.iter().any(|note| contains(note, "microphone")), "{shown}");
}

#[actix_web::test]
async fn the_button_keeps_the_keyboard_focus_while_the_page_connects() {
    let shown = Site::start().await.browse("focus", json!({})).await;

    assert_eq!(shown["connecting"], json!({ "focused": "start", "busy": "true" }));
    assert_eq!(shown["connected"], json!({ "focused": "start", "busy": "false" }));
    assert_eq!(shown["closed"], json!({ "focused": "start" }));
}

#[actix_web::test]
async fn an_api_key_given_by_enter_starts_the_session_and_is_in_no_address() {
    let key = "a-key-for-the-talk-page";
    let settings = [("API_KEYS", key), ("HOST", "127.0.0.1")];
    let site = Site::with(&settings).await;

    let shown = site.browse("apiKey", json!({ "key": key })).await;

    assert_eq!(shown["address"], site.page());
    assert_eq!(shown["asksForKey"], false);
    for address in shown["addresses"].as_array().unwrap() {
        assert!(
            !contains(address, "key=") && !contains(address, key) && !contains(address, "token="),
            "{address}"
        );
    }
}

#[actix_web::test]
async fn a_page_whose_script_is_late_sends_nothing_that_is_typed_into_it() {
    let site = Site::start().await;

    let shown = site.browse("withoutScript", json!({ "key": "a-key" })).await;

    assert_eq!(shown["address"], site.page());
    let addresses = shown["addresses"].as_array().unwrap();
    assert!(addresses.iter().all(|address| !contains(address, "a-key")), "{shown}");
    let pages = addresses.iter().filter(|address| **address == json!(site.page()));
    assert_eq!(pages.count(), 2, "requested and shown once: {shown}");
    assert_eq!(shown["line"], "Good morning.", "what was typed is still there");
}

#[actix_web::test]
async fn a_page_whose_session_was_taken_over_stays_away_until_it_is_told_to_connect() {
    let shown = Site::start().await.browse("takenOver", json!({})).await;

    let away = &shown["away"];
    assert_eq!(away["sockets"], 1, "{shown}");
    assert_eq!(away["status"], "Not connected");
    assert!(contains(&away["note"], "another tab"), "{shown}");
    assert_eq!(away["stillOpen"], nothing());
    assert_eq!((&shown["sockets"], &shown["sameSession"]), (&json!(2), &json!(true)), "{shown}");
}

#[actix_web::test]
async fn a_page_whose_connection_breaks_resumes_its_session() {
    let codes = [1001, 1006, 1011, 1012, 1013, 4408, 4429];
    let shown = Site::start().await.browse("reconnects", json!({ "codes": codes })).await;

    let mut resumed = vec![true; codes.len() + 1];
    resumed[0] = false;
    assert_eq!(shown["resumed"], json!(resumed));
    assert_eq!(shown["sessions"], 1);
}

#[actix_web::test]
async fn a_page_that_the_gateway_turns_away_says_so_and_stays_away() {
    let site = Site::start().await;
    for (code, note, button) in [
        (1000, "The session has ended.", "Talk"),
        (1008, "closed by the test", "Connect again"),
        (4001, "another tab", "Connect again"),
        (4400, "closed by the test", "Connect again"),
    ] {
        let shown = site.browse("staysAway", json!({ "code": code })).await;

        assert_eq!(shown["connections"], 1, "{code}: {shown}");
        assert!(contains(&shown["note"], note), "{code}: {shown}");
        assert_eq!(shown["button"], button, "{code}: {shown}");
        assert_eq!(shown["stillOpen"], nothing(), "{code}: {shown}");
    }
}

#[actix_web::test]
async fn a_page_whose_token_ended_gets_a_new_one_or_asks_for_the_key() {
    let site = Site::start().await;

    let renewed = site.browse("tokenEnded", json!({ "status": 200 })).await;
    let refused = site.browse("tokenEnded", json!({ "status": 401 })).await;
    let useless = site.browse("tokenEnded", json!({ "status": 200, "refused": true })).await;

    for shown in [&renewed, &refused, &useless] {
        let path = format!("/api/sessions/{}/control-token", shown["session"].as_str().unwrap());
        assert_eq!(shown["requests"], json!([path]), "{shown}");
    }
    assert_eq!((&renewed["newToken"], &renewed["resumed"]), (&json!(true), &json!(true)), "{renewed}");
    for (shown, connections) in [(&refused, 1), (&useless, 2)] {
        assert_eq!(shown["connections"], connections, "{shown}");
        assert_eq!(shown["button"], "Connect again", "{shown}");
    }
}

#[actix_web::test]
async fn a_token_that_the_gateway_pushed_opens_the_next_connection() {
    let shown = Site::start().await.browse("tokenPushed", json!({})).await;

    assert_eq!((&shown["usedThePushedToken"], &shown["resumed"]), (&json!(true), &json!(true)), "{shown}");
}

#[actix_web::test]
async fn a_page_asks_for_a_new_token_before_the_one_that_it_has_ends() {
    let shown = Site::start().await.browse("tokenAboutToEnd", json!({})).await;

    assert_eq!(shown["early"], false, "ten minutes before the end");
    assert_eq!(shown["request"]["type"], "renew_token");
    assert!(shown["request"]["id"].is_string(), "{shown}");
}

#[actix_web::test]
async fn a_start_that_fails_leaves_nothing_open() {
    let shown = Site::start().await.browse("failedStart", json!({})).await;

    assert!(contains(&shown["note"], "overloaded"), "{shown}");
    assert_eq!(shown["sessions"], json!(["ended"]));
    assert_eq!(shown["stillOpen"], nothing());
}
