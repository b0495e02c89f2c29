//! Takes a body in, once, as it comes: bounds it, hashes it, decrypts it, writes the plaintext for the
//! script and keeps the body for whoever wants it. All of it but the beginning blocks; nothing here knows
//! where the bytes come from.
//!
//! Two copies, because a script that runs as the server's own user can rewrite its file: what is
//! served is the server's. Where the script's file is out of the script's reach, one file is both.

use std::{
    fs::File,
    io::{self, Write},
    mem,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    Body,
    decrypt::{Cipher, Decryption},
    spool::{Account, Reservation, Spool, SpoolFull, SpooledFile},
};

/// Bodies up to this size are held in memory while they come, if they are kept in memory afterwards;
/// larger ones always go by the disk, so that memory is bounded per job whatever the cache may hold.
const LARGEST_IN_MEMORY: u64 = 1 << 20;

/// Where a length was not announced, the budget is taken in steps of this size.
const RESERVATION_STEP: u64 = 1 << 20;

/// Why bytes could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Over `download.max_size`, or more than the spool could ever hold: trying again is no use.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The spool's budget, or a share of it, is used up for now.
    #[error("the spool's budget is used up")]
    SpoolFull,
    /// Disk full, read-only, gone.
    #[error("the disk failed")]
    Disk(#[source] io::Error),
    /// The ciphertext is not the one that the client's hash names.
    #[error("the ciphertext's SHA-256 is not the one given")]
    HashMismatch,
    /// The low 64 bits of the IV would wrap within the body, so clients with a 64-bit counter and
    /// clients with a 128-bit counter would decrypt it to two plaintexts. [`Decryption::max_size`]
    #[error("the low 64 bits of iv would wrap within the media: more than {limit} bytes")]
    CounterWraps {
        /// Bytes before the wrap.
        limit: u64,
    },
}

impl From<SpoolFull> for IntakeError {
    fn from(_: SpoolFull) -> Self {
        Self::SpoolFull
    }
}

/// What becomes of a body.
#[derive(Debug)]
pub struct Plan {
    /// For whom the spool's budget is used.
    pub account: Account,
    /// Largest body, bytes.
    pub max_size: u64,
    /// Bodies up to this size are kept in memory, bytes.
    pub memory_limit: u64,
    /// Whether a body beyond `memory_limit` is kept too, on the spool.
    pub keep_large: bool,
    /// How the body is opened; none for a plain media.
    pub decryption: Option<Arc<Decryption>>,
    /// Where the plaintext goes; none where its verdict is known already.
    pub script_file: Option<ScriptFile>,
}

/// The file that the script gets.
#[derive(Debug)]
pub struct ScriptFile {
    /// Empty, open for reading and writing.
    pub file: File,
    /// Whether the script can change what is in it.
    pub tamper_proof: bool,
}

/// A body on its way in.
#[derive(Debug)]
pub struct Intake {
    spool: Spool,
    account: Account,
    max_size: u64,
    /// Bytes up to which all clients decrypt the body to the same plaintext.
    max_decryptable_size: u64,
    taken: u64,
    body_hash: Sha256,
    kept: Kept,
    decryption: Option<Deciphering>,
    plaintext: Option<PlaintextFile>,
}

/// The server's own copy of the body.
#[derive(Debug)]
enum Kept {
    Memory {
        bytes: Vec<u8>,
        limit: u64,
        beyond: Beyond,
    },
    File(File, Reservation),
    /// A file's place on the spool, and what of the body came before it was known to need one. The file is
    /// made with the next bytes.
    Claimed(Vec<u8>, Reservation),
    /// The script's file is the server's copy too.
    Shared,
    Nothing,
}

/// Where a body goes that memory does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beyond {
    OwnFile,
    Shared,
    Nowhere,
}

