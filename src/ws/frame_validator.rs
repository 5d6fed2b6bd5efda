//! Checks the frames of a client (RFC 6455 §5) as their bytes arrive. Pure.
//!
//! What is wrong is found at the first byte that shows it: a reserved bit before the payload, text that is not UTF-8
//! within a frame that is not complete yet. The machine keeps no payload.
//!
//! ```text
//!   header ─────────▶ payload ──▶ complete ─▶ header …
//!      │  over the limit              │
//!      └─────────▶ skipped payload ───┘
//! ```

use crate::{
    error::Close,
    protocol::MAX_BINARY_BYTES,
    ws::utf8::{NotUtf8, Utf8},
};

/// The longest header: 2 bytes, 8 of length, 4 of mask.
const MAX_HEADER_BYTES: usize = 14;

/// The longest payload of a control frame (§5.5).
const MAX_CONTROL_BYTES: u64 = 125;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// What the protocol does not allow.
    Protocol(&'static str),
    /// Text, or the reason of a close frame, is not UTF-8.
    NotUtf8,
    /// A fragment is over the limit: the rest of its message would be useless.
    FragmentTooLarge,
}

impl Violation {
    /// The code that the connection is closed with (§7.4.1).
    pub(super) fn close(self) -> Close {
        match self {
            Self::Protocol(_) => Close::Protocol,
            Self::NotUtf8 => Close::InvalidText,
            Self::FragmentTooLarge => Close::TooBig,
        }
    }

    /// The reason in the close frame.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Protocol(what) => what.to_owned(),
            Self::NotUtf8 => "not UTF-8".to_owned(),
            Self::FragmentTooLarge => format!("a frame may have at most {MAX_BINARY_BYTES} bytes"),
        }
    }
}

impl From<NotUtf8> for Violation {
    fn from(NotUtf8: NotUtf8) -> Self {
        Self::NotUtf8
    }
}

/// What the bytes that were taken are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A part of a frame that goes on.
    Part,
    /// The rest of a frame.
    Frame,
    /// The rest of the header of a message over the limit. Its payload is to be dropped.
    Oversized,
    /// Payload to be dropped.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The state of one client's frames.
#[derive(Debug, Default)]
pub(super) struct FrameValidator {
    header: [u8; MAX_HEADER_BYTES],
    /// Bytes of the header so far.
    header_length: usize,
    payload: Option<Payload>,
    /// The fragmented message that is open.
    message: Option<Message>,
    /// The text of a message, over its frames.
    text: Utf8,
}

/// The payload that is arriving.
#[derive(Debug)]
struct Payload {
    kind: Kind,
    left: u64,
    mask: [u8; 4],
    /// Bytes so far.
    at: usize,
}

#[derive(Debug)]
enum Kind {
    /// Text; whether its message ends with the frame.
    Text {
        last: bool,
    },
    Close {
        code: [u8; 2],
        reason: Utf8,
    },
    /// Binary, ping, pong: any bytes.
    Any,
    /// Over the limit.
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Text,
    Binary,
}

