//! The result of a job: one record in the job's pipe, which only the job's child can write to. A header repeats the number
//! of the job, so that a record of another job is invalid. The server reads after the child has ended.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{read, write};

/// Maximum length of a result, bytes. A record fits into a pipe, 64 KiB: its reader reads after its writer has ended.
pub const MAX_RESULT: usize = 48 * 1024;

const HEADER: usize = 16;

/// First bytes of a record.
const MAGIC: [u8; 4] = *b"mcsr";

/// Why a pipe does not contain exactly one record. No such job has a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The pipe is empty.
    #[error("no result")]
    Missing,
    /// The bytes are not one record of this job: too few, too many, or other ones.
    #[error("an invalid result")]
    Invalid,
    /// Another process has the writing end of the pipe.
    #[error("the pipe of the result is still open")]
    Open,
    /// The pipe cannot be read.
    #[error("the result cannot be read: {0}")]
    Unreadable(Errno),
}

/// Writes the record of a job. The pipe is empty and does not block.
///
/// # Errors
/// If the result is too long, or the pipe is not writable or too small.
pub(super) fn write_record(pipe: impl AsFd, job: u64, result: &[u8]) -> nix::Result<()> {
    if result.len() > MAX_RESULT {
        return Err(Errno::EMSGSIZE);
    }
    let record = encode(job, result).ok_or(Errno::EMSGSIZE)?;
    let written = write(pipe, &record)?;
    if written == record.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

fn encode(job: u64, result: &[u8]) -> Option<Vec<u8>> {
    let mut record = Vec::with_capacity(HEADER + result.len());
    record.extend(MAGIC);
    record.extend(u32::try_from(result.len()).ok()?.to_le_bytes());
    record.extend(job.to_le_bytes());
    record.extend(result);
    Some(record)
}

/// Reads the result of a job whose child has ended.
pub(super) struct RecordReader {
    buffer: Vec<u8>,
    length: usize,
}

impl RecordReader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; HEADER + MAX_RESULT + 1], length: 0 }
    }

    /// Reads the rest of the pipe, which does not block. May be called again after [`RecordError::Open`].
    ///
    /// # Errors
    /// Unless the pipe contains one record of the job and nothing else, and no process can write to it any more.
    pub(super) fn read(&mut self, pipe: impl AsFd, job: u64) -> Result<Vec<u8>, RecordError> {
        // A longer content is invalid whatever follows.
        while let Some(rest) = self.buffer.get_mut(self.length..).filter(|rest| !rest.is_empty()) {
            match read(&pipe, rest) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(RecordError::Open),
                Err(errno) => return Err(RecordError::Unreadable(errno)),
            }
        }
        match self.buffer.get(..self.length) {
            None | Some([]) => Err(RecordError::Missing),
            Some(record) => decode(job, record).map(<[u8]>::to_vec).ok_or(RecordError::Invalid),
        }
    }
}

fn decode(job: u64, record: &[u8]) -> Option<&[u8]> {
    let rest = record.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (of_job, result) = rest.split_first_chunk()?;
    let is_whole = usize::try_from(u32::from_le_bytes(*length)) == Ok(result.len());
    let is_valid = is_whole && result.len() <= MAX_RESULT && u64::from_le_bytes(*of_job) == job;
    is_valid.then_some(result)
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use proptest::prelude::*;

    use super::*;

    /// Returns what the server reads if these bytes are in the pipe at the end of the child.
    fn read_bytes(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        let (reading, writing) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let _ = write(&writing, bytes);
        drop(writing);
        RecordReader::new().read(&reading, 7)
    }

    #[test]
    fn reads_one_record_of_the_job() {
        for length in [0, 1, 1000, MAX_RESULT] {
            let result = vec![b'x'; length];
            let (reading, writing) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
            write_record(&writing, 7, &result).unwrap();
            let mut reader = RecordReader::new();
            assert_eq!(reader.read(&reading, 7), Err(RecordError::Open), "a writer is left");
            drop(writing);
            assert_eq!(reader.read(&reading, 7).unwrap(), result);
        }
    }

    #[test]
    fn rejects_a_result_above_the_limit() {
        let (_reading, writing) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        assert_eq!(write_record(&writing, 7, &vec![0; MAX_RESULT + 1]), Err(Errno::EMSGSIZE));
        let mut record = encode(7, &vec![0; MAX_RESULT]).unwrap();
        assert!(read_bytes(&record).is_ok());
        record.push(0);
        assert_eq!(read_bytes(&record), Err(RecordError::Invalid));
        assert_eq!(
            read_bytes(&encode(7, &vec![0; MAX_RESULT + 1]).unwrap()),
            Err(RecordError::Invalid)
        );
    }

    #[test]
    fn rejects_everything_but_one_record() {
        let record = encode(7, b"clean").unwrap();
        assert_eq!(read_bytes(&record).unwrap(), b"clean");
        assert_eq!(read_bytes(b""), Err(RecordError::Missing));
        for length in 1..record.len() {
            assert_eq!(read_bytes(&record[..length]), Err(RecordError::Invalid), "{length}");
        }
        assert_eq!(read_bytes(&record.repeat(2)), Err(RecordError::Invalid));
        assert_eq!(read_bytes(&encode(8, b"clean").unwrap()), Err(RecordError::Invalid));
        assert_eq!(read_bytes(&vec![b'x'; 65536]), Err(RecordError::Invalid));
    }

    proptest! {
        #[test]
        fn decoding_accepts_only_what_encoding_returns(
            head in prop::collection::vec(any::<u8>(), 0..40),
            result in prop::collection::vec(any::<u8>(), 0..40),
            changed in 0_usize..56,
        ) {
            prop_assert!(decode(7, &head).is_none_or(|result| encode(7, result).unwrap() == head));
            let mut record = encode(7, &result).unwrap();
            prop_assert_eq!(decode(7, &record), Some(&result[..]));
            if let Some(byte) = record.get_mut(changed).filter(|_| changed < HEADER) {
                *byte ^= 1;
                prop_assert_eq!(decode(7, &record), None);
            }
        }
    }
}
