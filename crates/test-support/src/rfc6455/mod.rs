//! WebSocket conformance (RFC 6455): the cases of Autobahn's test suite by their numbers, groups 1 to 7 and 10, in a
//! suite of our own.
//!
//! Autobahn expects a peer that echoes messages. A gateway of June Edge answers them instead: before `connection_init`,
//! text that is no message of the channel is answered with the error `MALFORMED_MESSAGE`, and binary with
//! `SESSION_ERROR`. So where Autobahn expects an echo, a case expects that answer, and where it expects that the connection
//! stays usable, a ping is answered and a close is echoed. Codes are compared strictly; where Autobahn has cases without
//! an expectation (7.13.*), 1002 is expected.
//!
//! Adapted to the limit of 64 KiB for a message: 7.1.6, whose 256 KiB are answered with `TOO_LARGE`. Waiting times
//! (5.19, 5.20, 6.4.*) are replaced by waiting for an answer where there is one.

mod cases;
mod peer;

use std::{fmt, net::SocketAddr};

use self::{
    cases::{Case, End, Expected, Step},
    peer::{Incoming, Peer},
};

/// What became of the cases.
#[derive(Debug, Default)]
pub struct Report {
    /// How many passed.
    pub passed: usize,
    /// The number of each case that failed, and why.
    pub failed: Vec<(String, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rfc6455: {} passed, {} failed", self.passed, self.failed.len())?;
        self.failed.iter().try_for_each(|(case, why)| write!(f, "\n  {case}: {why}"))
    }
}

/// Runs all cases against a gateway, one after the other and each on its own connection. No token is needed.
pub async fn run(gateway: SocketAddr) -> Report {
    let mut report = Report::default();
    for case in cases::all() {
        match attempt(gateway, &case).await {
            Ok(()) => report.passed += 1,
            Err(why) => report.failed.push((case.number, why)),
        }
    }
    report
}

async fn attempt(gateway: SocketAddr, case: &Case) -> Result<(), String> {
    let mut peer = Peer::connect(gateway).await?;
    for step in &case.steps {
        match step {
            Step::Send { bytes, chop } => peer.send(bytes, *chop).await,
            Step::Expect(expected) => expect(&mut peer, expected).await?,
        }
    }
    match case.end {
        End::Usable => {
            peer.send(&cases::ping(b"still there?"), None).await;
            expect(&mut peer, &Expected::Pong(b"still there?".to_vec())).await?;
            peer.send(&cases::close(1000, b""), None).await;
            closed(&mut peer, Some(1000)).await
        }
        End::Closed(code) => closed(&mut peer, code).await,
    }
}

async fn expect(peer: &mut Peer, expected: &Expected) -> Result<(), String> {
    let received = peer.receive().await?;
    let is_expected = match (expected, &received) {
        (Expected::Error(code), Incoming::Text(text)) => {
            let message: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            message["type"] == "error" && message["code"] == *code
        }
        (Expected::Pong(payload), Incoming::Pong(received)) => payload == received,
        _ => false,
    };
    if is_expected { Ok(()) } else { Err(format!("expected {expected:?}, and received {received:?}")) }
}

/// Expects a close frame with this code, and then the end of the connection.
async fn closed(peer: &mut Peer, code: Option<u16>) -> Result<(), String> {
    for expected in [Incoming::Close(code), Incoming::End] {
        let received = peer.receive().await?;
        if received != expected {
            return Err(format!("expected {expected:?}, and received {received:?}"));
        }
    }
    Ok(())
}
