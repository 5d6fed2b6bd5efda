//! Updates of a room, encoded once for all subscribers.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    ids::RoomName,
    room::{
        roster::{Diff, Participant},
        subscribers::SubscriberKind,
    },
    ws::frame,
};

/// `participants:update` without its `type`; also the data of an event stream's events.
#[derive(Serialize)]
pub(super) struct Update<'a> {
    pub room: &'a RoomName,
    pub epoch: u64,
    pub version: u64,
    #[serde(flatten)]
    pub content: Content<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content<'a> {
    Snapshot(Vec<&'a Participant>),
    Diff(&'a Diff),
}

/// An update's JSON, from which the bytes for each kind of subscriber are made when they are first needed.
pub(super) struct Encoded {
    json: String,
    event: &'static str,
    id: (u64, u64),
    channel: Option<Bytes>,
    stream: Option<Bytes>,
}

impl Encoded {
    pub(super) fn new(update: &Update<'_>) -> Self {
        let event = match update.content {
            Content::Snapshot(_) => "snapshot",
            Content::Diff(_) => "diff",
        };
        Self {
            json: serde_json::to_string(update).expect("rosters have only JSON fields"),
            event,
            id: (update.epoch, update.version),
            channel: None,
            stream: None,
        }
    }

    /// The bytes for subscribers of this kind, shared by all of them.
    pub(super) fn bytes(&mut self, kind: SubscriberKind) -> Bytes {
        let Self { json, event, id: (epoch, version), .. } = self;
        match kind {
            SubscriberKind::Channel => self
                .channel
                .get_or_insert_with(|| {
                    frame::text(&format!("{{\"type\":\"participants:update\",{}", &json[1..]))
                })
                .clone(),
            // JSON has no line breaks, so the data is one line.
            SubscriberKind::Stream => self
                .stream
                .get_or_insert_with(|| {
                    format!("event: {event}\nid: {epoch}:{version}\ndata: {json}\n\n").into()
                })
                .clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ToClient, edge_v1::to_client::ParticipantsUpdate};

    #[test]
    fn a_channel_and_a_stream_receive_the_same_update() {
        let room = RoomName::parse("room-a").unwrap();
        let diff = Diff::default();
        let update = Update { room: &room, epoch: 7, version: 3, content: Content::Diff(&diff) };
        let mut encoded = Encoded::new(&update);

        let stream = encoded.bytes(SubscriberKind::Stream);
        let channel = encoded.bytes(SubscriberKind::Channel);

        let stream = std::str::from_utf8(&stream).unwrap();
        let data = stream.strip_prefix("event: diff\nid: 7:3\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        let told: ParticipantsUpdate = serde_json::from_str(data).unwrap();
        // Two bytes of header: a text frame of less than 64 KiB with 126 in its length has four.
        let text = std::str::from_utf8(&channel[if channel[1] == 126 { 4 } else { 2 }..]).unwrap();
        let ToClient::ParticipantsUpdate(said) = serde_json::from_str(text).unwrap() else {
            panic!("{text}")
        };
        assert_eq!((told.epoch, told.version, &told.room), (7, 3, &room));
        assert_eq!((said.diff, said.version), (told.diff, 3));
        assert!(told.snapshot.is_none());
    }
}
