//! Which methods a path supports, and what becomes of others.

use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    auth::refusals::{filled, paths, refusal},
    support::{TestGateway, soon},
};

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

async fn send(gateway: &TestGateway, method: &Method, path: &str) -> reqwest::Response {
    soon(gateway.http.request(method.clone(), format!("{}{path}", gateway.url)).send()).await.unwrap()
}

#[actix_web::test]
async fn a_path_answers_a_method_that_it_does_not_support_with_405_and_those_it_does() {
    let gateway = TestGateway::start().await;
    let paths = paths();
    assert!(paths.len() > 30, "{paths:?}");
    for (path, supported) in paths {
        let target = filled(path, "x");
        for method in METHODS.iter().filter(|method| !supported.contains(method)) {
            let what = format!("{method} {path}");
            let response = send(&gateway, method, &target).await;
            assert_eq!(response.status(), 405, "{what}");
            let allow = response.headers()["allow"].to_str().unwrap();
            let allowed: Vec<Method> = allow.split(", ").map(|method| method.parse().unwrap()).collect();
            assert_eq!(allowed, supported, "{what}");
            if *method != Method::HEAD {
                assert_eq!(refusal(response, &what).await, (405, "METHOD_NOT_ALLOWED".into()), "{what}");
            }
        }
    }
}

#[actix_web::test]
async fn an_unknown_path_is_404_by_every_method() {
    let gateway = TestGateway::start().await;
    for method in METHODS {
        assert_eq!(send(&gateway, &method, "/nowhere").await.status(), 404, "{method}");
    }
}

#[actix_web::test]
async fn pages_and_probes_answer_head_without_a_body() {
    let gateway = TestGateway::start().await;
    let pages = ["/", "/livez", "/readyz", "/health", "/metrics", "/static/talk.js", "/api/asyncapi.json"];
    for path in pages {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");

        let read = soon(async {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut read = String::new();
            stream.read_to_string(&mut read).await.unwrap();
            read
        })
        .await;

        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        assert_eq!(body, "", "{path}");
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        assert!(length.is_some_and(|length: usize| length > 0), "{path}: {head}");
    }
}
