//! Who gets onto the control channel by which token, how often, and for how long.

use std::{io::Write, time::Duration};

use aws_lc_rs::hmac;
use futures::{SinkExt, StreamExt};
use june_client::{Channel, ClientError};
use june_edge::protocol::{
    ToClient,
    edge_v1::from_client::{ConnectionInit, Resume},
};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::{
    issuer::{Issuer, Signer, key_set, token},
    support::{TestGateway, USERS_SECRET, soon},
};

fn in_seconds(seconds: i64) -> i64 {
    june_edge::clock::unix_s() as i64 + seconds
}

/// What a provider says of a user.
fn claims(user: &str) -> Value {
    json!({"sub": "1", "email": user, "exp": in_seconds(600)})
}

/// A token of a user's by the shared secret.
fn shared(claims: &Value) -> String {
    token(&json!({"alg": "HS256", "typ": "JWT"}), claims, |message| {
        hmac_sha256(USERS_SECRET.as_bytes(), message)
    })
}

fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

/// Whom the gateway takes the holder of this token for; or the code of its refusal.
async fn who(gateway: &TestGateway, token: &str) -> Result<String, String> {
    match soon(Channel::open(&gateway.ws_url(), token, ConnectionInit::default())).await {
        Ok((_, ack)) => Ok(ack.user_session.user_id.to_string()),
        Err(ClientError::Refused { code, .. }) => Err(code),
        Err(error) => panic!("{error}"),
    }
}

