//! Messages between the server and a resident program: packets of fixed layout, little endian. The result of a job is not
//! a message: its child writes the result to a pipe of the job, see `record`.

use nix::libc::c_int;

/// Length of each message, bytes.
const LENGTH: usize = 28;

/// Message to the resident program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResidentRequest {
    /// First message, with the descriptors of the program's data. The reply is `Ready`.
    Load,
    /// Starts a job, with two descriptors: the media, open for reading only, and the writing end of the job's pipe. The
    /// reply is `Ended` or `NotStarted`.
    Evaluate {
        job: u64,
        /// Memory beyond the address space of the resident program, bytes.
        memory: u64,
        /// Processor time, seconds.
        cpu_seconds: u32,
        /// Passed to the function that evaluates.
        argument: u32,
    },
    /// Kills the child of a job, which causes `Ended`. Ignored if the job has ended.
    Kill { job: u64 },
    /// Asks for a pidfd of a job's child. The reply is `Child`; there is none if the job has ended.
    FindChild { job: u64 },
}

/// Message from the resident program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResidentReply {
    /// The data is loaded.
    Ready,
    /// The child of a job has ended.
    Ended {
        job: u64,
        /// Wait status, see wait(2).
        status: c_int,
    },
    /// No child was forked.
    NotStarted { job: u64, errno: i32 },
    /// With one descriptor: a pidfd of the job's child.
    Child { job: u64 },
}

impl ResidentRequest {
    pub(super) fn encode(self) -> [u8; LENGTH] {
        match self {
            Self::Load => encode(0, 0, 0, 0, 0),
            Self::Evaluate { job, memory, cpu_seconds, argument } => {
                encode(1, cpu_seconds, argument, job, memory)
            }
            Self::Kill { job } => encode(2, 0, 0, job, 0),
            Self::FindChild { job } => encode(3, 0, 0, job, 0),
        }
    }

    /// Returns `None` for bytes that `encode` does not return.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match decode(bytes)? {
            (0, 0, 0, 0, 0) => Self::Load,
            (1, cpu_seconds, argument, job, memory) => {
                Self::Evaluate { job, memory, cpu_seconds, argument }
            }
            (2, 0, 0, job, 0) => Self::Kill { job },
            (3, 0, 0, job, 0) => Self::FindChild { job },
            _ => return None,
        })
    }
}

impl ResidentReply {
    pub(super) fn encode(self) -> [u8; LENGTH] {
        match self {
            Self::Ready => encode(0, 0, 0, 0, 0),
            Self::Ended { job, status } => encode(1, status.cast_unsigned(), 0, job, 0),
            Self::NotStarted { job, errno } => encode(2, errno.cast_unsigned(), 0, job, 0),
            Self::Child { job } => encode(3, 0, 0, job, 0),
        }
    }

    /// Returns `None` for bytes that `encode` does not return.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match decode(bytes)? {
            (0, 0, 0, 0, 0) => Self::Ready,
            (1, status, 0, job, 0) => Self::Ended { job, status: status.cast_signed() },
            (2, errno, 0, job, 0) => Self::NotStarted { job, errno: errno.cast_signed() },
            (3, 0, 0, job, 0) => Self::Child { job },
            _ => return None,
        })
    }
}

fn encode(kind: u32, small: u32, argument: u32, first: u64, second: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let fields = [kind, small, argument]
        .map(u32::to_le_bytes)
        .concat()
        .into_iter()
        .chain(first.to_le_bytes())
        .chain(second.to_le_bytes());
    for (byte, value) in bytes.iter_mut().zip(fields) {
        *byte = value;
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u32, u32, u32, u64, u64)> {
    let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
    let (kind, rest) = bytes.split_first_chunk()?;
    let (small, rest) = rest.split_first_chunk()?;
    let (argument, rest) = rest.split_first_chunk()?;
    let (first, rest) = rest.split_first_chunk()?;
    let second = rest.try_into().ok()?;
    Some((
        u32::from_le_bytes(*kind),
        u32::from_le_bytes(*small),
        u32::from_le_bytes(*argument),
        u64::from_le_bytes(*first),
        u64::from_le_bytes(second),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..2 * LENGTH),
            (0_u32..5, any::<[u32; 2]>(), any::<[u64; 2]>()).prop_map(
                |(kind, [small, argument], [first, second])| {
                    encode(kind, small, argument, first, second).into()
                },
            ),
            (0_u32..5, any::<u64>()).prop_map(|(kind, job)| encode(kind, 0, 0, job, 0).into()),
        ]
    }

    proptest! {
        #[test]
        fn decoding_accepts_only_what_encoding_returns(bytes in messages()) {
            if let Some(request) = ResidentRequest::decode(&bytes) {
                prop_assert_eq!(&request.encode()[..], &bytes[..]);
            }
            if let Some(reply) = ResidentReply::decode(&bytes) {
                prop_assert_eq!(&reply.encode()[..], &bytes[..]);
            }
        }

        #[test]
        fn messages_round_trip(job in any::<u64>(), memory in any::<u64>(), small in any::<i32>()) {
            let requests = [
                ResidentRequest::Load,
                ResidentRequest::Evaluate {
                    job,
                    memory,
                    cpu_seconds: small.cast_unsigned(),
                    argument: small.cast_unsigned() ^ 1,
                },
                ResidentRequest::Kill { job },
                ResidentRequest::FindChild { job },
            ];
            for request in requests {
                prop_assert_eq!(ResidentRequest::decode(&request.encode()), Some(request));
            }
            let replies = [
                ResidentReply::Ready,
                ResidentReply::Ended { job, status: small },
                ResidentReply::NotStarted { job, errno: small },
                ResidentReply::Child { job },
            ];
            for reply in replies {
                prop_assert_eq!(ResidentReply::decode(&reply.encode()), Some(reply));
            }
        }
    }
}
