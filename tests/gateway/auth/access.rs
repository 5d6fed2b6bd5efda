//! docs/SECURITY.md, "Who may ask": its tables are those of the code, and every route keeps to them with every kind of
//! credential.

use std::collections::{BTreeMap, BTreeSet};

use jsonwebtoken::{EncodingKey, Header};
use june_edge::{
    auth::keys::{KeyFile, Role},
    clock,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    auth::refusals::{filled, table},
    livekit::Livekit,
    support::{BACKEND, LIVEKIT_SECRET, TestGateway, USERS_SECRET, answer, soon, user_id},
};

const PAGE: &str = include_str!("../../../docs/SECURITY.md");

/// The rows of the table below a heading of the page, with the columns by their names.
fn rows(heading: &str) -> Vec<BTreeMap<&'static str, &'static str>> {
    let section = PAGE.split(&format!("### {heading}\n")).nth(1).unwrap().split("\n#").next().unwrap();
    let mut lines = section.lines().filter(|line| line.starts_with('|')).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>()
    });
    let names = lines.next().unwrap();
    lines.skip(1).map(|cells| names.iter().copied().zip(cells).collect()).collect()
}

#[test]
fn the_page_says_of_every_route_who_may_use_it() {
    let documented: BTreeSet<(String, &str)> =
        rows("Routes").iter().map(|row| (row["route"].to_owned(), row["right"])).collect();
    let routes = table().into_iter().flat_map(|(path, right, methods)| {
        methods
            .into_iter()
            .filter(|method| *method != Method::HEAD)
            .map(move |method| (format!("{method} {path}"), right))
    });
    assert_eq!(documented, routes.collect());
}

fn jwt(secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn users_token(user: &str, expires_in_s: i64) -> String {
    jwt(USERS_SECRET, &json!({"sub": user, "exp": clock::unix_s() as i64 + expires_in_s}))
}

fn livekit_token(identity: &str, room: &str) -> String {
    let video = json!({"room": room, "roomJoin": true});
    let claims = json!({"iss": "devkey", "sub": identity, "exp": clock::unix_s() + 60, "video": video});
    jwt(LIVEKIT_SECRET, &claims)
}

/// Keys by the names that the page gives to their roles.
struct Keys {
    folder: tempfile::TempDir,
    by_name: BTreeMap<&'static str, String>,
}

impl Keys {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(folder.path().join("keys.json"));
        let mut by_name = BTreeMap::new();
        for (name, role, user) in [
            ("backend", Role::Backend, None),
            ("another user\u{2019}s backend", Role::Backend, Some("bob")),
            ("own backend", Role::Backend, Some("ann")),
            ("observer", Role::Observer, None),
            ("own observer", Role::Observer, Some("ann")),
            ("admin", Role::Admin, None),
        ] {
            let plain: String = name.chars().map(|c| if c.is_ascii_alphabetic() { c } else { '-' }).collect();
            let (_, key) = file.add(&plain, BTreeSet::from([role]), user.map(user_id)).unwrap();
            by_name.insert(name, key.expose().to_owned());
        }
        Self { folder, by_name }
    }

    fn path(&self) -> String {
        self.folder.path().join("keys.json").display().to_string()
    }
}

async fn gateway(livekit: &Livekit, keys: &Keys) -> TestGateway {
    TestGateway::with(&[
        ("LIVEKIT_URL", &livekit.url),
        ("API_KEYS", BACKEND),
        ("API_KEYS_FILE", &keys.path()),
        ("AUTH_JWT_SECRET", USERS_SECRET),
        ("HOST", "127.0.0.1"),
        ("AUTH_FAILURES_PER_MINUTE", "0"),
    ])
    .await
}

/// Sessions of three users, of whom Eve was removed from her room.
struct Sessions {
    ann: Value,
    eve: Value,
    anns_stream_token: String,
}

