//! Who is in LiveKit's rooms: asked once, as an event stream, and LiveKit's webhooks, which say it.

mod access;
pub(super) mod participants;
pub(super) mod stream;
pub(super) mod stream_token;
pub mod webhook;

use crate::{error::Code, http::error::ApiError, room::RoomError};

impl From<RoomError> for ApiError {
    fn from(error: RoomError) -> Self {
        let code = match error {
            RoomError::Unreachable(_) => Code::MediaUnavailable,
            RoomError::Busy | RoomError::Stopped => Code::Overloaded,
        };
        Self::new(code, error.to_string())
    }
}
