//! The endpoint of a client in paused time, on the connection's real actor, with a session that only records.

use actix::{Actor, ActorFutureExt, AsyncContext, Context as ActixContext, Handler, WrapFuture};
use actix_http::ws::{OpCode, Parser};
use bytes::BytesMut;
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::limits::Limits;
use crate::protocol::edge_v1::audio::Codec;
use crate::ws::connection::Body;

/// More messages than the mailbox of a session holds here: actix's default is 16.
const BURST: u32 = 40;

const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Records what sockets report.
struct RecordingSession {
    events: mpsc::UnboundedSender<SocketEvent>,
    /// Handles no message before this ends.
    busy_until: Option<oneshot::Receiver<()>>,
}

impl Actor for RecordingSession {
    type Context = ActixContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(ready) = self.busy_until.take() {
            ctx.wait(ready.into_actor(self).map(|_, _, _| ()));
        }
    }
}

impl Handler<FromSocket> for RecordingSession {
    type Result = ();

    fn handle(&mut self, FromSocket { event, .. }: FromSocket, _: &mut Self::Context) {
        let _ = self.events.send(event);
    }
}

/// A client on a connection.
struct Client {
    frames: Option<mpsc::UnboundedSender<Bytes>>,
    body: Body,
    send_queue: SendQueue,
    /// What the session received.
    events: mpsc::UnboundedReceiver<SocketEvent>,
    /// Ends the time in which the session is busy.
    ready: Option<oneshot::Sender<()>>,
}

impl Client {
    /// A client of an idle session.
    fn connect(is_authenticated: bool) -> Self {
        let mut client = Self::connect_to_busy_session(is_authenticated);
        client.ready = None;
        client
    }

