//! `POST /api/ai/chat`

use base64::{Engine, prelude::BASE64_STANDARD};
use june_edge::{
    clock,
    protocol::{ToClient, edge_v1::to_client::Finish},
};
use reqwest::header::ACCEPT;
use serde_json::{Value, json};
use test_support::{
    Answers, OpenAi,
    llm::{Answer as LlmAnswer, KEY as LLM_KEY, LlmApi, LlmServer, Step as LlmStep},
    tts_servers::{KEY as TTS_KEY, Script, TtsServer, Vendor, sound},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{BACKEND, TestGateway, USERS_SECRET, answer, soon};

const PATH: &str = "/api/ai/chat";

const ECHO: [(&str, &str); 2] = [("LLM", "echo"), ("LINES_PER_MINUTE_BY_USER", "0")];

/// A gateway with a language model that answers "Yes.", if it is not told otherwise.
async fn gateway(llm: &LlmServer, settings: &[(&str, &str)]) -> TestGateway {
    let url = llm.url();
    let own = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_API_KEY", LLM_KEY), ("LLM", "openai")];
    TestGateway::with(&[&own, settings].concat()).await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

/// The lines of a session's history, with who said them.
async fn history(gateway: &TestGateway, session: &Value) -> Vec<(String, String)> {
    let (status, history) = gateway.get(&format!("/api/sessions/{}/history", text(session))).await;
    assert_eq!(status, 200, "{history}");
    let line = |line: &Value| (text(&line["kind"]).to_owned(), text(&line["text"]).to_owned());
    history["lines"].as_array().unwrap().iter().map(line).collect()
}

/// The events of a stream: their names and data.
fn events(stream: &str) -> Vec<(String, Value)> {
    let blocks = stream.split("\n\n").filter(|block| block.starts_with("event: "));
    let event = |block: &str| {
        let (name, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    };
    blocks.map(event).collect()
}

#[actix_web::test]
async fn a_line_without_a_session_makes_one_and_the_next_goes_on_with_it() {
    let gateway = TestGateway::with(&ECHO).await;

    let (status, first) = gateway.post(PATH, &json!({"message": "Hello.", "user_id": "ann"})).await;

    assert_eq!(status, 200, "{first}");
    assert!(text(&first["text"]).contains("Hello."), "{first}");
    assert_eq!((&first["audio_url"], text(&first["finish"])), (&Value::Null, "stop"));
    assert!(first["processing_time_ms"].is_u64(), "{first}");
    let again = json!({"text": "And again.", "session_id": first["session_id"], "language": "en"});
    let (status, second) = gateway.post("/api/ai/process", &again).await;
    assert_eq!((status, &second["session_id"]), (200, &first["session_id"]), "{second}");
    let lines = history(&gateway, &first["session_id"]).await;
    let kinds: Vec<&str> = lines.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["utterance", "answer", "utterance", "answer"]);
    assert_eq!((lines[2].1.as_str(), lines[3].1.as_str()), ("And again.", text(&second["text"])));
}

#[actix_web::test]
async fn a_line_for_an_attached_client_is_answered_on_both_ways_with_one_conversation() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    let gateway = gateway(&llm, &[]).await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(r#"{"type":"say","text":"My name is Ann."}"#).await;
    glasses.wait_for(|message| matches!(message, ToClient::TurnSaved { .. }).then_some(())).await;

    let session = glasses.session.session_id.to_string();
    let (status, body) = gateway.post(PATH, &json!({"message": "Who am I?", "session_id": session})).await;

    assert_eq!((status, text(&body["text"])), (200, "Yes."), "{body}");
    let done = |message: &ToClient| match message {
        ToClient::AnswerDone { text, finish, .. } => Some((text.clone(), *finish)),
        _ => None,
    };
    assert_eq!(glasses.wait_for(done).await, ("Yes.".into(), Finish::Stop));
    let asked = llm.requests().pop().unwrap().body["messages"].to_string();
    assert!(asked.contains("My name is Ann.") && asked.contains("Who am I?"), "{asked}");
}

#[actix_web::test]
async fn a_session_whose_grace_is_over_goes_on_with_its_history() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    let gateway = gateway(&llm, &[("SESSION_GRACE_MS", "50"), ("SESSION_MEMORY", "off")]).await;
    let (_, first) = gateway.post(PATH, &json!({"message": "My name is Ann.", "user_id": "ann"})).await;
    let id = first["session_id"].clone();
    soon(async {
        while gateway.get(&format!("/api/sessions/{}", text(&id))).await.0 != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let (status, second) = gateway.post(PATH, &json!({"message": "Who am I?", "session_id": id})).await;

    assert_eq!((status, &second["session_id"]), (200, &id), "{second}");
    let asked = llm.requests().pop().unwrap().body["messages"].to_string();
    assert!(asked.contains("My name is Ann."), "{asked}");
    assert_eq!(history(&gateway, &id).await.len(), 4);
    assert_ne!(first["turn_id"], second["turn_id"]);

    let (_, third) = gateway.post(PATH, &json!({"message": "Bye.", "session_id": id})).await;
    assert_eq!(text(&third["text"]), "Yes.");
}

#[actix_web::test]
async fn a_session_that_was_ended_does_not_go_on() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    let gateway = gateway(&llm, &[]).await;
    let (_, other) = gateway.post(PATH, &json!({"message": "Hello.", "user_id": "ann"})).await;
    let id = &other["session_id"];
    assert_eq!(gateway.delete(&format!("/api/sessions/{}", text(id))).await.0, 200);
    let (status, refusal) = gateway.post(PATH, &json!({"message": "Hello?", "session_id": id})).await;
    assert_eq!((status, text(&refusal["code"])), (404, "SESSION_NOT_FOUND"));
}

#[actix_web::test]
async fn an_event_stream_has_the_pieces_and_then_the_whole() {
    let gateway = TestGateway::with(&ECHO).await;
    let request = gateway.http.post(format!("{}{PATH}", gateway.url)).header(ACCEPT, "text/event-stream");

    let response = soon(request.json(&json!({"message": "Hello.", "user_id": "ann"})).send()).await.unwrap();

    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = events(&soon(response.text()).await.unwrap());
    assert_eq!(events[0].0, "start");
    let (done, whole) = events.last().unwrap();
    assert_eq!((done.as_str(), &whole["session_id"]), ("done", &events[0].1["session_id"]));
    let pieces = events[1..events.len() - 1].iter();
    let joined: String = pieces
        .map(|(name, data)| {
            assert_eq!(name, "delta");
            text(&data["text"])
        })
        .collect();
    assert_eq!(joined, text(&whole["text"]));
}

#[actix_web::test]
async fn a_language_model_that_fails_is_a_problem_with_the_reason_in_either_form() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    let gateway = gateway(&llm, &[]).await;
    let refuse = || {
        llm.answer(LlmAnswer::Refusal { status: 404, message: "no such model".into(), retry_after: None });
    };
    let line = json!({"message": "Hello.", "user_id": "ann"});

    refuse();
    let (status, problem) = gateway.post(PATH, &line).await;
    assert_eq!((status, text(&problem["code"])), (503, "AI_UNAVAILABLE"), "{problem}");
    assert!(text(&problem["detail"]).contains("no such model"), "{problem}");

    refuse();
    let request = gateway.http.post(format!("{}{PATH}", gateway.url)).header(ACCEPT, "text/event-stream");
    let (status, problem) = answer(request.json(&line)).await;
    assert_eq!((status, text(&problem["code"])), (503, "AI_UNAVAILABLE"), "{problem}");

    llm.answer(LlmAnswer::Stream(vec![LlmStep::text("It is "), LlmStep::Cut]));
    let request = gateway.http.post(format!("{}{PATH}", gateway.url)).header(ACCEPT, "text/event-stream");
    let response = soon(request.json(&line).send()).await.unwrap();
    assert_eq!(response.status(), 200, "it had begun");
    let events = events(&soon(response.text()).await.unwrap());
    let (name, problem) = events.last().unwrap();
    assert_eq!((name.as_str(), text(&problem["code"])), ("error", "AI_UNAVAILABLE"));
}

#[actix_web::test]
async fn a_client_that_goes_away_stops_its_answer() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    let gateway = gateway(&llm, &[]).await;
    for accept in ["text/event-stream", "application/json"] {
        llm.answer(LlmAnswer::Stream(vec![LlmStep::text("Once upon "), LlmStep::Hang]));
        let before = llm.requests().len();
        let session = gateway.session("ann").await.session_id.to_string();
        let body = json!({"message": "Tell me a story.", "session_id": session}).to_string();
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        soon(async {
            while llm.requests().len() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        if accept == "text/event-stream" {
            soon(client.read_exact(&mut [0; 64])).await.unwrap();
        }

        drop(client);

        soon(llm.closed()).await;
        // An answer that the model's own time limit had ended would have failed.
        let path = format!("/api/sessions/{session}/history");
        let finish = soon(async {
            loop {
                let (_, history) = gateway.get(&path).await;
                if let Some(finish) = history["lines"][1]["finish"].as_str() {
                    return finish.to_owned();
                }
            }
        });
        assert_eq!(finish.await, "interrupted", "{accept}");
    }
}

#[actix_web::test]
async fn images_reach_a_model_that_sees_and_are_refused_by_one_that_does_not() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    let gateway = gateway(&llm, &[("LLM_IMAGES", "on")]).await;
    // Over the size of bodies without images.
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0];
    jpeg.resize(700_000, 7);
    let image = format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(&jpeg));
    let line = json!({"message": "What is this?", "user_id": "ann", "images": [image]});

    let (status, body) = gateway.post(PATH, &line).await;

    assert_eq!(status, 200, "{body}");
    let asked = llm.requests().pop().unwrap().body["messages"].to_string();
    assert!(asked.contains(&BASE64_STANDARD.encode(&jpeg)), "{}", asked.len());
    let too_large = json!({"message": "?", "user_id": "ann", "images": ["A".repeat(6 * 1024 * 1024)]});
    assert_eq!(gateway.post(PATH, &too_large).await.0, 413);

    let blind = TestGateway::with(&ECHO).await;
    let (status, refusal) = blind.post(PATH, &line).await;
    assert_eq!((status, text(&refusal["code"])), (400, "UNSUPPORTED"), "{refusal}");
}