struct Deciphering {
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

/// A body that is in, whole.
#[derive(Debug)]
pub struct Taken {
    /// The server's copy, unless it was too large to keep.
    pub body: Option<Body>,
    /// Bytes of the body.
    pub size: u64,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
    /// What the script is given; none where none was asked for.
    pub plaintext: Option<Plaintext>,
}

/// A plaintext whose ciphertext's hash has held.
#[derive(Debug)]
pub struct Plaintext {
    /// SHA-256 of the plaintext.
    pub hash: [u8; 32],
    /// For looking into it: the script's file, at no particular position.
    pub file: File,
    /// The script's file's share of the disk; none where the body holds it.
    pub reservation: Option<Reservation>,
}

impl Intake {
    /// Makes room for a body of `announced` bytes (as far as that is known) and begins. Does not block.
    pub fn begin(spool: &Spool, plan: Plan, announced: Option<u64>) -> Result<Self, IntakeError> {
        let max_decryptable_size =
            plan.decryption.as_ref().map_or(u64::MAX, |decryption| decryption.max_size());
        check_size(announced.unwrap_or(0), plan.max_size, max_decryptable_size)?;
        let announced = announced.unwrap_or(0);
        let shared = plan.decryption.is_none()
            && plan.script_file.as_ref().is_some_and(|script_file| script_file.tamper_proof);
        let limit = plan.memory_limit.min(LARGEST_IN_MEMORY);
        let mut intake = Self {
            spool: spool.clone(),
            max_size: plan.max_size,
            max_decryptable_size,
            taken: 0,
            body_hash: Sha256::new(),
            kept: Kept::Memory {
                bytes: Vec::with_capacity(usize::try_from(announced.min(limit)).unwrap_or(0)),
                limit,
                beyond: match (plan.keep_large, shared) {
                    (false, _) => Beyond::Nowhere,
                    (true, true) => Beyond::Shared,
                    (true, false) => Beyond::OwnFile,
                },
            },
            decryption: plan.decryption.map(|decryption| Deciphering {
                expected: *decryption.ciphertext_hash(),
                cipher: decryption.cipher(),
                plaintext_hash: Sha256::new(),
                buffer: Vec::new(),
            }),
            plaintext: plan.script_file.map(|script_file| PlaintextFile {
                file: script_file.file,
                reservation: plan.account.reservation(),
            }),
            account: plan.account,
        };
        // The body claims its place on the disk now, before it is downloaded.
        intake.make_room(announced, 0)?;
        Ok(intake)
    }

    /// Takes the next bytes of the body.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), IntakeError> {
        let total = self.taken + chunk.len() as u64;
        check_size(total, self.max_size, self.max_decryptable_size)?;
        self.make_room(total, RESERVATION_STEP)?;
        self.taken = total;
        self.body_hash.update(chunk);
        self.open_claimed().map_err(IntakeError::Disk)?;
        match &mut self.kept {
            Kept::Memory { bytes, .. } => bytes.extend_from_slice(chunk),
            Kept::File(file, _) => file.write_all(chunk).map_err(IntakeError::Disk)?,
            Kept::Claimed(..) | Kept::Shared | Kept::Nothing => {}
        }
        let plaintext = match &mut self.decryption {
            Some(deciphering) if self.plaintext.is_some() => deciphering.decipher(chunk),
            _ => chunk,
        };
        if let Some(PlaintextFile { file, .. }) = &mut self.plaintext {
            file.write_all(plaintext).map_err(IntakeError::Disk)?;
        }
        Ok(())
    }

    /// Ends the body: the moment at which an encrypted one's hash has to hold.
    pub fn finish(mut self) -> Result<Taken, IntakeError> {
        self.open_claimed().map_err(IntakeError::Disk)?;
        let body_hash: [u8; 32] = self.body_hash.finalize().into();
        if let Some(deciphering) = &self.decryption
            && deciphering.expected != body_hash
        {
            return Err(IntakeError::HashMismatch);
        }
        let mut plaintext = match self.plaintext {
            None => None,
            Some(PlaintextFile { file, mut reservation, .. }) => {
                reservation.shrink_to(self.taken);
                let hash = match self.decryption {
                    Some(deciphering) => deciphering.plaintext_hash.finalize().into(),
                    None => body_hash,
                };
                Some(Plaintext { hash, file, reservation: Some(reservation) })
            }
        };
        let body = match self.kept {
            // Boxed, it has no more memory than bytes: it may be kept for long, and is counted by them.
            Kept::Memory { bytes, .. } => Some(Body::Memory(bytes.into_boxed_slice().into())),
            Kept::File(file, mut reservation) => {
                reservation.shrink_to(self.taken);
                reservation.body_is_in();
                Some(Body::File(Arc::new(SpooledFile::new(file, self.taken, reservation))))
            }
            Kept::Shared => match &mut plaintext {
                // The body may outlive the job's directory: the share of the disk goes with it.
                Some(Plaintext { file, reservation, .. }) => {
                    let file = file.try_clone().map_err(IntakeError::Disk)?;
                    reservation.take().map(|mut reservation| {
                        reservation.body_is_in();
                        Body::File(Arc::new(SpooledFile::new(file, self.taken, reservation)))
                    })
                }
                None => None,
            },
            Kept::Claimed(..) | Kept::Nothing => None,
        };
        Ok(Taken { body, size: self.taken, body_hash, plaintext })
    }

