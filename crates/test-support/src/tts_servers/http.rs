//! One HTTP request a connection; the answer's body is chunked.

use std::io;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::{Fault, KEY, Refusal, Request, SAMPLE_RATE_HZ, Shared, bytes, sound};

/// The first byte of a connection with TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// What an accepted request is answered with.
pub(super) struct Sound {
    content_type: &'static str,
    /// Before the samples: a WAV file's header, which does not know the length.
    header: Vec<u8>,
    samples: Vec<u8>,
}

impl Sound {
    pub(super) fn pcm(text: &str, content_type: &'static str) -> Self {
        Self { content_type, header: Vec::new(), samples: bytes(&sound(text)) }
    }

    pub(super) fn wav(text: &str) -> Self {
        let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        header.extend(SAMPLE_RATE_HZ.to_le_bytes());
        header.extend((SAMPLE_RATE_HZ * 2).to_le_bytes());
        header.extend(b"\x02\0\x10\0LIST\x03\0\0\0abc\0data\xff\xff\xff\xff");
        Self { content_type: "audio/wav", header, samples: bytes(&sound(text)) }
    }
}

pub(super) async fn serve(
    mut connection: TcpStream,
    shared: &Shared,
    check: fn(&Request) -> Result<Sound, Refusal>,
    refusal: fn(&str) -> Value,
) {
    let Some(request) = read(&mut connection).await else { return };
    let checked = check(&request);
    shared.record(request);
    let answered = match (checked, &shared.script.fault) {
        (Err((status, body)), _) => {
            whole(&mut connection, status, "application/json", &body.to_string()).await
        }
        (Ok(_), Some(Fault::Refuse(status))) => {
            let body = refusal(&format!("scripted for the key {KEY}"));
            whole(&mut connection, *status, "application/json", &body.to_string()).await
        }
        (Ok(_), Some(Fault::Html)) => {
            whole(&mut connection, 200, "text/html", "<!DOCTYPE html><title>nginx</title>").await
        }
        (Ok(_), Some(Fault::Json)) => {
            let body = refusal("quota reached").to_string();
            whole(&mut connection, 200, "application/json", &body).await
        }
        (Ok(sound), fault) => stream(&mut connection, shared, &sound, fault.as_ref()).await,
    };
    if answered.is_err() {
        shared.hung_up.send_modify(|count| *count += 1);
    }
}

/// An answer of a known length.
pub(super) async fn whole(
    connection: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &str,
) -> io::Result<()> {
    let retry_after = if status == 429 { "retry-after: 7\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n{retry_after}connection: \
         close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await
}

/// An answer that comes in pieces.
async fn stream(
    connection: &mut TcpStream,
    shared: &Shared,
    sound: &Sound,
    fault: Option<&Fault>,
) -> io::Result<()> {
    connection.set_nodelay(true)?;
    sleep(shared.script.latency).await;
    match fault {
        Some(Fault::Hang) => return until_closed(connection).await,
        Some(Fault::Garbage) => {
            return connection.write_all(&[0x16, 0x03, 0x01, 0xff, 0x00, 0x80].repeat(99)).await;
        }
        _ => {}
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        sound.content_type
    );
    connection.write_all(head.as_bytes()).await?;
    let piece = shared.script.piece;
    chunks(connection, &sound.header, piece).await?;
    let half = sound.samples.len() / 2;
    match fault {
        Some(Fault::Silent) => {}
        Some(Fault::Cut) => return chunks(connection, &sound.samples[..half], piece).await,
        Some(Fault::Stall) => {
            chunks(connection, &sound.samples[..half], piece).await?;
            tokio::select! {
                () = shared.may_proceed() => chunks(connection, &sound.samples[half..], piece).await?,
                closed = until_closed(connection) => return closed,
            }
        }
        Some(Fault::Endless) => loop {
            chunks(connection, &sound.samples, piece).await?;
        },
        _ => chunks(connection, &sound.samples, piece).await?,
    }
    connection.write_all(b"0\r\n\r\n").await
}

async fn chunks(connection: &mut TcpStream, bytes: &[u8], piece: usize) -> io::Result<()> {
    for piece in bytes.chunks(piece) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        connection.write_all(&chunk).await?;
    }
    Ok(())
}

/// Ends with an error when the client closes the connection.
async fn until_closed(connection: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 64];
    while connection.read(&mut rest).await? > 0 {}
    Err(io::ErrorKind::ConnectionReset.into())
}

/// None if the client closes the connection before the request's end.
pub(super) async fn read(connection: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            let _ = whole(connection, 400, "text/plain", "this port has no TLS").await;
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = from_target(method, target, headers);
    let length: usize = request.header("content-length").parse().unwrap_or_default();
    while bytes.len() < end + 4 + length {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    request.bodies.push(serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default());
    Some(request)
}

pub(super) fn from_target(method: &str, target: &str, headers: Vec<(String, String)>) -> Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    Request { method: method.to_owned(), path: decoded(path), query, headers, bodies: Vec::new() }
}

/// Percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        (bytes, rest) = match (first, hex) {
            (b'%', Some(byte)) => ([&bytes[..], &[byte]].concat(), &after[2..]),
            _ => ([&bytes[..], &[*first]].concat(), after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
