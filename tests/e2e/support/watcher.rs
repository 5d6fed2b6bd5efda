//! Somebody who watches a room, on a control channel or an event stream, and keeps what they are told.

use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use june_edge::{
    client::Event,
    protocol::{ToClient, edge_v1::to_client::ParticipantsUpdate},
};
use serde_json::Value;

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
        glasses.channel.writer().raw(Ok(subscribe)).await.unwrap();
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
                    Event::Sound(_) => {}
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
        let each = |list: &Value| list.as_array().cloned().unwrap_or_default();
        if let Some(snapshot) = &update.snapshot {
            self.begun = true;
            self.everybody = each(snapshot).iter().map(face).collect();
        }
        let Some(diff) = &update.diff else { return };
        for gone in each(&diff["left"]) {
            self.everybody.remove(&text(&gone, "sid"));
            self.left.push((text(&gone, "identity"), text(&gone, "reason")));
        }
        for them in each(&diff["joined"]).iter().chain(&each(&diff["updated"])) {
            self.everybody.extend([face(them)]);
        }
        for them in each(&diff["tracks"]) {
            let known = self.everybody.get_mut(&text(&them, "sid")).unwrap();
            known.tracks = track_sids(&them["tracks"]);
        }
    }
}

fn face(them: &Value) -> (String, Face) {
    (text(them, "sid"), Face { identity: text(them, "identity"), tracks: track_sids(&them["tracks"]) })
}

fn track_sids(tracks: &Value) -> BTreeSet<String> {
    tracks.as_array().unwrap().iter().map(|track| text(track, "sid")).collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap().to_owned()
}
