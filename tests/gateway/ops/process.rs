//! The `june` command as an operator meets it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use futures::SinkExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    auth::refusals::routes,
    support::{BACKEND, soon},
};

fn june(command: &str, settings: &[(&str, &str)]) -> Output {
    june_with(&[command], settings)
}

fn june_with(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_june"))
        .args(arguments)
        .env_clear()
        .env("JUNE_MODELS", "/nowhere/models")
        .envs(settings.iter().copied())
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

fn last_line(output: &Output) -> String {
    lines(output).pop().unwrap_or_default()
}

#[test]
fn bad_settings_are_said_one_line_each_with_exit_code_64() {
    let output = june("serve", &[("PORT", "http"), ("HOST", "0.0.0.0")]);

    assert_eq!(output.status.code(), Some(64));
    let lines = lines(&output);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("june: HOST:")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("june: PORT:")), "{lines:?}");
}

#[test]
fn settings_can_be_checked_without_starting() {
    assert_eq!(june("check-config", &[]).status.code(), Some(0));
    assert_eq!(june("check-config", &[("PORT", "http")]).status.code(), Some(64));
}

#[test]
fn checking_the_settings_prints_problems_and_notes() {
    let notes = [("API_KEYS", BACKEND), ("THINKER", "parrot"), ("REDIS_URL", "redis://localhost")];
    let expected_notes = [
        "june: note: API_KEYS: each key may do everything; `june keys add` makes keys with a name and a role",
        "june: note: THINKER: deprecated: use LLM",
        "june: note: THINKER: parrot is deprecated: use echo",
        "june: note: REDIS_URL: not served yet: a gateway is one machine",
    ];

    let valid = june("check-config", &notes);
    let invalid = june("check-config", &[&notes[..], &[("PORT", "http")]].concat());

    assert_eq!(valid.status.code(), Some(0));
    assert_eq!(lines(&valid), [&expected_notes[..], &["june: the settings are valid"]].concat());
    assert_eq!(invalid.status.code(), Some(64));
    assert!(lines(&invalid)[0].starts_with("june: PORT: "), "{invalid:?}");
    assert_eq!(lines(&invalid)[1..], expected_notes);
}

#[test]
fn a_taken_port_is_said_in_one_line_with_exit_code_73() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = tempfile::tempdir().unwrap();

    let output = june("serve", &[("PORT", &port), ("DATA_DIR", &data.path().display().to_string())]);

    assert_eq!(output.status.code(), Some(73));
    let line = last_line(&output);
    assert!(line.starts_with(&format!("june: cannot listen on 127.0.0.1:{port}")), "{line}");
}

#[test]
fn an_unwritable_data_folder_is_said_in_one_line_with_exit_code_73() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("data").display().to_string();

    let output = june("serve", &[("PORT", "0"), ("DATA_DIR", &folder)]);

    assert_eq!(output.status.code(), Some(73));
    let line = last_line(&output);
    assert!(line.starts_with(&format!("june: {folder}")), "{line}");
}

#[test]
fn a_key_set_that_cannot_be_read_is_said_in_one_line_with_exit_code_64() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().display().to_string();
    let output =
        june("serve", &[("PORT", "0"), ("DATA_DIR", &data), ("AUTH_JWKS_FILE", "/nowhere/keys.json")]);

    assert_eq!(output.status.code(), Some(64));
    assert!(last_line(&output).starts_with("june: AUTH_JWKS_FILE: /nowhere/keys.json: "), "{output:?}");
}

/// A gateway in a process of its own, and what it logs.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    url: String,
    log: String,
}

impl Process {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_june"))
            .arg("serve")
            .env_clear()
            .envs([("JUNE_MODELS", "/nowhere/models"), ("PORT", "0"), ("LOG_FORMAT", "json")])
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // A test may have seen enough.
                let _ = sender.send(line);
            }
        });
        let mut process = Self { child, lines, url: String::new(), log: String::new() };
        let line = process.wait_for("\"listening\"");
        let line: Value = serde_json::from_str(&line).unwrap();
        process.url = format!("http://{}", line["fields"]["address"].as_str().unwrap());
        process
    }

    /// The next line with these words in it.
    fn wait_for(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30)).expect(words);
            self.log += &line;
            self.log.push('\n');
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ends it; everything that it logged.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let rest: Vec<String> = self.lines.iter().collect();
        self.log + &rest.join("\n")
    }
}