/// Tries until the gateway takes the holder for this user.
async fn becomes(gateway: &TestGateway, token: &str, expected: Result<&str, &str>) {
    soon(async {
        while who(gateway, token).await.as_deref().map_err(String::as_str) != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A connection on which nothing was said yet.
struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// An upgrade that was refused.
#[derive(Debug)]
struct Refused {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Raw {
    async fn open(
        gateway: &TestGateway,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Refused> {
        let mut request = format!("{}{query}", gateway.ws_url()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        // A TLS handshake's state is larger than a caller's future should be.
        match Box::pin(soon(connect_async(request))).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body: serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap(),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message of this type.
    async fn wait_for(&mut self, kind: &str) -> Value {
        soon(async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] == kind {
                        return message;
                    }
                }
            }
        })
        .await
    }

    /// The code that the channel is closed with.
    async fn closed(&mut self) -> u16 {
        soon(async {
            loop {
                if let Message::Close(Some(close)) = self.0.next().await.unwrap().unwrap() {
                    return close.code.into();
                }
            }
        })
        .await
    }

    /// Whom the gateway takes them for.
    async fn user(&mut self) -> String {
        let ack = self.wait_for("connection_ack").await;
        ack["userSession"]["userId"].as_str().unwrap().to_owned()
    }
}

// --- Which token ----------------------------------------------------------------------------------

#[actix_web::test]
async fn the_header_comes_before_the_address_and_the_address_before_the_first_message() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let of = |user: &str| shared(&claims(user));
    let (header, query) = (format!("Bearer {}", of("header")), format!("?token={}", of("query")));
    let init = json!({"type": "connection_init", "token": of("message")});

    for (query, headers, user) in [
        (query.as_str(), vec![("authorization", header.as_str())], "header"),
        (query.as_str(), vec![], "query"),
        ("", vec![], "message"),
    ] {
        let mut raw = Raw::open(&gateway, query, &headers).await.unwrap();
        raw.say(&init).await;
        assert_eq!(raw.user().await, user);
    }
}

#[actix_web::test]
async fn a_token_in_the_first_message_is_as_good_and_as_bad_as_any() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let session = gateway.session("ann").await;
    let expired = shared(&json!({"sub": "ann", "exp": in_seconds(-600)}));

    for (init, code) in [
        (json!({"type": "connection_init"}), "MISSING_TOKEN"),
        (json!({"type": "connection_init", "token": "nonsense"}), "INVALID_TOKEN"),
        (json!({"type": "connection_init", "token": expired}), "EXPIRED_TOKEN"),
    ] {
        let mut raw = Raw::open(&gateway, "", &[]).await.unwrap();
        raw.say(&init).await;
        assert_eq!(raw.wait_for("connection_error").await["code"], code);
        assert_eq!(raw.closed().await, 4401);
    }
    for name in ["token", "coreToken"] {
        let mut raw = Raw::open(&gateway, "", &[]).await.unwrap();
        raw.say(&json!({"type": "connection_init", name: session.control_token})).await;
        let ack = raw.wait_for("connection_ack").await;
        assert_eq!(ack["sessionId"], session.session_id.to_string());
    }
}

#[actix_web::test]
async fn who_brings_no_token_and_says_nothing_is_let_go() {
    let gateway = TestGateway::start().await;
    let mut raw = Raw::open(&gateway, "", &[]).await.unwrap();
    assert_eq!(raw.wait_for("connection_error").await["code"], "MISSING_TOKEN");
    assert_eq!(raw.closed().await, 4401);
}

#[actix_web::test]
async fn who_says_something_else_than_who_they_are_learns_nothing() {
    let gateway = TestGateway::start().await;
    let mut raw = Raw::open(&gateway, "", &[]).await.unwrap();
    raw.say(&json!({"type": "subscribe:participants", "room": "room-a"})).await;
    assert_eq!(raw.wait_for("error").await["code"], "SESSION_ERROR");
}

// --- Whose keys -----------------------------------------------------------------------------------

#[actix_web::test]
async fn a_token_of_each_algorithm_is_verified_by_its_providers_key() {
    let (rs, es, ed) = (Signer::rs256("r"), Signer::es256("e"), Signer::eddsa("d"));
    let issuer = Issuer::start(&[&rs, &es, &ed]).await;
    let gateway =
        TestGateway::with(&[("AUTH_JWKS_URL", &issuer.url), ("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    assert_eq!(issuer.asked(), 0, "not before a token needs it");

    for signer in [&rs, &es, &ed] {
        let token = signer.token(&claims("ann@example.org"));
        assert_eq!(who(&gateway, &token).await.unwrap(), "ann@example.org");
        let expired = signer.token(&json!({"sub": "ann", "exp": in_seconds(-600)}));
        assert_eq!(who(&gateway, &expired).await.unwrap_err(), "EXPIRED_TOKEN");
    }
    assert_eq!(who(&gateway, &shared(&claims("bob"))).await.unwrap(), "bob", "the secret still works");
    assert_eq!(issuer.asked(), 1, "once for all of them");
}

#[actix_web::test]
async fn nobody_talks_the_gateway_into_another_algorithm_or_key() {
    let (rs, other, es) = (Signer::rs256("r"), Signer::rs256("other"), Signer::es256("e"));
    let issuer = Issuer::start(&[&rs, &other, &es]).await;
    let gateway =
        TestGateway::with(&[("AUTH_JWKS_URL", &issuer.url), ("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let claims = claims("ann");
    assert_eq!(who(&gateway, &rs.token(&claims)).await.unwrap(), "ann");

    let with = |alg: &str, kid: Value, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        token(&json!({"alg": alg, "kid": kid}), &claims, sign)
    };
    let jwk = rs.jwk();
    let modulus = jwk["n"].as_str().unwrap().to_owned();
    let forged = [
        ("HS256 by the public key", with("HS256", json!("r"), &|message| hmac_sha256(&rs.public(), message))),
        (
            "HS256 by the modulus",
            with("HS256", json!("r"), &|message| hmac_sha256(modulus.as_bytes(), message)),
        ),
        (
            "HS256 by the key's text",
            with("HS256", json!("r"), &|message| hmac_sha256(jwk.to_string().as_bytes(), message)),
        ),
        ("no signature", with("none", json!("r"), &|_| Vec::new())),
        ("no signature by any name", with("NONE", Value::Null, &|_| Vec::new())),
        ("an empty signature", with("RS256", json!("r"), &|_| Vec::new())),
        ("another key's name", with("RS256", json!("other"), &|message| rs.sign(message))),
        ("a name that is not known", with("RS256", json!("nobody"), &|message| rs.sign(message))),
        ("no name where there is a choice", with("RS256", Value::Null, &|message| rs.sign(message))),
        ("a hash that is not allowed", with("RS512", json!("r"), &|message| rs.sign(message))),
        ("another padding", with("PS256", json!("r"), &|message| rs.sign(message))),
        ("another kind of key", with("ES256", json!("r"), &|message| es.sign(message))),
        ("another kind of signature", with("RS256", json!("r"), &|message| es.sign(message))),
        ("a stranger's key of that name", Signer::rs256("r").token(&claims)),
    ];
    for (what, token) in forged {
        assert_eq!(who(&gateway, &token).await.unwrap_err(), "INVALID_TOKEN", "{what}");
    }
    let nameless = with("ES256", Value::Null, &|message| es.sign(message));
    assert_eq!(who(&gateway, &nameless).await.unwrap(), "ann", "without a choice no name is needed");
}

#[actix_web::test]
async fn issuer_and_audience_must_be_those_that_are_set() {
    let signer = Signer::es256("e");
    let issuer = Issuer::start(&[&signer]).await;
    let settings = [
        ("AUTH_JWKS_URL", issuer.url.as_str()),
        ("AUTH_JWT_ISSUER", "https://id.example"),
        ("AUTH_JWT_AUDIENCE", "june"),
    ];
    let gateway = TestGateway::with(&settings).await;
    let of = |more: &[(&str, &str)]| {
        let mut claims = claims("ann");
        for (name, value) in more {
            claims[*name] = (*value).into();
        }
        signer.token(&claims)
    };
    let (iss, aud) = (("iss", "https://id.example"), ("aud", "june"));

    assert_eq!(who(&gateway, &of(&[iss, aud])).await.unwrap(), "ann");
    for wrong in [&[iss][..], &[aud], &[], &[iss, ("aud", "other")], &[aud, ("iss", "https://evil.example")]]
    {
        assert_eq!(who(&gateway, &of(wrong)).await.unwrap_err(), "INVALID_TOKEN", "{wrong:?}");
    }
}

#[actix_web::test]
async fn a_token_without_an_end_needs_the_compatibility_switch() {
    let signer = Signer::eddsa("d");
    let issuer = Issuer::start(&[&signer]).await;
    let endless = signer.token(&json!({"sub": "ann"}));
    for (switch, expected) in [("false", Err("INVALID_TOKEN".to_owned())), ("true", Ok("ann".to_owned()))] {
        let settings = [("AUTH_JWKS_URL", issuer.url.as_str()), ("MENTRA_COMPAT_NO_EXP", switch)];
        assert_eq!(who(&TestGateway::with(&settings).await, &endless).await, expected);
    }
}

#[actix_web::test]
async fn keys_that_the_provider_changed_are_found() {
    let (before, after) = (Signer::es256("before"), Signer::es256("after"));
    let issuer = Issuer::start(&[&before]).await;
    let gateway = TestGateway::with(&[("AUTH_JWKS_URL", &issuer.url), ("AUTH_JWKS_COOLDOWN_MS", "1")]).await;
    assert_eq!(who(&gateway, &before.token(&claims("ann"))).await.unwrap(), "ann");

    issuer.publish(&[&after]);

    becomes(&gateway, &after.token(&claims("ann")), Ok("ann")).await;
    assert_eq!(who(&gateway, &before.token(&claims("ann"))).await.unwrap_err(), "INVALID_TOKEN");
}

#[actix_web::test]
async fn made_up_key_names_cost_the_provider_nothing() {
    let signer = Signer::es256("e");
    let issuer = Issuer::start(&[&signer]).await;
    let gateway =
        TestGateway::with(&[("AUTH_JWKS_URL", &issuer.url), ("AUTH_JWKS_COOLDOWN_MS", "3600000")]).await;
    for n in 0..10 {
        let stranger = Signer::es256(&format!("made up {n}")).token(&claims("ann"));
        assert_eq!(who(&gateway, &stranger).await.unwrap_err(), "INVALID_TOKEN");
    }
    assert_eq!(issuer.asked(), 1);
}

#[actix_web::test]
async fn the_last_good_keys_count_while_the_provider_is_away() {
    let signer = Signer::es256("e");
    let issuer = Issuer::start(&[&signer]).await;
    let gateway = TestGateway::with(&[("AUTH_JWKS_URL", &issuer.url), ("AUTH_JWKS_COOLDOWN_MS", "1")]).await;
    let good = signer.token(&claims("ann"));
    assert_eq!(who(&gateway, &good).await.unwrap(), "ann");
    let stranger = Signer::es256("stranger").token(&claims("ann"));

    let elsewhere = Issuer::start(&[&Signer::es256("stranger")]).await;
    let too_large = format!("{{\"keys\": [\"{}\"]}}", "x".repeat(1_000_000));
    for (status, body) in [
        (503, "{}"),
        (200, "nonsense"),
        (200, r#"{"keys": []}"#),
        (200, too_large.as_str()),
        (302, elsewhere.url.as_str()),
    ] {
        issuer.answer(status, body);
        let before = issuer.asked();
        soon(async {
            while issuer.asked() == before {
                assert_eq!(who(&gateway, &stranger).await.unwrap_err(), "INVALID_TOKEN");
            }
        })
        .await;
        assert_eq!(who(&gateway, &good).await.unwrap(), "ann", "{status} {body:.20}");
    }
    assert_eq!(elsewhere.asked(), 0, "nobody is sent elsewhere");
}

#[actix_web::test]
async fn while_the_providers_keys_were_never_had_a_client_is_told_to_try_again() {
    let signer = Signer::es256("e");
    let issuer = Issuer::start(&[&signer]).await;
    issuer.answer(503, "");
    let gateway = TestGateway::with(&[("AUTH_JWKS_URL", &issuer.url), ("AUTH_JWKS_COOLDOWN_MS", "1")]).await;
    let good = signer.token(&claims("ann"));

    let refused = Raw::open(&gateway, &format!("?token={good}"), &[]).await.err().unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("AUTH_UNAVAILABLE")));
    assert_eq!(
        (refused.headers["retry-after"].as_bytes(), &refused.body["retryable"]),
        (&b"1"[..], &json!(true))
    );
    let mut raw = Raw::open(&gateway, "", &[]).await.unwrap();
    raw.say(&json!({"type": "connection_init", "token": good})).await;
    assert_eq!(raw.closed().await, 1013);
    let path = format!("{}/api/sessions/018f0000-0000-7000-8000-000000000000", gateway.url);
    assert_eq!(gateway.http.get(path).bearer_auth(&good).send().await.unwrap().status(), 503);
    assert!(gateway.session("bob").await.control_token.len() > 20, "what needs no provider works");

    issuer.publish(&[&signer]);
    becomes(&gateway, &good, Ok("ann")).await;
}

#[actix_web::test]
async fn keys_may_come_from_a_file_and_a_changed_file_is_read_again() {
    let (before, after) = (Signer::rs256("before"), Signer::rs256("after"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{}", key_set(&[&before])).unwrap();
    let path = file.path().display().to_string();
    let gateway = TestGateway::with(&[("AUTH_JWKS_FILE", &path), ("AUTH_JWKS_COOLDOWN_MS", "1")]).await;
    assert_eq!(who(&gateway, &before.token(&claims("ann"))).await.unwrap(), "ann");

    std::fs::write(file.path(), key_set(&[&after]).to_string()).unwrap();

    becomes(&gateway, &after.token(&claims("ann")), Ok("ann")).await;
}

// --- How long -------------------------------------------------------------------------------------

#[actix_web::test]
async fn a_client_whose_token_ends_is_told_so_and_goes_on_with_a_new_one() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    // The gateway allows for clocks that differ by 5 s.
    let short = shared(&json!({"sub": "ann", "exp": in_seconds(6)}));
    let mut raw = Raw::open(&gateway, &format!("?token={short}"), &[]).await.unwrap();
    raw.say(&json!({"type": "connection_init"})).await;
    let ack = raw.wait_for("connection_ack").await;

    assert_eq!(raw.wait_for("auth_error").await["message"], "the token has expired");
    assert_eq!(raw.closed().await, 4401);

    let resume = Resume {
        session_id: ack["sessionId"].as_str().unwrap().parse().unwrap(),
        resume_token: ack["resumeToken"].as_str().unwrap().to_owned(),
        last_server_seq: 0,
        last_audio_seq: 0,
    };
    let init = ConnectionInit { resume: Some(resume), ..ConnectionInit::default() };
    let fresh = shared(&json!({"sub": "ann", "exp": in_seconds(600)}));
    let (_, again) = Channel::open(&gateway.ws_url(), &fresh, init).await.unwrap();
    assert!(again.resumed);
    assert_eq!(json!(again.session_id), ack["sessionId"]);
}

// --- How often ------------------------------------------------------------------------------------

fn seconds(headers: &HeaderMap) -> u64 {
    headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[actix_web::test]
async fn a_user_who_connects_too_often_is_told_when_to_come_back() {
    let settings = [("AUTH_JWT_SECRET", USERS_SECRET), ("CONNECTS_PER_MINUTE_BY_USER", "1")];
    let gateway = TestGateway::with(&settings).await;
    let (ann, bob) = (shared(&claims("ann")), shared(&claims("bob")));
    Raw::open(&gateway, &format!("?token={ann}"), &[]).await.unwrap();

    let refused = Raw::open(&gateway, &format!("?token={ann}"), &[]).await.err().unwrap();

    assert_eq!(refused.status, 429);
    assert_eq!(
        (&refused.body["type"], &refused.body["code"]),
        (&json!("connection_error"), &json!("RATE_LIMITED"))
    );
    assert!((1..=60).contains(&seconds(&refused.headers)), "{refused:?}");
    let wait = Duration::from_millis(refused.body["retryAfterMs"].as_u64().unwrap());
    assert!(wait <= Duration::from_secs(60));
    serde_json::from_value::<ToClient>(refused.body).unwrap();

    let mut raw = Raw::open(&gateway, "", &[]).await.unwrap();
    raw.say(&json!({"type": "connection_init", "token": ann})).await;
    assert_eq!(raw.wait_for("connection_error").await["code"], "RATE_LIMITED");
    assert_eq!(raw.closed().await, 4429);
    Raw::open(&gateway, &format!("?token={bob}"), &[]).await.unwrap();
}

#[actix_web::test]
async fn an_address_that_connects_too_often_is_told_so_before_its_token_is_looked_at() {
    let settings = [("CONNECTS_PER_MINUTE_BY_ADDRESS", "1"), ("CLIENT_ADDRESS_HEADER", "X-Forwarded-For")];
    let gateway = TestGateway::with(&settings).await;
    let from = |address| [("x-forwarded-for", address)];

    assert_eq!(Raw::open(&gateway, "?token=guess", &from("203.0.113.7")).await.err().unwrap().status, 401);
    let refused = Raw::open(&gateway, "?token=guess", &from("203.0.113.7")).await.err().unwrap();

    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("RATE_LIMITED")));
    assert!((1..=60).contains(&seconds(&refused.headers)), "{refused:?}");
    let spoofed = from("198.51.100.1, 203.0.113.7");
    assert_eq!(Raw::open(&gateway, "", &spoofed).await.err().unwrap().status, 429);
    assert!(Raw::open(&gateway, "", &from("203.0.113.8")).await.is_ok());
    for _ in 0..3 {
        assert!(Raw::open(&gateway, "", &[]).await.is_ok(), "this machine itself is not counted");
    }
}

#[actix_web::test]
async fn a_limit_of_0_is_none() {
    let settings = [("AUTH_JWT_SECRET", USERS_SECRET), ("CONNECTS_PER_MINUTE_BY_USER", "0")];
    let gateway = TestGateway::with(&settings).await;
    let ann = shared(&claims("ann"));
    for _ in 0..70 {
        assert!(Raw::open(&gateway, &format!("?token={ann}"), &[]).await.is_ok());
    }
}
