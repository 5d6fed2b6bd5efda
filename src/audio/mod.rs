//! Audio: PCM, Opus, and the order of what arrives in packets. No I/O and no clock.

pub mod data_packet_buffer;
pub mod opus;
pub mod opus_encoder;
pub mod pcm;
pub mod reorder_buffer;
pub mod uplink_decoder;
pub(crate) mod wav;

use std::sync::Arc;

pub use june_protocol::SAMPLE_RATE_HZ;

/// Samples at [`SAMPLE_RATE_HZ`], shared without copying.
pub type Pcm = Arc<[i16]>;
