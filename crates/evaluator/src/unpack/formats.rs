//! The table of formats.

use std::sync::LazyLock;

use super::{
    archive::{ar, arj, cab, cpio, lzh, rar, rpm, seven, tar, zip},
    disk::{fat, iso, partitions, qcow, udif, vhd, vmdk},
    document::{binhex, cms, compressed_rtf, mail, ole, onenote, pdf, rtf, text, tnef},
    embedded::{ArchiveSignature, SignatureSearch},
    kind::Kind,
    stream::{bzip2, compress, gzip, lz4, lzma, szdd, xz, zstd},
    unpacker::{ContainerFormat, Selection},
};

/// Selects the formats of an object.
pub(super) const SELECTION: Selection =
    Selection { kinds: &Kind::ALL, format, signature, search: || &SEARCH };

static SEARCH: LazyLock<SignatureSearch> = LazyLock::new(|| {
    let signatures = Kind::ALL.into_iter().filter_map(|kind| Some((kind, signature(kind)?)));
    SignatureSearch::new(signatures.chain(OTHER_SIGNATURES).collect())
});

/// Creates what all walks share.
pub(super) fn warm_up() {
    LazyLock::force(&SEARCH);
}

/// Further ways in which archives are found.
const OTHER_SIGNATURES: [(Kind, ArchiveSignature); 2] =
    [(Kind::Cpio, cpio::BINARY_SIGNATURES[0]), (Kind::Cpio, cpio::BINARY_SIGNATURES[1])];

/// Returns how a kind is recognized and unpacked.
fn format(kind: Kind) -> ContainerFormat {
    match kind {
        Kind::Zip => ContainerFormat { matches: zip::matches, unpack: zip::unpack },
        Kind::Seven => ContainerFormat { matches: seven::matches, unpack: seven::unpack },
        Kind::Tar => ContainerFormat { matches: tar::matches, unpack: tar::unpack },
        Kind::Cpio => ContainerFormat { matches: cpio::matches, unpack: cpio::unpack },
        Kind::Ar => ContainerFormat { matches: ar::matches, unpack: ar::unpack },
        Kind::Cab => ContainerFormat { matches: cab::matches, unpack: cab::unpack },
        Kind::Rpm => ContainerFormat { matches: rpm::matches, unpack: rpm::unpack },
        Kind::Lzh => ContainerFormat { matches: lzh::matches, unpack: lzh::unpack },
        Kind::Arj => ContainerFormat { matches: arj::matches, unpack: arj::unpack },
        Kind::Rar => ContainerFormat { matches: rar::matches, unpack: rar::unpack },
        Kind::Gzip => ContainerFormat { matches: gzip::matches, unpack: gzip::unpack },
        Kind::Bzip2 => ContainerFormat { matches: bzip2::matches, unpack: bzip2::unpack },
        Kind::Xz => ContainerFormat { matches: xz::matches, unpack: xz::unpack },
        Kind::Lzma => ContainerFormat { matches: lzma::matches, unpack: lzma::unpack },
        Kind::Zstd => ContainerFormat { matches: zstd::matches, unpack: zstd::unpack },
        Kind::Lz4 => ContainerFormat { matches: lz4::matches, unpack: lz4::unpack },
        Kind::Compress => ContainerFormat { matches: compress::matches, unpack: compress::unpack },
        Kind::Szdd => ContainerFormat { matches: szdd::matches, unpack: szdd::unpack },
        Kind::Ole => ContainerFormat { matches: ole::matches, unpack: ole::unpack },
        Kind::Pdf => ContainerFormat { matches: pdf::matches, unpack: pdf::unpack },
        Kind::Rtf => ContainerFormat { matches: rtf::matches, unpack: rtf::unpack },
        Kind::CompressedRtf => {
            ContainerFormat { matches: compressed_rtf::matches, unpack: compressed_rtf::unpack }
        }
        Kind::Tnef => ContainerFormat { matches: tnef::matches, unpack: tnef::unpack },
        Kind::OneNote => ContainerFormat { matches: onenote::matches, unpack: onenote::unpack },
        Kind::Cms => ContainerFormat { matches: cms::matches, unpack: cms::unpack },
        Kind::BinHex => ContainerFormat { matches: binhex::matches, unpack: binhex::unpack },
        Kind::Mail => ContainerFormat { matches: mail::matches, unpack: mail::unpack },
        Kind::Iso => ContainerFormat { matches: iso::matches, unpack: iso::unpack },
        Kind::Partitions => {
            ContainerFormat { matches: partitions::matches, unpack: partitions::unpack }
        }
        Kind::Fat => ContainerFormat { matches: fat::matches, unpack: fat::unpack },
        Kind::Vhd => ContainerFormat { matches: vhd::matches, unpack: vhd::unpack },
        Kind::Vmdk => ContainerFormat { matches: vmdk::matches, unpack: vmdk::unpack },
        Kind::Qcow => ContainerFormat { matches: qcow::matches, unpack: qcow::unpack },
        Kind::Udif => ContainerFormat { matches: udif::matches, unpack: udif::unpack },
        Kind::Text => ContainerFormat { matches: text::matches, unpack: text::unpack },
    }
}

/// Returns how an archive is found inside an object of another kind: for the kinds that 7-Zip finds.
fn signature(kind: Kind) -> Option<ArchiveSignature> {
    match kind {
        Kind::Zip => Some(zip::SIGNATURE),
        Kind::Seven => Some(seven::SIGNATURE),
        Kind::Tar => Some(tar::SIGNATURE),
        Kind::Cpio => Some(cpio::SIGNATURE),
        Kind::Cab => Some(cab::SIGNATURE),
        Kind::Rpm => Some(rpm::SIGNATURE),
        Kind::Lzh => Some(lzh::SIGNATURE),
        Kind::Arj => Some(arj::SIGNATURE),
        Kind::Rar => Some(rar::SIGNATURE),
        Kind::Gzip => Some(gzip::SIGNATURE),
        Kind::Bzip2 => Some(bzip2::SIGNATURE),
        Kind::Xz => Some(xz::SIGNATURE),
        Kind::Zstd => Some(zstd::SIGNATURE),
        Kind::Ole => Some(ole::EMBEDDED),
        Kind::Iso => Some(iso::SIGNATURE),
        Kind::Partitions => Some(partitions::EMBEDDED),
        Kind::Vhd => Some(vhd::EMBEDDED),
        Kind::Vmdk => Some(vmdk::EMBEDDED),
        Kind::Qcow => Some(qcow::EMBEDDED),
        Kind::Ar
        | Kind::Lzma
        | Kind::Lz4
        | Kind::Compress
        | Kind::Szdd
        | Kind::Pdf
        | Kind::Rtf
        | Kind::CompressedRtf
        | Kind::Tnef
        | Kind::OneNote
        | Kind::Cms
        | Kind::BinHex
        | Kind::Mail
        | Kind::Fat
        | Kind::Udif
        | Kind::Text => None,
    }
}
