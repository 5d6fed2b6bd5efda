//! Ids, parsed once at the edge and then trusted.
//!
//! A value of one of these types is short and printable, and safe in a log line or a header.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use rand::{Rng, distr::Alphanumeric};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a text is not a valid id.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Empty, or only white space.
    #[error("must not be empty")]
    Empty,
    /// More bytes than the limit.
    #[error("must not be longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes of UTF-8.
        limit: usize,
    },
    /// More characters than the limit.
    #[error("must not be longer than {limit} characters")]
    TooManyCharacters {
        /// The limit in characters.
        limit: usize,
    },
    /// A control character.
    #[error("must not contain control characters")]
    Control,
    /// Not a UUID.
    #[error("is not a session id")]
    NotAUuid,
}

/// Parses free text within limits: not empty, at most `limit` bytes, no control characters.
fn name(text: &str, limit: usize) -> Result<Arc<str>, IdError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > limit {
        return Err(IdError::TooLong { limit });
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(text.into())
}

/// A shared string newtype whose values are checked by [`name`].
macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses an id.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                name(text, $limit).map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // A character has at least one byte.
                json_schema!({ "type": "string", "minLength": 1, "maxLength": $limit })
            }
        }
    };
}

name_type! {
    /// A user, by the id of their identity provider: often an e-mail address.
    UserId, 256
}
name_type! {
    /// A LiveKit room's name.
    RoomName, 256
}
name_type! {
    /// A LiveKit participant's identity, the same across reconnects.
    Identity, 256
}
name_type! {
    /// One of a user's devices; `default` if the client gives no id.
    DeviceId, 128
}

impl Identity {
    /// The identity of the gateway's participant in a user's room.
    pub fn agent_of(user: &UserId) -> Self {
        let identity = format!("cloud-agent:{user}");
        Self(if identity.len() <= 256 {
            identity.into()
        } else {
            format!("cloud-agent:{}", short_hash(user.as_str())).into()
        })
    }
}

/// A guest's display name: 1 to 64 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GuestName(String);

