//! Saves what was said, and reads what was said in earlier sessions.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::SessionActor;
use crate::{
    clock,
    ids::TurnId,
    providers::llm::ChatMessage,
    session::Input,
    store::{
        StoreError,
        history::{self, Entry, HistoryItem},
    },
    telemetry,
};

/// How long a session waits for what was said in earlier ones.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Items of its own that a session remembers which goes on, at least.
const OWN_ITEMS: usize = 24;

impl SessionActor {
    pub(super) fn save(&self, item: HistoryItem, turn: Option<TurnId>, ctx: &mut Context<Self>) {
        let info = self.session.info();
        let entry = Entry { user_id: info.user.clone(), session_id: info.id, at_ms: clock::unix_ms(), item };
        let saved = self.services.history.append(entry);
        ctx.spawn(saved.into_actor(self).map(move |saved, actor, ctx| match (saved, turn) {
            (Ok(seq), Some(turn)) => actor.step(Input::TurnSaved(turn, seq), ctx),
            (Ok(_), None) => {}
            (Err(error), _) => {
                metrics::counter!(telemetry::HISTORY_UNSAVED).increment(1);
                let session = actor.session.info().id;
                match error {
                    // Logged once by the store, and not for each line of each session.
                    StoreError::Unavailable { .. } => {
                        tracing::debug!(session.id = %session, %error, "an item is not saved");
                    }
                    StoreError::Full | StoreError::Closed | StoreError::Failed(_) => {
                        tracing::error!(session.id = %session, %error, "an item is not saved");
                    }
                }
            }
        }));
    }

    /// Loads what the user and the gateway said in earlier sessions. Messages wait meanwhile: the first
    /// response must know it.
    pub(super) fn remember(&self, ctx: &mut Context<Self>) {
        let memory = self.services.config.memory;
        // A session that goes on knows what was said in it, whatever it may know of others.
        let goes_on = self.session.info().generation_base > 0;
        let items = if goes_on { memory.max(OWN_ITEMS) } else { memory };
        if items == 0 {
            return;
        }
        let of = (memory == 0).then(|| self.session.info().id);
        let earlier = self.services.history.newest(&self.session.info().user, items);
        let earlier = tokio::time::timeout(HISTORY_TIMEOUT, earlier);
        ctx.wait(earlier.into_actor(self).map(move |earlier, actor, ctx| match earlier {
            Ok(Ok(saved)) => {
                let saved =
                    saved.into_iter().filter(|saved| of.is_none_or(|id| saved.entry.session_id == id));
                let messages = saved.filter_map(chat_message).collect();
                actor.step(Input::Remembered(messages), ctx);
            }
            Ok(Err(error)) => tracing::warn!(%error, "earlier conversation not loaded"),
            Err(_) => tracing::warn!("earlier conversation not loaded: the store takes too long"),
        }));
    }
}

/// An item of the history as a language model reads it.
fn chat_message(saved: history::Saved) -> Option<ChatMessage> {
    let message = match saved.entry.item {
        // What others said in the room is no part of the user's conversation.
        HistoryItem::Utterance { participant: Some(_), .. } => return None,
        HistoryItem::Utterance { text, .. } => ChatMessage::user(text),
        HistoryItem::Response { text, .. } => ChatMessage::assistant(text),
        // What of it mattered is in the answer.
        HistoryItem::Tool { .. } => return None,
    };
    (!message.text().is_empty()).then_some(message)
}
