//! The talk page in a real browser, with a recording for a microphone.

use std::process::Command;

use serde_json::Value;

use crate::support::{June, LivekitServer, clips, free_port, repository, soon, word_errors, words};

/// Opens the page, talks, and gives what it showed.
async fn talk(page: String) -> Value {
    let mut command = Command::new("node");
    command.arg(repository("tests/e2e/browser.js")).arg(page);
    command.arg(repository("tests/fixtures/audio/goforward.wav"));
    let output = soon(actix_web::web::block(move || command.output())).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[actix_web::test]
async fn a_person_talks_to_the_page_and_hears_the_answer() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let clip = clips().into_iter().find(|clip| clip.path.ends_with("goforward.wav")).unwrap();

    for (query, source) in [("", "livekit"), ("?media=ws", "ws")] {
        let shown = talk(format!("{}/{query}", june.url())).await;

        let said = shown["said"].as_str().unwrap();
        assert_eq!(word_errors(&clip.words, said), 0, "{said} by {source}");
        assert!(words(shown["answer"].as_str().unwrap()).ends_with(&words(said)), "{shown}");
        assert!(shown["media"].as_str().unwrap().starts_with(source), "{shown}");
        assert!(shown["played"].as_u64().unwrap() > 1000, "the answer was heard: {shown}");
        assert!(shown["problems"].as_array().unwrap().is_empty(), "{shown}");
    }
}
