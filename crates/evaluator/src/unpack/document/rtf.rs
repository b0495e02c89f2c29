use crate::unpack::unpacker::{Unpacked, Unpacker};

pub(in crate::unpack) fn matches(_bytes: &[u8]) -> bool {
    false
}

pub(in crate::unpack) fn unpack(_bytes: &[u8], _unpacker: &mut Unpacker<'_>) -> Unpacked {
    Ok(())
}
