//! Functions for native platforms.

pub mod frame_cryptor;
pub mod packet_trailer;

/// Returns a random UUID (version 4) as text.
pub fn create_random_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
