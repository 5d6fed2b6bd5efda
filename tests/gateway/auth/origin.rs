//! Which web pages may use the gateway, and by which names it may be called.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::{
    auth::refusals::{filled, refusal, table},
    support::{BACKEND, TestGateway, soon},
};

const EVIL: &str = "https://evil.example";

fn upgrade(request: RequestBuilder) -> RequestBuilder {
    request
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

async fn status(request: RequestBuilder) -> u16 {
    soon(request.send()).await.unwrap().status().as_u16()
}

#[actix_web::test]
async fn without_keys_no_other_page_reaches_a_route_and_no_other_name_leads_to_one() {
    let gateway = TestGateway::start().await;
    let request = |method: &Method, path: &str| {
        gateway.http.request(method.clone(), format!("{}{}", gateway.url, filled(path, "x"))).json(&json!({}))
    };
    for (path, right, methods) in table() {
        for method in methods.iter().filter(|method| **method != Method::HEAD) {
            let what = format!("{method} {path}");
            let is_for_machines = ["Probe", "Webhook"].contains(&right);
            for (name, value) in [("Origin", EVIL), ("Origin", "null"), ("Host", "rebound.example")] {
                let response = soon(request(method, path).header(name, value).send()).await.unwrap();
                if is_for_machines {
                    assert_ne!(response.status(), 403, "{what}, {name}");
                } else {
                    assert_eq!(refusal(response, &what).await, (403, "FORBIDDEN".into()), "{what}, {name}");
                }
            }
            let linked = status(request(method, path).header("Sec-Fetch-Site", "cross-site")).await;
            let is_open = is_for_machines || right == "Page";
            assert_eq!(linked == 403, !is_open, "{what}: {linked} as a link");
        }
    }
}

#[actix_web::test]
async fn a_page_opens_a_websocket_only_if_it_is_the_gateways_own_or_listed() {
    let app = "https://app.example";
    let keyless = TestGateway::with(&[("ALLOWED_ORIGINS", app)]).await;
    let keys = [("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("CORS_ALLOW_ORIGINS", app)];
    let keyed = TestGateway::with(&keys).await;
    for (gateway, key) in [(&keyless, None), (&keyed, Some(BACKEND))] {
        for path in ["/v1/ws", "/api/consumer/ws"] {
            let key = key.filter(|_| path == "/api/consumer/ws");
            let open = async |origin: &str| {
                let request = upgrade(gateway.http.get(format!("{}{path}", gateway.url)));
                let request = key.into_iter().fold(request, |request, key| request.header("X-Api-Key", key));
                status(request.header("Origin", origin)).await
            };
            for origin in [EVIL, "null", "http://127.0.0.1"] {
                assert_eq!(open(origin).await, 403, "{path} {origin}");
            }
            for origin in [gateway.url.as_str(), app] {
                assert_eq!(open(origin).await, 101, "{path} {origin}");
            }
        }
    }
}

#[actix_web::test]
async fn a_listed_page_gets_cors_headers_and_another_page_none() {
    let app = "https://app.example";
    let keys = [("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("ALLOWED_ORIGINS", app)];
    let gateway = TestGateway::with(&keys).await;
    let url = format!("{}/api/sessions", gateway.url);
    let preflight = |origin| {
        gateway
            .http
            .request(Method::OPTIONS, &url)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,content-type")
    };

    let answered = soon(preflight(app).send()).await.unwrap();
    assert_eq!(answered.status(), 204);
    let header = |name: &str| answered.headers()[name].to_str().unwrap().to_ascii_lowercase();
    assert_eq!(header("access-control-allow-origin"), app);
    for (name, part) in [
        ("access-control-allow-methods", "post"),
        ("access-control-allow-headers", "authorization, content-type, x-api-key, last-event-id"),
        ("access-control-max-age", "7200"),
        ("vary", "origin"),
    ] {
        assert!(header(name).contains(part), "{name}");
    }
    assert_eq!(status(preflight(EVIL)).await, 403);

    let post = |origin| gateway.http.post(&url).header("Origin", origin).json(&json!({"user_id": "ann"}));
    let refused = soon(post(app).send()).await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["access-control-allow-origin"]),
        (401, &app.parse().unwrap())
    );
    let made = soon(post(app).bearer_auth(BACKEND).send()).await.unwrap();
    assert_eq!(
        (made.status().as_u16(), &made.headers()["cache-control"]),
        (201, &"no-store".parse().unwrap())
    );
    assert_eq!(status(post(EVIL).bearer_auth(BACKEND)).await, 403);

    let sessions = format!("{}/api/admin/sessions", gateway.url);
    let read =
        soon(gateway.http.get(sessions).header("Origin", EVIL).bearer_auth(BACKEND).send()).await.unwrap();
    assert_eq!(read.status(), 200, "with keys, other pages may read by a key");
    assert!(!read.headers().contains_key("access-control-allow-origin"));
}

#[actix_web::test]
async fn the_page_may_not_be_framed_and_loads_nothing_of_others() {
    let gateway = TestGateway::with(&[("LIVEKIT_URL", "wss://livekit.example")]).await;
    let get = async |path: &str| {
        soon(gateway.http.get(format!("{}{path}", gateway.url)).send()).await.unwrap().headers().clone()
    };

    let page = get("/").await;
    let policy = page["content-security-policy"].to_str().unwrap();
    let ws = gateway.url.replacen("http", "ws", 1);
    for part in
        ["default-src 'none'", "frame-ancestors 'none'", "script-src 'self'", &ws, "wss://livekit.example"]
    {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(page[name], value);
    }
    assert!(page["permissions-policy"].to_str().unwrap().contains("microphone=(self)"));
    for path in ["/", "/static/talk.js", "/livez", "/api/sessions/x", "/nowhere", "/clips/x.wav"] {
        let headers = get(path).await;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
    }
}
