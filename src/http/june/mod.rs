//! What June's own services call.

pub(super) mod stt;
