//! Receives a body once, chunk by chunk: limits its size, hashes it, decrypts it, writes the plaintext for the script
//! and stores the body for the requesters. Everything except [`Ingest::new`] blocks.
//!
//! There are two copies on disk, because a script that runs as the server's own user can modify its file. The copy that
//! is served is out of the script's reach. If the script's file is tamper-proof, it is the only copy.

use std::{
    fs::File,
    io::{self, Write},
    mem,
    sync::Arc,
};

use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

pub use super::error::IngestError;
use super::{
    body::Body,
    decrypt::{Cipher, Decryption},
    spool::{Account, NeededSpace, Reservation, SMALL_BODY, Spool, SpoolFull, SpooledFile},
};

/// Maximum size of a body that is held in memory, in bytes. Limits the memory per job regardless of the cache's
/// settings.
const MAX_IN_MEMORY: u64 = 1 << 20;

/// Step in which the reservation for a body of unknown length grows, in bytes.
const RESERVATION_STEP: u64 = 1 << 20;

/// Options for one body.
#[derive(Debug)]
pub struct IngestOptions {
    /// Account that the spool usage is counted against.
    pub account: Account,
    /// Maximum size of the body, in bytes.
    pub max_size: u64,
    /// Maximum size of a body stored in memory, in bytes.
    pub memory_limit: u64,
    /// Whether a body larger than `memory_limit` is stored on the spool; otherwise it is discarded.
    pub keep_large: bool,
    /// Decrypts the body; `None` if it is not encrypted.
    pub decryption: Option<Arc<Decryption>>,
    /// Receives the plaintext; `None` if the verdict is already known.
    pub script_file: Option<ScriptFile>,
}

/// File for the script.
#[derive(Debug)]
pub struct ScriptFile {
    /// An empty file, open for reading and writing.
    pub file: File,
    /// Whether the script is unable to modify the file.
    pub tamper_proof: bool,
}

/// A body that is being received.
#[derive(Debug)]
pub struct Ingest {
    spool: Spool,
    account: Account,
    max_size: u64,
    /// Size up to which all clients decrypt the body to the same plaintext, in bytes.
    max_decryptable_size: u64,
    received: u64,
    body_hash: Sha256,
    body_store: BodyStore,
    decryption: Option<Decryptor>,
    plaintext: Option<PlaintextFile>,
}

/// The server's own copy of the body.
#[derive(Debug)]
enum BodyStore {
    Memory {
        bytes: Vec<u8>,
        limit: u64,
        overflow: Overflow,
    },
    File(File, Reservation),
    /// A reservation for a file, and the bytes received before the body exceeded the memory limit. The file is created
    /// with the next write.
    Reserved(Vec<u8>, Reservation),
    /// The script's file is also the server's copy.
    ScriptFile,
    Discarded,
}

/// Destination of a body that exceeds the memory limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    OwnFile,
    ScriptFile,
    Discard,
}

struct Decryptor {
    expected: [u8; 32],
    cipher: Cipher,
    plaintext_hash: Sha256,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct PlaintextFile {
    file: File,
    reservation: Reservation,
}

/// A completely received body.
#[derive(Debug)]
pub struct Ingested {
    /// The server's copy; `None` if it was discarded.
    pub body: Option<Body>,
    /// Size of the body, in bytes.
    pub size: u64,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
    /// `None` if [`IngestOptions::script_file`] is `None`.
    pub plaintext: Option<Plaintext>,
}

/// The plaintext of a body whose ciphertext has the expected hash.
#[derive(Debug)]
pub struct Plaintext {
    /// SHA-256 of the plaintext.
    pub hash: [u8; 32],
    /// The script's file, at an unspecified position.
    pub file: File,
    /// Reservation of the script's file; `None` if the body holds it.
    pub reservation: Option<Reservation>,
}

impl Ingest {
    /// Reserves space for a body of `announced_size` bytes, if its size is known. Does not block.
    ///
    /// # Errors
    /// [`IngestError::TooLarge`], [`IngestError::CounterWraps`] and [`IngestError::SpoolFull`].
    pub fn new(
        spool: &Spool,
        options: IngestOptions,
        announced_size: Option<u64>,
    ) -> Result<Self, IngestError> {
        let mut ingest = Self::without_space(spool, options, announced_size)?;
        ingest.reserve(announced_size.unwrap_or(0), 0)?;
        Ok(ingest)
    }

