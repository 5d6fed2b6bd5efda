//! From text to paced speech: sentences, what of them was heard, and playback in frames or clips. No I/O and
//! no clock; the clip store apart.

pub mod clip_playback;
pub mod clip_store;
pub(crate) mod opus_frames;
pub(crate) mod pcm_frames;
pub mod playback;
pub mod sentence_splitter;
pub mod speech_format;
pub mod spoken_transcript;
pub mod stream_playback;
