//! Documents and mail.

pub(super) mod binhex;
pub(super) mod cms;
pub(super) mod compressed_rtf;
pub(super) mod mail;
pub(super) mod ole;
pub(super) mod onenote;
pub(super) mod pdf;
pub(super) mod rtf;
pub(super) mod text;
pub(super) mod tnef;