    fn connect_to_busy_session(is_authenticated: bool) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (ready, busy_until) = oneshot::channel();
        let session = RecordingSession { events: sender, busy_until: Some(busy_until) }.start();
        let attach = move |_, _| {
            let session = session.clone().recipient();
            let place = Limits::default().attach_socket(&UserId::parse("john").unwrap());
            async move { Ok((session, place?)) }.boxed_local()
        };
        Self { events, ready: Some(ready), ..Self::connect_by(is_authenticated, Box::new(attach)) }
    }

    /// A client that `attach` attaches to its session; what the session receives is not recorded.
    fn connect_by(is_authenticated: bool, attach: Attach) -> Self {
        tokio::time::pause();
        let (_, events) = mpsc::unbounded_channel();
        let (send_queue, outgoing) = SendQueue::new(QUEUE_BYTES, None);
        let socket = Socket {
            handle: SocketHandle::new(1, send_queue.clone(), "http://localhost".into()),
            profile: Profile::EdgeV1,
            is_authenticated,
            init: ConnectionInit::default(),
            attach,
            session: None,
            place: None,
            rate_limit: MessageRateLimiter::default(),
        };
        let (frames, incoming) = mpsc::unbounded_channel();
        let incoming = UnboundedReceiverStream::new(incoming).map(Ok);
        let body = Body::new(socket, incoming, FRAME_TIMEOUT, Profile::EdgeV1, send_queue.clone(), outgoing);
        Self { frames: Some(frames), body, send_queue, events, ready: None }
    }

    fn send(&self, payload: &[u8], opcode: OpCode) {
        let mut frame = BytesMut::new();
        Parser::write_message(&mut frame, payload, opcode, true, true);
        self.frames.as_ref().unwrap().send(frame.freeze()).unwrap();
    }

    fn say(&self, text: &str) {
        self.send(text.as_bytes(), OpCode::Text);
    }

    fn send_audio(&self, seq: u32) {
        let frame = UplinkFrame {
            codec: Codec::Pcm16le,
            pre_roll: false,
            backfill: false,
            end: false,
            seq,
            capture_ms: 0,
            payload: Bytes::from_static(&[0; 640]),
        };
        self.send(&frame.encode(), OpCode::Binary);
    }

    /// Reads the next frame; none where the connection has ended.
    async fn read(&mut self) -> Option<Frame> {
        let bytes = self.body.next().await?.unwrap();
        let header = if bytes[1] == 126 { 4 } else { 2 };
        let payload = &bytes[header..];
        Some(match bytes[0] & 0x0F {
            1 => Frame::Text(serde_json::from_slice(payload).unwrap()),
            8 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("a frame of kind {other}"),
        })
    }

    /// The code of the next message, an error.
    async fn read_error(&mut self) -> String {
        match self.read().await {
            Some(Frame::Text(error)) => error["code"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Frame {
    Text(Value),
    Close(u16),
}

const INIT: &str = r#"{"type":"connection_init"}"#;
const BUTTON: &str = r#"{"type":"button_press"}"#;
const PING: &str = r#"{"type":"ping","t":42}"#;

#[actix::test]
async fn a_client_that_sends_no_connection_init_is_refused_after_five_seconds() {
    for (is_authenticated, code, close) in [(false, "MISSING_TOKEN", 4401), (true, "SESSION_ERROR", 1008)] {
        let mut client = Client::connect(is_authenticated);
        let connected_at = clock::now();

        assert_eq!(client.read_error().await, code);

        assert_eq!((clock::now() - connected_at).as_secs(), INIT_TIMEOUT.as_secs());
        assert_eq!(client.read().await, Some(Frame::Close(close)));
        assert_eq!(client.read().await, None);
        tokio::time::resume();
    }
}

#[actix::test]
async fn a_client_that_cannot_be_attached_in_time_is_told_to_come_back() {
    let mut client = Client::connect_by(true, Box::new(|_, _| std::future::pending().boxed_local()));
    client.say(INIT);

    assert_eq!(client.read_error().await, "OVERLOADED");

    assert_eq!(client.read().await, Some(Frame::Close(1013)));
}

#[actix::test]
async fn a_client_that_is_attached_has_no_timeout() {
    let mut client = Client::connect(true);
    client.say(INIT);
    client.say(PING);
    assert!(matches!(client.read().await, Some(Frame::Text(_))));

    let silence = timeout(10 * INIT_TIMEOUT, client.read()).await;

    assert!(silence.is_err(), "{silence:?}");
    client.say(PING);
    let Some(Frame::Text(pong)) = client.read().await else { panic!("no pong") };
    assert_eq!((&pong["type"], &pong["t"]), (&Value::from("pong"), &Value::from(42)));
}

#[actix::test]
async fn what_comes_before_connection_init_is_refused_and_the_channel_stays_open() {
    let mut client = Client::connect(true);
    client.say(BUTTON);
    client.send_audio(1);
    client.say("nonsense");

    let codes = [client.read_error().await, client.read_error().await, client.read_error().await];

    assert_eq!(codes, ["SESSION_ERROR", "SESSION_ERROR", "MALFORMED_MESSAGE"]);
    assert!(client.send_queue.is_open());
}

#[actix::test]
async fn audio_waits_for_a_session_that_is_busy_and_none_of_it_is_lost() {
    let mut client = Client::connect_to_busy_session(true);
    client.say(INIT);
    for n in 1..=BURST {
        client.send_audio(n);
    }
    client.say(PING);
    // Nothing is read behind the frame that waits: not even the ping, which needs no session.
    assert!(timeout(Duration::from_secs(60), client.read()).await.is_err());

    client.ready = None;
    assert!(matches!(client.read().await, Some(Frame::Text(_))), "the pong");

    for n in 1..=BURST {
        let Some(SocketEvent::Audio(frame)) = client.events.recv().await else { panic!("no audio {n}") };
        assert_eq!(frame.seq, n);
    }
}

#[actix::test]
async fn a_text_message_for_a_session_that_is_busy_is_refused_and_the_next_ones_are_read() {
    let mut client = Client::connect_to_busy_session(true);
    client.say(INIT);
    for _ in 0..BURST {
        client.say(BUTTON);
    }

    client.say(PING);

    let (mut is_refused, mut is_answered) = (false, false);
    while !(is_refused && is_answered) {
        let Some(Frame::Text(message)) = client.read().await else { panic!("the channel is closed") };
        match message["type"].as_str().unwrap() {
            "error" => {
                assert_eq!(message["code"], "RATE_LIMITED");
                is_refused = true;
            }
            "pong" => is_answered = true,
            other => panic!("{other}"),
        }
    }
}

#[actix::test]
async fn a_client_that_does_not_read_costs_no_more_than_its_queue_and_learns_why_it_was_aborted() {
    let mut client = Client::connect(true);
    let frame = frame::text(&"x".repeat(1000));
    let mut queued = 0;
    while client.send_queue.send(frame.clone()).is_ok() {
        queued += frame.len();
    }
    assert!(queued <= QUEUE_BYTES, "{queued}");

    client.send_queue.abort_with(frame::close(Close::SlowClient, ""));

    assert_eq!(client.read().await, Some(Frame::Close(4408)));
    assert_eq!(client.read().await, None);
}

#[actix::test]
async fn after_a_close_frame_nothing_is_handled_but_the_clients_own() {
    let mut client = Client::connect(true);
    client.say(INIT);
    client.say(PING);
    assert!(matches!(client.read().await, Some(Frame::Text(_))), "the pong");

    client.send_queue.finish_with(frame::close(Close::Superseded, ""));
    client.say(BUTTON);
    client.send(&1000_u16.to_be_bytes(), OpCode::Close);

    assert_eq!(client.read().await, Some(Frame::Close(4001)));
    assert_eq!(client.read().await, None);
    drop(client.body);
    let mut events = Vec::new();
    while let Some(event) = client.events.recv().await {
        let is_over = matches!(event, SocketEvent::Closed);
        events.push(event);
        if is_over {
            break;
        }
    }
    assert!(matches!(&events[..], [SocketEvent::Alive, SocketEvent::Closed]), "{}", events.len());
}

#[actix::test]
async fn a_client_that_does_not_answer_a_close_frame_is_waited_for_three_seconds() {
    let mut client = Client::connect(true);
    client.say(INIT);
    let closed_at = clock::now();

    client.send_queue.finish_with(frame::close(Close::Restart, ""));

    assert_eq!(client.read().await, Some(Frame::Close(1012)));
    assert_eq!(client.read().await, None);
    assert_eq!((clock::now() - closed_at).as_secs(), 3);
}

#[actix::test]
async fn the_session_is_told_that_the_connection_is_over_although_its_mailbox_is_full() {
    let mut client = Client::connect_to_busy_session(true);
    client.say(INIT);
    for _ in 0..BURST {
        client.say(BUTTON);
    }
    client.frames = None;
    while client.read().await.is_some() {}
    let Client { body, mut events, ready, .. } = client;
    drop((body, ready));

    while !matches!(events.recv().await, Some(SocketEvent::Closed)) {}
}
