//! Photos of a client that are too large for its control channel: uploaded for a tool call, and seen by the model.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt, future::select_all, stream};
use june_client::{ClientError, Gateway as Api};
use june_edge::protocol::ToClient;
use reqwest::{Body, RequestBuilder};
use serde_json::{Value, json};
use test_support::llm::{Answer, Finish, KEY as LLM_KEY, LlmApi, LlmServer, Step};

use crate::support::{BACKEND, Glasses, TestGateway, answer, key, soon, user_id};

const TOOL: &str = r#"{"type":"configure_session","options":{"tools":[{"name":"take_photo"}]}}"#;

fn photo() -> Answer {
    let calls = vec![("take_photo".to_owned(), json!({}))];
    Answer::Stream(vec![Step::ToolCalls(calls), Step::Finish(Finish::ToolCalls)])
}

fn says(text: &str) -> Answer {
    Answer::Stream(vec![Step::text(text), Step::Finish(Finish::Stop)])
}

fn jpeg(bytes: usize) -> Vec<u8> {
    let mut data = vec![0xff, 0xd8, 0xff, 0xe0];
    data.resize(bytes, 7);
    data
}

/// A model that asks for a photo, a client that is asked for it, and the call's id.
struct Scene {
    llm: LlmServer,
    gateway: TestGateway,
    glasses: Glasses,
    call_id: String,
}

impl Scene {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let llm = LlmServer::start(LlmApi::OpenAi).await;
        llm.answer(photo());
        llm.answer(says("A cat."));
        let url = llm.url();
        let model = [("LLM", "openai"), ("OPENAI_BASE_URL", url.as_str()), ("OPENAI_API_KEY", LLM_KEY)];
        let gateway = TestGateway::with(&[&[("LLM_IMAGES", "on")], &model[..], settings].concat()).await;
        let mut glasses = gateway.glasses("ann").await;
        glasses.say(TOOL).await;
        glasses.say(r#"{"type":"say","text":"What do I see?"}"#).await;
        let call_id = glasses
            .wait_for(|message| match message {
                ToClient::ToolCall { call_id, .. } => Some(call_id.clone()),
                _ => None,
            })
            .await;
        Self { llm, gateway, glasses, call_id }
    }

    fn put(&self, call_id: &str) -> RequestBuilder {
        let session = self.glasses.session.session_id;
        let url = format!("{}/api/sessions/{session}/tool-calls/{call_id}/image", self.gateway.url);
        self.gateway.http.put(url)
    }

    /// The status and the code of an upload for the call.
    async fn upload(&self, media_type: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = self.put(&self.call_id).header("content-type", media_type).body(body);
        let (status, mut problem) = soon(answer(request)).await;
        (status, problem["code"].take())
    }

    async fn upload_by_client(&self, call_id: &str, image: Vec<u8>) -> Result<(), ClientError> {
        let session = &self.glasses.session;
        let (api, token) = (&self.gateway.api, &session.control_token);
        soon(api.upload_tool_image(session.session_id, token, call_id, image, Some("Ahead."))).await
    }

    async fn answer(&mut self) -> String {
        self.glasses
            .wait_for(|message| match message {
                ToClient::AnswerDone { text, .. } => Some(text.clone()),
                _ => None,
            })
            .await
    }

    /// What the model was asked last.
    fn asked(&self) -> String {
        self.llm.requests().pop().unwrap().body["messages"].to_string()
    }
}

