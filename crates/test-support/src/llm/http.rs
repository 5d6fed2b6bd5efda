//! One request on a connection, and its response in chunks.

use std::io;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Answer, LlmApi, LlmRequest, Protocol, Shared, Step, protocol};

pub(super) async fn serve(mut connection: TcpStream, api: LlmApi, shared: &Shared) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let Some(request) = read_request(&mut connection).await? else { return Ok(()) };
    let mut protocol = protocol(api, &request);
    let checked = protocol.check(&request);
    let answer = shared.take(request);
    let answer = match checked {
        Ok(()) => answer,
        Err((status, message)) => Answer::Refusal { status, message, retry_after: None },
    };
    match answer {
        Answer::Refusal { status, message, retry_after } => {
            let body = protocol.refusal(status, &message).to_string();
            let retry_after =
                retry_after.map_or(String::new(), |seconds| format!("retry-after: {seconds}\r\n"));
            whole(&mut connection, status, "application/json", &retry_after, &body).await
        }
        Answer::Redirect { to } => {
            whole(&mut connection, 307, "text/plain", &format!("location: {to}\r\n"), "").await
        }
        Answer::Body { content_type, body } => whole(&mut connection, 200, content_type, "", &body).await,
        Answer::Stream(steps) => stream(&mut connection, protocol.as_mut(), &steps).await,
    }
}

async fn whole(
    connection: &mut TcpStream,
    status: u16,
    content_type: &str,
    header: &str,
    body: &str,
) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} .\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n{header}\r\n"
    );
    connection.write_all((head + body).as_bytes()).await?;
    connection.shutdown().await
}

async fn stream(connection: &mut TcpStream, protocol: &mut dyn Protocol, steps: &[Step]) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).await?;
    chunk(connection, &protocol.begin()).await?;
    for step in steps {
        let (bytes, is_last) = match step {
            Step::Text(text) => (protocol.text(text), false),
            Step::Reasoning(text) => (protocol.reasoning(text), false),
            Step::ToolCalls(calls) => (protocol.tool_calls(calls), false),
            Step::Raw(raw) => (raw.clone(), false),
            Step::Error { status, message } => (protocol.error(*status, message), true),
            Step::Finish(finish) => (protocol.finish(*finish), true),
            Step::Close => (String::new(), true),
            Step::Wait(time) => {
                tokio::time::sleep(*time).await;
                continue;
            }
            Step::Cut => return Ok(()),
            Step::Hang => {
                let mut rest = [0; 64];
                while connection.read(&mut rest).await? > 0 {}
                return Ok(());
            }
        };
        chunk(connection, &bytes).await?;
        if is_last {
            break;
        }
    }
    connection.write_all(b"0\r\n\r\n").await?;
    connection.shutdown().await
}

async fn chunk(connection: &mut TcpStream, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    connection.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}

/// None if the client closes before the end of the request.
async fn read_request(connection: &mut TcpStream) -> io::Result<Option<LlmRequest>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = LlmRequest {
        method: first.next().unwrap_or_default(),
        path: first.next().unwrap_or_default(),
        headers,
        body: Value::Null,
    };
    let length: usize = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + 4 + length {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    request.body = serde_json::from_slice(&bytes[head_end + 4..]).unwrap_or(Value::Null);
    Ok(Some(request))
}