impl GuestName {
    /// In characters, not bytes.
    const MAX_CHARACTERS: usize = 64;

    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.trim().chars().count() > Self::MAX_CHARACTERS {
            return Err(IdError::TooManyCharacters { limit: Self::MAX_CHARACTERS });
        }
        // A character has at most four bytes.
        name(text, 4 * Self::MAX_CHARACTERS).map(|name| Self(name.to_string()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of a guest's identity that is derived from the name: lower-case letters, digits and hyphens; a
    /// short hash if that is empty or too long.
    fn slug(&self) -> String {
        const MAX_SLUG: usize = 32;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let slug: String = self.0.chars().map(plain).collect();
        let words: Vec<&str> = slug.split('-').filter(|word| !word.is_empty()).collect();
        let slug = words.join("-");
        if slug.is_empty() || slug.len() > MAX_SLUG { short_hash(&self.0) } else { slug }
    }
}

impl TryFrom<String> for GuestName {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl Identity {
    /// A guest's identity: `guest:<name>-<suffix>`. The suffix keeps guests of the same name apart, because
    /// LiveKit disconnects a participant when another joins with the same identity.
    pub fn guest(name: &GuestName, suffix: &str) -> Self {
        Self(format!("guest:{}-{suffix}", name.slug()).into())
    }

    /// The identity of a guest whom a participant of the room invites. It is marked with who that is, so that the
    /// guest can be removed with them.
    pub fn guest_of(inviter: &Identity, room: &RoomName, name: &GuestName, suffix: &str) -> Self {
        Self::guest(name, &format!("{suffix}{}", guest_mark(inviter, room)))
    }

    /// Whether this is the identity of a guest whom `inviter` invited to the room.
    pub fn is_guest_of(&self, inviter: &Identity, room: &RoomName) -> bool {
        self.0.starts_with("guest:") && self.0.ends_with(&guest_mark(inviter, room))
    }

    /// Whether this is the identity of a guest of that name.
    pub fn is_guest_called(&self, name: &GuestName) -> bool {
        let called = self.0.strip_prefix("guest:").and_then(|rest| rest.rsplit_once('-'));
        called.is_some_and(|(slug, _)| slug == name.slug())
    }
}

impl From<&UserId> for Identity {
    /// The identity of a user's own client is the user's id.
    fn from(user: &UserId) -> Self {
        Self(user.0.clone())
    }
}

impl RoomName {
    /// A new room name for `user`: `room-<user>-<suffix>`. The user part is reduced to letters, digits, `_` and
    /// `-`. An e-mail address or a long id is replaced by a short hash, because room names appear in logs,
    /// dashboards and invitations.
    pub fn for_user(user: &UserId, suffix: &str) -> Self {
        const MAX_USER_PART: usize = 32;
        let plain: String =
            user.as_str().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
        let private = user.as_str().contains('@') || plain.is_empty() || plain.len() > MAX_USER_PART;
        let part = if private { short_hash(user.as_str()) } else { plain };
        Self(format!("room-{part}-{suffix}").into())
    }
}

impl DeviceId {
    /// The id of a device whose client gives none.
    pub fn unnamed() -> Self {
        Self("default".into())
    }
}

/// Six random letters and digits for unique names, as in `room-john_doe-abc123`.
pub fn suffix() -> String {
    const LENGTH: usize = 6;
    let chars = rand::rng().sample_iter(Alphanumeric).take(LENGTH);
    chars.map(|c| char::from(c).to_ascii_lowercase()).collect()
}

/// The end of the identities of a participant's guests.
fn guest_mark(inviter: &Identity, room: &RoomName) -> String {
    short_hash(&format!("{room}\n{inviter}"))
}

/// The first ten hexadecimal digits of the text's SHA-256.
fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// A session: a user's connection to the gateway, with its room and its conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new id. Version 7 (RFC 9562 §5.7), so that ids sort by creation in the store.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id with this value, for tests.
    pub const fn from_u128(value: u128) -> Self {
        Self(Uuid::from_u128(value))
    }

    /// The 16 bytes, in sort order.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl Default for SessionId {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonSchema for SessionId {
    fn schema_name() -> Cow<'static, str> {
        "SessionId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uuid" })
    }
}

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| IdError::NotAUuid)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that a session assigns, in order.
macro_rules! counter_type {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub u64);

        impl $type {
            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0)
            }
        }

        impl FromStr for $type {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix(concat!($prefix, "_")).unwrap_or(text).parse().map(Self)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": concat!("^", $prefix, "_[0-9]+$") })
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

counter_type! {
    /// An utterance of a session.
    UtteranceId, "utt"
}
counter_type! {
    /// A turn of a session: the user's utterances and the response to them.
    TurnId, "turn"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_name_contains_a_plain_user_id_and_hides_an_e_mail_address() {
        let plain = RoomName::for_user(&UserId::parse("john_doe").unwrap(), "abc123");
        let address = RoomName::for_user(&UserId::parse("john@example.org").unwrap(), "abc123");

        assert_eq!(plain.as_str(), "room-john_doe-abc123");
        assert!(!address.as_str().contains("john"), "{address}");
        assert_eq!(address.as_str().len(), "room-".len() + 10 + "-abc123".len());
    }

    #[test]
    fn a_user_id_without_letters_or_of_great_length_is_hashed() {
        for user in ["…", &"x".repeat(64)] {
            let room = RoomName::for_user(&UserId::parse(user).unwrap(), "abc123");
            assert_eq!(room.as_str().len(), "room-".len() + 10 + "-abc123".len(), "{room}");
        }
    }

    #[test]
    fn ids_that_are_empty_too_long_or_have_control_characters_are_rejected() {
        assert_eq!(UserId::parse("a\nb"), Err(IdError::Control));
        assert_eq!(UserId::parse("  "), Err(IdError::Empty));
        assert_eq!(UserId::parse(&"x".repeat(257)), Err(IdError::TooLong { limit: 256 }));
    }

    #[test]
    fn a_guest_is_identified_by_name_and_suffix() {
        let identity =
            |name: &str| Identity::guest(&GuestName::parse(name).unwrap(), "abc123").as_str().to_owned();
        assert_eq!(identity(" Bob  B. (phone)"), "guest:bob-b-phone-abc123");
        let cyrillic = identity("Боб");
        assert_eq!(cyrillic.len(), "guest:".len() + 10 + "-abc123".len(), "{cyrillic}");
        assert_ne!(cyrillic, identity("Жан"));
    }

    #[test]
    fn a_guest_is_known_to_be_invited_by_one_participant_of_one_room() {
        let [ann, bob] = ["ann", "bob"].map(|name| Identity::parse(name).unwrap());
        let [room, other] = ["room-a", "room-b"].map(|name| RoomName::parse(name).unwrap());
        let name = GuestName::parse("Eve").unwrap();

        let eve = Identity::guest_of(&ann, &room, &name, "abc123");

        assert!(eve.is_guest_of(&ann, &room) && eve.is_guest_called(&name), "{eve}");
        assert!(!eve.is_guest_of(&bob, &room) && !eve.is_guest_of(&ann, &other));
        assert!(!Identity::guest(&name, "abc123").is_guest_of(&ann, &room));
    }

    #[test]
    fn a_guests_name_has_1_to_64_characters() {
        assert!(GuestName::parse(&"ж".repeat(64)).is_ok());
        assert_eq!(GuestName::parse(&"x".repeat(65)), Err(IdError::TooManyCharacters { limit: 64 }));
        assert_eq!(GuestName::parse(" "), Err(IdError::Empty));
        assert_eq!(GuestName::parse("a\u{7}b"), Err(IdError::Control));
    }

    #[test]
    fn ids_survive_the_wire() {
        let id = SessionId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(UtteranceId(7).to_string(), "utt_7");
        assert_eq!("utt_7".parse(), Ok(UtteranceId(7)));
    }
}
