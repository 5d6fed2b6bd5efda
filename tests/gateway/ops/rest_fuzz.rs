//! Fuzzing of REST: requests that are almost valid, to every route. None is answered with an error of the gateway's own,
//! and each refusal says why in JSON.
//!
//! Each test run sends [`REQUESTS`]; `make fuzz` sends for a given time. The seed is printed, and can be set by
//! `JUNE_FUZZ_SEED`.

use std::{
    env,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::{Method, Response};
use serde_json::{Map, Value, json};

use crate::{
    auth::refusals::paths,
    support::{TestGateway, soon},
};

const REQUESTS: usize = 2_000;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];

/// Fields that routes know, with values that some of them accept.
const FIELDS: [(&str, &str); 12] = [
    ("user_id", "ann"),
    ("guest_name", "Eve"),
    ("room", "lounge"),
    ("identity", "ann"),
    ("format", "pcm"),
    ("limit", "5"),
    ("cursor", "0"),
    ("user", "ann"),
    ("token", "nonsense"),
    ("last_event_id", "1:2"),
    ("livekit", "true"),
    ("audio_only", "true"),
];

/// The codes of failures that are not the gateway's own: LiveKit is away, and a phone has no session.
const OTHERS_FAILURES: [&str; 3] = ["MEDIA_UNAVAILABLE", "NO_ACTIVE_SESSION", "RECORDING_UNAVAILABLE"];

/// What is known to exist, for requests that get further.
struct Known {
    paths: Vec<(&'static str, Vec<Method>)>,
    session: String,
    room: String,
    tokens: Vec<String>,
}

impl Known {
    async fn of(gateway: &TestGateway) -> Self {
        let ann = gateway.session("ann").await;
        Self {
            paths: paths(),
            session: ann.session_id.to_string(),
            room: ann.room_name.to_string(),
            tokens: vec![ann.control_token, "nonsense".into()],
        }
    }
}

fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..8) {
        0 => String::new(),
        1 => "x".repeat(rng.random_range(1..5_000)),
        2 => (0..rng.random_range(1..20)).map(|_| rng.random::<char>()).collect(),
        3 => rng.random::<i64>().to_string(),
        4 => "../".repeat(rng.random_range(1..9)) + "etc/passwd",
        5 => uuid::Uuid::from_u128(rng.random()).to_string(),
        6 => "\u{0}\u{7f}\r\n\t\u{202e}".into(),
        _ => (0..rng.random_range(1..20)).map(|_| rng.random_range('!'..='~')).collect(),
    }
}

