//! `june talk`, as a person runs it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use tokio::sync::mpsc;

use crate::support::{June, LivekitServer, Process, Proxy, free_port, repository, soon};

async fn talk(june: &June, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
    command.arg("talk").args(["--gateway", &june.url()]).args(args);
    let output = soon(actix_web::web::block(move || command.output())).await.unwrap().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[actix_web::test]
async fn it_prints_what_happens_and_saves_the_answer() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let clip = repository("tests/fixtures/audio/goforward.wav").display().to_string();
    let answer = data.path().join("answer.wav");
    let saved = answer.display().to_string();

    for media in ["livekit", "ws"] {
        let (worked, said) = talk(&june, &[&clip, "--media", media, "--save", &saved]).await;

        assert!(worked, "{said}");
        for label in
            ["session", "room", "interim", "final", "first word", "sound", "answer", "timing", "saved"]
        {
            assert!(said.lines().any(|line| line.starts_with(label)), "no {label} in {said}");
        }
        let sound = hound::WavReader::open(&answer).unwrap();
        assert!(sound.duration() > sound.spec().sample_rate, "more than a second");
    }
}

#[actix_web::test]
async fn it_goes_on_when_its_connection_breaks_in_the_middle_of_a_sentence() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let proxy = Proxy::to(port).await;
    let clip = repository("tests/fixtures/audio/goforward.wav").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
    command.args(["talk", &clip, "--media", "ws", "--gateway", &proxy.instead_of(&june.url())]);
    let mut talk = Process::start(command.stdout(Stdio::piped()));
    let lines = BufReader::new(talk.child().stdout.take().unwrap()).lines();
    let (tell, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).all(|line| tell.send(line).is_ok()));

    let mut labels = Vec::new();
    let mut words = String::new();
    while let Some(line) = soon(told.recv()).await {
        let (label, text) = line.split_at_checked(12).unwrap_or((&line, ""));
        if label.trim() == "interim" && !labels.contains(&"away".to_owned()) {
            proxy.cut();
        }
        if label.trim() == "final" {
            words = text.to_owned();
        }
        labels.push(label.trim().to_owned());
    }

    assert!(soon(actix_web::web::block(move || talk.child().wait())).await.unwrap().unwrap().success());
    for label in ["interim", "away", "back", "final", "answer"] {
        assert!(labels.iter().any(|said| said == label), "no {label} in {labels:?}");
    }
    assert!(words.ends_with("Go forward ten meters."), "{words}");
}

#[actix_web::test]
async fn a_typed_line_needs_no_microphone() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;

    let (worked, said) = talk(&june, &["--text", "What is new?"]).await;

    assert!(worked, "{said}");
    assert!(said.contains("What is new?"), "{said}");
}

#[actix_web::test]
async fn a_gateway_that_is_not_there_is_said_in_one_line() {
    let port = free_port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_june"))
        .args(["talk", "--text", "Hello", "--gateway", &format!("http://127.0.0.1:{port}")])
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("june: the gateway cannot be reached"), "{said}");
}
