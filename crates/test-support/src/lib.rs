//! What the tests and benchmarks of this workspace share: recordings and their transcripts, word errors, free
//! ports, installed models, a lossy network, a proxy that cuts connections, WebSocket conformance, STT and TTS
//! services, and servers of language models.

pub mod llm;
mod lossy_network;
mod models;
mod openai;
mod ports;
mod proxy;
mod recordings;
pub mod rfc6455;
mod stt_servers;
pub mod tts_servers;
mod word_errors;

pub use lossy_network::{Loss, LossyNetwork, PROXY_ADDRESS};
pub use models::models;
pub use openai::{Answers, OpenAi};
pub use ports::free_port;
pub use proxy::Proxy;
pub use recordings::{Clip, clip, clips, fixtures, read_wav, transcripts};
pub use stt_servers::KEY as STT_KEY;
pub use stt_servers::{SttFault, SttRequest, SttScript, SttServer, SttVendor};
pub use word_errors::{word_errors, words};