    /// Sees to it that a body of `total` bytes has its place, in memory or on the disk, and if it can
    /// be had, room for `spare` more.
    fn make_room(&mut self, total: u64, spare: u64) -> Result<(), IntakeError> {
        let (copies, capacity) = (self.copies(total), self.account.capacity());
        if total.saturating_mul(copies) > capacity {
            return Err(IntakeError::TooLarge { limit: capacity / copies });
        }
        if let Some(PlaintextFile { reservation, .. }) = &mut self.plaintext {
            grow(reservation, total, spare)?;
        }
        if let Kept::Memory { bytes, limit, beyond } = &mut self.kept
            && total > *limit
        {
            self.kept = match beyond {
                Beyond::Nowhere => Kept::Nothing,
                Beyond::Shared => {
                    if let Some(PlaintextFile { reservation, .. }) = &mut self.plaintext {
                        reservation.keep_to_serve()?;
                    }
                    Kept::Shared
                }
                Beyond::OwnFile => {
                    let mut reservation = self.account.reservation();
                    reservation.keep_to_serve()?;
                    reservation.grow_to(total)?;
                    Kept::Claimed(mem::take(bytes), reservation)
                }
            };
        }
        if let Kept::File(_, reservation) | Kept::Claimed(_, reservation) = &mut self.kept {
            grow(reservation, total, spare)?;
        }
        Ok(())
    }

    fn open_claimed(&mut self) -> io::Result<()> {
        self.kept = match mem::replace(&mut self.kept, Kept::Nothing) {
            Kept::Claimed(bytes, reservation) => {
                let mut file = self.spool.nameless_file()?;
                file.write_all(&bytes)?;
                Kept::File(file, reservation)
            }
            kept => kept,
        };
        Ok(())
    }

    /// How often a body of `total` bytes lies on the disk.
    fn copies(&self, total: u64) -> u64 {
        let of_its_own = match &self.kept {
            Kept::Memory { limit, beyond: Beyond::OwnFile, .. } => total > *limit,
            Kept::File(..) | Kept::Claimed(..) => true,
            Kept::Memory { .. } | Kept::Shared | Kept::Nothing => false,
        };
        u64::from(of_its_own) + u64::from(self.plaintext.is_some())
    }
}

/// Checks the size of a body, announced or counted, before anything is stored for it.
fn check_size(size: u64, max_size: u64, max_decryptable_size: u64) -> Result<(), IntakeError> {
    if size > max_size {
        return Err(IntakeError::TooLarge { limit: max_size });
    }
    if size > max_decryptable_size {
        return Err(IntakeError::CounterWraps { limit: max_decryptable_size });
    }
    Ok(())
}

/// Grows by `spare` more than is needed, so that a body of unknown length does not ask for each
/// chunk; the last step may be smaller than the budget's rest.
fn grow(reservation: &mut Reservation, total: u64, spare: u64) -> Result<(), SpoolFull> {
    if reservation.holds(total) {
        return Ok(());
    }
    reservation.grow_to(total.saturating_add(spare)).or_else(|_| reservation.grow_to(total))
}

impl Deciphering {
    fn decipher(&mut self, chunk: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(chunk);
        self.cipher.apply(&mut self.buffer);
        self.plaintext_hash.update(&self.buffer);
        &self.buffer
    }
}

impl std::fmt::Debug for Deciphering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deciphering(..)")
    }
}

#[cfg(test)]
mod tests;
