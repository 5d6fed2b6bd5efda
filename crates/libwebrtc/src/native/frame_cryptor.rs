//! End-to-end encryption. Not implemented; requests for it fail.
//!
//! LiveKit's API cannot report an error where keys are set, and an application that requested encryption must never
//! send unencrypted media or data. There are three safeguards:
//! 1. LiveKit creates a [`DataPacketCryptor`] for each encrypted room before it connects. While one exists, no peer
//!    connection can be created in this process, so that joining the room fails with an error that states the reason.
//!    (An unencrypted room that is joined at the same time fails too, and LiveKit retries.)
//! 2. Creating a [`FrameCryptor`] for a sender stops the sender.
//! 3. Encryption and decryption of data packets fail.

#![expect(clippy::needless_pass_by_value, reason = "the signatures are those of the original crate")]

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

/// End-to-end encryption was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("end-to-end encryption is not available in this libwebrtc; nothing is sent unencrypted instead")]
pub struct EncryptionUnavailable;

/// Number of existing data cryptors, which is the number of encrypted rooms being joined.
static ACTIVE_DATA_CRYPTORS: AtomicUsize = AtomicUsize::new(0);

/// Returns an error while end-to-end encryption is requested.
pub(crate) fn ensure_encryption_not_requested() -> Result<(), RtcError> {
    if ACTIVE_DATA_CRYPTORS.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    tracing::error!("{EncryptionUnavailable}");
    Err(RtcError::invalid_state(EncryptionUnavailable.to_string()))
}

/// Callback for each new state of a participant's encryption.
pub type OnStateChange = Box<dyn FnMut(String, EncryptionState) + Send + Sync>;

/// Key derivation algorithm.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub enum KeyDerivationAlgorithm {
    /// PBKDF2 (RFC 8018).
    PBKDF2,
    /// HKDF (RFC 5869).
    HKDF,
}

/// Options of a [`KeyProvider`].
#[derive(Debug, Clone)]
pub struct KeyProviderOptions {
    /// Whether all participants use the same key.
    pub shared_key: bool,
    /// Maximum number of ratchet steps to decrypt a frame.
    pub ratchet_window_size: i32,
    /// Salt for ratcheting.
    pub ratchet_salt: Vec<u8>,
    /// Number of decryption failures before a key is considered invalid.
    pub failure_tolerance: i32,
    /// Number of keys that are kept.
    pub key_ring_size: i32,
    /// Key derivation algorithm.
    pub key_derivation_algorithm: KeyDerivationAlgorithm,
}

/// Encryption algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionAlgorithm {
    /// AES in Galois/counter mode.
    AesGcm,
    /// AES in cipher block chaining.
    AesCbc,
}

/// State of a participant's encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionState {
    /// No frame has been processed yet.
    New,
    /// Frames are encrypted or decrypted successfully.
    Ok,
    /// Encryption failed.
    EncryptionFailed,
    /// Decryption failed.
    DecryptionFailed,
    /// No key is set.
    MissingKey,
    /// A newer key was derived by ratcheting.
    KeyRatcheted,
    /// Another error; always the state in this crate.
    InternalError,
}

/// An encrypted data packet.
#[derive(Debug, Clone)]
pub struct EncryptedPacket {
    /// Ciphertext.
    pub data: Vec<u8>,
    /// Initialization vector.
    pub iv: Vec<u8>,
    /// Index of the key.
    pub key_index: u32,
}

/// A store of keys. It rejects all keys.
#[derive(Clone)]
pub struct KeyProvider {
    options: Arc<KeyProviderOptions>,
}

impl KeyProvider {
    /// Creates a provider without keys.
    pub fn new(options: KeyProviderOptions) -> Self {
        Self { options: Arc::new(options) }
    }

    /// Sets the shared key: returns `false` and logs an error.
    pub fn set_shared_key(&self, _key_index: i32, _key: Vec<u8>) -> bool {
        reject("setting a shared key")
    }

