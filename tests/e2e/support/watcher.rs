//! Somebody who watches a room, on a control channel or an event stream, and keeps what they are told.

use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use june_client::Event;
use june_protocol::{
    ToClient,
    participants::{Participant, ParticipantsUpdate, Track},
};

use super::{Glasses, June, until};

/// Who is in a room, by sid.
pub type Everybody = BTreeMap<String, Face>;

/// What is compared of a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    pub identity: String,
    pub tracks: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    everybody: Everybody,
    /// Who left, and why.
    left: Vec<(String, String)>,
    last_event_id: String,
    /// A snapshot came.
    begun: bool,
}

pub struct Watcher {
    state: Rc<RefCell<State>>,
}

impl Watcher {
    /// Subscribes on a control channel; back when it has been told who is there.
    pub async fn on_channel(mut glasses: Glasses, subscribe: String) -> Self {
        glasses.channel.writer().send_raw(Ok(subscribe)).await.unwrap();
        let state = Rc::<RefCell<State>>::default();
        let told = state.clone();
        actix_web::rt::spawn(async move {
            loop {
                match glasses.channel.next().await {
                    Event::Message(_, message) => {
                        if let ToClient::ParticipantsUpdate(update) = message {
                            told.borrow_mut().take(&update);
                        }
                    }
                    Event::Audio(_) => {}
                    Event::Closed { .. } => return,
                }
            }
        });
        Self { state }.begun().await
    }

    /// Opens an event stream; back when it has been told who is there.
    pub async fn on_stream(june: &June, room: &str, token: &str) -> Self {
        Self::on_stream_after(june, room, token, "").await
    }

    /// Opens an event stream again, as a browser does after a cut.
    pub async fn on_stream_after(june: &June, room: &str, token: &str, last_event_id: &str) -> Self {
        let url = format!("{}/api/livekit/participants/stream?room={room}&token={token}", june.url());
        let request = june.http.get(url).header("Last-Event-ID", last_event_id);
        let mut response = request.send().await.unwrap().error_for_status().unwrap();
        let state = Rc::<RefCell<State>>::default();
        let told = state.clone();
        actix_web::rt::spawn(async move {
            let mut text = String::new();
            while let Ok(Some(chunk)) = response.chunk().await {
                text.push_str(std::str::from_utf8(&chunk).unwrap());
                while let Some((block, rest)) = text.split_once("\n\n") {
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                    if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                        told.borrow_mut().last_event_id = id.to_owned();
                        told.borrow_mut().take(&serde_json::from_str(data).unwrap());
                    }
                    text = rest.to_owned();
                }
            }
        });
        Self { state }.begun().await
    }

    async fn begun(self) -> Self {
        until(async || self.state.borrow().begun.then_some(())).await;
        self
    }

    pub fn view(&self) -> Ref<'_, Everybody> {
        Ref::map(self.state.borrow(), |state| &state.everybody)
    }

    pub fn last_event_id(&self) -> String {
        self.state.borrow().last_event_id.clone()
    }

    /// Why somebody left, as the last update about them said.
    pub fn reason_of(&self, identity: &str) -> Option<String> {
        let state = self.state.borrow();
        state.left.iter().rev().find(|(who, _)| who == identity).map(|(_, reason)| reason.clone())
    }
}

impl State {
    fn take(&mut self, update: &ParticipantsUpdate) {
        if let Some(snapshot) = &update.snapshot {
            self.begun = true;
            self.everybody = snapshot.iter().map(face).collect();
        }
        let Some(diff) = &update.diff else { return };
        for gone in &diff.left {
            self.everybody.remove(&gone.sid);
            let reason = serde_json::to_value(gone.reason).unwrap();
            self.left.push((gone.identity.to_string(), reason.as_str().unwrap().to_owned()));
        }
        for participant in diff.joined.iter().chain(&diff.updated) {
            self.everybody.extend([face(participant)]);
        }
        for changed in &diff.tracks {
            let known = self.everybody.get_mut(&changed.sid).unwrap();
            known.tracks = track_sids(&changed.tracks);
        }
    }
}

fn face(participant: &Participant) -> (String, Face) {
    let Participant { sid, identity, tracks, .. } = participant;
    (sid.clone(), Face { identity: identity.to_string(), tracks: track_sids(tracks) })
}

fn track_sids(tracks: &[Track]) -> BTreeSet<String> {
    tracks.iter().map(|track| track.sid.clone()).collect()
}
