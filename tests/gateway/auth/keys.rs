//! API keys with a name: made by `june keys`, taken up by a running gateway. And what becomes of wrong ones.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    phone::Phone,
    support::{BACKEND, TestGateway, answer, soon},
};

fn june_keys(file: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_june"))
        .arg("keys")
        .args(arguments)
        .env_clear()
        .env("API_KEYS_FILE", file)
        .output()
        .unwrap()
}

/// A gateway whose keys are in this file.
async fn gateway_with(file: &Path) -> TestGateway {
    let file = file.display().to_string();
    TestGateway::with(&[("API_KEYS_FILE", &file), ("HOST", "127.0.0.1")]).await
}

/// What the command prints for programs.
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// Asks until the answer is another one: a change is noticed within a second.
async fn until_status(expected: u16, ask: impl AsyncFn() -> u16) {
    soon(async {
        while ask().await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_key_is_made_listed_used_rotated_and_revoked_while_the_gateway_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let first = printed(&june_keys(&file, &["add", "--name", "app", "--role", "backend"]));
    let gateway = gateway_with(&file).await;
    let create = async |key: &str| {
        let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(key);
        answer(request.json(&json!({"user_id": "ann"}))).await.0
    };
    assert_eq!(create(&first).await, 201);
    assert_eq!(gateway.get("/api/admin/sessions").await.0, 401, "there is a key, so one is needed");

    let second = printed(&june_keys(&file, &["add", "--name", "app", "--role", "backend"]));
    until_status(201, async || create(&second).await).await;
    assert_eq!(create(&first).await, 201, "both are good during a rotation");

    let listed = printed(&june_keys(&file, &["list"]));
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(!listed.contains(&first) && listed.contains("app (backend)"), "{listed}");
    let oldest = listed.lines().next().unwrap().split(' ').nth(1).unwrap();
    printed(&june_keys(&file, &["revoke", oldest]));
    until_status(401, async || create(&first).await).await;
    assert_eq!(create(&second).await, 201);

    let again = june_keys(&file, &["revoke", oldest]);
    assert_eq!(again.status.code(), Some(64), "{again:?}");
}

#[actix_web::test]
async fn who_observes_hears_clients_and_only_a_backend_sends_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let key = |name: &str, roles: &[&str]| {
        let roles = roles.iter().flat_map(|role| ["--role", role]);
        printed(&june_keys(&file, &[&["add", "--name", name][..], &roles.collect::<Vec<_>>()].concat()))
    };
    let (observer, both) = (key("observer", &["observer"]), key("both", &["observer", "backend"]));
    let gateway = gateway_with(&file).await;

    for (key, code) in [(&observer, "FORBIDDEN"), (&both, "SESSION_NOT_FOUND")] {
        let mut consumer = Phone::open(&gateway, "/api/consumer/ws", &[("x-api-key", key)]).await;
        let id = "018f0000-0000-7000-8000-000000000000";
        consumer.say(&json!({"type": "send", "sessionId": id, "message": {"type": "hello"}})).await;
        assert_eq!(consumer.next_of("error").await["code"], code);
    }
}

#[actix_web::test]
async fn what_a_key_has_opened_ends_when_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let key = printed(&june_keys(&file, &["add", "--name", "dashboard", "--role", "observer"]));
    let gateway = gateway_with(&file).await;
    let url = format!("{}/api/livekit/participants/stream?room=room-a", gateway.url);
    let mut stream = soon(gateway.http.get(url).bearer_auth(&key).send()).await.unwrap();
    let mut consumer = Phone::open(&gateway, "/api/consumer/ws", &[("x-api-key", &key)]).await;
    assert!(soon(stream.chunk()).await.unwrap().is_some());

    printed(&june_keys(&file, &["revoke", "dashboard"]));

    soon(async { while stream.chunk().await.unwrap().is_some() {} }).await;
    assert_eq!(consumer.closed().await, 4401);
}

#[actix_web::test]
async fn wrong_keys_are_slowed_and_good_ones_from_the_same_address_pass() {
    let settings = [("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("AUTH_FAILURES_PER_MINUTE", "5")];
    let gateway = TestGateway::with(&settings).await;
    let url = format!("{}/api/admin/sessions", gateway.url);
    let ask = |key: &str| gateway.http.get(&url).header("X-Api-Key", key);

    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(answer(ask("a-wrong-key")).await.0);
    }

    assert_eq!(statuses[..5], [401; 5], "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let limited = soon(ask("another-wrong-key").send()).await.unwrap();
    assert!(limited.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let problem: Value = limited.json().await.unwrap();
    assert_eq!(problem["code"], "RATE_LIMITED");
    for wrong in ["/v1/ws?token=wrong", "/glasses-ws?token=wrong"] {
        assert_eq!(gateway.get(wrong).await.0, 429, "{wrong}");
    }
    let mut later = Phone::open(&gateway, "/v1/ws", &[]).await;
    later.say(&json!({"type": "connection_init", "token": "a-wrong-token"})).await;
    assert_eq!(later.next_of("connection_error").await["code"], "RATE_LIMITED");
    assert_eq!(answer(ask(BACKEND)).await.0, 200);
    assert_eq!(gateway.get("/api/admin/sessions").await.0, 401, "a missing key is not a wrong one");
}
