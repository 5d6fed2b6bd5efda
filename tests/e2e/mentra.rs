//! A MentraOS phone of the first kind: bare PCM up the WebSocket, answers as files that it fetches.

use std::{io::Cursor, time::Duration};

use futures::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::{Clip, June, LivekitServer, clips, free_port, soon, until, word_errors, words};

const SECRET: &str = "mentra-secret-of-the-tests-32-bytes";

struct Phone {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
}

impl Phone {
    async fn attach(june: &June) -> Self {
        let claims = json!({"sub": "1", "email": "ann@example.org"});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let url = format!("ws://127.0.0.1:{}/glasses-ws", june.port);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let (socket, _) = Box::pin(connect_async(request)).await.unwrap();
        let mut phone = Self { socket, session: String::new() };
        phone.session = phone.next_of("connection_ack").await["sessionId"].as_str().unwrap().to_owned();
        phone.next_of("microphone_state_change").await;
        phone
    }

    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next_of(&mut self, kind: &str) -> Value {
        soon(async {
            loop {
                let Some(Ok(message)) = self.socket.next().await else { panic!("the channel closed") };
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == kind {
                    return message;
                }
            }
        })
        .await
    }

    /// Speaks a recording in real time, cut in the middle of samples, with silence behind it.
    async fn speak(&mut self, clip: &Clip) {
        let silence = vec![0; 16_000];
        let bytes: Vec<u8> =
            clip.samples.iter().chain(&silence).flat_map(|sample| sample.to_le_bytes()).collect();
        let mut tick = tokio::time::interval(Duration::from_millis(128));
        for chunk in bytes.chunks(4095) {
            tick.tick().await;
            self.socket.send(Message::Binary(chunk.to_vec().into())).await.unwrap();
        }
    }

    async fn final_words(&mut self) -> String {
        loop {
            let said = self.next_of("data_stream").await;
            let text = said["data"]["text"].as_str().unwrap();
            if said["data"]["isFinal"] == true && !text.is_empty() {
                return text.to_owned();
            }
        }
    }
}

async fn history(june: &June, session: &str) -> Vec<Value> {
    let url = format!("{}/api/sessions/{session}/history", june.url());
    let history: Value = june.http.get(url).send().await.unwrap().json().await.unwrap();
    history["lines"].as_array().unwrap().clone()
}

/// The answers of a session, once there are so many.
async fn answers(june: &June, session: &str, count: usize) -> Vec<Value> {
    until(async || {
        let lines = history(june, session).await.into_iter();
        let answers: Vec<Value> = lines.filter(|line| line["kind"] == "answer").collect();
        (answers.len() == count).then_some(answers)
    })
    .await
}

#[actix_web::test]
async fn a_phone_that_sends_bare_samples_and_plays_files_is_understood_and_answered() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let settings = [("AUGMENTOS_AUTH_JWT_SECRET", SECRET), ("MENTRA_COMPAT_NO_EXP", "true")];
    let june = June::with(&livekit, data.path(), port, &settings).await;
    let mut phone = Phone::attach(&june).await;
    phone.say(json!({"type": "phone_subscription_update", "subscriptions": ["transcription:en-US"]})).await;
    let clip = clips().into_iter().next().unwrap();

    // What is said arrives whole.
    phone.speak(&clip).await;
    let heard = phone.final_words().await;
    let wrong = word_errors(&clip.words, &heard);
    assert!(wrong * 4 <= words(&clip.words).len(), "{wrong} words wrong: {heard}");

    // The answer is fetched and played, file by file, to its end.
    let mut seconds = 0.0;
    let mut files = 0;
    while history(&june, &phone.session).await.iter().all(|line| line["kind"] != "answer") {
        let played = tokio::time::timeout(Duration::from_millis(500), phone.next_of("audio_play_request"));
        let Ok(request) = played.await else { continue };
        assert_eq!(request["appId"], "june");
        let url = request["audioUrl"].as_str().unwrap();
        let part = june.http.get(url).header("range", "bytes=0-3").send().await.unwrap();
        assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, b"RIFF".as_slice()));
        let file = june.http.get(url).send().await.unwrap();
        assert_eq!(file.headers()["content-type"], "audio/wav");
        let mut wav = hound::WavReader::new(Cursor::new(file.bytes().await.unwrap())).unwrap();
        seconds += f64::from(wav.duration()) / f64::from(wav.spec().sample_rate);
        assert!(wav.samples::<i16>().any(|sample| sample.unwrap().unsigned_abs() > 1000), "silence");
        files += 1;
        let id = &request["requestId"];
        phone
            .say(json!({"type": "audio_play_response", "requestId": id, "success": true, "error": null}))
            .await;
    }
    assert!(seconds > 2.0 && files > 1, "{seconds} s in {files} files");
    let first = &answers(&june, &phone.session, 1).await[0];
    assert_eq!(first["finish"], "stop");
    assert!(first["text"].as_str().unwrap().contains("You said"), "{first}");

    // What is spoken over is stopped, and gone.
    phone.say(json!({"type": "local_transcription", "text": "Say it again.", "isFinal": true})).await;
    let request = phone.next_of("audio_play_request").await;
    phone.speak(&clip).await;
    phone.next_of("audio_stop_request").await;
    let gone = june.http.get(request["audioUrl"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(gone.status(), 404);
    let second = answers(&june, &phone.session, 2).await.pop().unwrap();
    assert_eq!(second["finish"], "interrupted");
}
