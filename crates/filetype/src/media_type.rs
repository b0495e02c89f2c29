//! Media types, and the names that differ between the rules, `file` and its releases.

use std::{
    borrow::Borrow,
    collections::HashSet,
    fmt,
    sync::{Arc, LazyLock},
};

use crate::names::{UNKNOWN, rule_types};

/// Names in the rules, and the names that `file` prints for them.
const REPLACEMENTS: [(&str, &str); 3] = [
    ("text/javascript", "application/javascript"),
    // A list that allows `image/png` allows animated images, too.
    ("image/apng", "image/png"),
    ("application/x-rust-metadata", UNKNOWN),
];

/// Names that changed between releases of libmagic: older and newer name. Lists written for an older `file` contain the
/// older name, and a block list must still block the type.
const RENAMED: [(&str, &str); 15] = [
    ("application/vnd.oasis.opendocument.database", "application/vnd.oasis.opendocument.base"),
    // Before 5.46, a general type.
    ("application/zip", "application/java-archive"),
    ("text/xml", "application/xhtml+xml"),
    ("text/plain", "application/x-subrip"),
    ("text/plain", "application/x-wine-extension-ini"),
    ("application/x-dosexec", "application/vnd.microsoft.portable-executable"),
    ("application/x-rar", "application/vnd.rar"),
    ("application/x-gzip", "application/gzip"),
    ("application/cdfv2", "application/x-ole-storage"),
    ("text/javascript", "application/javascript"),
    ("text/x-python", "text/x-script.python"),
    ("image/x-ms-bmp", "image/bmp"),
    ("image/x-icon", "image/vnd.microsoft.icon"),
    ("image/x-pcx", "image/vnd.zbrush.pcx"),
    ("font/ttf", "font/sfnt"),
];

/// All types that can be detected. They share their memory with all equal values, because users of this crate keep the
/// types of many files.
static KNOWN: LazyLock<HashSet<MediaType>> =
    LazyLock::new(|| rule_types().map(MediaType::new).collect());

/// Media type with the name that `file --mime-type` prints, e.g. `image/png`.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// Returns the type with this name, exactly as a detection returns it; `None` if no detection returns it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KNOWN.get(name).cloned()
    }

    /// Converts a type in the rules to the type that `file` prints.
    pub(crate) fn from_rule(name: &str) -> Self {
        let media_type = Self::new(name);
        KNOWN.get(&media_type).cloned().unwrap_or(media_type)
    }

    fn new(name: &str) -> Self {
        // The name in one of libmagic's rules ends with a space.
        let name = essence(name);
        let printed = REPLACEMENTS.iter().find(|(rule, _)| *rule == name);
        let name = printed.map_or(name, |(_, printed)| printed);
        let is_complete = name.split('/').filter(|part| !part.is_empty()).count() == 2;
        Self(if is_complete { name.into() } else { UNKNOWN.into() })
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MediaType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the type without parameters and surrounding whitespace.
fn essence(name: &str) -> &str {
    name.split(';').next().unwrap_or_default().trim()
}

/// Returns a type in lower case, without parameters.
pub(crate) fn normalize(name: &str) -> String {
    essence(name).to_ascii_lowercase()
}

/// Returns whether some file can have this type, under its current or an older name. Ignores case and parameters.
#[must_use]
pub fn can_detect(name: &str) -> bool {
    let name = normalize(name);
    // Some names in the rules have upper case.
    let is_known = KNOWN.iter().any(|known| known.0.eq_ignore_ascii_case(&name));
    is_known || RENAMED.iter().any(|(older, _)| *older == name)
}

/// Returns the older names of a type with this normalized name.
pub(crate) fn older_names(name: &str) -> impl Iterator<Item = &'static str> {
    RENAMED.iter().filter(move |(_, newer)| *newer == name).map(|(older, _)| *older)
}
