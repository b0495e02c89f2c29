//! The inspection of one file: its type and its encryption, under any set of engines. Reads no more than the detections need.

use std::{io, rc::Rc};

use mcs_filetype::Detector;

use crate::{
    encrypted::{ReadAt, detect},
    report::Inspection,
};

/// Inspects files. Created once before the first fork, so that children share its memory.
pub(crate) struct Inspector {
    /// Determines types, if they are needed.
    detector: Option<Rc<Detector>>,
}

impl Inspector {
    pub(crate) fn new(detector: Option<Rc<Detector>>) -> Self {
        Self { detector }
    }

    /// Inspects media of `length` bytes.
    ///
    /// # Errors
    /// If the media cannot be read.
    ///
    /// # Panics
    /// If a detection panics: the child has no result then.
    pub(crate) fn inspect(
        &self,
        media: &(impl ReadAt + ?Sized),
        length: u64,
    ) -> io::Result<Inspection> {
        let detect_type = |detector: &Rc<Detector>| {
            detector.detect(length, |buffer, offset| media.read_at(buffer, offset))
        };
        let file_type = self.detector.as_ref().map(detect_type).transpose()?;
        Ok(Inspection {
            mime: file_type.map(|file_type| file_type.as_str().to_owned()),
            encrypted: detect(media, length)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encrypted::Encryption;

    /// An encrypted Office document.
    const ENCRYPTED: &[u8] = include_bytes!("../../../fuzz/corpus/encrypted/encrypted.docx");

    #[test]
    fn reports_type_and_encryption() {
        let detector = Rc::new(Detector::new().unwrap());
        for (bytes, mime, encrypted) in [
            (&b"text\n"[..], "text/plain", None),
            (b"", "application/octet-stream", None),
            (ENCRYPTED, "application/encrypted", Some(Encryption::OlePackage)),
        ] {
            let length = bytes.len() as u64;
            let without_types = Inspector::new(None).inspect(bytes, length).unwrap();
            assert_eq!(without_types, Inspection { mime: None, encrypted });
            let inspector = Inspector::new(Some(Rc::clone(&detector)));
            let expected = Inspection { mime: Some(mime.to_owned()), encrypted };
            assert_eq!(inspector.inspect(bytes, length).unwrap(), expected);
        }
    }

    #[test]
    fn unreadable_media_is_an_error() {
        struct Unreadable;
        impl ReadAt for Unreadable {
            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        let detector = Rc::new(Detector::new().unwrap());
        for detector in [None, Some(detector)] {
            assert!(Inspector::new(detector).inspect(&Unreadable, 100).is_err());
        }
    }
}
