//! The rate of session creation over HTTP, compared with LiveKit's SDK for Node.js and with a handler that only
//! signs a token: the same request, load and machine.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use june_edge::{
    config::LivekitConfig,
    ids::{RoomName, UserId, suffix},
    livekit::token::TokenIssuer,
    secret::Secret,
};

use crate::{
    load::{Load, load},
    statistics::median,
};

const KEY: &str = "devkey";
const SECRET: &str = "devsecret-devsecret-devsecret-32";
const URL: &str = "ws://127.0.0.1:7880";

/// Concurrent requests.
const CONNECTIONS: usize = 64;

/// Length and number of the rounds. The servers take turns, so that other load on the machine affects all alike.
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

/// The results of one server, by round.
#[derive(Default)]
struct Rounds {
    per_s: Vec<f64>,
    p99_ms: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, load: &Load) {
        self.per_s.push(load.per_s);
        self.p99_ms.push(load.took_ms[(load.took_ms.len() - 1) * 99 / 100]);
    }
}

/// Figures of the gateway on this port: session_create_per_s, session_create_p99_ms,
/// session_rate_vs_node, session_rate_vs_bare.
pub async fn creation(gateway: u16) -> Vec<(String, f64)> {
    let (node, node_port) = node();
    let bare_port = bare();
    let (mut ours, mut nodes, mut bares) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        for (port, path, rounds) in [
            (gateway, "/api/sessions", &mut ours),
            (node_port, "/api/sessions", &mut nodes),
            (bare_port, "/api/sessions", &mut bares),
        ] {
            rounds.add(&load(port, request(path), CONNECTIONS, ROUND).await);
        }
    }
    drop(node);
    let per_s = median(&ours.per_s);
    let (node, bare) = (median(&nodes.per_s), median(&bares.per_s));
    println!(
        "Sessions created: {per_s:.0} a second, p99 {:.1} ms\n\
         Node.js SDK:      {node:.0} a second, p99 {:.1} ms\n\
         bare handler:     {bare:.0} a second, p99 {:.1} ms\n",
        median(&ours.p99_ms),
        median(&nodes.p99_ms),
        median(&bares.p99_ms),
    );
    vec![
        ("session_create_per_s".into(), per_s),
        ("session_create_p99_ms".into(), median(&ours.p99_ms)),
        ("session_rate_vs_node".into(), per_s / node),
        ("session_rate_vs_bare".into(), per_s / bare),
    ]
}

fn request(path: &str) -> String {
    let body = r#"{"user_id":"bench"}"#;
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A process that is killed at the end.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts node_tokens.mjs. Returns its port, too.
fn node() -> (Node, u16) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/support/node_tokens.mjs");
    let mut command = Command::new("node");
    command.arg(script).args([KEY, SECRET, URL]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut node = command.spawn().expect("node runs: `scripts/setup e2e` installs it and its packages");
    let mut port = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (Node(node), port.trim().parse().expect("node_tokens.mjs says its port"))
}

/// Starts a server whose only handler signs a token. Returns its port, too.
fn bare() -> u16 {
    #[derive(serde::Deserialize)]
    struct Create {
        user_id: UserId,
    }
    async fn create(issuer: web::Data<TokenIssuer>, body: web::Json<Create>) -> HttpResponse {
        let room = RoomName::for_user(&body.user_id, &suffix());
        let token = issuer.client(&body.user_id, &room, None);
        HttpResponse::Created().json(serde_json::json!({
            "room_name": room, "access_token": token.jwt, "livekit_url": URL, "status": "active",
        }))
    }
    let livekit = LivekitConfig {
        url: URL.into(),
        internal_url: URL.into(),
        api_key: KEY.into(),
        api_secret: Secret::new(SECRET),
        rejoin_backoff: Duration::from_secs(2),
    };
    let issuer = web::Data::new(TokenIssuer::new(&livekit, false));
    let server = HttpServer::new(move || {
        App::new().app_data(issuer.clone()).route("/api/sessions", web::post().to(create))
    })
    .tcp_nodelay(true)
    .disable_signals()
    .bind("127.0.0.1:0")
    .unwrap();
    let port = server.addrs()[0].port();
    actix_web::rt::spawn(server.run());
    port
}
