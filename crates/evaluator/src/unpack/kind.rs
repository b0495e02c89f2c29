//! Kinds of containers.

/// A format whose contents are unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Zip,
    /// 7z.
    Seven,
    Tar,
    Cpio,
    /// ar: Debian packages, static libraries.
    Ar,
    /// Cabinet of Windows.
    Cab,
    Rpm,
    /// LHA.
    Lzh,
    Arj,
    Rar,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Zstd,
    Lz4,
    /// LZW of `compress`: Z.
    Compress,
    /// `COMPRESS.EXE` of MS-DOS.
    Szdd,
    /// Compound file, [MS-CFB]: Word, Excel and presentations before 2007, MSI, MSG.
    Ole,
    Pdf,
    Rtf,
    /// Compressed RTF, [MS-OXRTFCP]: the body of a message in TNEF or MSG.
    CompressedRtf,
    /// `winmail.dat`, [MS-OXTNEF].
    Tnef,
    /// Section of `OneNote`, [MS-ONESTORE].
    OneNote,
    /// Signed or encrypted message, RFC 5652: p7m.
    Cms,
    /// Files of old Macintosh computers in text, RFC 1741.
    BinHex,
    /// Message or mailbox: eml, mbox, mht.
    Mail,
    Iso,
    /// Disk with a partition table, MBR or GPT.
    Partitions,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// Virtual hard disk.
    Vhd,
    Vmdk,
    Qcow,
    /// Disk image of macOS: dmg.
    Udif,
    /// Text, which may contain files in base64.
    Text,
}

impl Kind {
    /// All kinds, in the order in which they are tried.
    pub(super) const ALL: [Self; 35] = [
        Self::Zip,
        Self::Seven,
        Self::Tar,
        Self::Cpio,
        Self::Ar,
        Self::Cab,
        Self::Rpm,
        Self::Lzh,
        Self::Arj,
        Self::Rar,
        Self::Gzip,
        Self::Bzip2,
        Self::Xz,
        Self::Zstd,
        Self::Lz4,
        Self::Compress,
        Self::Szdd,
        Self::Ole,
        Self::Pdf,
        Self::Rtf,
        Self::CompressedRtf,
        Self::Tnef,
        Self::OneNote,
        Self::Cms,
        Self::BinHex,
        Self::Mail,
        Self::Iso,
        Self::Partitions,
        Self::Fat,
        Self::Vhd,
        Self::Vmdk,
        Self::Qcow,
        Self::Udif,
        Self::Lzma,
        Self::Text,
    ];

    /// Returns whether objects of this kind, which has no signature, are not searched for because the object is of the
    /// kind `other`. An attacker can give any object a second kind by bytes in front of it or after it, so few kinds
    /// exclude another one: mail examines its text itself, and bytes that start with a signature are LZMA by chance
    /// only.
    pub(super) fn is_excluded_by(self, other: Self) -> bool {
        match self {
            Self::Text => other == Self::Mail,
            Self::Lzma => other.is_stream() || matches!(other, Self::Ole | Self::Rtf),
            _ => false,
        }
    }

    /// Returns the name of the kind in rules (variable `container`) and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Seven => "7z",
            Self::Tar => "tar",
            Self::Cpio => "cpio",
            Self::Ar => "ar",
            Self::Cab => "cab",
            Self::Rpm => "rpm",
            Self::Lzh => "lzh",
            Self::Arj => "arj",
            Self::Rar => "rar",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Compress => "compress",
            Self::Szdd => "szdd",
            Self::Ole => "ole",
            Self::Pdf => "pdf",
            Self::Rtf => "rtf",
            Self::CompressedRtf => "compressed-rtf",
            Self::Tnef => "tnef",
            Self::OneNote => "onenote",
            Self::Cms => "cms",
            Self::BinHex => "binhex",
            Self::Mail => "mail",
            Self::Iso => "iso",
            Self::Partitions => "partitions",
            Self::Fat => "fat",
            Self::Vhd => "vhd",
            Self::Vmdk => "vmdk",
            Self::Qcow => "qcow",
            Self::Udif => "udif",
            Self::Text => "text",
        }
    }

    /// Returns whether this is the compression of a single stream. Such a stream and the tar archive in it count as one
    /// level: `tar.gz`.
    pub(super) fn is_stream(self) -> bool {
        match self {
            Self::Gzip
            | Self::Bzip2
            | Self::Xz
            | Self::Lzma
            | Self::Zstd
            | Self::Lz4
            | Self::Compress
            | Self::Szdd => true,
            Self::Zip
            | Self::Seven
            | Self::Tar
            | Self::Cpio
            | Self::Ar
            | Self::Cab
            | Self::Rpm
            | Self::Lzh
            | Self::Arj
            | Self::Rar
            | Self::Ole
            | Self::Pdf
            | Self::Rtf
            | Self::CompressedRtf
            | Self::Tnef
            | Self::OneNote
            | Self::Cms
            | Self::BinHex
            | Self::Mail
            | Self::Iso
            | Self::Partitions
            | Self::Fat
            | Self::Vhd
            | Self::Vmdk
            | Self::Qcow
            | Self::Udif
            | Self::Text => false,
        }
    }
}
