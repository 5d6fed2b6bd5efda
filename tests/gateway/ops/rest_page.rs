//! docs/REST.md and README.md: every route has an example in the first, and every example of both works
//! as it is printed.

use june_client::SessionInfo;
use june_edge::protocol::{ToClient, edge_v1::from_client::ConnectionInit};
use livekit_protocol as proto;
use reqwest::Method;
use serde_json::Value;

use crate::{
    auth::refusals::routes,
    livekit::Livekit,
    ops::health::until_livekit_is_reached,
    support::{BACKEND, Glasses, TestGateway, soon},
};

const PAGE: &str = include_str!("../../../docs/REST.md");
const README: &str = include_str!("../../../README.md");

/// A route's part of the page.
struct Section {
    route: &'static str,
    /// The command, words and all.
    curl: Option<&'static str>,
    status: Option<u16>,
    /// What it prints.
    answer: Option<Value>,
}

fn block(section: &'static str, kind: &str) -> Option<&'static str> {
    section.split(&format!("```{kind}\n")).nth(1)?.split("```").next()
}

fn sections() -> Vec<Section> {
    let sections = PAGE.split("\n### `").skip(1).map(|section| {
        let status = section.split("Answers ").nth(1).map(|rest| rest[..3].parse().unwrap());
        let answer = block(section, "json").map(|json| serde_json::from_str(json).unwrap());
        Section { route: section.split('`').next().unwrap(), curl: block(section, "sh"), status, answer }
    });
    sections.collect()
}

/// The words of a command as a shell reads them: white space between, quotes around.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in command.replace("\\\n", " ").trim().chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Sends what the command says.
async fn run(gateway: &TestGateway, command: &str) -> (u16, Value) {
    let mut words = words(command).into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"));
    let (mut method, mut url, mut headers, mut body) = (Method::GET, None, Vec::new(), None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-X" => method = words.next().unwrap().parse().unwrap(),
            "-H" => headers.push(words.next().unwrap()),
            "-d" => body = words.next(),
            _ => url = Some(word),
        }
    }
    let url = url.unwrap().replace("http://localhost:8080", &gateway.url);
    let mut request = gateway.http.request(method, url);
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let response = soon(request.body(body.unwrap_or_default()).send()).await.unwrap();
    let status = response.status().as_u16();
    let is_json = response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
    (status, if is_json { response.json().await.unwrap() } else { Value::Null })
}

/// That two values have the same fields, of the same types; lists entry by entry, as far as both go.
fn alike(printed: &Value, came: &Value, at: &str) {
    match (printed, came) {
        (Value::Object(printed), Value::Object(came)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(printed), names(came), "{at}");
            for (name, value) in printed {
                alike(value, &came[name], &format!("{at}.{name}"));
            }
        }
        (Value::Array(printed), Value::Array(came)) => {
            assert_eq!(printed.is_empty(), came.is_empty(), "{at}");
            for (index, (printed, came)) in printed.iter().zip(came).enumerate() {
                alike(printed, came, &format!("{at}[{index}]"));
            }
        }
        (printed, came) => {
            assert_eq!(std::mem::discriminant(printed), std::mem::discriminant(came), "{at}: {came}");
        }
    }
}

#[test]
fn every_route_is_explained() {
    let explained: Vec<&str> = sections().iter().map(|section| section.route).collect();
    for (method, path) in routes() {
        let talks = ["/", "/v1/ws", "/glasses-ws"].contains(&path)
            || path.starts_with("/static")
            || path.starts_with("/vendor");
        let route = format!("{method} {path}");
        assert!(talks || explained.contains(&route.as_str()), "docs/REST.md has no example of {route}");
    }
}

/// A typed turn and its answer, until both are saved.
async fn converse(session: SessionInfo) {
    let mut glasses = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    glasses.say(r#"{"type":"say","text":"What is new?"}"#).await;
    glasses.wait_for(|message| matches!(message, ToClient::TurnSaved { .. }).then_some(())).await;
}

#[actix_web::test]
async fn every_example_works_as_it_is_printed() {
    let livekit = Livekit::start().await;
    for Section { route, curl, status, answer } in sections() {
        let Some(curl) = curl else { continue };
        let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
        let session = gateway.session("test_user").await;
        let room = session.room_name.as_str();
        livekit.set_rooms(vec![proto::Room { name: room.into(), sid: "RM_1".into(), ..Default::default() }]);
        livekit.set_participants(vec![proto::ParticipantInfo {
            identity: "test_user".into(),
            tracks: vec![proto::TrackInfo {
                source: proto::TrackSource::Microphone.into(),
                ..Default::default()
            }],
            ..Default::default()
        }]);
        if route.ends_with("/history") {
            converse(session.clone()).await;
        }
        if route == "GET /health" {
            until_livekit_is_reached(&gateway).await;
        }
        let command = curl
            .replace("{session_id}", &session.session_id.to_string())
            .replace("{room}", room)
            .replace("{control_token}", &session.control_token)
            .replace("{identity}", "test_user")
            .replace("{egress_id}", "EG_1");

        let (came, body) = run(&gateway, &command).await;

        assert_eq!(Some(came), status, "{route}: {body}");
        if let Some(answer) = answer {
            alike(&answer, &body, route);
        }
    }
}

/// The commands of the README that ask the gateway something, from first to last.
fn commands_of_the_readme() -> Vec<String> {
    let blocks = README.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(|block| {
        let joined = block.replace("\\\n", " ");
        joined.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter(|line| line.starts_with("curl ")).collect()
}

/// Somebody who copies them one after the other, with the id of the session they made.
#[actix_web::test]
async fn the_commands_of_the_readme_work_one_after_the_other() {
    let gateway = TestGateway::start().await;
    let printed: Value = serde_json::from_str(block(README, "json").unwrap()).unwrap();
    let commands = commands_of_the_readme();
    assert_eq!(commands.len(), 3, "{commands:?}");

    let (status, made) = run(&gateway, &commands[0]).await;
    assert_eq!(status, 201, "{made}");
    alike(&printed, &made, "README.md");
    let id = made["session_id"].as_str().unwrap();

    let (status, again) = run(&gateway, &commands[1].replace("{session_id}", id)).await;
    assert_eq!((status, &again["room_name"]), (200, &made["room_name"]));
    assert_ne!(again["access_token"], made["access_token"], "a fresh one");

    let (status, guest) = run(&gateway, &commands[2].replace("{session_id}", id)).await;
    assert_eq!((status, guest["guest_name"].as_str()), (200, Some("guest_user")));
    assert_eq!(guest["room_name"], made["room_name"]);
}

#[actix_web::test]
async fn the_control_channels_document_says_where_it_is_to_whoever_asks() {
    let settings = [("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("PUBLIC_URL", "https://june.example")];
    let gateway = TestGateway::with(&settings).await;

    let (status, document) = gateway.get("/api/asyncapi.json").await;

    assert_eq!((status, document["asyncapi"].as_str()), (200, Some("3.0.0")));
    let server = &document["servers"]["gateway"];
    assert_eq!((&server["protocol"], &server["host"]), (&"wss".into(), &"june.example".into()));
    assert_eq!(document["channels"]["control"]["address"], "/v1/ws");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_command_is_read_as_a_shell_reads_it() {
    let read = words("curl -d '{\"a\": \"b\"}' \\\n  \"http://x?a=b\"\n");
    assert_eq!(read, ["curl", "-d", r#"{"a": "b"}"#, "http://x?a=b"]);
}