#[actix_web::test]
async fn only_who_may_use_the_session_is_answered_in_it() {
    let settings =
        [("LLM", "echo"), ("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("AUTH_JWT_SECRET", USERS_SECRET)];
    let gateway = TestGateway::with(&settings).await;
    let token = |user: &str| {
        let claims = json!({"sub": "1", "email": user, "exp": clock::unix_s() + 600});
        let key = jsonwebtoken::EncodingKey::from_secret(USERS_SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let ask = async |bearer: &str, body: Value| {
        answer(gateway.http.post(format!("{}{PATH}", gateway.url)).bearer_auth(bearer).json(&body)).await
    };
    let (status, made) = ask(&token("ann"), json!({"message": "Hello."})).await;
    assert_eq!(status, 200, "{made}");
    let again = json!({"message": "Hello.", "session_id": made["session_id"]});

    assert_eq!(ask(&token("bob"), again.clone()).await.0, 403);
    assert_eq!(ask(&token("bob"), json!({"message": "Hello.", "user_id": "ann"})).await.0, 403);
    assert_eq!(ask("nonsense", again.clone()).await.0, 401);
    assert_eq!(ask(BACKEND, again).await.0, 200);
    assert_eq!(ask(BACKEND, json!({"message": "Hello."})).await.0, 400, "whose session would it be?");
    assert_eq!(ask(BACKEND, json!({"message": "Hello.", "user_id": "bob"})).await.0, 200);

    let path = format!("{}/api/sessions/{}", gateway.url, text(&made["session_id"]));
    let (_, session) = answer(gateway.http.get(path).bearer_auth(BACKEND)).await;
    let (status, body) = ask(text(&session["control_token"]), json!({"message": "Hello."})).await;
    assert_eq!(
        (status, &body["session_id"]),
        (200, &made["session_id"]),
        "a control token names its session"
    );
}

#[actix_web::test]
async fn a_user_asks_only_so_many_lines() {
    let gateway = TestGateway::with(&[("LLM", "echo")]).await;
    let line = json!({"message": "Hello.", "user_id": "ann"});
    for _ in 0..5 {
        assert_eq!(gateway.post(PATH, &line).await.0, 200);
    }

    let response = gateway.http.post(format!("{}{PATH}", gateway.url)).json(&line).send().await.unwrap();

    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
}

#[actix_web::test]
async fn the_answer_is_fetched_as_a_file_in_the_language_of_the_line() {
    let (llm, tts) =
        (LlmServer::start(LlmApi::OpenAi).await, TtsServer::start(Vendor::OpenAi, Script::default()).await);
    let tts_url = tts.url();
    let settings = [
        ("TTS", "openai"),
        ("TTS_OPENAI_BASE_URL", tts_url.as_str()),
        ("TTS_OPENAI_API_KEY", TTS_KEY),
        ("TTS_OPENAI_LANGUAGES", "en"),
    ];
    let gateway = gateway(&llm, &settings).await;
    let line = json!({"message": "Hello?", "user_id": "ann", "include_audio": true, "language": "en"});

    let (status, body) = gateway.post(PATH, &line).await;

    assert_eq!(status, 200, "{body}");
    let file = soon(gateway.http.get(text(&body["audio_url"])).send()).await.unwrap();
    assert_eq!(file.headers()["content-type"], "audio/wav");
    assert_eq!(soon(file.bytes()).await.unwrap().len(), 44 + 2 * sound("Yes.").len());
    let (status, refusal) = gateway
        .post(PATH, &json!({"message": "Hallo?", "user_id": "ann", "include_audio": true, "language": "de"}))
        .await;
    assert_eq!(status, 400, "{refusal}");
    assert!(text(&refusal["detail"]).contains("does not speak de"), "{refusal}");
}

#[actix_web::test]
async fn speech_that_cannot_be_made_is_said_and_the_text_is_there() {
    let gateway = TestGateway::with(&ECHO).await;
    let line = json!({"message": "Hello.", "user_id": "ann", "include_audio": true});

    let (status, body) = gateway.post(PATH, &line).await;

    assert_eq!((status, &body["audio_url"]), (200, &Value::Null));
    assert!(text(&body["audio_error"]).contains("no TTS"), "{body}");
}

#[actix_web::test]
async fn an_answer_that_never_comes_does_not_keep_others_out() {
    let llm = OpenAi::start(Answers::Unfinished).await;
    let url = llm.url();
    let gateway = TestGateway::with(&[("OPENAI_BASE_URL", &url), ("LLM", "openai")]).await;
    let (_, made) = gateway.post("/api/sessions", &json!({"user_id": "ann"})).await;
    let line = json!({"message": "Hello.", "session_id": made["session_id"]});
    let first = gateway.post(PATH, &line);
    let second = async {
        soon(async {
            while llm.requests() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let request = gateway.http.post(format!("{}{PATH}", gateway.url)).header(ACCEPT, "text/event-stream");
        soon(request.json(&line).send()).await.unwrap().status()
    };

    let ((status, body), second) = tokio::join!(first, second);

    assert_eq!(second, 200);
    // It was cut before or after its first word.
    assert!((status, &body["finish"]) == (200, &json!("interrupted")) || status == 409, "{status} {body}");
}