#[actix_web::test]
async fn whatever_is_logged_no_token_is_in_it() {
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(&[
        ("DATA_DIR", &data.path().display().to_string()),
        ("RUST_LOG", "trace"),
        ("LIVEKIT_URL", "ws://127.0.0.1:9"),
        ("LIVEKIT_API_KEY", "devkey"),
        ("LIVEKIT_API_SECRET", "hush-livekit-secret-of-32-letters"),
        ("AUTH_JWT_SECRET", "hush-users-secret-of-32-bytes-or-more"),
        ("AUTH_FAILURES_PER_MINUTE", "0"),
    ]);
    let http = reqwest::Client::new();
    for (method, path) in routes() {
        let path = path.replace(['{', '}'], "");
        let url = format!("{}{path}?room=room-a&token=hush-query", process.url);
        let request = http.request(method.clone(), url).header("content-type", "application/json");
        for request in [request.try_clone().unwrap(), request.bearer_auth("hush-header")] {
            soon(request.header("x-other", "seen").body("{}").send()).await.unwrap();
            process.wait_for("?room=…&token=…");
        }
    }
    let made = soon(
        http.post(format!("{}/api/sessions", process.url))
            .json(&serde_json::json!({"user_id": "ann"}))
            .send(),
    );
    let made: Value = made.await.unwrap().json().await.unwrap();
    let control_token = made["control_token"].as_str().unwrap();
    let url = format!("{}?token={control_token}", made["control_url"].as_str().unwrap());
    let (mut socket, _) = Box::pin(soon(tokio_tungstenite::connect_async(url))).await.unwrap();
    let init = r#"{"type":"connection_init","token":"hush-init","resume":{"sessionId":"018f3b5c-0000-7000-8000-000000000001","resumeToken":"hush-resume"}}"#;
    for text in [
        init,
        r#"{"type":"subscribe:participants","room":"room-a","token":"hush-livekit"}"#,
        r#"{"type":"goodbye"}"#,
    ] {
        socket.send(Message::text(text)).await.unwrap();
    }
    process.wait_for("session ended");

    let log = process.end();

    let access_token = made["access_token"].as_str().unwrap();
    for secret in ["hush", control_token, access_token] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[actix_web::test]
async fn a_deployment_logs_notes_and_says_that_an_echo_answers_its_end_users() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(&[
        ("DATA_DIR", &data.path().display().to_string()),
        ("HOST", "127.0.0.1"),
        ("API_KEYS", BACKEND),
        ("REDIS_URL", "redis://localhost"),
    ]);

    let health = soon(reqwest::get(format!("{}/health", process.url))).await.unwrap();
    let health: Value = health.json().await.unwrap();

    assert_eq!(health["status"], "degraded");
    let parts = health["parts"].as_array().unwrap();
    let llm = parts.iter().find(|part| part["role"] == "llm").unwrap();
    assert_eq!((&llm["part"], &llm["provider"]), (&"thinker".into(), &"echo".into()));
    let message = llm["message"].as_str().unwrap();
    assert!(message.contains("no LLM is configured"), "{message}");
    let log = process.end();
    for warning in [message, "REDIS_URL: not served yet"] {
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(warning)), "{warning}: {log}");
    }
}

/// What `june drill` prints as JSON, and its exit code.
fn drill(settings: &[(&str, &str)]) -> (Value, Option<i32>) {
    let fast = [
        ("SCRIPTED_LATENCY_MS", "0"),
        ("LLM_FIRST_SENTENCE_DEADLINE_MS", "200"),
        ("PROVIDER_STALL_MS", "200"),
    ];
    let output = june_with(&["drill", "--json", "--role", "llm"], &[&fast, settings].concat());
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

#[test]
fn a_drill_tells_who_took_over_after_each_fault_and_leaves_the_data_alone() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let settings = [("LLM", "scripted,scripted-spare"), ("DATA_DIR", data.to_str().unwrap())];

    let (report, code) = drill(&settings);

    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["survived"], true);
    let trials = report["roles"][0]["trials"].as_array().unwrap();
    let faults = || trials.iter().filter(|trial| trial["fault"].is_string());
    assert_eq!((trials.len(), faults().count()), (9, 7), "{report}");
    assert!(faults().all(|trial| trial["taken_over_by"] == "scripted-spare"), "{report}");
    assert!(!data.exists());
}

#[test]
fn a_drill_without_a_second_provider_says_that_nothing_is_covered() {
    let (report, code) = drill(&[("LLM", "echo")]);

    assert_eq!((code, &report["survived"]), (Some(1), &false.into()));
    let note = report["roles"][0]["notes"][0].as_str().unwrap();
    assert!(note.contains("no fault of echo is covered"), "{note}");
}
