//! End-to-end encryption: not available here, and refused loudly.
//!
//! LiveKit's API has no way to say no where keys are set, and an application that asked for encryption must never
//! send anything in the clear. So there are three lines of defence:
//! 1. While a [`DataPacketCryptor`] exists, which LiveKit makes for each room that is to be encrypted and before it
//!    connects, no peer connection can be made in this process: joining such a room fails with an error that says
//!    why. (A room without encryption that is joined in the same moments fails with it, and LiveKit tries again.)
//! 2. A sender that a [`FrameCryptor`] is put on sends nothing any more.
//! 3. Encrypting and decrypting data fails.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures are those of the crate whose place this takes"
)]

use std::error::Error;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use thiserror::Error;

use super::packet_trailer::PacketTrailerHandler;
use crate::RtcError;
use crate::peer_connection_factory::PeerConnectionFactory;
use crate::rtp_receiver::RtpReceiver;
use crate::rtp_sender::RtpSender;

/// End-to-end encryption was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("end-to-end encryption is not available in this libwebrtc; nothing is sent in its stead")]
pub struct EncryptionUnavailable;

/// The data cryptors that exist, that is the encrypted rooms that someone tries to join.
static ASKED_FOR: AtomicUsize = AtomicUsize::new(0);

/// Fails while end-to-end encryption is asked for.
pub(crate) fn refuse_if_asked_for() -> Result<(), RtcError> {
    if ASKED_FOR.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    tracing::error!("{EncryptionUnavailable}");
    Err(RtcError::invalid_state(EncryptionUnavailable.to_string()))
}

/// Told each state of a participant's encryption.
pub type OnStateChange = Box<dyn FnMut(String, EncryptionState) + Send + Sync>;

/// How a key is made of a passphrase.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub enum KeyDerivationAlgorithm {
    /// RFC 8018.
    PBKDF2,
    /// RFC 5869.
    HKDF,
}

/// How keys are kept.
#[derive(Debug, Clone)]
pub struct KeyProviderOptions {
    /// Whether all participants have the same key.
    pub shared_key: bool,
    /// How many ratchet steps are tried to decrypt a frame.
    pub ratchet_window_size: i32,
    /// The salt of ratcheting.
    pub ratchet_salt: Vec<u8>,
    /// How many frames may fail before a key is given up.
    pub failure_tolerance: i32,
    /// How many keys are kept.
    pub key_ring_size: i32,
    /// How a key is made of a passphrase.
    pub key_derivation_algorithm: KeyDerivationAlgorithm,
}

/// The cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionAlgorithm {
    /// AES in Galois/counter mode.
    AesGcm,
    /// AES in cipher block chaining.
    AesCbc,
}

/// How the encryption of a participant fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionState {
    /// No frame came yet.
    New,
    /// Frames are encrypted or decrypted.
    Ok,
    /// Encrypting failed.
    EncryptionFailed,
    /// Decrypting failed.
    DecryptionFailed,
    /// There is no key.
    MissingKey,
    /// A newer key was found by ratcheting.
    KeyRatcheted,
    /// Something else is wrong: here, always.
    InternalError,
}

/// An encrypted data packet.
#[derive(Debug, Clone)]
pub struct EncryptedPacket {
    /// The cipher text.
    pub data: Vec<u8>,
    /// The initialization vector.
    pub iv: Vec<u8>,
    /// Which key it was encrypted with.
    pub key_index: u32,
}

/// Keeps keys. It takes none here.
#[derive(Clone)]
pub struct KeyProvider {
    options: Arc<KeyProviderOptions>,
}

impl KeyProvider {
    /// A provider without keys.
    pub fn new(options: KeyProviderOptions) -> Self {
        Self { options: Arc::new(options) }
    }

    /// Sets the key that all share: fails.
    pub fn set_shared_key(&self, _key_index: i32, _key: Vec<u8>) -> bool {
        refuse("a shared key was set")
    }

