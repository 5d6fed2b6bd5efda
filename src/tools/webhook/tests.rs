use std::sync::Mutex;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use serde_json::Value;

use super::*;
use crate::ids::{SessionId, TurnId, UserId};

/// The headers and the body of a request.
type Asked = (Vec<(String, String)>, Bytes);

/// What a backend answers, and what it was asked.
struct Backend {
    url: String,
    asked: web::Data<Mutex<Vec<Asked>>>,
    server: ServerHandle,
}

impl Backend {
    async fn start(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        let asked = web::Data::new(Mutex::new(Vec::new()));
        let data = asked.clone();
        let server = HttpServer::new(move || {
            let (data, body) = (data.clone(), body.clone());
            App::new().app_data(data.clone()).default_service(web::to(
                move |request: HttpRequest, asked: web::Data<Mutex<Vec<Asked>>>, payload: Bytes| {
                    let headers = request.headers().iter();
                    let headers = headers.map(|(name, value)| {
                        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
                    });
                    asked.lock().unwrap().push((headers.collect::<Vec<(String, String)>>(), payload));
                    let mut response =
                        HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap());
                    response.insert_header(("Content-Type", content_type));
                    response.insert_header(("Location", "http://127.0.0.1:1/elsewhere"));
                    std::future::ready(response.body(body.clone()))
                },
            ))
        })
        .workers(1)
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("http://{}/hooks/", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, asked, server: handle }
    }

    async fn call(&self) -> Result<ToolOutput, String> {
        let webhooks = webhooks(&[&self.url]);
        let url = webhooks.check(&format!("{}weather", self.url)).unwrap();
        let result = webhooks.call(url, &invocation()).await;
        self.server.stop(false).await;
        result
    }
}

fn secret() -> WebhookSecret {
    WebhookSecret::parse(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap()
}

fn webhooks(urls: &[&str]) -> Webhooks {
    crate::gateway::install_crypto_providers();
    let urls = urls.iter().map(|url| AllowedUrl::parse(url).unwrap()).collect();
    Webhooks::new(WebhookConfig { urls, secret: secret() }).unwrap()
}

fn invocation() -> Invocation {
    Invocation {
        session: SessionId::from_u128(7),
        user: UserId::parse("ann").unwrap(),
        turn: TurnId(3),
        call_id: "call_3_1".into(),
        name: "weather".into(),
        arguments: json!({"place": "Wien"}),
    }
}

/// The example of the specification's own libraries.
#[test]
fn a_signature_is_that_of_standard_webhooks() {
    let signature = secret().sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);

    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_secret_is_long_enough_and_does_not_show() {
    assert_eq!(format!("{:?}", secret()), "WebhookSecret");
    for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!"] {
        let problem = WebhookSecret::parse(&Secret::new(wrong)).err();
        assert_eq!(problem.as_deref(), Some("must be whsec_ and 24 to 64 bytes in base64"), "{wrong}");
    }
}

#[test]
fn only_what_the_operator_allows_is_called() {
    let webhooks = webhooks(&["https://june.example/hooks/", "http://127.0.0.1:9000/one"]);
    for url in [
        "https://june.example/hooks/weather?units=metric",
        "https://JUNE.example:443/hooks/",
        "http://127.0.0.1:9000/one",
    ] {
        assert!(webhooks.check(url).is_ok(), "{url}");
    }
    for url in [
        "http://june.example/hooks/weather",
        "https://june.example:8443/hooks/weather",
        "https://june.example/hooks",
        "https://june.example/hooks/../admin",
        "https://june.example/hooks/%2e%2e/admin",
        "https://june.example/hooks/..%2fadmin",
        "https://june.example/hooks\\..\\admin",
        "https://june.example.evil.example/hooks/",
        "https://june.example@evil.example/hooks/",
        "https://user@june.example/hooks/",
        "http://127.0.0.1:9000/one/two",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "weather",
    ] {
        assert!(webhooks.check(url).is_err(), "{url}");
    }
}

#[actix_web::test]
async fn a_backend_gets_the_call_and_its_text_is_the_result() {
    let backend = Backend::start(200, "application/json", br#"{"degrees":20}"#.to_vec()).await;

    let output = backend.call().await.unwrap();

    assert_eq!(output.text, r#"{"degrees":20}"#);
    let asked = backend.asked.lock().unwrap();
    let (headers, body) = &asked[0];
    let header = |name: &str| &headers.iter().find(|(other, _)| other == name).unwrap().1;
    let sent: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&sent["name"], &sent["arguments"]), (&json!("weather"), &json!({"place": "Wien"})));
    assert_eq!((&sent["user_id"], &sent["call_id"]), (&json!("ann"), &json!("call_3_1")));
    let timestamp = header("webhook-timestamp").parse().unwrap();
    assert_eq!(*header("webhook-signature"), secret().sign(header("webhook-id"), timestamp, body));
}

#[actix_web::test]
async fn an_image_of_a_backend_is_told_by_its_bytes() {
    let png = b"\x89PNG\r\n\x1a\n....".to_vec();
    let output = Backend::start(200, "image/png", png).await.call().await.unwrap();
    assert_eq!(output.image.unwrap().media_type(), "image/png");

    let html = Backend::start(200, "image/png", b"<html>".to_vec()).await.call().await;
    assert_eq!(html.unwrap_err(), "the image is neither JPEG nor PNG");
}

#[actix_web::test]
async fn a_refusal_a_redirect_and_an_endless_result_are_errors_with_the_reason() {
    let refused = Backend::start(422, "application/json", br#"{"detail":"no such place"}"#.to_vec()).await;
    let refused = refused.call().await.unwrap_err();
    assert!(refused.contains("HTTP 422: no such place"), "{refused}");

    let redirect = Backend::start(307, "text/plain", Vec::new()).await.call().await.unwrap_err();
    assert!(redirect.contains("HTTP 307"), "{redirect}");

    let endless = Backend::start(200, "text/plain", vec![b'x'; 5_000_000]).await.call().await.unwrap_err();
    assert!(endless.contains("more than 16384 bytes"), "{endless}");

    let binary = Backend::start(200, "application/octet-stream", vec![0xff; 10]).await.call().await;
    assert_eq!(binary.unwrap_err(), "the result is neither text nor an image");
}