fn code(refused: Result<(), ClientError>) -> String {
    match refused {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn a_photo_larger_than_a_control_message_completes_its_call_once_and_is_seen_by_the_model() {
    let mut scene = Scene::new(&[]).await;
    let call_id = scene.call_id.clone();
    assert_eq!(code(scene.upload_by_client("call_9_9", jpeg(100)).await), "NOT_FOUND");

    scene.upload_by_client(&call_id, jpeg(2 * 1024 * 1024)).await.unwrap();

    assert_eq!(scene.answer().await, "A cat.");
    assert!(
        scene.asked().contains(&BASE64_STANDARD.encode(jpeg(2 * 1024 * 1024))),
        "{}",
        scene.asked().len()
    );
    assert!(scene.asked().contains("Ahead."));
    assert_eq!(code(scene.upload_by_client(&call_id, jpeg(100)).await), "SESSION_ERROR");
    assert_eq!(scene.upload("image/jpeg", jpeg(100)).await, (409, json!("SESSION_ERROR")));
}

#[actix_web::test]
async fn a_model_that_does_not_see_reads_the_text_beside_the_photo() {
    let mut scene = Scene::new(&[("LLM_IMAGES", "off")]).await;

    scene.upload_by_client(&scene.call_id, jpeg(100_000)).await.unwrap();

    assert_eq!(scene.answer().await, "A cat.");
    let asked = scene.asked();
    assert!(asked.contains("Ahead.") && asked.len() < 10_000, "{}", asked.len());
}

#[actix_web::test]
async fn an_upload_over_the_limit_is_cut_while_it_is_read_and_a_smaller_one_may_follow() {
    let mut scene = Scene::new(&[("TOOL_UPLOAD_MAX_BYTES", "100000")]).await;
    let too_large = (413, json!("TOO_LARGE"));
    // Without an end, and without a length that says how much comes.
    let pieces = || stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(jpeg(10_000))));

    assert_eq!(scene.upload("image/jpeg", Body::wrap_stream(pieces())).await, too_large);
    assert_eq!(scene.upload("image/jpeg", Body::wrap_stream(pieces().take(11))).await, too_large);
    assert_eq!(scene.upload("image/jpeg", jpeg(100_001)).await, too_large);
    assert_eq!(scene.upload("image/jpeg", jpeg(3 * 1024 * 1024 + 1)).await, too_large);

    assert_eq!(scene.upload("image/jpeg", jpeg(100_000)).await.0, 204);
    assert_eq!(scene.answer().await, "A cat.");
}

#[actix_web::test]
async fn an_upload_is_a_jpeg_or_a_png_by_its_first_bytes_and_as_its_type_says() {
    let mut scene = Scene::new(&[]).await;
    let png = b"\x89PNG\r\n\x1a\n...";
    for (media_type, body) in [
        ("image/gif", b"GIF89a".to_vec()),
        ("image/jpeg", b"GIF89a".to_vec()),
        ("image/jpeg", Vec::new()),
        ("image/jpeg", png.to_vec()),
        ("application/octet-stream", jpeg(100)),
    ] {
        let refused = scene.upload(media_type, body).await;
        assert_eq!(refused, (415, json!("UNSUPPORTED_MEDIA_TYPE")), "{media_type}");
    }
    let long = format!("?output={}", "x".repeat(16 * 1024 + 1));
    let session = scene.glasses.session.session_id;
    let path = format!("/api/sessions/{session}/tool-calls/{}/image{long}", scene.call_id);
    let request = scene.gateway.http.put(format!("{}{path}", scene.gateway.url));
    let (status, problem) = answer(request.header("content-type", "image/png").body(png.to_vec())).await;
    assert_eq!(status, 400, "{problem}");

    assert_eq!(scene.upload("image/png", png.to_vec()).await.0, 204);
    assert_eq!(scene.answer().await, "A cat.");
}

#[actix_web::test]
async fn a_photo_for_a_call_that_was_interrupted_comes_too_late() {
    let mut scene = Scene::new(&[]).await;
    scene.glasses.say(r#"{"type":"interrupt"}"#).await;
    assert_eq!(scene.answer().await, "");

    assert_eq!(scene.upload("image/jpeg", jpeg(100)).await, (409, json!("SESSION_ERROR")));
}

#[actix_web::test]
async fn a_photo_is_uploaded_into_ones_own_session_only() {
    let gateway = TestGateway::with(&[("API_KEYS", BACKEND), ("HOST", "127.0.0.1")]).await;
    let backend = Api::new(&gateway.url, key(BACKEND));
    let ann = backend.create_session(&user_id("ann")).await.unwrap();
    let bob = backend.create_session(&user_id("bob")).await.unwrap();
    for (token, expected) in [(&bob.control_token, "FORBIDDEN"), (&ann.control_token, "NOT_FOUND")] {
        let refused = backend.upload_tool_image(ann.session_id, token, "call_1_1", jpeg(100), None).await;
        assert_eq!(code(refused), expected);
    }
}

#[actix_web::test]
async fn of_one_user_only_two_photos_are_uploaded_at_once() {
    let scene = Scene::new(&[]).await;
    let uploads = (0..3).map(|_| {
        let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from(jpeg(100)))]);
        let body = Body::wrap_stream(begun.chain(stream::pending()));
        Box::pin(scene.put(&scene.call_id).header("content-type", "image/jpeg").body(body).send())
    });

    let (first, _, others) = soon(select_all(uploads)).await;

    let first = first.unwrap();
    assert_eq!((first.status().as_u16(), others.len()), (429, 2));
    assert!(first.headers().contains_key("retry-after"));
}