    /// Moves the key that all share one step on: there is none.
    pub fn ratchet_shared_key(&self, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// The key that all share: there is none.
    pub fn get_shared_key(&self, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// Sets a participant's key: fails.
    pub fn set_key(&self, _participant_id: String, _key_index: i32, _key: Vec<u8>) -> bool {
        refuse("a key was set")
    }

    /// Moves a participant's key one step on: there is none.
    pub fn ratchet_key(&self, _participant_id: String, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// A participant's key: there is none.
    pub fn get_key(&self, _participant_id: String, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// Sets the trailer by which frames of the server's own are known.
    pub fn set_sif_trailer(&self, _trailer: Vec<u8>) {}
}

impl Debug for KeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyProvider").field("shared_key", &self.options.shared_key).finish_non_exhaustive()
    }
}

/// Encrypts what a sender sends, or decrypts what a receiver receives. Here it silences the sender.
#[derive(Clone)]
pub struct FrameCryptor {
    shared: Arc<Cryptor>,
}

struct Cryptor {
    participant_id: String,
    enabled: AtomicBool,
    key_index: AtomicI32,
    on_state_change: Mutex<Option<OnStateChange>>,
}

impl FrameCryptor {
    /// A cryptor for what `sender` sends: from now on, nothing.
    pub fn new_for_rtp_sender(
        _peer_factory: &PeerConnectionFactory,
        participant_id: String,
        _algorithm: EncryptionAlgorithm,
        _key_provider: KeyProvider,
        sender: RtpSender,
    ) -> Self {
        tracing::error!(participant_id, "{EncryptionUnavailable}");
        if let Err(error) = sender.set_track(None) {
            tracing::debug!(%error, "nothing to silence");
        }
        Self::new(participant_id)
    }

    /// A cryptor for what `receiver` receives: it stays encrypted, and is not understood.
    pub fn new_for_rtp_receiver(
        _peer_factory: &PeerConnectionFactory,
        participant_id: String,
        _algorithm: EncryptionAlgorithm,
        _key_provider: KeyProvider,
        _receiver: RtpReceiver,
    ) -> Self {
        tracing::error!(participant_id, "{EncryptionUnavailable}");
        Self::new(participant_id)
    }

    fn new(participant_id: String) -> Self {
        let shared = Cryptor {
            participant_id,
            enabled: AtomicBool::new(false),
            key_index: AtomicI32::new(0),
            on_state_change: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Turns it on or off. A silenced sender stays silent either way.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether it was turned on.
    pub fn enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Relaxed)
    }

    /// Chooses the key.
    pub fn set_key_index(&self, index: i32) {
        self.shared.key_index.store(index, Ordering::Relaxed);
    }

    /// The key that was chosen.
    pub fn key_index(&self) -> i32 {
        self.shared.key_index.load(Ordering::Relaxed)
    }

    /// Whose frames it is for.
    pub fn participant_id(&self) -> String {
        self.shared.participant_id.clone()
    }

    /// Sets who is told the state of the encryption, and tells at once that there is none.
    pub fn on_state_change(&self, handler: Option<OnStateChange>) {
        let mut slot = self.shared.on_state_change.lock();
        *slot = handler;
        if let Some(handler) = slot.as_mut() {
            handler(self.participant_id(), EncryptionState::InternalError);
        }
    }

    /// Puts trailers behind encrypted frames, of which there are none.
    pub fn set_packet_trailer_handler(&self, _handler: &PacketTrailerHandler) {}
}

impl Debug for FrameCryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameCryptor")
            .field("participant_id", &self.shared.participant_id)
            .finish_non_exhaustive()
    }
}

/// Encrypts and decrypts data packets: fails.
#[derive(Clone)]
pub struct DataPacketCryptor {
    _asked: Arc<Asked>,
}

/// Counts in [`ASKED_FOR`] for as long as it lives.
struct Asked;

impl DataPacketCryptor {
    /// A cryptor that refuses to work, and keeps peer connections from being made while it lives.
    pub fn new(_algorithm: EncryptionAlgorithm, _key_provider: KeyProvider) -> Self {
        ASKED_FOR.fetch_add(1, Ordering::AcqRel);
        Self { _asked: Arc::new(Asked) }
    }

    /// Encrypts a packet.
    ///
    /// # Errors
    /// [`EncryptionUnavailable`], always.
    pub fn encrypt(
        &self,
        _participant_id: &str,
        _key_index: u32,
        _data: &[u8],
    ) -> Result<EncryptedPacket, Box<dyn Error>> {
        Err(EncryptionUnavailable.into())
    }

    /// Decrypts a packet.
    ///
    /// # Errors
    /// [`EncryptionUnavailable`], always.
    pub fn decrypt(
        &self,
        _participant_id: &str,
        _encrypted_packet: &EncryptedPacket,
    ) -> Result<Vec<u8>, Box<dyn Error>> {
        Err(EncryptionUnavailable.into())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        ASKED_FOR.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Debug for DataPacketCryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPacketCryptor").finish_non_exhaustive()
    }
}

fn refuse(what: &str) -> bool {
    tracing::error!(what, "{EncryptionUnavailable}");
    false
}
