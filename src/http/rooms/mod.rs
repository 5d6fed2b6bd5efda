//! LiveKit rooms: who is in them, and the webhooks that report it.

pub mod participants;
pub mod webhook;

use crate::{
    error::{ApiError, Code},
    room::RoomError,
};

impl From<RoomError> for ApiError {
    fn from(error: RoomError) -> Self {
        let code = match error {
            RoomError::Unreachable(_) => Code::MediaUnavailable,
            RoomError::Busy | RoomError::Stopped => Code::Overloaded,
        };
        Self::new(code, error.to_string())
    }
}
