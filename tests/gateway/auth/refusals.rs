//! Who may do what, and what becomes of requests that make no sense: the same on every route.

use june_client::{Gateway as Api, SessionInfo};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::{BACKEND, TestGateway, key, soon, user_id};

const UNKNOWN: &str = "018f0000-0000-7000-8000-000000000000";

/// Every path and the methods that it supports.
pub fn paths() -> Vec<(&'static str, Vec<Method>)> {
    table().into_iter().map(|(path, _, methods)| (path, methods)).collect()
}

/// Every path, who may use it, and the methods that it supports, from the table in src/http/router.rs.
pub fn table() -> Vec<(&'static str, &'static str, Vec<Method>)> {
    let source = include_str!("../../../src/http/router.rs");
    let table = source.split("fn routes(").nth(1).unwrap().split("\n}").next().unwrap();
    let paths: Vec<_> = table
        .split(".service(at(")
        .skip(1)
        .map(|row| {
            let path = row.split('"').nth(1).unwrap();
            let right = row.split('"').nth(2).unwrap().split('[').next().unwrap();
            let endpoints = row.split('[').nth(1).unwrap().split(']').next().unwrap();
            let endpoints = endpoints.split(',').filter(|endpoint| !endpoint.trim().is_empty());
            let methods = endpoints.map(|endpoint| endpoint.trim().split('(').next().unwrap());
            (
                path,
                right.trim_matches([',', ' ', '\n']),
                methods.map(|method| method.to_uppercase().parse().unwrap()).collect(),
            )
        })
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    paths
}

/// Every route but those for HEAD, which answer as GET does.
pub fn routes() -> Vec<(Method, &'static str)> {
    let routes = paths().into_iter().flat_map(|(path, methods)| {
        methods.into_iter().filter(|method| *method != Method::HEAD).map(move |method| (method, path))
    });
    routes.collect()
}

/// A path with something for each of its parameters.
pub fn filled(path: &str, value: &str) -> String {
    let mut filled = String::new();
    for part in path.split_inclusive('/') {
        let slash = if part.ends_with('/') { "/" } else { "" };
        let part = part.trim_end_matches('/');
        filled += if part.starts_with('{') { value } else { part };
        filled += slash;
    }
    filled
}

/// What was refused, as a program reads it; that it is a problem document is checked here.
pub async fn refusal(response: Response, request: &str) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let body = response.text().await.unwrap();
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{request}: {status} {body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status, "{request}");
    assert!(!problem["detail"].as_str().unwrap().is_empty(), "{request}");
    (status, problem["code"].as_str().unwrap().to_owned())
}

async fn refused(request: RequestBuilder, what: &str) -> (u16, String) {
    let response = soon(request.send()).await.unwrap();
    refusal(response, what).await
}

