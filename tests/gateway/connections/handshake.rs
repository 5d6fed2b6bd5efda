//! Requests for an upgrade (RFC 6455 §4).

use super::raw_http::{RawClient, UPGRADE, get};
use crate::support::TestGateway;

const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The head of the response, in lower case.
async fn head(gateway: &TestGateway, request: &str) -> String {
    let mut client = RawClient::sends(gateway, request).await;
    let read = client.read_until("\r\n\r\n").await;
    read.split("\r\n\r\n").next().unwrap().to_lowercase()
}

#[actix_web::test]
async fn another_version_than_13_is_refused_with_the_one_that_is_spoken() {
    let gateway = TestGateway::start().await;
    for version in ["0", "7", "8", "12", "14", "13, 8", ""] {
        for path in ["/v1/ws", "/api/consumer/ws"] {
            let headers = UPGRADE.replace(VERSION, &format!("Sec-WebSocket-Version: {version}\r\n"));
            let head = head(&gateway, &get(path, &headers)).await;
            assert!(head.starts_with("http/1.1 426 "), "{version}: {head}");
            assert!(head.contains("sec-websocket-version: 13"), "{version}: {head}");
        }
    }
}

#[actix_web::test]
async fn a_request_without_a_header_or_with_a_bad_key_is_refused() {
    let gateway = TestGateway::start().await;
    let without = |line: &str| UPGRADE.replace(line, "");
    let with_key = |key: &str| UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
    for headers in [
        without(VERSION),
        without(KEY),
        without("Connection: Upgrade\r\n"),
        without("Upgrade: websocket\r\n"),
        with_key(""),
        with_key("c2hvcnQ="),
        with_key("dGhlIHNhbXBsZSBub25jZQ"),
        with_key("dGhlIHNhbXBsZSBub25jZSE="),
        with_key("not base64 of 16 bytes!!"),
    ] {
        for path in ["/v1/ws", "/api/consumer/ws"] {
            let head = head(&gateway, &get(path, &headers)).await;
            assert!(head.starts_with("http/1.1 400 "), "{headers}: {head}");
            assert!(head.contains("json"), "{headers}: {head}");
        }
    }
}

#[actix_web::test]
async fn of_the_subprotocols_the_known_one_is_chosen_and_no_extension() {
    let gateway = TestGateway::start().await;
    let extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for (offered, chosen) in [("", None), ("edge.v1", Some("edge.v1")), ("soap, edge.v1", Some("edge.v1"))] {
        let offer =
            if offered.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {offered}\r\n") };

        let head = head(&gateway, &get("/v1/ws", &[UPGRADE, extension, &offer].concat())).await;

        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        let protocol = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(protocol, chosen, "{head}");
    }
    let head =
        head(&gateway, &get("/v1/ws", &[UPGRADE, "Sec-WebSocket-Protocol: EDGE.V1\r\n"].concat())).await;
    assert!(head.starts_with("http/1.1 400 "), "names of subprotocols are compared exactly: {head}");
}