    /// Like [`Ingest::new`], but waits until `deadline` for space if the spool, or the tenant's share, is used up. Does
    /// not wait for clients that read bodies.
    ///
    /// Cancellation safe.
    pub(crate) async fn new_when_free(
        spool: &Spool,
        options: IngestOptions,
        announced_size: Option<u64>,
        deadline: Instant,
    ) -> Result<Self, IngestError> {
        let mut ingest = Self::without_space(spool, options, announced_size)?;
        let account = ingest.account.clone();
        let size = announced_size.unwrap_or(0);
        // A body that never fits must not wait.
        ingest.check_capacity(size)?;
        let bytes = size.saturating_mul(ingest.copies(size));
        let needed = NeededSpace { bytes, is_small: size <= SMALL_BODY };
        let reserve = || ingest.reserve(size, 0).inspect_err(|_| ingest.release());
        let is_space =
            |error: &ReserveError| matches!(error, ReserveError::Spool(SpoolFull::Space));
        let reserved = account.reserve_when_free(needed, reserve, is_space);
        timeout_at(deadline, reserved).await.map_err(|_elapsed| IngestError::SpoolFull)??;
        Ok(ingest)
    }

    fn without_space(
        spool: &Spool,
        options: IngestOptions,
        announced_size: Option<u64>,
    ) -> Result<Self, IngestError> {
        let max_decryptable_size =
            options.decryption.as_ref().map_or(u64::MAX, |decryption| decryption.max_size());
        let announced_size = announced_size.unwrap_or(0);
        check_size(announced_size, options.max_size, max_decryptable_size)?;
        let serves_script_file = options.decryption.is_none()
            && options.script_file.as_ref().is_some_and(|script_file| script_file.tamper_proof);
        let limit = options.memory_limit.min(MAX_IN_MEMORY);
        Ok(Self {
            spool: spool.clone(),
            max_size: options.max_size,
            max_decryptable_size,
            received: 0,
            body_hash: Sha256::new(),
            body_store: BodyStore::Memory {
                bytes: Vec::with_capacity(usize::try_from(announced_size.min(limit)).unwrap_or(0)),
                limit,
                overflow: match (options.keep_large, serves_script_file) {
                    (false, _) => Overflow::Discard,
                    (true, true) => Overflow::ScriptFile,
                    (true, false) => Overflow::OwnFile,
                },
            },
            decryption: options.decryption.map(|decryption| Decryptor {
                expected: *decryption.ciphertext_hash(),
                cipher: decryption.cipher(),
                plaintext_hash: Sha256::new(),
                buffer: Vec::new(),
            }),
            plaintext: options.script_file.map(|script_file| PlaintextFile {
                file: script_file.file,
                reservation: options.account.reservation(),
            }),
            account: options.account,
        })
    }

    /// Processes the next bytes of the body.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), IngestError> {
        let total = self.received + chunk.len() as u64;
        check_size(total, self.max_size, self.max_decryptable_size)?;
        self.reserve(total, RESERVATION_STEP)?;
        self.received = total;
        self.body_hash.update(chunk);
        self.create_reserved_file().map_err(IngestError::Disk)?;
        match &mut self.body_store {
            BodyStore::Memory { bytes, .. } => bytes.extend_from_slice(chunk),
            BodyStore::File(file, _) => file.write_all(chunk).map_err(IngestError::Disk)?,
            BodyStore::Reserved(..) | BodyStore::ScriptFile | BodyStore::Discarded => {}
        }
        let plaintext = match &mut self.decryption {
            Some(decryptor) if self.plaintext.is_some() => decryptor.decrypt_chunk(chunk),
            _ => chunk,
        };
        if let Some(PlaintextFile { file, .. }) = &mut self.plaintext {
            file.write_all(plaintext).map_err(IngestError::Disk)?;
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`IngestError::HashMismatch`] if the body is encrypted and does not have the expected hash.
    pub fn finish(mut self) -> Result<Ingested, IngestError> {
        self.create_reserved_file().map_err(IngestError::Disk)?;
        let body_hash: [u8; 32] = self.body_hash.finalize().into();
        if let Some(decryptor) = &self.decryption
            && decryptor.expected != body_hash
        {
            return Err(IngestError::HashMismatch);
        }
        let mut plaintext = match self.plaintext {
            None => None,
            Some(PlaintextFile { file, mut reservation, .. }) => {
                reservation.shrink_to(self.received);
                let hash = match self.decryption {
                    Some(decryptor) => decryptor.plaintext_hash.finalize().into(),
                    None => body_hash,
                };
                Some(Plaintext { hash, file, reservation: Some(reservation) })
            }
        };
        let body = match self.body_store {
            // Boxed to release spare capacity: the cache may keep the body for long, and counts its length only.
            BodyStore::Memory { bytes, .. } => Some(Body::Memory(bytes.into_boxed_slice().into())),
            BodyStore::File(file, mut reservation) => {
                reservation.shrink_to(self.received);
                Some(Body::File(Arc::new(SpooledFile::new(file, self.received, reservation))))
            }
            BodyStore::ScriptFile => match &mut plaintext {
                // The body may outlive the job's directory, so it takes the reservation.
                Some(Plaintext { file, reservation, .. }) => {
                    let file = file.try_clone().map_err(IngestError::Disk)?;
                    reservation.take().map(|reservation| {
                        Body::File(Arc::new(SpooledFile::new(file, self.received, reservation)))
                    })
                }
                None => None,
            },
            BodyStore::Reserved(..) | BodyStore::Discarded => None,
        };
        Ok(Ingested { body, size: self.received, body_hash, plaintext })
    }