#[actix_web::test]
async fn no_request_makes_a_route_fail_and_every_refusal_is_a_problem_with_a_code() {
    let gateway = TestGateway::start().await;
    let ann = gateway.session("ann").await.session_id.to_string();
    let long = "x".repeat(5_000);
    let ids = [&ann, "nonsense", UNKNOWN, "%00", "%FF", "%2E%2E%2Fetc", "%20", long.as_str()];
    let queries = [
        "",
        "?limit=0",
        "?limit=many",
        "?cursor=%FF",
        "?cursor=nonsense",
        "?room=",
        "?room=%00",
        "?token=x",
        "?%",
    ];
    let deep = "[".repeat(10_000);
    let (large, huge) = (format!("\"{}\"", "x".repeat(70_000)), format!("\"{}\"", "x".repeat(300_000)));
    let bodies = ["", "{", "[]", "null", "7", "{}", r#"{"user_id":7}"#, "\u{0}", &deep, &large, &huge];
    let kinds = [Some("application/json"), Some("text/plain"), Some("nonsense"), None];

    for (method, path) in routes() {
        // What is wrong in one place is tried with everything else as it should be.
        let mut requests: Vec<(String, Option<&str>, &str)> = Vec::new();
        requests.extend(ids.iter().map(|id| (filled(path, id), kinds[0], "{}")));
        requests.extend(queries.iter().map(|query| (filled(path, UNKNOWN) + query, kinds[0], "{}")));
        requests.extend(bodies.iter().map(|body| (filled(path, UNKNOWN), kinds[0], *body)));
        requests.extend(kinds.iter().map(|kind| (filled(path, UNKNOWN), *kind, "{}")));
        for (target, kind, body) in requests {
            let what = format!("{method} {:.80} {kind:?} {body:.40}", target);
            let mut request = gateway.http.request(method.clone(), format!("{}{target}", gateway.url));
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let response = soon(request.body(body.to_owned()).send()).await.unwrap();
            assert_ne!(response.status(), 500, "{what}");
            // The control channel refuses in its own words (docs/PROTOCOL.md).
            if response.status().is_client_error() && !["/v1/ws", "/glasses-ws"].contains(&path) {
                refusal(response, &what).await;
            }
        }
    }
}

#[actix_web::test]
async fn what_is_wrong_with_a_request_is_told_apart() {
    let gateway = TestGateway::start().await;
    let ann = gateway.session("ann").await.session_id.to_string();
    let invite = json!({"session_id": ann, "guest_name": "Bob"}).to_string();
    let of_session = |end: &str| format!("/api/sessions/{{id}}{end}");
    let by_session: Vec<(Method, String)> = vec![
        (Method::GET, of_session("")),
        (Method::DELETE, of_session("")),
        (Method::POST, of_session("/token")),
        (Method::POST, of_session("/control-token")),
        (Method::POST, of_session("/guest-token")),
        (Method::GET, of_session("/participants")),
        (Method::DELETE, of_session("/participants/bob")),
        (Method::GET, of_session("/history")),
        (Method::POST, "/api/admin/sessions/{id}/disconnect".into()),
    ];
    let json_body = |method: &Method, path: &str, body: &str| {
        gateway
            .http
            .request(method.clone(), format!("{}{path}", gateway.url))
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    for (method, path) in &by_session {
        for (id, expected) in [(UNKNOWN, (404, "SESSION_NOT_FOUND")), ("nonsense", (400, "INVALID_REQUEST"))]
        {
            let path = path.replace("{id}", id);
            let (status, code) = refused(json_body(method, &path, &invite), &path).await;
            assert_eq!((status, code.as_str()), expected, "{method} {path}");
        }
    }

    let guest_token = format!("/api/sessions/{ann}/guest-token");
    let participants = format!("/api/sessions/{ann}/participants");
    let history = format!("/api/sessions/{ann}/history");
    let large = "x".repeat(70_000);
    let too_large = format!(r#"{{"user_id":"{large}"}}"#);
    let away = (502, "MEDIA_UNAVAILABLE");
    let invalid = (400, "INVALID_REQUEST");
    for (method, path, body, expected) in [
        (Method::POST, "/api/sessions", "{", invalid),
        (Method::POST, "/api/sessions", r#"{"user_id":""}"#, invalid),
        (Method::POST, "/api/sessions", &too_large, (413, "TOO_LARGE")),
        (Method::POST, &guest_token, r#"{"guest_name":"Bob"}"#, invalid),
        (Method::GET, &format!("{history}?limit=0"), "", invalid),
        (Method::GET, "/api/admin/sessions?limit=501", "", invalid),
        (Method::GET, "/api/admin/sessions?cursor=nonsense", "", invalid),
        (Method::GET, "/api/admin/rooms?limit=0", "", invalid),
        (Method::GET, "/api/admin/recordings?room=", "", invalid),
        (Method::POST, "/api/admin/rooms/%00/recordings", "{}", invalid),
        (Method::POST, "/api/admin/rooms/a/recordings", r#"{"audio_only":7}"#, invalid),
        (Method::GET, &participants, "", away),
        (Method::DELETE, &format!("{participants}/bob"), "", away),
        (Method::GET, "/api/admin/rooms", "", away),
        (Method::GET, "/api/admin/rooms/a/stats", "", away),
        (Method::POST, "/api/admin/rooms/a/recordings", "{}", away),
        (Method::GET, "/api/admin/recordings", "", away),
        (Method::DELETE, "/api/admin/recordings/EG_1", "", away),
        (Method::GET, "/nowhere", "", (404, "NOT_FOUND")),
        (Method::PUT, "/api/sessions", "", (405, "METHOD_NOT_ALLOWED")),
    ] {
        let (status, code) = refused(json_body(&method, path, body), path).await;
        assert_eq!((status, code.as_str()), expected, "{method} {path} {body:.40}");
    }
    for path in ["/api/sessions", &guest_token, "/api/admin/rooms/a/recordings"] {
        let request =
            gateway.http.post(format!("{}{path}", gateway.url)).header("content-type", "text/plain");
        let (status, code) = refused(request.body("{}"), path).await;
        assert_eq!((status, code.as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{path}");
    }
}

#[actix_web::test]
async fn nobody_reaches_what_is_not_theirs() {
    let gateway =
        TestGateway::with(&[("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("AUTH_FAILURES_PER_MINUTE", "0")])
            .await;
    let backend = Api::new(&gateway.url, key(BACKEND));
    let ann: SessionInfo = backend.create_session(&user_id("ann")).await.unwrap();
    let bob: SessionInfo = backend.create_session(&user_id("bob")).await.unwrap();
    let invite =
        json!({"session_id": ann.session_id, "guest_name": "Eve", "room": ann.room_name}).to_string();
    let anns = ann.session_id.to_string();

    for (method, path) in routes() {
        // What phones call is about whose token it is; the description is for everybody.
        if !path.starts_with("/api/")
            || path.starts_with("/api/client/")
            || path.contains("webhook")
            || path == "/api/asyncapi.json"
        {
            continue;
        }
        let target = filled(path, &anns);
        let request = || {
            let body = if path == "/api/sessions" { r#"{"user_id":"ann"}"# } else { &invite };
            gateway
                .http
                .request(method.clone(), format!("{}{target}?room={}", gateway.url, ann.room_name))
                .header("content-type", "application/json")
                .body(body.to_owned())
        };
        let what = format!("{method} {path}");
        let (status, code) = refused(request(), &what).await;
        assert_eq!((status, code.as_str()), (401, "MISSING_TOKEN"), "{what}");
        let (status, code) = refused(request().bearer_auth("guess"), &what).await;
        assert_eq!((status, code.as_str()), (401, "INVALID_TOKEN"), "{what}");
        let (status, code) = refused(request().header("x-api-key", "guess"), &what).await;
        assert_eq!((status, code.as_str()), (401, "INVALID_TOKEN"), "{what}");
        let (status, code) = refused(request().bearer_auth(&bob.control_token), &what).await;
        assert_eq!((status, code.as_str()), (403, "FORBIDDEN"), "{what}");
    }
}