    /// Ratchets the shared key: always `None`.
    pub fn ratchet_shared_key(&self, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// The shared key: always `None`.
    pub fn get_shared_key(&self, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// Sets the key of a participant: returns `false` and logs an error.
    pub fn set_key(&self, _participant_id: String, _key_index: i32, _key: Vec<u8>) -> bool {
        reject("setting a key")
    }

    /// Ratchets the key of a participant: always `None`.
    pub fn ratchet_key(&self, _participant_id: String, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// The key of a participant: always `None`.
    pub fn get_key(&self, _participant_id: String, _key_index: i32) -> Option<Vec<u8>> {
        None
    }

    /// Sets the trailer that marks server-injected frames: no effect.
    pub fn set_sif_trailer(&self, _trailer: Vec<u8>) {}
}

impl Debug for KeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyProvider").field("shared_key", &self.options.shared_key).finish_non_exhaustive()
    }
}

/// Encryption of a sender or decryption of a receiver. Creating one for a sender stops the sender.
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
    /// Creates a cryptor for `sender`, which stops sending.
    pub fn new_for_rtp_sender(
        _peer_factory: &PeerConnectionFactory,
        participant_id: String,
        _algorithm: EncryptionAlgorithm,
        _key_provider: KeyProvider,
        sender: RtpSender,
    ) -> Self {
        tracing::error!(participant_id, "{EncryptionUnavailable}");
        if let Err(error) = sender.set_track(None) {
            tracing::debug!(%error, "the sender has already ended");
        }
        Self::new(participant_id)
    }

    /// Creates a cryptor for `receiver`. Received frames are not decrypted.
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

    /// Enables or disables the cryptor. The sender remains stopped in either case.
    pub fn set_enabled(&self, enabled: bool) {
        self.shared.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether the cryptor was enabled.
    pub fn enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Relaxed)
    }

    /// Sets the index of the key.
    pub fn set_key_index(&self, index: i32) {
        self.shared.key_index.store(index, Ordering::Relaxed);
    }

    /// Index of the key.
    pub fn key_index(&self) -> i32 {
        self.shared.key_index.load(Ordering::Relaxed)
    }

    /// Id of the participant.
    pub fn participant_id(&self) -> String {
        self.shared.participant_id.clone()
    }

    /// Sets the callback for new states, and calls it with [`EncryptionState::InternalError`].
    pub fn on_state_change(&self, handler: Option<OnStateChange>) {
        let mut slot = self.shared.on_state_change.lock();
        *slot = handler;
        if let Some(handler) = slot.as_mut() {
            handler(self.participant_id(), EncryptionState::InternalError);
        }
    }

    /// Sets the handler for packet trailers: no effect.
    pub fn set_packet_trailer_handler(&self, _handler: &PacketTrailerHandler) {}
}

impl Debug for FrameCryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameCryptor")
            .field("participant_id", &self.shared.participant_id)
            .finish_non_exhaustive()
    }
}

/// Encryption of data packets. All operations fail.
#[derive(Clone)]
pub struct DataPacketCryptor {
    _guard: Arc<ActiveCryptorGuard>,
}

/// Counted in [`ACTIVE_DATA_CRYPTORS`] until it is dropped.
struct ActiveCryptorGuard;

impl DataPacketCryptor {
    /// Creates a cryptor. While it exists, no peer connection can be created in this process.
    pub fn new(_algorithm: EncryptionAlgorithm, _key_provider: KeyProvider) -> Self {
        ACTIVE_DATA_CRYPTORS.fetch_add(1, Ordering::AcqRel);
        Self { _guard: Arc::new(ActiveCryptorGuard) }
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

impl Drop for ActiveCryptorGuard {
    fn drop(&mut self) {
        ACTIVE_DATA_CRYPTORS.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Debug for DataPacketCryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPacketCryptor").finish_non_exhaustive()
    }
}

fn reject(what: &str) -> bool {
    tracing::error!(what, "{EncryptionUnavailable}");
    false
}