    /// Reserves space for a body of `total` bytes, in memory or on disk, and for `spare` more bytes if available.
    fn reserve(&mut self, total: u64, spare: u64) -> Result<(), ReserveError> {
        self.check_capacity(total)?;
        if let Some(PlaintextFile { reservation, .. }) = &mut self.plaintext {
            grow(reservation, total, spare)?;
        }
        if let BodyStore::Memory { bytes, limit, overflow } = &mut self.body_store
            && total > *limit
        {
            self.body_store = match overflow {
                Overflow::Discard => BodyStore::Discarded,
                Overflow::ScriptFile => {
                    if let Some(PlaintextFile { reservation, .. }) = &mut self.plaintext {
                        reservation.mark_served()?;
                    }
                    BodyStore::ScriptFile
                }
                Overflow::OwnFile => {
                    let mut reservation = self.account.reservation();
                    reservation.mark_served()?;
                    reservation.grow_to(total)?;
                    BodyStore::Reserved(mem::take(bytes), reservation)
                }
            };
        }
        if let BodyStore::File(_, reservation) | BodyStore::Reserved(_, reservation) =
            &mut self.body_store
        {
            grow(reservation, total, spare)?;
        }
        Ok(())
    }

    /// Checks that all copies of a body of `total` bytes fit into the whole spool.
    fn check_capacity(&self, total: u64) -> Result<(), IngestError> {
        let (copies, capacity) = (self.copies(total), self.account.capacity());
        if total.saturating_mul(copies) > capacity {
            return Err(IngestError::TooLarge { limit: capacity / copies });
        }
        Ok(())
    }

    /// Releases the partial reservation left by a failed [`Ingest::reserve`]. Must be called before the first byte of
    /// the body is received.
    fn release(&mut self) {
        if let Some(PlaintextFile { reservation, .. }) = &mut self.plaintext {
            reservation.shrink_to(0);
        }
    }

    fn create_reserved_file(&mut self) -> io::Result<()> {
        self.body_store = match mem::replace(&mut self.body_store, BodyStore::Discarded) {
            BodyStore::Reserved(bytes, reservation) => {
                let mut file = self.spool.create_unnamed_file()?;
                file.write_all(&bytes)?;
                BodyStore::File(file, reservation)
            }
            body_store => body_store,
        };
        Ok(())
    }

    /// Returns the number of copies of a body of `total` bytes on disk.
    fn copies(&self, total: u64) -> u64 {
        let has_own_file = match &self.body_store {
            BodyStore::Memory { limit, overflow: Overflow::OwnFile, .. } => total > *limit,
            BodyStore::File(..) | BodyStore::Reserved(..) => true,
            BodyStore::Memory { .. } | BodyStore::ScriptFile | BodyStore::Discarded => false,
        };
        u64::from(has_own_file) + u64::from(self.plaintext.is_some())
    }
}

/// Reason why space for a body is not reserved.
enum ReserveError {
    Body(IngestError),
    Spool(SpoolFull),
}

impl From<IngestError> for ReserveError {
    fn from(error: IngestError) -> Self {
        Self::Body(error)
    }
}

impl From<SpoolFull> for ReserveError {
    fn from(full: SpoolFull) -> Self {
        Self::Spool(full)
    }
}

impl From<ReserveError> for IngestError {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::Body(error) => error,
            ReserveError::Spool(full) => full.into(),
        }
    }
}

/// Checks the announced or received size of a body before anything is stored for it.
fn check_size(size: u64, max_size: u64, max_decryptable_size: u64) -> Result<(), IngestError> {
    if size > max_size {
        return Err(IngestError::TooLarge { limit: max_size });
    }
    if size > max_decryptable_size {
        return Err(IngestError::CounterWraps { limit: max_decryptable_size });
    }
    Ok(())
}

/// Grows the reservation to `total + spare`, or to `total` if the budget has no more. The spare bytes avoid a
/// reservation for each chunk of a body of unknown length.
fn grow(reservation: &mut Reservation, total: u64, spare: u64) -> Result<(), SpoolFull> {
    if reservation.covers(total) {
        return Ok(());
    }
    reservation.grow_to(total.saturating_add(spare)).or_else(|_| reservation.grow_to(total))
}

impl Decryptor {
    fn decrypt_chunk(&mut self, chunk: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(chunk);
        self.cipher.apply(&mut self.buffer);
        self.plaintext_hash.update(&self.buffer);
        &self.buffer
    }
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decryptor(..)")
    }
}

#[cfg(test)]
mod tests;
