//! Data packets and text streams, echoed by another participant.

use livekit::SendTextOptions;
use livekit::StreamReader;
use livekit::prelude::*;

use crate::support::{MODES, Mode, Server, event};

#[tokio::test(flavor = "multi_thread")]
async fn reliable_and_lossy_data_packets_are_echoed() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("data-{mode:?}");
        let (room, mut events) = server.join(&name, "rust", mode).await;
        let mut python = server.python(&name, "python", &["echo"]);
        python.expect_line("joined").await;

        for (reliable, size) in [(true, 1), (false, 1), (true, 14_000), (false, 1_000)] {
            let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let packet = DataPacket {
                payload: payload.clone(),
                topic: Some("test".to_owned()),
                reliable,
                ..DataPacket::default()
            };
            room.local_participant().publish_data(packet).await.unwrap();
            let back = event(&mut events, "the echo", |event| match event {
                RoomEvent::DataReceived { payload, topic, .. } if topic.as_deref() == Some("test") => {
                    Some(payload)
                }
                _ => None,
            })
            .await;

            assert_eq!(*back, payload, "{mode:?}, reliable: {reliable}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_larger_than_the_send_buffer_is_received_completely() {
    let server = Server::start().await;
    let (sender, mut sender_events) = server.join("burst", "sender", Mode::Single).await;
    let (_receiver, mut events) = server.join("burst", "receiver", Mode::Single).await;
    let active = |event| matches!(event, RoomEvent::ParticipantActive(_)).then_some(());
    event(&mut sender_events, "the receiver", active).await;
    const COUNT: u32 = 1_000;

    for number in 0..COUNT {
        let mut payload = vec![0; 10_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let packet = DataPacket { payload, reliable: true, ..DataPacket::default() };
        sender.local_participant().publish_data(packet).await.unwrap();
    }

    for expected in 0..COUNT {
        let number = event(&mut events, "the next packet", |event| match event {
            RoomEvent::DataReceived { payload, .. } => {
                Some(u32::from_be_bytes(payload[..4].try_into().unwrap()))
            }
            _ => None,
        })
        .await;
        assert_eq!(number, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_echoed_as_a_stream() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("text-{mode:?}");
        let (room, mut events) = server.join(&name, "rust", mode).await;
        let mut python = server.python(&name, "python", &["echo"]);
        python.expect_line("joined").await;
        let text = "Grüß Gott! ".repeat(5_000);

        room.local_participant().send_text(&text, SendTextOptions::new_with_topic("echo")).await.unwrap();
        let reader = event(&mut events, "the echo", |event| match event {
            RoomEvent::TextStreamOpened { reader, .. } => reader.take(),
            _ => None,
        })
        .await;

        assert!(reader.read_all().await.unwrap() == text, "{mode:?}: the echoed text differs");
    }
}