impl FrameValidator {
    /// Takes bytes up to the end of a frame, or of the header of one that is over the limit. Says how many. After a
    /// violation nothing more can be taken.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Taken), Violation> {
        let mut taken = 0;
        while self.payload.is_none() {
            let Some(byte) = bytes.get(taken) else { return Ok((taken, Taken::Part)) };
            self.header[self.header_length] = *byte;
            self.header_length += 1;
            taken += 1;
            self.payload = self.check_header()?;
        }
        let Some(payload) = &mut self.payload else { return Ok((taken, Taken::Part)) };
        let is_dropped = matches!(payload.kind, Kind::Dropped);
        if is_dropped && self.header_length > 0 {
            self.header_length = 0;
            return Ok((taken, Taken::Oversized));
        }
        self.header_length = 0;
        let rest = &bytes[taken..];
        let length = rest.len().min(usize::try_from(payload.left).unwrap_or(usize::MAX));
        payload.check(&rest[..length], &mut self.text)?;
        taken += length;
        let is_over = payload.left == 0;
        if is_over {
            let payload = self.payload.take();
            payload.map_or(Ok(()), |payload| payload.check_end(&mut self.text))?;
        }
        Ok((
            taken,
            match (is_dropped, is_over) {
                (true, _) => Taken::Skipped,
                (false, true) => Taken::Frame,
                (false, false) => Taken::Part,
            },
        ))
    }

    /// Whether a frame has begun and is not complete.
    pub(super) fn is_within_frame(&self) -> bool {
        self.header_length > 0 || self.payload.is_some()
    }

    /// Checks the header after each of its bytes. Gives the payload once it is complete.
    fn check_header(&mut self) -> Result<Option<Payload>, Violation> {
        let header = &self.header[..self.header_length];
        let is_final = header[0] & FINAL != 0;
        if header[0] & RESERVED != 0 {
            return Err(Violation::Protocol("reserved bits are set, and no extension was negotiated"));
        }
        let opcode = opcode(header[0])?;
        let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        match (opcode, self.message) {
            (Opcode::Continuation, None) => {
                return Err(Violation::Protocol("there is no message to continue"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Protocol("a message began within another one"));
            }
            _ if is_control && !is_final => {
                return Err(Violation::Protocol("a control frame is fragmented"));
            }
            _ => {}
        }
        let Some(second) = header.get(1) else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(Violation::Protocol("a frame is not masked"));
        }
        let Some((length, mask_at)) = payload_length(header)? else { return Ok(None) };
        if is_control && length > MAX_CONTROL_BYTES {
            return Err(Violation::Protocol("a control frame has more than 125 bytes"));
        }
        if opcode == Opcode::Close && length == 1 {
            return Err(Violation::Protocol("a close code has two bytes"));
        }
        let Some(mask) = header.get(mask_at..mask_at + 4) else { return Ok(None) };
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        let kind = if length > MAX_BINARY_BYTES as u64 {
            if !is_final || opcode == Opcode::Continuation {
                return Err(Violation::FragmentTooLarge);
            }
            Kind::Dropped
        } else {
            self.kind(opcode, is_final)
        };
        Ok(Some(Payload { kind, left: length, mask, at: 0 }))
    }

    /// What the payload of a frame is, by the message that it belongs to.
    fn kind(&mut self, opcode: Opcode, is_final: bool) -> Kind {
        let message = match opcode {
            Opcode::Close => return Kind::Close { code: [0; 2], reason: Utf8::default() },
            Opcode::Ping | Opcode::Pong => return Kind::Any,
            Opcode::Text => Some(Message::Text),
            Opcode::Binary => Some(Message::Binary),
            Opcode::Continuation => self.message,
        };
        self.message = message.filter(|_| !is_final);
        if message == Some(Message::Text) { Kind::Text { last: is_final } } else { Kind::Any }
    }
}

impl Payload {
    /// Checks a part of the payload.
    fn check(&mut self, masked: &[u8], text: &mut Utf8) -> Result<(), Violation> {
        self.left -= masked.len() as u64;
        if matches!(self.kind, Kind::Any | Kind::Dropped) {
            return Ok(());
        }
        let mut plain = [0; 512];
        for masked in masked.chunks(plain.len()) {
            let at = self.at;
            self.at += masked.len();
            let plain = &mut plain[..masked.len()];
            for ((plain, masked), at) in plain.iter_mut().zip(masked).zip(at..) {
                *plain = masked ^ self.mask[at % 4];
            }
            match &mut self.kind {
                Kind::Text { .. } => text.push(plain)?,
                Kind::Close { code, reason } => {
                    let missing = &mut code[at.min(2)..];
                    let (of_code, of_reason) = plain.split_at(missing.len().min(plain.len()));
                    missing[..of_code.len()].copy_from_slice(of_code);
                    reason.push(of_reason)?;
                }
                Kind::Any | Kind::Dropped => {}
            }
        }
        Ok(())
    }

    /// Checks the whole payload, when its last byte is there.
    fn check_end(self, text: &mut Utf8) -> Result<(), Violation> {
        match self.kind {
            Kind::Text { last: true } if !text.is_complete() => Err(Violation::NotUtf8),
            Kind::Close { code, .. } if self.at > 0 && !is_close_code(u16::from_be_bytes(code)) => {
                Err(Violation::Protocol("the close code is not a valid one"))
            }
            Kind::Close { reason, .. } if !reason.is_complete() => Err(Violation::NotUtf8),
            Kind::Text { .. } | Kind::Close { .. } | Kind::Any | Kind::Dropped => Ok(()),
        }
    }
}

fn opcode(first: u8) -> Result<Opcode, Violation> {
    Ok(match first & 0x0F {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        _ => return Err(Violation::Protocol("an opcode is reserved")),
    })
}

/// The length of the payload, and where the mask begins; none while bytes are missing. A length has to be encoded in
/// the fewest bytes, and below 2^63 (§5.2).
fn payload_length(header: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    let (length, least, mask_at) = match header[1] & !MASKED {
        126 => match header.get(2..4) {
            Some(bytes) => (u64::from(u16::from_be_bytes([bytes[0], bytes[1]])), 126, 4),
            None => return Ok(None),
        },
        127 => match header.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 0x1_0000, 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, 2),
    };
    if length < least {
        return Err(Violation::Protocol("a length is not encoded in the fewest bytes"));
    }
    if length > i64::MAX as u64 {
        return Err(Violation::Protocol("a length has its first bit set"));
    }
    Ok(Some((length, mask_at)))
}

/// Whether a close frame may have this code (§7.4). IANA has assigned 1012 to 1014 since; clients echo ours.
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
pub(super) mod tests;
