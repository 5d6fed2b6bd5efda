//! HTTP requests with forms, and answers to them.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::SttRequest;

/// A request with its form: the text fields, and the file.
pub(super) struct Posted {
    pub(super) request: SttRequest,
    /// The name of the field and its content.
    pub(super) file: Option<(String, Vec<u8>)>,
}

/// Reads one request. None if it is none, or if the client closes before its end.
pub(super) async fn read(connection: &mut TcpStream) -> Option<Posted> {
    let mut received = Vec::new();
    let head_length = loop {
        if connection.read_buf(&mut received).await.ok()? == 0 || !received.is_ascii_request() {
            return None;
        }
        if let Some(end) = find(&received, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&received[..head_length]).into_owned();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let length: usize = header("content-length")?.parse().ok()?;
    while received.len() < head_length + length {
        if connection.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    }
    let path = head.split_whitespace().nth(1)?.to_owned();
    let mut posted = Posted {
        request: SttRequest { path, authorization: header("authorization"), ..SttRequest::default() },
        file: None,
    };
    let boundary = header("content-type")?.split_once("boundary=")?.1.trim_matches('"').to_owned();
    posted.read_form(&received[head_length..], &boundary)?;
    Some(posted)
}

impl Posted {
    /// `multipart/form-data` (RFC 7578).
    fn read_form(&mut self, mut body: &[u8], boundary: &str) -> Option<()> {
        let delimiter = format!("--{boundary}");
        body = body.strip_prefix(delimiter.as_bytes())?;
        while let Some(part) = body.strip_prefix(b"\r\n") {
            let end = find(part, format!("\r\n{delimiter}").as_bytes())?;
            let content_at = find(part, b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&part[..content_at]);
            let name = head.split_once("name=\"")?.1.split('"').next()?.to_owned();
            let content = &part[content_at..end];
            if head.contains("filename=") {
                self.file = Some((name, content.to_vec()));
            } else {
                self.request.fields.push((name, String::from_utf8_lossy(content).into_owned()));
            }
            body = &part[end + 2 + delimiter.len()..];
        }
        Some(())
    }
}

trait Received {
    /// Whether it can be the beginning of a request. TLS, for one, cannot.
    fn is_ascii_request(&self) -> bool;
}

impl Received for Vec<u8> {
    fn is_ascii_request(&self) -> bool {
        self.first().is_some_and(u8::is_ascii_uppercase)
    }
}

/// Answers, and closes the connection.
pub(super) async fn answer(connection: &mut TcpStream, status: u16, media_type: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nretry-after: 7\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let _ = connection.write_all(&[head.as_bytes(), body].concat()).await;
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
