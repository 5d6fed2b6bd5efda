//! What operators see and do, by API key.
//!
//! Sessions are the gateway's own and need no LiveKit. Rooms are read from LiveKit: the gateway keeps only those
//! that somebody watches, and operators need to see all.

pub(super) mod recordings;
pub(super) mod rooms;
pub(super) mod sessions;

use serde::Deserialize;

use crate::{http::error::ApiError, ids::RoomName};

/// The most entries of a page.
const MAX_PAGE: usize = 500;

/// The query of every paged list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default = "default_limit")]
    limit: usize,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

fn default_limit() -> usize {
    50
}

impl Page {
    fn limit(&self) -> Result<usize, ApiError> {
        if self.limit == 0 || self.limit > MAX_PAGE {
            return Err(ApiError::invalid("limit", format!("must be 1 to {MAX_PAGE}")));
        }
        Ok(self.limit)
    }
}

fn parse_room(room: &str) -> Result<RoomName, ApiError> {
    RoomName::parse(room).map_err(|error| ApiError::invalid("room", error))
}
