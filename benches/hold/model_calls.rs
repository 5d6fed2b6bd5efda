//! How often one user who types as fast as the channel allows makes the gateway call the language model.

use std::time::{Duration, Instant};

use serde_json::Value;
use test_support::{Answers, OpenAi};

use crate::{
    client::{Channel, bearer, create_session, token},
    gateway_with_users,
};

/// The default of `LLM_CALLS_PER_MINUTE_BY_USER`.
const LIMIT: usize = 30;

/// Sessions of the user, and the interval of the lines of each.
const SESSIONS: usize = 4;
const LINE_INTERVAL: Duration = Duration::from_millis(25);

const MINUTE: Duration = Duration::from_secs(60);

pub struct Calls {
    pub per_minute: usize,
    pub limit: usize,
}

pub async fn in_a_minute() -> Calls {
    let llm = OpenAi::start(Answers::Brief).await;
    let gateway = gateway_with_users(&[("LLM", "openai"), ("OPENAI_BASE_URL", &llm.url())]);
    let port = gateway.port;
    let mallory = token("mallory");
    let began = Instant::now();
    let typing = (0..SESSIONS).map(|_| {
        let mallory = mallory.clone();
        async move {
            let session = create_session(port, "mallory", &bearer(&mallory)).await;
            let Value::String(control) = &session["control_token"] else { return };
            let Some(mut channel) = Channel::attach(port, control).await else { return };
            let mut every = tokio::time::interval(LINE_INTERVAL);
            let mut turn = 0_u32;
            loop {
                every.tick().await;
                // Asked after the wait: a line of the next minute is another minute's call.
                if began.elapsed() >= MINUTE {
                    return;
                }
                // What is typed, and what the client says that it heard, in turns.
                turn += 1;
                let line = match turn % 2 {
                    0 => r#"{"type":"say","text":"And now?"}"#,
                    _ => r#"{"type":"local_transcription","text":"And now?","isFinal":true}"#,
                };
                if channel.send(line).await.is_none() {
                    return;
                }
                let mut unread = [0; 64 * 1024];
                let _ = channel.connection.try_read(&mut unread);
            }
        }
    });
    futures::future::join_all(typing).await;
    Calls { per_minute: llm.requests(), limit: LIMIT }
}
