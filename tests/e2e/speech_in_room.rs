//! `SPEECH_DELIVERY=room`: the answer is a track in the room, and the control channel carries none of it.

use futures::StreamExt;
use june_client::Event;
use june_edge::protocol::{
    FromClient, ToClient,
    edge_v1::{
        from_client::Say,
        to_client::{Delivery, LivekitRole},
    },
};
use livekit::{
    Room, RoomEvent, RoomOptions,
    prelude::RemoteTrack,
    webrtc::audio_stream::native::{NativeAudioStream, NativeAudioStreamOptions},
};

use crate::support::{June, LivekitServer, free_port, soon};

const RATE_HZ: i32 = 16_000;

/// Louder than the noise of a codec.
const VOICED: u16 = 300;

#[actix_web::test]
async fn an_answer_is_spoken_in_the_room_where_that_is_wished() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::with(&livekit, data.path(), port, &[("SPEECH_DELIVERY", "room")]).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let info = glasses.ack.livekit.clone().unwrap();
    assert_eq!(info.role, LivekitRole::Subscribe);
    let (room, mut news) = soon(Room::connect(&info.url, &info.token, RoomOptions::default())).await.unwrap();
    let mut speech = soon(async {
        loop {
            if let Some(RoomEvent::TrackSubscribed {
                track: RemoteTrack::Audio(track), participant, ..
            }) = news.recv().await
            {
                assert_eq!(participant.identity().as_str(), "cloud-agent:ann");
                let options = NativeAudioStreamOptions::default();
                return NativeAudioStream::with_options(track.rtc_track(), RATE_HZ, 1, options);
            }
        }
    })
    .await;

    let text = "Is anybody there?".to_owned();
    glasses.channel.send(&FromClient::Say(Say { text })).await.unwrap();
    let answered = glasses.wait_for(|event| match event {
        Event::Audio(frame) => panic!("sound of generation {} on the channel", frame.generation),
        Event::Message(_, ToClient::SpeechBegin { delivery, .. }) => {
            assert_eq!(*delivery, Delivery::Room);
            None
        }
        Event::Message(_, ToClient::TurnSaved { .. }) => Some(()),
        Event::Message(..) | Event::Closed { .. } => None,
    });
    // What was said is heard while the turn goes on, and lies in the stream when it is over.
    let mut voiced = 0;
    let hearing = async {
        while voiced < RATE_HZ {
            let frame = speech.next().await.unwrap();
            voiced += frame.data.iter().filter(|sample| sample.unsigned_abs() > VOICED).count() as i32;
        }
    };
    soon(async { tokio::join!(answered, hearing) }).await;
    room.close().await.unwrap();

    let history = june.history(&glasses.session).await;
    let answer = history.iter().find(|line| line["kind"] == "answer").unwrap();
    assert_eq!(answer["finish"], "stop");
}
