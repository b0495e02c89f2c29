//! The media types of the objects of one media file.

use std::rc::Rc;

use mcs_filetype::{Detector, MediaType, MimeRules};

use crate::unpack::MediaObject;

/// Determines the types of objects, where rules or lists of types need them.
pub(crate) struct ObjectTypes {
    detector: Rc<Detector>,
    /// Whether rules use the variable `filetype`.
    is_variable: bool,
    /// The types that are allowed inside a media file.
    inner: MimeRules,
}

impl ObjectTypes {
    pub(crate) fn new(detector: Rc<Detector>, is_variable: bool, inner: MimeRules) -> Self {
        Self { detector, is_variable, inner }
    }

    /// Allows all types inside the media file.
    pub(crate) fn allow_all(&mut self) {
        self.inner = MimeRules::All;
    }

    /// Returns the type of an object; `None` if neither rules nor lists need it.
    pub(crate) fn detect(&self, object: &MediaObject<'_>) -> Option<MediaType> {
        let is_needed = self.is_variable || (object.depth > 0 && self.inner != MimeRules::All);
        is_needed.then(|| self.detector.detect_bytes(object.bytes))
    }

    /// Returns the finding if the lists do not allow an object of this type. They apply to the media file itself in the
    /// service.
    pub(crate) fn forbids(
        &self,
        object: &MediaObject<'_>,
        file_type: &MediaType,
    ) -> Option<String> {
        let is_forbidden = object.depth > 0 && !self.inner.allows(file_type.as_str());
        is_forbidden.then(|| format!("file type {file_type} is not allowed"))
    }
}
