//! HTTP/1.1 load: a number of persistent connections, each of which sends the next request after the response.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The result of a load.
pub struct Load {
    /// Responses per second, over all connections.
    pub per_s: f64,
    /// The latencies in milliseconds, sorted.
    pub took_ms: Vec<f64>,
}

/// Sends `request` repeatedly on `connections` connections.
pub async fn load(port: u16, request: String, connections: usize, time: Duration) -> Load {
    let began = Instant::now();
    let asking: Vec<_> =
        (0..connections).map(|_| tokio::spawn(ask(port, request.clone(), began + time))).collect();
    let mut took_ms = Vec::new();
    for one in asking {
        took_ms.extend(one.await.unwrap());
    }
    let per_s = took_ms.len() as f64 / began.elapsed().as_secs_f64();
    took_ms.sort_by(f64::total_cmp);
    Load { per_s, took_ms }
}

async fn ask(port: u16, request: String, until: Instant) -> Vec<f64> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let mut took_ms = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    while Instant::now() < until {
        let asked = Instant::now();
        connection.write_all(request.as_bytes()).await.unwrap();
        buffer.clear();
        while !is_whole(&buffer) {
            assert!(connection.read_buf(&mut buffer).await.unwrap() > 0, "the server closed the connection");
        }
        assert!(buffer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&buffer));
        took_ms.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    took_ms
}

/// Whether head and body of a response arrived.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    answer.len() >= head + 4 + length.map_or(0, |length| length.trim().parse().unwrap())
}