impl Sessions {
    async fn make(gateway: &TestGateway) -> Self {
        let post = async |path: &str, body: &Value| {
            let request = gateway.http.post(format!("{}{path}", gateway.url)).bearer_auth(BACKEND).json(body);
            let (status, made) = answer(request).await;
            assert!(status < 300, "{path}: {made}");
            made
        };
        let ann = post("/api/sessions", &json!({"user_id": "ann"})).await;
        let eve = post("/api/sessions", &json!({"user_id": "eve"})).await;
        post("/api/sessions", &json!({"user_id": "bob"})).await;
        let room = json!({"room": ann["room_name"]});
        let stream = post("/api/livekit/participants/stream-token", &room).await;
        let anns_stream_token = stream["stream_token"].as_str().unwrap().to_owned();
        let eves = format!("{}/api/sessions/{}/participants/eve", gateway.url, text(&eve["session_id"]));
        assert_eq!(answer(gateway.http.delete(eves).bearer_auth(BACKEND)).await.0, 200);
        Self { ann, eve, anns_stream_token }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What a request carries, by the page's names; several ways to carry the same.
fn credentials(column: &str, keys: &Keys, sessions: &Sessions) -> Vec<(&'static str, String)> {
    let bearer = |token: String| vec![("authorization", format!("Bearer {token}"))];
    match column {
        "nothing" => vec![("x-nothing", String::new())],
        "wrong or expired" => vec![
            ("authorization", "Bearer garbage".into()),
            ("x-api-key", "garbage".into()),
            (
                "authorization",
                format!(
                    "Bearer {}",
                    jwt(
                        "another-secret-of-at-least-32-bytes",
                        &json!({"sub": "ann", "exp": clock::unix_s() + 60})
                    )
                ),
            ),
            ("authorization", format!("Bearer {}", users_token("ann", -60))),
        ],
        "user" => bearer(users_token("ann", 60)),
        "control token" => bearer(text(&sessions.ann["control_token"]).to_owned()),
        "another user" => bearer(users_token("bob", 60)),
        "removed user" => vec![
            ("authorization", format!("Bearer {}", users_token("eve", 60))),
            ("authorization", format!("Bearer {}", text(&sessions.eve["control_token"]))),
        ],
        "guest" => bearer(livekit_token("guest:gus-abc123", text(&sessions.ann["room_name"]))),
        "stream token" => bearer(sessions.anns_stream_token.clone()),
        "backend" => vec![
            ("x-api-key", keys.by_name["backend"].clone()),
            ("authorization", format!("Bearer {}", keys.by_name["own backend"])),
        ],
        "admin" => {
            vec![("x-api-key", keys.by_name["admin"].clone()), ("authorization", format!("Bearer {BACKEND}"))]
        }
        name => vec![("x-api-key", keys.by_name.get(name).unwrap_or_else(|| panic!("no {name}")).clone())],
    }
}

/// A request that makes sense where it is allowed.
fn request(gateway: &TestGateway, method: &Method, path: &str, session: &Value) -> RequestBuilder {
    let id = text(&session["session_id"]);
    let room = text(&session["room_name"]);
    let body = match path {
        "/api/sessions" => json!({"user_id": session["user_id"]}),
        "/api/client/audio/configure" => json!({"format": "pcm"}),
        _ => json!({"session_id": id, "guest_name": "Gus", "room": room}),
    };
    let url = format!("{}{}?room={room}", gateway.url, filled(path, id));
    gateway.http.request(method.clone(), url).json(&body)
}

#[actix_web::test]
async fn every_route_keeps_to_the_page_with_every_kind_of_credential() {
    let (livekit, keys) = (Livekit::start().await, Keys::make());
    let gateway = gateway(&livekit, &keys).await;
    let rights: BTreeMap<&str, _> = rows("Rights").into_iter().map(|row| (row["right"], row)).collect();
    let mut sessions = Sessions::make(&gateway).await;

    let mut checked = 0;
    for (path, right, methods) in table() {
        for method in methods {
            for (column, expected) in rights[right].iter().filter(|(column, _)| **column != "right") {
                for at in 0..credentials(column, &keys, &sessions).len() {
                    let (name, value) = credentials(column, &keys, &sessions).swap_remove(at);
                    if right == "Channel" && name == "x-api-key" {
                        // Not read: the channel's token may come later.
                        continue;
                    }
                    let session = if *column == "removed user" { &sessions.eve } else { &sessions.ann };
                    let request = request(&gateway, &method, path, session).header(name, value);
                    let status = soon(request.send()).await.unwrap().status().as_u16();
                    let what = format!("{method} {path} ({right}), {column} {at}: {status}");
                    match *expected {
                        // MentraOS' clients cannot bring a token later.
                        "yes" if path == "/glasses-ws" && *column == "nothing" => assert_eq!(status, 401),
                        // A control token is for its session, and makes none.
                        "yes" if right == "CreateSession" && (*column, at) == ("removed user", 1) => {
                            assert_eq!(status, 403, "{what}");
                        }
                        "yes" => assert!(status != 401 && status != 403 && status < 500, "{what}"),
                        // Of unsigned webhooks, some are limited.
                        "401" if right == "Webhook" => assert!([401, 429].contains(&status), "{what}"),
                        refused => assert_eq!(status.to_string(), refused, "{what}"),
                    }
                    checked += 1;
                    let ended = method == Method::DELETE && path == "/api/sessions/{id}";
                    if *expected == "yes" && (ended || path.ends_with("/disconnect")) {
                        sessions = Sessions::make(&gateway).await;
                    }
                }
            }
        }
    }
    assert!(checked > 500, "{checked}");
}

#[actix_web::test]
async fn a_key_for_one_user_sees_nobody_else() {
    let (livekit, keys) = (Livekit::start().await, Keys::make());
    let gateway = gateway(&livekit, &keys).await;
    let sessions = Sessions::make(&gateway).await;
    let status = async |path: &str, name: &str| {
        let url = format!("{}{path}", gateway.url);
        soon(gateway.http.get(url).header("x-api-key", &keys.by_name[name]).send()).await.unwrap().status()
    };
    let anns = format!("/api/livekit/participants?room={}", text(&sessions.ann["room_name"]));
    let eves = format!("/api/livekit/participants?room={}", text(&sessions.eve["room_name"]));

    assert_eq!(status(&anns, "own observer").await, 200);
    assert_eq!(status(&eves, "own observer").await, 403);
    assert_eq!(status("/api/admin/sessions", "own observer").await, 403, "all users are listed");
    assert_eq!(status("/api/consumer/ws?user=bob", "own observer").await, 403);
    assert_eq!(status("/api/consumer/ws", "own observer").await, 400, "no upgrade, but allowed");
}
