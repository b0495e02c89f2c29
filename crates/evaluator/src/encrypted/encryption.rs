//! Kinds of encrypted contents.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of encrypted contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// An Office document in an OLE container: Office 2007 and later.
    OlePackage,
    /// A document protected by rights management.
    OleRights,
    /// A binary Word document.
    Word,
    /// A binary Excel workbook.
    Excel,
    /// A binary `PowerPoint` presentation.
    PowerPoint,
    /// At least one entry of a zip archive.
    Zip,
    /// At least one file of a RAR archive, or its headers.
    Rar,
    /// At least one folder of a 7z archive, or its header.
    SevenZip,
    /// A file that could not be examined completely within the bound on reads.
    Unbounded,
    /// A RAR or 7z archive whose headers cannot be followed.
    Unreadable,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OlePackage => "OLE EncryptedPackage",
            Self::OleRights => "OLE DRMContent",
            Self::Word => "Word document",
            Self::Excel => "Excel workbook",
            Self::PowerPoint => "PowerPoint presentation",
            Self::Zip => "zip",
            Self::Rar => "RAR",
            Self::SevenZip => "7z",
            Self::Unbounded => "headers too many to examine",
            Self::Unreadable => "unreadable archive headers",
        })
    }
}
