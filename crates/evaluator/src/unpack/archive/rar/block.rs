//! What the headers of all versions state.

/// A header, and where its data are.
pub(super) struct RarBlock<'a> {
    pub(super) kind: RarBlockKind<'a>,
    /// Length of the header, bytes.
    pub(super) length: usize,
    /// Length of the data after it, bytes.
    pub(super) data: u64,
}

pub(super) enum RarBlockKind<'a> {
    File(RarFile<'a>),
    /// The headers after this one are encrypted.
    EncryptedHeaders,
    End,
    Other,
}

#[expect(clippy::struct_excessive_bools, reason = "flags of the format")]
pub(super) struct RarFile<'a> {
    pub(super) name: &'a [u8],
    pub(super) is_directory: bool,
    /// Whether the data are those of the archive's user, and not of the archive, such as a comment.
    pub(super) is_content: bool,
    pub(super) is_encrypted: bool,
    pub(super) is_stored: bool,
    /// Whether the file begins in a volume before this one, or continues in one after it.
    pub(super) is_split: bool,
}
