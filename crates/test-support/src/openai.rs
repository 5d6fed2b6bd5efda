//! An endpoint with OpenAI's chat completions, which counts what it is asked.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One word, and the end.
    Brief,
    /// One word, and nothing more; the connection stays open.
    Unfinished,
}

/// The endpoint. It ends when this is dropped.
pub struct OpenAi {
    address: SocketAddr,
    counts: Arc<Counts>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    longest: AtomicUsize,
}

impl OpenAi {
    /// # Panics
    /// If no port is free.
    pub async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, answers, counted.clone()));
            }
        });
        Self { address, counts, serving }
    }

    /// For `OPENAI_BASE_URL`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// The length of the longest body, in bytes.
    pub fn longest(&self) -> usize {
        self.counts.longest.load(Ordering::Relaxed)
    }
}

impl Drop for OpenAi {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut connection: TcpStream, answers: Answers, counts: Arc<Counts>) {
    let Some(length) = read_request(&mut connection).await else { return };
    counts.requests.fetch_add(1, Ordering::Relaxed);
    counts.longest.fetch_max(length, Ordering::Relaxed);
    let chunk = |delta: &str, reason: &str| {
        format!(
            r#"data: {{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}"#
        ) + "\n\n"
    };
    let mut answer =
        String::from("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            + &chunk(r#"{"content":"Yes."}"#, "null");
    if answers == Answers::Brief {
        answer += &chunk("{}", "\"stop\"");
        answer += "data: [DONE]\n\n";
    }
    if connection.write_all(answer.as_bytes()).await.is_ok() && answers == Answers::Unfinished {
        // Until the client closes.
        let mut rest = [0; 64];
        while connection.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    }
}

/// Reads one request; gives the length of its body. None if the client closes before its end.
async fn read_request(connection: &mut TcpStream) -> Option<usize> {
    let mut request = Vec::new();
    loop {
        if connection.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
        if request.len() >= head + 4 + length {
            return Some(length);
        }
    }
}