fn value(rng: &mut StdRng, depth: usize) -> Value {
    match rng.random_range(0..if depth > 3 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => rng.random::<bool>().into(),
        2 => rng.random::<i64>().into(),
        3 => rng.random::<f64>().into(),
        4 | 5 => text(rng).into(),
        6 => (0..rng.random_range(0..5)).map(|_| value(rng, depth + 1)).collect(),
        _ => Value::Object((0..rng.random_range(0..5)).map(|_| (text(rng), value(rng, depth + 1))).collect()),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn segment(rng: &mut StdRng, known: &Known) -> String {
    match rng.random_range(0..6) {
        0 | 1 => known.session.clone(),
        2 => known.room.clone(),
        3 => ["ann", "talk.js", "1.mp3", "participants"].choose(rng).copied().unwrap_or_default().into(),
        4 => format!("%{:02X}%{:02X}", rng.random::<u8>(), rng.random::<u8>()),
        _ => percent_encoded(&text(rng)),
    }
}

/// A path with something for each of its parameters, and sometimes more or less.
fn target(rng: &mut StdRng, path: &str, known: &Known) -> String {
    let mut target: String = path
        .split('/')
        .map(|part| if part.starts_with('{') { segment(rng, known) } else { part.to_owned() })
        .collect::<Vec<_>>()
        .join("/");
    match rng.random_range(0..20) {
        0 => target = format!("{target}/{}", segment(rng, known)),
        1 => target = format!("{target}/"),
        2 => target = target.replacen('/', "//", 1),
        _ => {}
    }
    let mut separator = '?';
    while rng.random_bool(0.4) {
        let (name, valid) = FIELDS.choose(rng).copied().unwrap_or_default();
        let value = match rng.random_range(0..3) {
            0 => percent_encoded(&text(rng)),
            1 => percent_encoded(&known.room),
            _ => valid.to_owned(),
        };
        target = format!("{target}{separator}{name}={value}");
        separator = '&';
    }
    target
}

fn body(rng: &mut StdRng, known: &Known) -> Vec<u8> {
    let mut fields = Map::new();
    for (name, valid) in FIELDS {
        if rng.random_bool(0.7) {
            fields.insert(name.to_owned(), valid.into());
        }
    }
    fields.insert("session_id".to_owned(), known.session.as_str().into());
    if rng.random_bool(0.5) {
        fields.insert("room".to_owned(), known.room.as_str().into());
    }
    while rng.random_bool(0.3) {
        let name = FIELDS.choose(rng).map(|(name, _)| *name).unwrap_or_default();
        fields.insert(name.to_owned(), value(rng, 0));
    }
    let mut bytes = Value::Object(fields).to_string().into_bytes();
    match rng.random_range(0..8) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        2 => bytes = value(rng, 0).to_string().into_bytes(),
        3 => bytes = (0..rng.random_range(0..300)).map(|_| rng.random()).collect(),
        4 if rng.random_bool(0.1) => bytes = vec![b'['; rng.random_range(0..300_000)],
        _ => {}
    }
    bytes
}

fn request(rng: &mut StdRng, gateway: &TestGateway, known: &Known) -> (String, reqwest::RequestBuilder) {
    let (path, supported) = known.paths.choose(rng).expect("there are routes");
    let method = if rng.random_bool(0.8) { supported.choose(rng).cloned() } else { None };
    let method = method.unwrap_or_else(|| {
        let name = METHODS.choose(rng).copied().unwrap_or_default();
        Method::from_bytes(name.as_bytes()).expect("names of methods are tokens")
    });
    let target = target(rng, path, known);
    let mut request = gateway.http.request(method.clone(), format!("{}{target}", gateway.url));
    let content_types = ["application/json", "application/webhook+json", "text/plain", "nonsense"];
    if rng.random_bool(0.9) {
        let kind = if rng.random_bool(0.8) { content_types[0] } else { content_types.choose(rng).unwrap() };
        request = request.header("Content-Type", kind);
    }
    match rng.random_range(0..6) {
        0 => {
            request = request.header("Authorization", format!("Bearer {}", known.tokens.choose(rng).unwrap()))
        }
        1 => request = request.header("Authorization", percent_encoded(&text(rng))),
        2 => request = request.header("X-API-Key", percent_encoded(&text(rng))),
        _ => {}
    }
    for name in
        ["Upgrade", "Sec-WebSocket-Version", "Last-Event-ID", "Accept", "Range", "If-None-Match", "Cookie"]
    {
        if rng.random_bool(0.05) {
            request = request.header(name, percent_encoded(&text(rng)));
        }
    }
    if method != Method::GET || rng.random_bool(0.2) {
        request = request.body(body(rng, known));
    }
    (format!("{method} {target}"), request)
}

async fn check(what: &str, is_head: bool, response: Response) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    if status < 400 || is_head {
        assert!(status < 500 || status == 502 || status == 503, "{what}: {status}");
        return;
    }
    let body = soon(response.bytes()).await.unwrap();
    let problem: Value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| panic!("{what}: {status} {kind} {:?}", String::from_utf8_lossy(&body)));
    let code = problem["code"].as_str().unwrap_or_default();
    assert!(!code.is_empty(), "{what}: {status} {problem}");
    assert!(status < 500 || OTHERS_FAILURES.contains(&code), "{what}: {status} {problem}");
    if problem["type"] == "connection_error" {
        return;
    }
    assert_eq!(kind, "application/problem+json", "{what}");
    assert_eq!(problem["status"], json!(status), "{what}");
}

#[actix_web::test]
async fn fuzz_no_request_is_answered_with_an_error_of_the_gateway() {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("JUNE_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("JUNE_FUZZ_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let gateway = TestGateway::start().await;
    let mut known = Known::of(&gateway).await;
    let until: Instant =
        june_edge::clock::now() + Duration::from_secs(number("JUNE_FUZZ_SECONDS").unwrap_or(0));

    let mut sent = 0;
    while sent < REQUESTS || june_edge::clock::now() < until {
        let (what, request) = request(&mut rng, &gateway, &known);
        let what = format!("seed {seed}, request {sent}: {what:.300}");
        match soon(request.send()).await {
            Ok(response) => check(&what, what.contains(": HEAD "), response).await,
            Err(error) => assert!(error.is_builder(), "{what}: {error:?}"),
        }
        sent += 1;
        if sent % 100 == 0 {
            assert_eq!(gateway.get("/livez").await.0, 200, "{what}");
            // Some of the requests ended the session.
            known = Known::of(&gateway).await;
        }
    }
    println!("rest fuzz: {sent} requests");
}
