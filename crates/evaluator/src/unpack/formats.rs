//! The table of formats.

use super::{
    archive::{tar, zip},
    disk::iso,
    document::{mail, ole, pdf, rtf, text},
    embedded::Signature,
    kind::Kind,
    stream::{bzip2, gzip, lz4, lzma, xz, zstd},
    unpacker::{Format, Selection},
};

/// Selects the formats of an object.
pub(super) const SELECTION: Selection = Selection { kinds: &Kind::ALL, format, signature };

/// Returns how a kind is recognized and unpacked.
fn format(kind: Kind) -> Format {
    match kind {
        Kind::Zip => Format { matches: zip::matches, unpack: zip::unpack },
        Kind::Tar => Format { matches: tar::matches, unpack: tar::unpack },
        Kind::Gzip => Format { matches: gzip::matches, unpack: gzip::unpack },
        Kind::Bzip2 => Format { matches: bzip2::matches, unpack: bzip2::unpack },
        Kind::Xz => Format { matches: xz::matches, unpack: xz::unpack },
        Kind::Lzma => Format { matches: lzma::matches, unpack: lzma::unpack },
        Kind::Zstd => Format { matches: zstd::matches, unpack: zstd::unpack },
        Kind::Lz4 => Format { matches: lz4::matches, unpack: lz4::unpack },
        Kind::Ole => Format { matches: ole::matches, unpack: ole::unpack },
        Kind::Pdf => Format { matches: pdf::matches, unpack: pdf::unpack },
        Kind::Rtf => Format { matches: rtf::matches, unpack: rtf::unpack },
        Kind::Mail => Format { matches: mail::matches, unpack: mail::unpack },
        Kind::Iso => Format { matches: iso::matches, unpack: iso::unpack },
        Kind::Text => Format { matches: text::matches, unpack: text::unpack },
    }
}

/// Returns how an archive is found inside an object of another kind: for the kinds that 7-Zip finds.
fn signature(kind: Kind) -> Option<Signature> {
    match kind {
        Kind::Zip => Some(zip::SIGNATURE),
        Kind::Tar => Some(tar::SIGNATURE),
        Kind::Gzip => Some(gzip::SIGNATURE),
        Kind::Bzip2 => Some(bzip2::SIGNATURE),
        Kind::Xz => Some(xz::SIGNATURE),
        Kind::Zstd => Some(zstd::SIGNATURE),
        Kind::Ole => Some(ole::EMBEDDED),
        Kind::Iso => Some(iso::SIGNATURE),
        Kind::Lzma | Kind::Lz4 | Kind::Pdf | Kind::Rtf | Kind::Mail | Kind::Text => None,
    }
}
